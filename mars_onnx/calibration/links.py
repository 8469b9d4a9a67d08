"""Measuring what passes between ranks, through the same partitions, executor and transport that models use.

A probe is a chain of layers with next to no weights, compiled by hand-written mappings over two ranks: one in which
layers need what the other rank has made, and one in which none does. The difference of their times, less the
difference of what they compute, is what the communications take: with the ends of segments, waiting and copying.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx_ir as ir

from mars_onnx.calibration.deployment import Deployer, alternately
from mars_onnx.calibration.fitting import nonnegative, robust
from mars_onnx.calibration.writer import ModelWriter
from mars_onnx.compiler import Compilation, compile
from mars_onnx.cost.performance import FloatArray
from mars_onnx.pool.collectives import Overhead
from mars_onnx.pool.topology import Pool

_LAYERS = 12
#: Rows and columns of the weights of products.
_WIDTH = 32
#: Of images.
_CHANNELS = 64
#: Bytes of the tensor that is communicated.
_SIZES = (4096, 65536, 524288, 2097152)
_RUNS = 12
_COPY_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class LinkTimes:
    """What a pair of ranks takes: ``latency_s + bytes / bandwidth``, both directions at once, and sums of reductions.

    Attributes:
        latency_s: Of one communication.
        bandwidth_bytes_per_s: In one direction.
        reduction_bytes_per_s: At which received bytes are summed; ``None``: too fast to be seen.
        error: Median of the relative error of that formula on what was measured.
    """

    latency_s: float
    bandwidth_bytes_per_s: float
    reduction_bytes_per_s: float | None = None
    error: float = 0.0


class Kind(StrEnum):
    """What is measured between two ranks."""

    GATHER = "all-gather"
    EXCHANGE = "all-to-all"
    REDUCE = "all-reduce"
    APART = "all-gather of pieces that lie apart"
    SCATTER = "reduce-scatter"
    HALO = "halo exchange"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One measured communication of two ranks.

    Attributes:
        rounds: Messages that wait for each other.
        sent_bytes: What each of the two sends.
        summed_bytes: What each adds up.
        kept_bytes: What each keeps of what it has.
        seconds: What one communication takes.
    """

    rounds: int
    sent_bytes: float
    summed_bytes: float
    kept_bytes: float
    seconds: float


@dataclass(frozen=True, slots=True)
class PairTimes:
    """All that was measured of a pair of ranks.

    Attributes:
        link: Fitted to gathers and sums.
        overheads: By operator, what it takes beyond that.
    """

    link: LinkTimes
    overheads: dict[str, Overhead]


def memory_bandwidth(repeats: int = 5) -> float:
    """Bytes per second that one core reads and writes together, of arrays that no cache holds."""
    source = np.ones(_COPY_BYTES // 4, np.float32)
    target = np.empty_like(source)
    best = float("inf")
    for _ in range(repeats):
        start = perf_counter()
        np.copyto(target, source)
        best = min(best, perf_counter() - start)
    return 2 * _COPY_BYTES / best


def link_between(
    pool: Pool, pair: tuple[int, int], deployer: Deployer, advance: Callable[[], None] = lambda: None
) -> PairTimes:
    """Measure the link of two ranks.

    Args:
        pool: With the designs that were measured; its links do not matter.
        pair: The ranks.
        deployer: Runs the probes.
        advance: Called after every kind of communication.
    """
    found: dict[Kind, list[Exchange]] = {}
    for kind in Kind:
        found[kind] = [exchange(pool, pair, deployer, kind, size) for size in _SIZES]
        advance()
    link = line_through([*found[Kind.GATHER], *found[Kind.REDUCE]])
    overheads = {_OPERATOR[kind]: overhead_of(found[kind], link) for kind in (Kind.EXCHANGE, Kind.SCATTER, Kind.HALO)}
    overheads[_OPERATOR[Kind.APART]] = Overhead(assembled_bytes_per_s=assembly_of(found[Kind.APART], link))
    return PairTimes(link, overheads)


#: How often :func:`link_between` says that it has come further.
STEPS = len(Kind)


def overhead_of(exchanges: Sequence[Exchange], link: LinkTimes) -> Overhead:
    """What communications take beyond the link."""
    seconds, beyond = _beyond(exchanges, link)
    columns: FloatArray = np.asarray([[1.0, own.kept_bytes / 1e6] for own in exchanges])
    latency, per_mb = nonnegative(columns / seconds[:, None], beyond / seconds)
    return Overhead(float(latency), 1e6 / float(per_mb) if per_mb > 1e-9 else None)


def assembly_of(exchanges: Sequence[Exchange], link: LinkTimes) -> float | None:
    """Bytes per second at which results of gathers are put together; ``None``: too fast to be seen."""
    seconds, beyond = _beyond(exchanges, link)
    columns: FloatArray = np.asarray([[(own.kept_bytes + own.sent_bytes) / 1e6] for own in exchanges])
    (per_mb,) = nonnegative(columns / seconds[:, None], beyond / seconds)
    return 1e6 / float(per_mb) if per_mb > 1e-9 else None


def _beyond(exchanges: Sequence[Exchange], link: LinkTimes) -> tuple[FloatArray, FloatArray]:
    """Seconds of communications, and what of them the link does not explain."""
    seconds = np.asarray([max(own.seconds, 1e-7) for own in exchanges])
    by_link = np.asarray(
        [own.rounds * link.latency_s + own.sent_bytes / link.bandwidth_bytes_per_s for own in exchanges]
    )
    return seconds, np.maximum(seconds - by_link, 0.0)


def line_through(exchanges: Sequence[Exchange]) -> LinkTimes:
    """The latency, bandwidth and rate of sums that say best what was measured, in relative errors."""
    seconds = np.asarray([max(own.seconds, 1e-7) for own in exchanges])
    columns: FloatArray = np.asarray(
        [[own.rounds, own.sent_bytes / 1e6, own.summed_bytes / 1e6] for own in exchanges], np.float64
    )
    found = robust(columns, seconds)
    error = float(np.median(np.abs(columns @ found / seconds - 1.0)))
    latency, per_mb, per_summed_mb = map(float, found)
    return LinkTimes(
        latency, 1e6 / max(per_mb, 1e-6), None if per_summed_mb < 1e-6 else max(1.0, 1e6 / per_summed_mb), error
    )


def exchange(pool: Pool, pair: tuple[int, int], deployer: Deployer, kind: Kind, size: int) -> Exchange:
    """What one communication of a tensor of ``size`` bytes takes."""
    names = [pool.accelerators[rank].id for rank in pair]
    model, busy, idle = _probe(kind, size)
    compiled = [compile_by_hand(model, pool, names, own) for own in (busy, idle)]
    times = alternately([deployer.deploy(own) for own in compiled], _RUNS)
    compute = [own.price.timeline.compute_s[pair[0]] for own in compiled]
    # What enters and leaves differs as well: half of it, or all on either rank.
    between = [own for own in compiled[0].plan.communication if own.op == _OPERATOR[kind]]
    apart = _quiet(times[0]) - _quiet(times[1]) - (compute[0] - compute[1])
    rounds, sent, summed, kept = {
        Kind.GATHER: (1, size / 2, 0.0, size / 2),
        Kind.EXCHANGE: (1, size / 4, 0.0, size / 4),
        Kind.APART: (1, size / 2, 0.0, size / 2),
        Kind.REDUCE: (2, float(size), size / 2, size / 2),
        Kind.SCATTER: (1, size / 2, size / 2, size / 2),
        Kind.HALO: (1, size / _side(size), 0.0, size / 2),
    }[kind]
    return Exchange(rounds, sent, summed, kept, apart / max(1, len(between)))


_OPERATOR = {
    Kind.GATHER: "AllGather",
    Kind.APART: "AllGather",
    Kind.EXCHANGE: "AllToAll",
    Kind.REDUCE: "AllReduce",
    Kind.SCATTER: "ReduceScatter",
    Kind.HALO: "HaloExchange",
}


def _probe(kind: Kind, size: int) -> tuple[ir.Model, dict[str, str], dict[str, str]]:
    """A chain, a mapping by which it communicates in the way of ``kind``, and one by which it does not."""
    match kind:
        case Kind.REDUCE:
            return _products(size), {"*": "ES(K=2)"}, {"*": "ES(M=2)"}
        case Kind.SCATTER:
            # The half of the columns that a rank gets is the half of the reduction that it does next.
            return _products(size), {"*": "ES(K=2) reduce-scatter(N)"}, {"*": "ES(M=2)"}
        case Kind.HALO:
            return _images(size), {"conv*": "ES(H=2)", "*": "ES(D2=2)"}, {"conv*": "ES(Cout=2)", "*": "ES(D1=2)"}
    # A layer that is computed whole needs all; the next takes its half of it.
    usual = "ES(D2=2)" if kind is Kind.APART else "ES(D1=2)"
    other = "ES(D2=2)" if kind is Kind.EXCHANGE else "whole"
    busy = {f"relu{number}": other for number in range(1, _LAYERS - 1, 2)}
    return _chain(size), busy | {"*": usual}, {"*": usual}


def run_overhead(pool: Pool, rank: int, deployer: Deployer) -> tuple[float, float]:
    """What a run costs beside its kernels, and per byte of input and output: seconds, and bytes per second."""
    found = []
    for size in (_SIZES[0], _SIZES[-1]):
        compiled = compile_by_hand(_chain(size), pool, [pool.accelerators[rank].id], {"*": "whole"})
        (times,) = alternately([deployer.deploy(compiled)], _RUNS)
        found.append(max(1e-6, _quiet(times) - compiled.price.timeline.compute_s[rank]))
    per_byte = max(0.0, found[1] - found[0]) / (2.0 * (_SIZES[-1] - _SIZES[0]))
    return found[0], 1.0 / max(per_byte, 1e-12)


def compile_by_hand(model: ir.Model, pool: Pool, accelerators: Sequence[str], layers: dict[str, str]) -> Compilation:
    """Compile with all layers on one set, by a mapping of patterns to strategies."""
    mapping = {
        "schema": "mars-onnx/mapping/1",
        "sets": [{"accelerators": list(accelerators), "layers": layers}],
    }
    with tempfile.TemporaryDirectory(prefix="mars-onnx-") as folder:
        file = Path(folder) / "mapping.json"
        file.write_text(json.dumps(mapping), encoding="utf-8")
        return compile(model, pool, mapping=file)


def _chain(size: int) -> ir.Model:
    writer = ModelWriter("probe", np.random.default_rng(0))
    x = writer.input(1, 16, max(1, size // 64))
    for _ in range(_LAYERS):
        x = writer.same("Relu", x)
    writer.output(x)
    return ir.from_proto(writer.model())


def _products(size: int) -> ir.Model:
    """Products with small square weights."""
    writer = ModelWriter("probe", np.random.default_rng(0))
    x = writer.input(1, max(2, size // (4 * _WIDTH)), _WIDTH)
    for _ in range(_LAYERS):
        x = writer.node("MatMul", [x, writer.weight(_WIDTH, _WIDTH)], writer.shapes[x])
    writer.output(x)
    return ir.from_proto(writer.model())


def _side(size: int) -> int:
    """Rows, and columns, of an image of so many bytes."""
    return max(4, round(math.sqrt(size / (4 * _CHANNELS))))


def _images(size: int) -> ir.Model:
    """Depthwise convolutions, which cost little and can be cut along channels without a halo."""
    writer = ModelWriter("probe", np.random.default_rng(0))
    x = writer.input(1, _CHANNELS, _side(size), _side(size))
    for _ in range(_LAYERS // 2):
        x = writer.same("Relu", writer.conv(x, _CHANNELS, (3, 3), groups=_CHANNELS))
    writer.output(x)
    return ir.from_proto(writer.model())


def _quiet(seconds: list[float]) -> float:
    ordered = sorted(seconds)
    return float(np.mean(ordered[: max(1, len(ordered) // 3)]))
