"""The whole of a calibration: networks, profiles of others, memory, links, with a progress bar."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from mars_onnx.calibration import links as link_measures
from mars_onnx.calibration.deployment import Deployer, ThreadDeployer
from mars_onnx.calibration.fitting import fit
from mars_onnx.calibration.foreign import samples_of_profile
from mars_onnx.calibration.links import LinkTimes
from mars_onnx.calibration.measure import profile
from mars_onnx.calibration.networks import networks
from mars_onnx.calibration.pool_file import Machine, memory_per_rank, near_cache_bytes, pool_of, vector_words
from mars_onnx.calibration.profiles import read_profile
from mars_onnx.calibration.samples import Sample, samples_of
from mars_onnx.errors import InputError, UsageError
from mars_onnx.loading import load_model
from mars_onnx.pipeline.text import parse_pipeline
from mars_onnx.pool.cpu_parameters import CpuParameters, KernelTime
from mars_onnx.pool.format import MAX_NAME_LENGTH

_RUNS = 10
#: Above this part of disturbed runs, or of time stolen by other machines, the figures deserve a warning.
_MUCH = 0.2
_SOME_STOLEN = 0.01
_UNKNOWN = LinkTimes(1e-6, 1e9)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to measure.

    Attributes:
        name: Of the pool.
        ranks: How many accelerators; ``None``: a rank per core, or per ``threads`` cores.
        threads: Of every rank.
        scale: How many shapes, as a part of the usual number.
        profiles: Files that ONNX Runtime wrote.
        models: Models to profile.
        memory_bytes: Of every rank; ``None``: a share of what there is.
        show: Whether to show progress.
    """

    name: str
    ranks: int | None = None
    threads: int = 1
    scale: float = 1.0
    profiles: tuple[Path, ...] = ()
    models: tuple[Path, ...] = ()
    memory_bytes: int | None = None
    show: bool = False


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What was found.

    Attributes:
        machine: For the pool file.
        errors: Per kind of kernel the relative errors on samples left out of the fit.
        notes: What a person should know about the measurement.
        seconds: What it took.
    """

    machine: Machine
    errors: dict[str, np.ndarray]
    notes: tuple[str, ...]
    seconds: float


def calibrate(wanted: Wanted, deployer: Deployer | None = None) -> Calibrated:
    """Measure this machine.

    Args:
        wanted: What.
        deployer: How partitions run here; default: a thread per accelerator.

    Raises:
        UsageError: More threads are asked for than there are cores.
        InputError: A profile or a model cannot be used.
    """
    start = perf_counter()
    cores = _cores()
    ranks = wanted.ranks or max(1, cores // wanted.threads)
    if wanted.threads > cores:
        raise UsageError(f"--threads-per-rank {wanted.threads}: there are {cores} cores; give at most as many")
    deployer = deployer or ThreadDeployer(ranks, wanted.threads)
    notes: list[str] = []
    if ranks * wanted.threads > cores:
        notes.append(
            f"{ranks} ranks of {wanted.threads} threads share {cores} cores: a run will take longer than predicted"
        )
    # Bad files are found before minutes are spent.
    foreign, foreign_notes = _foreign(wanted)
    notes += foreign_notes
    probes = list(networks(wanted.scale))
    pairs = list(combinations(range(ranks), 2))
    steps = len(probes) + link_measures.STEPS * len(pairs) + 3
    stolen = _Stolen()
    with _progress(steps, wanted.show) as advance:
        samples: list[Sample] = []
        disturbed: list[float] = []
        for model in probes:
            advance(f"kernels: {model.graph.name}")
            measured = profile(model, threads=wanted.threads, runs=_RUNS)
            disturbed.append(measured.disturbed)
            samples += samples_of(measured.kernels, ir.from_proto(model).graph)
        advance("fit")
        found = fit(samples + foreign, _source(wanted, len(samples), len(foreign)), _machine_of(wanted, cores))
        advance("memory")
        bandwidth = link_measures.memory_bandwidth()
        machine = Machine(
            wanted.name[:MAX_NAME_LENGTH],
            found.parameters,
            ranks,
            wanted.memory_bytes or memory_per_rank(ranks),
            bandwidth,
            dict.fromkeys(pairs, _UNKNOWN),
            1e-6,
            1e9,
            found.parameters.kernels[0].source,
        )
        pool = pool_of(machine)
        advance("runs")
        run_s, host_bandwidth = link_measures.run_overhead(pool, 0, deployer)
        times = {
            pair: link_measures.link_between(pool, pair, deployer, partial(advance, f"ranks {pair[0]} and {pair[1]}"))
            for pair in pairs
        }
    machine = replace(
        machine,
        links={pair: own.link for pair, own in times.items()},
        overheads=tuple(own.overheads for own in times.values()),
        run_s=run_s,
        host_bandwidth_bytes_per_s=host_bandwidth,
    )
    part = float(np.mean(disturbed))
    if part > _MUCH:
        notes.append(f"{part:.0%} of the runs were interrupted and left out; the machine was not at rest")
    if stolen.part() > _SOME_STOLEN:
        notes.append(f"the hypervisor took {stolen.part():.1%} of the time away; figures may be too high")
    return Calibrated(machine, found.errors, tuple(notes), perf_counter() - start)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _machine_of(wanted: Wanted, cores: int) -> CpuParameters:
    return CpuParameters(
        vector_words=vector_words(),
        near_cache_bytes=near_cache_bytes() * min(wanted.threads, cores),
        kernels=(KernelTime(kinds=("other",), source="-"),),
    )


def _source(wanted: Wanted, own: int, foreign: int) -> str:
    beside = f" and {foreign} of profiles that were given" if foreign else ""
    return (
        f"mars_onnx.calibrate: {own} kernels{beside}, {wanted.threads} thread(s), onnxruntime {ort.__version__}, "
        f"{platform.machine()}, {platform.system()}"
    )


def _foreign(wanted: Wanted) -> tuple[list[Sample], list[str]]:
    """Samples of the profiles and models that were named, and what is to be said about them."""
    samples: list[Sample] = []
    notes: list[str] = []
    for file in wanted.profiles:
        known, skipped = samples_of_profile(read_profile(file))
        if not known:
            raise InputError(f"{file}: no kernel in it says by its shapes what it computes")
        samples += known
        notes.append(f"{file.name}: {len(known)} kernels added, {skipped} left out")
    for file in wanted.models:
        model = load_model(file)
        for pass_ in parse_pipeline("canonicalize", {}).passes:
            pass_(model)
        measured = profile(ir.to_proto(model), threads=wanted.threads, runs=_RUNS)
        known = samples_of(measured.kernels, model.graph)
        if not known:
            raise InputError(f"{file}: no kernel of it could be told apart")
        samples += known
        notes.append(f"{file.name}: {len(known)} kernels added")
    return samples, notes


class _Stolen:
    """Time that the hypervisor gave to others, from /proc/stat."""

    def __init__(self) -> None:
        self._start = _ticks()

    def part(self) -> float:
        """Of all time since the start; 0 where the system does not say."""
        now = _ticks()
        if self._start is None or now is None or now[1] <= self._start[1]:
            return 0.0
        return (now[0] - self._start[0]) / (now[1] - self._start[1])


def _ticks() -> tuple[int, int] | None:
    """Stolen ticks, and all."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
        numbers = [int(field) for field in fields[:8]]
    except (OSError, ValueError):
        return None
    return (numbers[7], sum(numbers)) if len(numbers) == 8 else None


@contextmanager
def _progress(steps: int, show: bool) -> Iterator[Callable[[str], None]]:
    """A progress bar; what it gives is called before every step, with what comes."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    # On the error stream: standard output is for what was found.
    with Progress(*columns, console=Console(stderr=True), disable=not show, transient=True) as bar:
        task = bar.add_task("", total=steps)
        started = False

        def advance(what: str) -> None:
            nonlocal started
            bar.update(task, advance=1 if started else 0, description=what)
            started = True

        yield advance
