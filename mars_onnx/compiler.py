"""The whole in a few lines: load, run the pipeline, price, report, save."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import onnx_ir as ir

from mars_onnx.cost.price import Price, price
from mars_onnx.emission.finish import Partitions
from mars_onnx.errors import CapacityError, InputError, InvariantError, MarsError
from mars_onnx.loading import load_model
from mars_onnx.pipeline.callbacks import VerifyStages
from mars_onnx.pipeline.runner import Callback, PassRun, run_pipeline
from mars_onnx.pipeline.text import Pipeline, parse_pipeline
from mars_onnx.pool.loader import load_pool
from mars_onnx.pool.topology import Pool
from mars_onnx.report.annotated import annotate
from mars_onnx.report.folder import whole_folder
from mars_onnx.report.memory import memory_of
from mars_onnx.report.plan import Written, plan_of
from mars_onnx.report.summary import SearchFacts, report_of
from mars_onnx.runtime.plan_file import FILE_NAME, NamedHash, PlanFile, dump_plan, file_sha256
from mars_onnx.runtime.schedule import check_schedule
from mars_onnx.runtime.verify import Verification, verify
from mars_onnx.search.registry import METHODS
from mars_onnx.sharding.mapping import Mapping
from mars_onnx.simulation import Simulation, chrome_trace, simulate
from mars_onnx.stages import attachments
from mars_onnx.stages.sharded import verify_sharded, without_redistribution
from mars_onnx.stages.verifiers import VERIFIERS

DEFAULT_PIPELINE = "canonicalize,select-accelerators,insert-sharding,emit-partitions"


@dataclass
class Compilation:
    """A partitioned model.

    Attributes:
        source: The original: its file, or the model as it was given.
        model: The global graph, sharded.
        pool: The accelerators.
        name: Name and hash of the original.
        search: How the mapping was found.
    """

    source: Path | ir.Model
    model: ir.Model
    pool: Pool
    name: NamedHash
    search: SearchFacts
    verification: Verification | None = field(default=None, init=False)

    @property
    def mapping(self) -> Mapping:
        """Sets, designs, and a strategy per layer."""
        return attachments.get_mapping(self.model)

    @cached_property
    def canonical(self) -> ir.Model:
        """The graph before sharding, with a set and a strategy on every node."""
        return without_redistribution(self.model)

    @property
    def partitions(self) -> Partitions:
        """One model per accelerator, and the communication between them."""
        return attachments.get_partitions(self.model)

    @cached_property
    def price(self) -> Price:
        """What the mapping is thought to cost."""
        return price(self.model)

    @cached_property
    def simulation(self) -> Simulation:
        """A run of the partitions, with what the pool says of overlap."""
        return simulate((own.model for own in self.partitions.partitions), self.pool, self.canonical)

    @property
    def plan(self) -> PlanFile:
        """What a deployment needs to know; without file names before :meth:`save`."""
        return self._plan({})

    @property
    def report(self) -> dict[str, object]:
        """The content of report.json."""
        return report_of(
            self.plan, self.partitions, self.price, self.simulation, self.pool, self.search, self.verification
        )

    def verify(self, seed: int = 0, *, deep: bool = False) -> Verification:
        """Run the partitions together on random inputs and compare with the original.

        Args:
            seed: Of the random inputs.
            deep: Compare every box of every tensor, not only outputs.
        """
        models = [partition.model for partition in self.partitions.partitions]
        self.verification = verify(
            self.source, models, self.plan, seed=seed, deep=deep, canonical_model=self.canonical if deep else None
        )
        return self.verification

    def save(self, directory: str | Path) -> None:
        """Write partitions, plan.json, report.json, trace.json and annotated.onnx: whole or not at all.

        Raises:
            UsageError: The folder is not ours to overwrite.
        """
        with whole_folder(Path(directory)) as folder:
            annotated = annotate(self.canonical, self.mapping, self.pool)
            with ThreadPoolExecutor(max_workers=os.cpu_count()) as executor:
                whole = executor.submit(_write, annotated, folder, "annotated")
                files = [
                    (partition.rank, executor.submit(_write, partition.model, folder, partition.accelerator))
                    for partition in self.partitions.partitions
                ]
                whole.result()
                written = {rank: future.result() for rank, future in files}
            (folder / FILE_NAME).write_text(dump_plan(self._plan(written)), encoding="utf-8")
            report = json.dumps(self.report, indent=1, ensure_ascii=False, allow_nan=False)
            (folder / "report.json").write_text(report + "\n", encoding="utf-8")
            trace = json.dumps(chrome_trace(self.simulation, self.pool), separators=(",", ":"), allow_nan=False)
            (folder / "trace.json").write_text(trace + "\n", encoding="utf-8")

    def _plan(self, written: dict[int, Written]) -> PlanFile:
        graph = self.model.graph
        return plan_of(self.partitions, graph.inputs, graph.outputs, self.mapping, self.pool, self.name, written)


def compile(
    model: str | Path | ir.Model,
    hw: str | Path | Pool,
    *,
    mapping: str | Path | None = None,
    search: str = "greedy",
    dims: Sequence[str] = (),
    input_shapes: Sequence[str] = (),
    pipeline: str = DEFAULT_PIPELINE,
    callbacks: Sequence[Callback] = (),
) -> Compilation:
    """Partition a model over a pool.

    Args:
        model: A file, or a model, which is not changed.
        hw: A pool: a file, the name of a shipped one, or a pool.
        mapping: A file with a mapping; without one, ``search`` finds it.
        search: Method that chooses the mapping.
        dims: ``NAME=VALUE`` for symbolic dimensions.
        input_shapes: ``NAME:1,3,224,224`` for inputs.
        pipeline: Passes to run; must end with partitions.
        callbacks: Called after every pass.

    Raises:
        MarsError: See ``mars_onnx.errors``.
    """
    pool = hw if isinstance(hw, Pool) else load_pool(hw)
    given = {
        "dim": tuple(dims),
        "input_shape": tuple(input_shapes),
        "search": search,
        "mapping": "" if mapping is None else str(mapping),
    }
    passes = parse_pipeline(pipeline, given)
    source = model if isinstance(model, ir.Model) else Path(model)
    work = source.clone() if isinstance(source, ir.Model) else load_model(source)
    return run(work, source, pool, passes, "mapping" if mapping else search, callbacks)


def run(
    work: ir.Model,
    source: Path | ir.Model,
    pool: Pool,
    pipeline: Pipeline,
    method: str,
    callbacks: Sequence[Callback] = (),
) -> Compilation:
    """Run a pipeline that ends with partitions on a loaded model, which it changes."""
    attachments.set_pool(work, pool)
    _check_taken_up(work)
    search = _SearchTime()
    run_pipeline(work, pipeline.passes, [verify_stages(), search, *callbacks])
    _check_capacity(attachments.get_partitions(work), pool)
    name = Path(source).stem if isinstance(source, Path) else work.graph.name or "model"
    digest = file_sha256(source) if isinstance(source, Path) else ""
    space = METHODS[method].title if method in METHODS else "the mapping that was given"
    facts = SearchFacts(method, search.seconds, space)
    done = Compilation(source, work, pool, NamedHash(name, digest), facts)
    if pool.overlap is not None and pool.overlap.communication_with_compute:
        _check_simulated_capacity(done.simulation, pool)
    return done


def verify_stages() -> VerifyStages:
    """The callback that checks after every pass that the model is what its stage promises."""
    return VerifyStages({**VERIFIERS, "partitioned": _verify_partitioned})


@dataclass
class _SearchTime:
    """How long the pass took that chose the mapping; 0 if an earlier pipeline did."""

    seconds: float = 0.0

    def __call__(self, run: PassRun) -> bool:
        if getattr(run.pass_, "stage", None) == "mapped":
            self.seconds = run.seconds
        return False


def _check_taken_up(model: ir.Model) -> None:
    """Refuse a model that an earlier pipeline left sharded if it is not what that pipeline promised."""
    if attachments.get_stage(model) != "sharded":
        return
    try:
        problems = verify_sharded(model)
    except MarsError as error:
        problems = [str(error)]
    except (LookupError, TypeError, ValueError) as error:  # metadata is text that anybody may have changed
        problems = [f"its metadata cannot be read ({type(error).__name__}: {error})"]
    if problems:
        raise InputError(
            "the model was sharded for another pool, or changed since; start from the original model: "
            + "; ".join(problems[:3])
        )


def _verify_partitioned(model: ir.Model) -> list[str]:
    partitions = attachments.get_partitions(model).partitions
    try:
        check_schedule({partition.rank: partition.model for partition in partitions})
    except InvariantError as error:
        return [str(error)]
    return []


def _check_capacity(partitions: Partitions, pool: Pool) -> None:
    """Refuse a mapping of which a partition needs more memory than its accelerator has."""
    missing: list[str] = []
    for partition in partitions.partitions:
        memory = memory_of(partition.model)
        accelerator = pool.accelerators[partition.rank]
        over = memory.weight_bytes + memory.activation_bytes - accelerator.memory_bytes
        if over > 0:
            missing.append(
                f"{accelerator.id}: needs {memory.weight_bytes} bytes for weights and {memory.activation_bytes} for "
                f"activations, {over} more than the {accelerator.memory_bytes} that it has"
            )
    if missing:
        raise CapacityError("the partitions do not fit the pool:\n  " + "\n  ".join(missing))


def _check_simulated_capacity(simulation: Simulation, pool: Pool) -> None:
    """Refuse what only fits if an accelerator does one thing after the other, where it does not."""
    missing = [
        f"{accelerator.id}: holds {use.peak_bytes} bytes at {use.peak.time_s:.3g} s, with what arrives while it "
        f"computes; {use.peak_bytes - accelerator.memory_bytes} more than the {accelerator.memory_bytes} that it has"
        for rank, use in simulation.ranks.items()
        if use.peak_bytes > (accelerator := pool.accelerators[rank]).memory_bytes
    ]
    if missing:
        raise CapacityError("the partitions do not fit the pool while they overlap:\n  " + "\n  ".join(missing))


def _write(model: ir.Model, folder: Path, stem: str) -> Written:
    """Write a model, its larger weights beside it, and give the hashes of both files."""
    path, data = folder / f"{stem}.onnx", folder / f"{stem}.onnx.data"
    ir.save(model, path, external_data=data.name)
    has_data = data.exists()
    return Written(
        path.name, data.name if has_data else None, file_sha256(path), file_sha256(data) if has_data else None
    )


__all__ = ["DEFAULT_PIPELINE", "Compilation", "compile", "run", "verify_stages"]
