"""What a search claims: of which space, when the tables say all of a mapping's cost, and what is certain otherwise.

The tables add everything up. What does not depend on the tensor at a gate can go on beside the set before the gate: a
model input that comes in later, and an output that leaves earlier. Then the least sum is an answer, but no bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import numpy as np

from mars_onnx.cost.performance import performance_model
from mars_onnx.cost.shares import twin
from mars_onnx.cost.workload import workload
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.axes import Axis
from mars_onnx.rules.base import Signature, TensorType
from mars_onnx.rules.registry import rule_for
from mars_onnx.rules.shares import cut
from mars_onnx.search.exact.chain.segments import consumers_of, inputs_of
from mars_onnx.search.exact.communication.moves import FloatArray
from mars_onnx.search.exact.strategies.least import cuts_of
from mars_onnx.search.exact.ways.sets import needed_of
from mars_onnx.search.method import Objective
from mars_onnx.search.problem import Problem, Source

#: A bound that leaves less, relatively, is met: what is better by no more than rounding is nothing new.
SAME = 1e-8
#: What is looked at.
SPACE = (
    "sets of accelerators in the pool's order, of like groups those first of which most are taken, one design each, a "
    "run of layers each, changed where one tensor carries all data; per layer exclusive shards of all axes, several at "
    "a time, partial sums all-reduced or reduce-scattered; sets of more than eight cut no reduction that is shorter "
    "than they have members; tensors that several layers take, and model inputs, in one layout per set"
)
#: What is looked at for latency besides, and what is not.
_BRANCHES = (
    "; where one layer joins branches from different model inputs, each branch on one set until then, side by side "
    "with others or after them (of more than four branches, all share a set or none do)"
)
#: What the answer says if something outside of the space is better.
_BEATEN = "; the mapping is not one of these, but a simple one outside that is better than all that were found"

#: Shares of the longest path in the bound, against the work, that are tried.
_MIXTURES = tuple(step / 16 for step in range(17))


def space_of(objective: Objective, beaten: bool) -> str:
    """The space of an answer that was not found among mappings that fit; ``beaten`` if one outside is better."""
    # Of a stream, branches are looked at one after the other only: nothing is claimed of them side by side.
    space = SPACE + _BRANCHES if objective is Objective.LATENCY else SPACE
    return space + _BEATEN if beaten else space


def certain_seconds(problem: Problem, pool: Pool, latency: bool) -> float:
    """What no mapping whatsoever can be below: neither its work, evenly on all accelerators, nor its longest path.

    A step takes seconds ``t(k)`` at least on sets of ``k`` members, and so ``k t(k)`` of the ``N`` times the latency
    that all accelerators have. More members make paths shorter and the work larger, so the two are weighed against each
    other: for every ``w`` between 0 and 1, ``w`` times the longest path plus ``1 - w`` times the work over ``N`` is a
    bound with the best ``k`` of every step by itself. Steps are layers, model inputs, and model outputs; nothing is
    known of redistributions.

    Args:
        problem: The layers.
        pool: The accelerators.
        latency: Of one inference, and not between two: then only the work counts.

    Returns:
        Seconds.
    """
    layers = [_layer_seconds(pool, layer.signature) for layer in problem.layers]
    takers = consumers_of(problem)
    entering = {
        source: _transfer_seconds(pool, True, needed_of(problem, source, kind, takers.get(source, ())))
        for source, kind in _model_inputs(problem).items()
    }
    leaving = [(source, _transfer_seconds(pool, False, _size(problem, source))) for source in problem.outputs]
    every = np.stack([*layers, *entering.values(), *(seconds for _, seconds in leaving)])
    members = np.arange(1, pool.size + 1) / pool.size
    best = 0.0
    for mixture in _MIXTURES if latency else (0.0,):
        weights = (1 - mixture) * members
        work = float((every * weights).min(axis=1).sum())

        def longer(seconds: FloatArray, weights: FloatArray = weights, mixture: float = mixture) -> float:
            """What a step adds to a path beyond its work."""
            return float((seconds * (weights + mixture)).min() - (seconds * weights).min())

        ends: dict[Source, float] = {source: longer(seconds) for source, seconds in entering.items()}
        path = max(ends.values(), default=0.0)
        for number, layer in enumerate(problem.layers):
            end = max((ends[source] for source in inputs_of(layer)), default=0.0) + longer(layers[number])
            path = max(path, end)
            ends.update((Source(number, output), end) for output in range(len(layer.signature.outputs)))
        path = max([path, *(ends.get(source, 0.0) + longer(seconds) for source, seconds in leaving)])
        best = max(best, work + path)
    return best


def _model_inputs(problem: Problem) -> dict[Source, TensorType]:
    """Model inputs that are taken by some layer, and their types."""
    found: dict[Source, TensorType] = {}
    for layer in problem.layers:
        for source, kind in (*zip(layer.sources, layer.signature.inputs, strict=False), *layer.captured):
            if source is not None and kind is not None and source.layer is None:
                found.setdefault(source, kind)
    return found


def _size(problem: Problem, source: Source) -> float:
    """Bytes of a tensor that a layer makes; 0 of a model input, which need not go anywhere to leave."""
    kind = None if source.layer is None else problem.layers[source.layer].signature.outputs[source.output]
    return 0.0 if kind is None else prod(kind.shape) * kind.dtype.bitwidth / 8


def _transfer_seconds(pool: Pool, entering: bool, nbytes: float) -> FloatArray:
    """Seconds at least until so many bytes are on sets of 1, 2, ... members, or have left them."""
    if nbytes <= 0:
        return np.zeros(pool.size)
    end = pool.inputs_at if entering else pool.outputs_at
    routes = [pool.route(end, rank) if entering else pool.route(rank, end) for rank in range(pool.size)]
    rates = np.cumsum(sorted((route.bandwidth_bytes_per_s for route in routes), reverse=True))
    return min(route.latency_s for route in routes) + nbytes / rates


def _layer_seconds(pool: Pool, signature: Signature) -> FloatArray:
    """Seconds at least of a layer on sets of 1, 2, ... members."""
    ranks = {twin(pool, rank) for rank in range(pool.size)}
    kinds = [(rank, design.name) for rank in sorted(ranks) for design in pool.accelerators[rank].designs]
    rule = rule_for(signature)
    least = np.full(pool.size, np.inf)
    counts: list[int] = []
    rows: list[tuple[tuple[int, int], ...]] = []
    for size in range(1, pool.size + 1):
        for own in cuts_of(rule, size):
            if prod(own) == size:
                pieces = list(product(*(_largest(axis, count) for axis, count in zip(rule.axes, own, strict=True))))
                counts += [size] * len(pieces)
                rows += pieces
    bounds = np.asarray(rows, np.int64).reshape(len(rows), len(rule.axes), 2)
    ranges = {axis.name: (bounds[:, place, 0], bounds[:, place, 1]) for place, axis in enumerate(rule.axes)}
    work = workload(rule, ranges)
    for rank, design in kinds:
        accelerator = pool.accelerators[rank]
        found = accelerator.design(design)
        if found is None:
            raise ValueError(f"{accelerator.id} cannot take the design {design!r}")
        seconds = np.broadcast_to(performance_model(found, accelerator).estimate(work).total_s, len(rows))
        np.minimum.at(least, np.asarray(counts) - 1, seconds)
    return np.minimum.accumulate(least)


def _largest(axis: Axis, count: int) -> Sequence[tuple[int, int]]:
    """The longest of equal parts of an axis, at its start, in the middle and at its end.

    However an axis is cut, one part is as long at least. At the ends windows reach into the padding, so that a part
    there may take less than one in the middle.
    """
    equal = cut(axis, (1,) * count)
    length = max(high - low for low, high in equal)
    granule = axis.granularity
    if length % granule and length < axis.size:
        return [own for own in dict.fromkeys(equal) if own[1] - own[0] == length]
    last = -(-(axis.size - length) // granule)
    lows = [place * granule for place in (0, last // 2, last)]
    return list(dict.fromkeys((low, min(low + length, axis.size)) for low in lows))
