"""Greedy: the whole pool, as one set or a set per group, and layer by layer the cheapest strategy.

No search: every layer takes the strategy whose compute time plus the communication to get its inputs there is least,
given what the layers before it chose. It ignores what comes after. It stands in where nobody gives a mapping, and
fills in the strategies that a written mapping leaves open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from mars_onnx.cost.interconnect import Interconnect
from mars_onnx.cost.shares import strategy_seconds
from mars_onnx.geometry import Layout, intersect, volume
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.base import Signature, TensorType
from mars_onnx.search.candidates import candidates
from mars_onnx.search.problem import Layer, Problem
from mars_onnx.search.runs import balanced_runs, fastest_designs, least_seconds, relative_speeds, whole_seconds
from mars_onnx.sharding.lowering import Sharding, lower
from mars_onnx.sharding.mapping import AcceleratorSet, LayerChoice, Mapping
from mars_onnx.sharding.strategy import AUTO, Placement, Strategy


def greedy_mapping(problem: Problem, pool: Pool) -> Mapping:
    """The cheaper of two: all accelerators as one set, or a set per group of the pool one after the other."""
    everyone = tuple(range(pool.size))
    shapes = [(everyone,)] if len(pool.groups()) == 1 else [(everyone,), pool.groups()]
    priced = [_greedy(problem, pool, _open_mapping(problem, pool, shape)) for shape in shapes]
    return min(priced, key=lambda result: result[1])[0]


def fill_in(problem: Problem, pool: Pool, written: Mapping) -> Mapping:
    """A mapping with every ``auto`` replaced by the cheapest strategy, given the rest."""
    if all(choice.strategy.placement is not Placement.AUTO for choice in written.layers):
        return written
    return _greedy(problem, pool, written)[0]


def _open_mapping(problem: Problem, pool: Pool, shape: Sequence[tuple[int, ...]]) -> Mapping:
    """Sets of a given shape, with the best design each, contiguous layers of about equal work, all strategies open."""
    works = [least_seconds(pool, layer.signature) for layer in problem.layers]
    runs = balanced_runs(problem, works, len(shape))
    choices = tuple(LayerChoice(layer.name, run, AUTO) for layer, run in zip(problem.layers, runs, strict=True))
    sets = tuple(
        AcceleratorSet(
            members,
            fastest_designs(pool, members, [la for la, run in zip(problem.layers, runs, strict=True) if run == i]),
        )
        for i, members in enumerate(shape)
    )
    return Mapping(sets, choices)


@dataclass(frozen=True, slots=True)
class _Link:
    """What it takes to get data to the members of a set: of the slowest way between two accelerators that matter."""

    seconds_per_byte: float
    latency_s: float


def _greedy(problem: Problem, pool: Pool, written: Mapping) -> tuple[Mapping, float]:
    """Decide what is open, layer by layer; also the sum of what the layers were thought to cost."""
    total = 0.0
    layouts: dict[tuple[int, int], Layout | None] = {}
    choices: list[LayerChoice] = []
    interconnect = Interconnect(pool)
    for number, (layer, choice) in enumerate(zip(problem.layers, written.layers, strict=True)):
        own = written.sets[choice.set_index]
        open_ = choice.strategy.placement is Placement.AUTO
        options = (
            candidates(layer.signature, own.members, _speeds(pool, own, layer.signature))
            if open_
            else (choice.strategy,)
        )
        best: tuple[float, Strategy, Sharding] | None = None
        seconds = strategy_seconds(pool, layer.signature, options, own.members, own.designs)
        for compute, place in sorted((max(shares), place) for place, shares in enumerate(seconds)):
            strategy = options[place]
            if best is not None and compute >= best[0]:
                break  # The others compute longer than this one computes and moves.
            sharding = lower(layer.signature, strategy, own.members)
            cost = compute + _moving(pool, interconnect, layer, sharding, layouts)
            if best is None or cost < best[0]:
                best = (cost, strategy, sharding)
        if best is None:
            raise ValueError(f"layer {layer.name!r} has no strategy at all")
        total += best[0]
        choices.append(replace(choice, strategy=best[1]))
        layouts.update(((number, index), layout) for index, layout in enumerate(best[2].resolved))
    return replace(written, layers=tuple(choices)), total


def _moving(
    pool: Pool,
    interconnect: Interconnect,
    layer: Layer,
    sharding: Sharding,
    layouts: dict[tuple[int, int], Layout | None],
) -> float:
    """About what it costs to move a layer's inputs to where they are needed, and its partial sums together."""
    seconds = 0.0
    for source, need, kind in zip(layer.sources, sharding.needs, layer.signature.inputs, strict=False):
        held = None if source is None or source.layer is None else layouts.get((source.layer, source.output))
        if held is not None and need is not None and kind is not None:
            seconds += _moving_seconds(pool, held, need, kind)
    for produced, resolved, kind in zip(sharding.produced, sharding.resolved, layer.signature.outputs, strict=False):
        if produced is not None and produced != resolved and kind is not None:
            largest = max(volume(box) for box in produced.boxes) * kind.dtype.bitwidth / 8
            group = sharding.members[:: max(1, len(sharding.members) // produced.num_parts)]
            seconds += float(interconnect.all_reduce(group, largest))
    return seconds


def _moving_seconds(pool: Pool, held: Layout, need: Layout, kind: TensorType) -> float:
    """About how long the member that lacks most has to wait: its bytes over the slowest link, once the latency."""
    boxes = dict(zip(held.members, held.boxes, strict=True))
    lacking = max(
        volume(box) - volume(intersect(box, boxes.get(rank)))
        for rank, box in zip(need.members, need.boxes, strict=True)
    )
    if lacking <= 0 and not held.partial:
        return 0.0
    link = _slowest(pool, held.members, need.members)
    return link.latency_s + lacking * kind.dtype.bitwidth / 8 * link.seconds_per_byte


@lru_cache(maxsize=1024)
def _slowest(pool: Pool, sources: tuple[int, ...], targets: tuple[int, ...]) -> _Link:
    pairs = [(i, j) for i in sources for j in targets if i != j]
    return _Link(
        max((1 / pool.bandwidth(*pair) for pair in pairs), default=0.0),
        max((pool.latency(*pair) for pair in pairs), default=0.0),
    )


def _speeds(pool: Pool, own: AcceleratorSet, signature: Signature) -> tuple[int, ...]:
    """Relative speeds of the members at this layer, in whole numbers; all 1 where they are about equal."""
    seconds = [
        whole_seconds(pool, rank, design, signature) for rank, design in zip(own.members, own.designs, strict=True)
    ]
    return relative_speeds(seconds)
