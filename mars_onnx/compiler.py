"""The whole in a few lines: load, run the pipeline, price, report, save."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import onnx_ir as ir

from mars_onnx.cost.price import Price, price
from mars_onnx.emission.finish import Partitions
from mars_onnx.errors import CapacityError, InputError, InvariantError, MarsError, UsageError
from mars_onnx.loading import load_model
from mars_onnx.pipeline.callbacks import VerifyStages
from mars_onnx.pipeline.runner import Callback, run_pipeline
from mars_onnx.pipeline.text import Pipeline, parse_pipeline
from mars_onnx.pool.loader import load_pool
from mars_onnx.pool.topology import Pool
from mars_onnx.ranking import SecondLook, simulated_look
from mars_onnx.report.annotated import annotate
from mars_onnx.report.capacity import check_capacity
from mars_onnx.report.folder import PAGE_NAME, REPORT_NAME, TRACE_NAME, whole_folder
from mars_onnx.report.judgement import Compared, Judgement, Simulated
from mars_onnx.report.page import page_of
from mars_onnx.report.plan import Written, plan_of
from mars_onnx.report.summary import report_of
from mars_onnx.runtime.plan_file import FILE_NAME, NamedHash, PlanFile, dump_plan, file_sha256
from mars_onnx.runtime.schedule import check_schedule
from mars_onnx.runtime.verify import Verification, verify
from mars_onnx.search.compare import Comparison, comparators, compare
from mars_onnx.search.evaluate import Evaluation, evaluate
from mars_onnx.search.find import Found, Watch, given_mapping, unwatched
from mars_onnx.search.method import Objective, SearchOptions
from mars_onnx.search.names import DEFAULT, DEFAULT_WORK_LIMIT
from mars_onnx.search.problem import Problem, problem_of
from mars_onnx.sharding.mapping import Mapping
from mars_onnx.simulation import Simulation, chrome_trace, simulate
from mars_onnx.stages import attachments
from mars_onnx.stages.sharded import verify_sharded, without_redistribution
from mars_onnx.stages.verifiers import VERIFIERS

_EMISSION = "insert-sharding,emit-partitions"
DEFAULT_PIPELINE = f"canonicalize,select-accelerators,{_EMISSION}"


@dataclass
class Compilation:
    """A partitioned model.

    Attributes:
        source: The original: its file, or the model as it was given.
        model: The global graph, sharded.
        pool: The accelerators.
        name: Name and hash of the original.
        found: How the mapping was found.
        reranked: The second look at the best few mappings, where the pool asks for one.
        verification: The comparison with the original, after :meth:`verify`.
        comparisons: What other methods find, after :meth:`compare`.
    """

    source: Path | ir.Model
    model: ir.Model
    pool: Pool
    name: NamedHash
    found: Found
    reranked: tuple[Simulated, ...] = ()
    verification: Verification | None = field(default=None, init=False)
    comparisons: tuple[Compared, ...] = field(default=(), init=False)

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
    def problem(self) -> Problem:
        """The problem that the search was given."""
        return problem_of(self.canonical)

    @cached_property
    def evaluation(self) -> Evaluation:
        """What the mapping costs, as the search counts."""
        return evaluate(self.problem, self.pool, self.mapping)

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
        judged = Judgement(self.found, self.evaluation, self.simulation.latency_s, self.reranked, self.comparisons)
        return report_of(self.plan, self.partitions, self.price, self.simulation, self.pool, judged, self.verification)

    def compare(
        self, names: Sequence[str] = ("all",), options: SearchOptions | None = None, watch: Watch = unwatched
    ) -> tuple[Compared, ...]:
        """Let other search methods choose a mapping too, on the same cost model; the report then shows them.

        What they find is emitted and simulated as well: whether it fits is seen only then.

        Args:
            names: Of methods; ``all`` for every other one.
            options: Limits and seed; the objective is that of the mapping.
            watch: Entered while a method searches.

        Raises:
            UsageError: There is no such method.
        """
        wanted = replace(options or SearchOptions(), objective=self.found.objective)
        names = comparators(names, self.found.method)
        found = compare(self.problem, self.pool, names, wanted, watch)
        self.comparisons = tuple(self._compared(own) for own in found)
        return self.comparisons

    def _compared(self, found: Comparison) -> Compared:
        if found.mapping is None:
            return Compared(found, None, None)
        look = simulated_look(self.canonical, found.mapping, parse_pipeline(_EMISSION).passes)
        return Compared(found, look.latency_s, look.fits)

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
        """Write partitions, plan.json, report.json, report.html, trace.json and annotated.onnx: whole or not at all.

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
            report = self.report
            text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
            (folder / REPORT_NAME).write_text(text + "\n", encoding="utf-8")
            (folder / PAGE_NAME).write_text(page_of(report, self.simulation, self.pool), encoding="utf-8")
            trace = json.dumps(chrome_trace(self.simulation, self.pool), separators=(",", ":"), allow_nan=False)
            (folder / TRACE_NAME).write_text(trace + "\n", encoding="utf-8")

    def _plan(self, written: dict[int, Written]) -> PlanFile:
        graph = self.model.graph
        return plan_of(self.partitions, graph.inputs, graph.outputs, self.mapping, self.pool, self.name, written)


def compile(
    model: str | Path | ir.Model,
    hw: str | Path | Pool,
    *,
    mapping: str | Path | None = None,
    search: str = DEFAULT,
    objective: Objective | str = Objective.LATENCY,
    work_limit: float | None = DEFAULT_WORK_LIMIT,
    time_limit_s: float | None = None,
    seed: int = 0,
    compare: Sequence[str] = (),
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
        objective: What is to be small: ``latency``, or the time between two inferences of a stream, ``throughput``.
        work_limit: Units of work after which exact search takes the best mapping so far: half a second to a second
            each, but the same on every machine; ``None`` for no limit.
        time_limit_s: Seconds after which the best mapping so far is taken; ``None`` for no limit.
        seed: Of search methods that draw random numbers.
        compare: Names of search methods to compare with, or ``all``; see :meth:`Compilation.compare`.
        dims: ``NAME=VALUE`` for symbolic dimensions.
        input_shapes: ``NAME:1,3,224,224`` for inputs.
        pipeline: Passes to run; must end with partitions.
        callbacks: Called after every pass.

    Raises:
        MarsError: See ``mars_onnx.errors``.
    """
    pool = hw if isinstance(hw, Pool) else load_pool(hw)
    options = SearchOptions(objective_of(objective), time_limit_s, seed, work_limit)
    given = search_fields(search, mapping, options) | {"dim": tuple(dims), "input_shape": tuple(input_shapes)}
    passes = parse_pipeline(pipeline, given)
    wanted = comparators(compare, search)
    source = model if isinstance(model, ir.Model) else Path(model)
    work = source.clone() if isinstance(source, ir.Model) else load_model(source)
    done = run(work, source, pool, passes, callbacks)
    if wanted:
        done.compare(wanted, options)
    return done


def search_fields(
    search: str, mapping: str | Path | None, options: SearchOptions, watch: Watch = unwatched
) -> dict[str, object]:
    """The fields of a pass that chooses a mapping, for ``parse_pipeline``."""
    return {
        "search": search,
        "mapping": "" if mapping is None else str(mapping),
        "objective": options.objective,
        "work_limit": options.work_limit,
        "time_limit": options.time_limit_s,
        "seed": options.seed,
        "watch": watch,
    }


def objective_of(name: str) -> Objective:
    """The objective of that name.

    Raises:
        UsageError: There is none.
    """
    try:
        return Objective(name)
    except ValueError:
        raise UsageError(f"no objective is called {name!r}; there are {', '.join(Objective)}") from None


def run(
    work: ir.Model, source: Path | ir.Model, pool: Pool, pipeline: Pipeline, callbacks: Sequence[Callback] = ()
) -> Compilation:
    """Run a pipeline that ends with partitions on a loaded model, which it changes."""
    attachments.set_pool(work, pool)
    _check_taken_up(work)
    second = SecondLook(pipeline.passes)
    try:
        run_pipeline(work, pipeline.passes, [verify_stages(), second, *callbacks])
    except CapacityError as error:
        raise CapacityError(f"{source}: {error}" if isinstance(source, Path) else str(error)) from error
    attachments.get_partitions(work)
    name = Path(source).stem if isinstance(source, Path) else work.graph.name or "model"
    digest = file_sha256(source) if isinstance(source, Path) else ""
    looks = tuple(
        Simulated(look.cost_s, look.latency_s, look.fits, place == second.kept, look.period_s)
        for place, look in enumerate(second.looks)
    )
    found = attachments.get_found(work) or _taken_up(work, pool)
    done = Compilation(source, work, pool, NamedHash(name, digest), found, looks)
    check_capacity(done.simulation, pool, str(source) if isinstance(source, Path) else name)
    return done


def _taken_up(model: ir.Model, pool: Pool) -> Found:
    """Of a model that an earlier pipeline mapped, only the mapping is left."""
    mapping = attachments.get_mapping(model)
    return given_mapping(problem_of(without_redistribution(model)), pool, mapping, Objective.LATENCY)


def verify_stages() -> VerifyStages:
    """The callback that checks after every pass that the model is what its stage promises."""
    return VerifyStages({**VERIFIERS, "partitioned": _verify_partitioned})


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


def _write(model: ir.Model, folder: Path, stem: str) -> Written:
    """Write a model, its larger weights beside it, and give the hashes of both files."""
    path, data = folder / f"{stem}.onnx", folder / f"{stem}.onnx.data"
    ir.save(model, path, external_data=data.name)
    has_data = data.exists()
    return Written(
        path.name, data.name if has_data else None, file_sha256(path), file_sha256(data) if has_data else None
    )


__all__ = ["DEFAULT_PIPELINE", "Compilation", "compile", "run", "verify_stages"]
