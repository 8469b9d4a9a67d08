"""The steps of which the lockstep cost is made: a layer, a redistribution, a transfer of a model input or output.

A step starts when all sets concerned are free and ends for all of them together; what happens inside is a timeline
without overlap. So the cost of a step depends on nothing but its own arguments, and on one set costs add up.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from mars_onnx.cost.interconnect import Interconnect
from mars_onnx.cost.shares import phase_seconds
from mars_onnx.cost.timeline import Event, schedule
from mars_onnx.geometry import Box, Layout, volume
from mars_onnx.pool.topology import Pool
from mars_onnx.redistribution.planner import redistribute
from mars_onnx.rules.base import Signature
from mars_onnx.sharding.lowering import Sharding, lower, ring_shift
from mars_onnx.sharding.strategy import Strategy


@lru_cache(maxsize=16)
def interconnect_of(pool: Pool) -> Interconnect:
    """The interconnect of a pool, with all that it has found out so far."""
    return Interconnect(pool)


@lru_cache(maxsize=1 << 17)
def layer_seconds(
    pool: Pool, signature: Signature, strategy: Strategy, members: tuple[int, ...], designs: tuple[str, ...]
) -> float:
    """Seconds of a layer: the longest share, or the phases of a ring and the shifts between them.

    Args:
        pool: Where the accelerators are described.
        signature: Of the layer.
        strategy: How it is cut.
        members: Its set.
        designs: Per member what it is configured as.
    """
    sharding = lower(signature, strategy, members)
    phases = phase_seconds(pool, signature, sharding, designs)
    if sharding.ring is None:
        return max((sum(own) for own in phases), default=0.0)
    return schedule(ring_events(pool, signature, sharding, phases)).latency_s


def ring_events(
    pool: Pool, signature: Signature, sharding: Sharding, phases: tuple[tuple[float, ...], ...]
) -> list[Event]:
    """Compute of every phase of every ring, and the shifts between phases, in the order of emission."""
    ring = sharding.ring
    kind = signature.inputs[ring.operand] if ring else None
    if ring is None or kind is None:
        raise ValueError("a layer without a ring has no ring events")
    places = {rank: place for place, rank in enumerate(sharding.members)}
    interconnect = interconnect_of(pool)
    events: list[Event] = []
    for group, pieces in zip(ring.groups, ring.pieces, strict=True):
        for phase in range(max(len(phases[places[rank]]) for rank in group)):
            events += [Event.compute(rank, phases[places[rank]][phase]) for rank in group]
            if phase + 1 < len(group):
                events += [
                    Event.collective(moved.group, interconnect.collective(moved, kind.dtype.bitwidth / 8))
                    for moved in ring_shift(group, pieces, phase)
                ]
    return events


@lru_cache(maxsize=1 << 17)
def move_seconds(pool: Pool, source: Layout, target: Layout, bits: int) -> float:
    """Seconds of a redistribution: its collectives, side by side where they have no member in common.

    Args:
        pool: What connects the accelerators.
        source: Where the tensor is.
        target: Where it is needed.
        bits: Width of an element.
    """
    interconnect = interconnect_of(pool)
    plan = redistribute(source, target, pool.distance)
    events = [Event.collective(c.group, interconnect.collective(c, bits / 8)) for c in plan.collectives]
    return schedule(events).latency_s


def input_seconds(pool: Pool, layout: Layout, bits: int) -> float:
    """Seconds until every member has its box of a model input."""
    boxes = {rank: box for rank, box in zip(layout.members, layout.boxes, strict=True) if box is not None}
    return _exchange_seconds(pool, tuple((pool.inputs_at, rank) for rank in boxes), tuple(boxes.values()), bits)


def output_seconds(pool: Pool, layout: Layout, bits: int) -> float:
    """Seconds until a model output is where outputs end; of replicas of a box, the first leaves."""
    boxes: dict[Box, int] = {}
    for rank, box in zip(layout.members, layout.boxes, strict=True):
        if box is not None:
            boxes.setdefault(box, rank)
    return _exchange_seconds(pool, tuple((rank, pool.outputs_at) for rank in boxes.values()), tuple(boxes), bits)


@lru_cache(maxsize=1 << 14)
def _exchange_seconds(pool: Pool, pairs: tuple[tuple[int, int], ...], boxes: tuple[Box, ...], bits: int) -> float:
    if not pairs:
        return 0.0
    return float(interconnect_of(pool).exchange(pairs, np.asarray([volume(box) * bits / 8 for box in boxes])))
