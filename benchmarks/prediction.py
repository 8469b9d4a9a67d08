"""Predicted against measured: ``python -m benchmarks.prediction --pool calibrated.json``.

Networks that the calibration has not seen, over one and two ranks, by the search and by hand-written mappings; and
beside them ONNX Runtime on the whole model, with one thread and with as many as there are cores. All of a network runs
in turn in one process, so that what disturbs the machine disturbs all alike; figures are means of the faster half.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from benchmarks.hand_mappings import hand_mappings
from benchmarks.markdown import table, write_between_markers
from mars_onnx.calibration.deployment import Deployment, ThreadDeployer
from mars_onnx.calibration.measure import feeds_of, profile, session_of
from mars_onnx.calibration.networks import networks
from mars_onnx.calibration.profiles import nodes_of
from mars_onnx.calibration.samples import steady, work_of
from mars_onnx.compiler import Compilation, compile
from mars_onnx.cost.models.kernels import KINDS, counts
from mars_onnx.cost.performance import performance_model
from mars_onnx.errors import MarsError
from mars_onnx.loading import load_model
from mars_onnx.models import load_builder
from mars_onnx.pipeline.text import parse_pipeline
from mars_onnx.pool import Pool, load_pool
from mars_onnx.pool.cpu_parameters import CpuParameters

MODELS = ("resnet18", "resnet50", "vgg16", "mobilenet", "transformer")
#: A session with several threads keeps them looking for work for a while after a run.
_PAUSE_S = 0.06
_WARM_UP = 3
#: The mapping that is chosen may be slower than the fastest one measured by this much.
_TIE = 0.05


@dataclass(frozen=True)
class Run:
    """One network with one mapping.

    Attributes:
        model: Its name.
        mapping: How it was mapped, or who ran it.
        predicted_s: Latency by the cost model; ``None`` for ONNX Runtime alone.
        measured_s: On this machine.
        searched: Whether a search chose the mapping.
    """

    model: str
    mapping: str
    predicted_s: float | None
    measured_s: float
    searched: bool = False

    @property
    def error(self) -> float:
        """Relative error of the prediction."""
        return 0.0 if self.predicted_s is None else self.predicted_s / self.measured_s - 1.0


@dataclass(frozen=True)
class Layer:
    """One kernel of a whole network with one thread."""

    model: str
    name: str
    kind: str
    predicted_s: float
    measured_s: float
    known: bool


@dataclass(frozen=True)
class Found:
    """All of a benchmark."""

    runs: tuple[Run, ...]
    layers: tuple[Layer, ...]


def build(name: str) -> onnx.ModelProto:
    """A network with random weights; the transformer has six layers, 512 wide, of 128 tokens."""
    builder = load_builder()
    if name == "transformer":
        network = builder.encoder.encoder(blocks=6, hidden=512, heads=8, inner=2048, opset=20)
        made: onnx.ModelProto = builder.fill(network, 0)
        return made
    built: onnx.ModelProto = builder.build(name)
    return built


class _Session:
    """ONNX Runtime on the whole model, as a user would run it."""

    def __init__(self, path: str, threads: int) -> None:
        self._session = session_of(path, threads)
        self._feeds = feeds_of(self._session)
        self._threads = threads

    def run(self) -> float:
        """Run once."""
        start = time.perf_counter()
        self._session.run(None, self._feeds)
        seconds = time.perf_counter() - start
        if self._threads > 1:
            time.sleep(_PAUSE_S)
        return seconds


def compilations(
    model: ir.Model, canonical: ir.Graph, pool: Pool, searches: Sequence[str]
) -> Iterator[tuple[str, Compilation, bool]]:
    """Compiled by hand-written mappings and by searches; what cannot be compiled is said and left out."""
    names = (pool.accelerators[0].id, pool.accelerators[min(1, pool.size - 1)].id)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in hand_mappings(canonical, names) if pool.size > 1 else ():
            file = Path(folder) / "mapping.json"
            file.write_text(json.dumps(content), encoding="utf-8")
            try:
                yield name, compile(model, pool, mapping=file), False
            except MarsError as error:
                print(f"  {name}: {str(error).splitlines()[0]}", file=sys.stderr)
    for search in searches:
        yield f"search: {search}", compile(model, pool, search=search), True


def measure_model(name: str, pool: Pool, options: argparse.Namespace) -> list[Run]:
    """All mappings of one network, in turn."""
    proto = build(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.onnx"
        onnx.save(proto, path)
        model = load_model(path)
        canonical = model.clone()
        for pass_ in parse_pipeline("canonicalize", {}).passes:
            pass_(canonical)
        cases = list(compilations(model, canonical.graph, pool, options.search))
        deployer = ThreadDeployer(pool.size, options.threads_per_rank)
        things: list[Deployment] = [deployer.deploy(compiled) for _, compiled, _ in cases]
        cores = len(os.sched_getaffinity(0))
        alone = sorted({options.threads_per_rank, cores})
        things += [_Session(str(path), threads) for threads in alone]
        times: list[list[float]] = [[] for _ in things]
        for number in range(_WARM_UP + options.runs):
            for own, thing in zip(times, things, strict=True):
                seconds = thing.run()
                if number >= _WARM_UP:
                    own.append(seconds)
    runs = [
        Run(name, mapping, compiled.simulation.latency_s, steady(own), searched)
        for (mapping, compiled, searched), own in zip(cases, times, strict=False)
    ]
    runs += [
        Run(name, f"ONNX Runtime, {threads} thread{'s' if threads > 1 else ''}", None, steady(own))
        for threads, own in zip(alone, times[len(cases) :], strict=True)
    ]
    return runs


def measure_layers(name: str, pool: Pool, options: argparse.Namespace) -> list[Layer]:
    """Every kernel of the whole network, and of the first rank's partition by rows and by channels, in one session.

    Communications are stood in for by their function bodies, and are not counted.
    """
    whole = onnx.shape_inference.infer_shapes(build(name))
    layers = _kernels(name, whole, pool, options)
    model = ir.from_proto(whole)
    canonical = model.clone()
    for pass_ in parse_pipeline("canonicalize", {}).passes:
        pass_(canonical)
    for mapping, compiled, _ in compilations(model, canonical.graph, pool, ()):
        if mapping in ("rows", "channels"):
            own = compiled.partitions.partitions[0].model
            layers += _kernels(f"{name}, {mapping}", ir.to_proto(own), pool, options)
    return layers


def _kernels(name: str, model: onnx.ModelProto, pool: Pool, options: argparse.Namespace) -> list[Layer]:
    accelerator = pool.accelerators[0]
    design = accelerator.designs[0]
    machine = design.parameters
    if not isinstance(machine, CpuParameters):
        raise SystemExit(f"the design {design.name} is not a calibrated one")
    graph = ir.from_proto(model).graph
    pricer = performance_model(design, accelerator)
    measured = profile(model, threads=options.threads_per_rank, runs=options.runs)
    seen = shapes_of_calibration()
    layers: list[Layer] = []
    for kernel, nodes in nodes_of(measured.kernels, graph):
        if any(node.domain for node in nodes):
            continue
        work = work_of(nodes[0])
        kind = int(counts(work, machine).kind[0])
        predicted = sum(float(pricer.estimate(work_of(node)).total_s[0]) for node in nodes)
        known = shape_of(nodes[0]) in seen
        kind_name = KINDS[kind] if kind >= 0 else "view"
        layers.append(Layer(name, kernel.name, kind_name, predicted, steady(kernel.seconds), known))
    return layers


_SEEN: set[str] = set()


def shapes_of_calibration() -> set[str]:
    """Operators with their shapes that the calibration measures."""
    if not _SEEN:
        for model in networks():
            _SEEN.update(shape_of(node) for node in ir.from_proto(model).graph)
    return _SEEN


def shape_of(node: ir.Node) -> str:
    """What has to be equal for two kernels to be the same work."""
    work = work_of(node)
    names = ("op_class", "macs", "batch", "out_channels", "in_channels", "groups", "m", "n", "k")
    arrays = ("out_spatial", "kernel", "strides")
    facts = [int(getattr(work, name)[0]) for name in names]
    return f"{node.op_type} {facts} {[getattr(work, name)[0].tolist() for name in arrays]}"


def report(found: Found) -> str:
    """Tables in Markdown."""
    rows = []
    for run in found.runs:
        predicted = "" if run.predicted_s is None else f"{run.predicted_s * 1e3:.2f}"
        error = "" if run.predicted_s is None else f"{run.error:+.1%}"
        rows.append([run.model, run.mapping, predicted, f"{run.measured_s * 1e3:.2f}", error])
    text = [table(["network", "mapping", "predicted, ms", "measured, ms", "error"], rows, numbers=3)]
    errors = [abs(run.error) for run in found.runs if run.predicted_s is not None]
    if errors:
        text.append(
            f"End to end, {len(errors)} runs: median error {statistics.median(errors):.1%}, "
            f"{np.quantile(errors, 0.9):.1%} at the ninth tenth, worst {max(errors):.1%}.\n"
        )
    whole = [layer for layer in found.layers if "," not in layer.model]
    text.append("Kernels of the whole networks, one thread:\n\n" + _by_kind(whole))
    split = [layer for layer in found.layers if "," in layer.model]
    if split:
        text.append("Kernels of the first rank's partitions, by rows and by channels:\n\n" + _by_kind(split))
    text += choices(found.runs)
    return "\n".join(text)


def _by_kind(layers: Sequence[Layer]) -> str:
    rows = []
    for kind in dict.fromkeys(layer.kind for layer in layers):
        own = [layer for layer in layers if layer.kind == kind]
        off = [abs(layer.predicted_s / layer.measured_s - 1.0) for layer in own]
        total = sum(layer.predicted_s for layer in own) / sum(layer.measured_s for layer in own) - 1.0
        share = sum(layer.measured_s for layer in own) / sum(layer.measured_s for layer in layers)
        known = sum(layer.known for layer in own)
        rows.append([kind, str(len(own)), str(known), f"{share:.1%}", f"{statistics.median(off):.1%}", f"{total:+.1%}"])
    heads = ["kernel", "layers", "of these measured too", "of the time", "median error", "error of the sum"]
    return table(heads, rows, numbers=5)


def choices(runs: Sequence[Run]) -> list[str]:
    """Whether what a search chose is also the fastest that was measured."""
    lines: list[str] = []
    for model in dict.fromkeys(run.model for run in runs):
        own = [run for run in runs if run.model == model and run.predicted_s is not None]
        best = min(own, key=lambda run: run.measured_s)
        for run in own:
            if run.searched:
                behind = run.measured_s / best.measured_s - 1.0
                verdict = "within" if behind <= _TIE else "NOT within"
                lines.append(
                    f"- {model}, {run.mapping}: {run.measured_s * 1e3:.2f} ms, {behind:.1%} behind the fastest of "
                    f"{len(own)} ({best.mapping}): {verdict} {_TIE:.0%}."
                )
    return ["\n".join(lines) + "\n"] if lines else []


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, and write what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prediction", description=__doc__)
    parser.add_argument("--pool", required=True, help="a pool file that mars-onnx-calibrate wrote on this machine")
    parser.add_argument("--models", nargs="+", default=list(MODELS), help=f"default: {' '.join(MODELS)}")
    parser.add_argument("--search", action="append", help="a method, as of mars-onnx --search; repeatable")
    parser.add_argument("--runs", type=int, default=20, help="of every mapping (default 20)")
    parser.add_argument("--threads-per-rank", type=int, default=1)
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="put the tables between its markers")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    parser.add_argument("--json", type=Path, metavar="FILE.json", help="write all figures")
    options = parser.parse_args(arguments)
    options.search = options.search or ["greedy"]
    pool = load_pool(options.pool)
    runs: list[Run] = []
    layers: list[Layer] = []
    for name in options.models:
        runs += measure_model(name, pool, options)
        layers += measure_layers(name, pool, options)
        for run in runs:
            if run.model == name:
                said = "" if run.predicted_s is None else f"  predicted {run.predicted_s * 1e3:8.2f}  {run.error:+.1%}"
                print(f"{name:12} {run.mapping:24} {run.measured_s * 1e3:8.2f} ms{said}", flush=True)
    found = Found(tuple(runs), tuple(layers))
    text = report(found)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(asdict(found), indent=1), encoding="utf-8")
    if options.plot:
        from benchmarks.prediction_plot import plot

        plot(found.runs, found.layers, options.plot)
    if options.write:
        write_between_markers(options.write, "prediction", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
