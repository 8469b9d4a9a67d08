"""The steps of which the lockstep cost is made: a layer, a redistribution, a transfer of a model input or output.

A step starts when all sets concerned are free and ends for all of them together; what happens inside is a timeline
without overlap. So the cost of a step depends on nothing but its own arguments, and on one set costs add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mars_onnx.cost.interconnect import Interconnect
from mars_onnx.cost.shares import Designs, PhaseSeconds, phase_seconds, phases_seconds
from mars_onnx.cost.sizes import amounts_of
from mars_onnx.cost.timeline import Event, seconds_of
from mars_onnx.errors import InputError
from mars_onnx.geometry import Box, Layout, volume
from mars_onnx.pool.topology import Pool
from mars_onnx.redistribution.plan import Collective
from mars_onnx.redistribution.planner import communication, planned
from mars_onnx.rules.base import Signature
from mars_onnx.sharding.lowering import Sharding, lower, ring_shift
from mars_onnx.sharding.strategy import Strategy


@lru_cache(maxsize=16)
def interconnect_of(pool: Pool) -> Interconnect:
    """The interconnect of a pool, with all that it has found out so far."""
    return Interconnect(pool)


@dataclass(frozen=True, slots=True)
class Part:
    """An event of a step, and the collective that it is; ``None`` for compute."""

    event: Event
    collective: Collective | None = None


#: A layer, its strategy, the members of its set, and per member what it is configured as.
PlacedLayer = tuple[Signature, Strategy, tuple[int, ...], Designs]

#: Seconds of all layers priced so far: the same few come up again and again.
_LAYERS: dict[tuple[Pool, PlacedLayer], float] = {}
_MOST_LAYERS = 1 << 17


def layer_seconds(
    pool: Pool, signature: Signature, strategy: Strategy, members: tuple[int, ...], designs: Designs
) -> float:
    """Seconds of a layer: the longest share, or the phases of a ring and the shifts between them.

    Args:
        pool: Where the accelerators are described.
        signature: Of the layer.
        strategy: How it is cut.
        members: Its set.
        designs: Per member what it is configured as.

    Raises:
        InputError: The strategy cannot be applied.
    """
    return layers_seconds(pool, [(signature, strategy, members, designs)])[0]


def layers_seconds(pool: Pool, layers: Sequence[PlacedLayer]) -> list[float]:
    """The same of several layers; those that nobody has asked for yet are priced together."""
    missing = [own for own in dict.fromkeys(layers) if (pool, own) not in _LAYERS]
    if len(_LAYERS) + len(missing) > _MOST_LAYERS:
        _LAYERS.clear()
        missing = list(dict.fromkeys(layers))
    try:
        _price(pool, missing)
    except InputError:
        # Which layer a design refuses is to be said of the first one alone.
        for own in missing:
            _price(pool, [own])
    return [_LAYERS[pool, own] for own in layers]


def _price(pool: Pool, layers: Sequence[PlacedLayer]) -> None:
    shardings = [lower(signature, strategy, members) for signature, strategy, members, _ in layers]
    nodes = [(own[0], sharding, own[3]) for own, sharding in zip(layers, shardings, strict=True)]
    for own, sharding, phases in zip(layers, shardings, phases_seconds(pool, nodes), strict=True):
        _LAYERS[pool, own] = _seconds_of_parts(_layer_parts(pool, own[0], sharding, phases))


def layer_parts(
    pool: Pool, signature: Signature, sharding: Sharding, designs: tuple[str, ...], label: str = "", moved: str = ""
) -> Iterator[Part]:
    """A layer: what every member computes, phase by phase, with the shifts of a ring between the phases.

    Args:
        pool: Where the accelerators are described.
        signature: Of the layer.
        sharding: How it is cut.
        designs: Per member what it is configured as.
        label: Of what is computed.
        moved: Of what a ring moves.
    """
    return _layer_parts(pool, signature, sharding, phase_seconds(pool, signature, sharding, designs), label, moved)


def _layer_parts(
    pool: Pool, signature: Signature, sharding: Sharding, phases: PhaseSeconds, label: str = "", moved: str = ""
) -> Iterator[Part]:
    places = {rank: place for place, rank in enumerate(sharding.members)}
    ring = sharding.ring
    rotating = None if ring is None else signature.inputs[ring.operand]
    for number, group in enumerate(ring.groups if ring else (sharding.members,)):
        for phase in range(max((len(phases[places[rank]]) for rank in group), default=0)):
            for rank in group:
                if sharding.phases[places[rank]][phase] is not None:
                    yield Part(Event.compute(rank, phases[places[rank]][phase], label))
            if ring and rotating and phase + 1 < len(group):
                shift = ring_shift(group, ring.pieces[number], phase)
                yield from _collectives(pool, shift, rotating.dtype.bitwidth, moved)


@lru_cache(maxsize=1 << 17)
def move_seconds(pool: Pool, source: Layout, target: Layout, bits: int) -> float:
    """Seconds of a redistribution: its collectives, side by side where they have no member in common.

    Args:
        pool: What connects the accelerators.
        source: Where the tensor is.
        target: Where it is needed.
        bits: Width of an element.
    """
    if pool.collectives.overheads:
        # What software adds depends on more than how much is moved.
        return _seconds_of_parts(move_parts(pool, source, target, bits))
    interconnect, width = interconnect_of(pool), bits / 8
    moved = amounts_of(planned(source, target, pool.distance))
    return seconds_of((own.group, interconnect.moved(own, width)) for own in moved)


def move_parts(pool: Pool, source: Layout, target: Layout, bits: int, label: str = "") -> Iterator[Part]:
    """A redistribution; see :func:`move_seconds`."""
    return _collectives(pool, communication(source, target, pool.distance), bits, label)


def _seconds_of_parts(parts: Iterable[Part]) -> float:
    return seconds_of((part.event.ranks, part.event.seconds) for part in parts)


def _collectives(pool: Pool, collectives: Iterable[Collective], bits: int, label: str) -> Iterator[Part]:
    interconnect = interconnect_of(pool)
    for own in collectives:
        yield Part(Event.collective(own.group, interconnect.collective(own, bits / 8), label), own)


def input_seconds(pool: Pool, layout: Layout, bits: int) -> float:
    """Seconds until every member has its box of a model input.

    Args:
        pool: Says where inputs start.
        layout: Who needs what.
        bits: Width of an element.
    """
    return entering_seconds(pool, _elements(input_boxes(layout)), bits)


def entering_seconds(pool: Pool, elements: tuple[tuple[int, int], ...], bits: int) -> float:
    """Seconds until every member has its box of a model input; layouts alike in how much everyone takes take as long.

    Args:
        pool: Says where inputs start.
        elements: Rank, and elements of its box.
        bits: Width of an element.
    """
    return _exchange_seconds(pool, True, elements, bits)


def output_seconds(pool: Pool, layout: Layout, bits: int) -> float:
    """Seconds until a model output is where outputs end.

    Args:
        pool: Says where outputs end.
        layout: Who holds what; no partial sums.
        bits: Width of an element.
    """
    return _exchange_seconds(pool, False, _elements(output_boxes(layout)), bits)


def input_boxes(layout: Layout) -> dict[int, Box]:
    """Per rank the box of a model input that goes there; every replica gets its own."""
    return {rank: box for rank, box in zip(layout.members, layout.boxes, strict=True) if box is not None}


def output_boxes(layout: Layout) -> dict[int, Box]:
    """Per rank the box of a model output that leaves there: of replicas, the first."""
    leaving: dict[Box, int] = {}
    for rank, box in input_boxes(layout).items():
        leaving.setdefault(box, rank)
    return {rank: box for box, rank in leaving.items()}


def _elements(boxes: Mapping[int, Box]) -> tuple[tuple[int, int], ...]:
    """Per rank the elements of its box: many layouts are alike in these."""
    return tuple((rank, volume(box)) for rank, box in boxes.items())


@lru_cache(maxsize=1 << 14)
def _exchange_seconds(pool: Pool, entering: bool, elements: tuple[tuple[int, int], ...], bits: int) -> float:
    if not elements:
        return 0.0
    pairs = [(pool.inputs_at, rank) if entering else (rank, pool.outputs_at) for rank, _ in elements]
    sizes = np.asarray([own * bits / 8 for _, own in elements])
    return float(interconnect_of(pool).exchange(pairs, sizes))
