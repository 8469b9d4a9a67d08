"""From a layout to another: the one place that chooses how tensors move."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from mars_onnx.geometry import Box, Layout, contains, volume
from mars_onnx.redistribution.axes import Order, collectives_in, inverse, layout_in, order_of, plan_in
from mars_onnx.redistribution.partial import part_tiles, plan_parts
from mars_onnx.redistribution.patterns import Boxes, Planned, collectives_of
from mars_onnx.redistribution.places import Ranks, layout_at, place_distance, plan_among, planned_among, ranks_of
from mars_onnx.redistribution.plan import Assembly, Collective, Fragment, Pattern, Plan
from mars_onnx.redistribution.sources import Distance, Holders, index_distance, sends
from mars_onnx.redistribution.stages import direct_tiles, plan_values

_NAMES = {pattern: re.sub(r"(?<!^)(?=[A-Z])", "-", pattern.value).lower() for pattern in Pattern}


@lru_cache(maxsize=1 << 16)
def redistribute(source: Layout, target: Layout, distance: Distance = index_distance) -> Plan:
    """Plan how everyone comes by the box it needs.

    The order of the collectives is one order for all: a member that runs its share of them in this order, each as one
    operation, never waits in a circle. Equal arguments give equal plans, mirror images mirrored ones
    (:mod:`mars_onnx.redistribution.axes`), and members that are as far from each other the same plans
    (:mod:`mars_onnx.redistribution.places`).

    Args:
        source: Where the tensor is; may be partial, and may hold things several times or overlapping.
        target: The box that every member needs, ``None`` for nothing. Not partial. May overlap, need not cover the
            tensor, and its members need not be those of the source.
        distance: From a source to a destination; the nearer of two equal sources is taken.

    Raises:
        ValueError: The layouts are of different shapes, name a rank twice, or ``target`` is partial or needs what
            nobody holds.
    """
    _check(source, target)
    order, ranks = order_of(source, target), ranks_of(source, target)
    plan = plan_among(_plan(*_in_order(source, target, order, ranks), place_distance(distance, ranks)), ranks)
    return plan if order is None else plan_in(plan, inverse(order))


def _in_order(source: Layout, target: Layout, order: Order | None, ranks: Ranks) -> tuple[Layout, Layout]:
    """Layouts as plans are made of them: with axes in an order, and places for ranks."""
    if order is not None:
        source, target = layout_in(source, order), layout_in(target, order)
    return layout_at(source, ranks), layout_at(target, ranks)


@lru_cache(maxsize=1 << 16)
def _plan(source: Layout, target: Layout, distance: Distance) -> Plan:
    """The plan where axes are in order."""
    held, needs = _by_rank(source, target)
    wanted = _with_elements(needs)
    own, values = _planned(source, target, distance)
    collectives = tuple(collectives_of(own))
    if values:
        assemblies = _assemblies({} if source.partial else held, collectives, wanted)
    else:
        tiles = part_tiles(source, wanted, distance)
        assemblies = [
            Assembly(
                rank,
                need,
                tuple(tuple(Fragment(box, part) for _, box in tiles[part][rank]) for part in range(len(tiles))),
            )
            for rank, need in wanted.items()
        ]
    assemblies += [Assembly(rank, need, ((),)) for rank, need in needs.items() if rank not in wanted]
    return Plan(collectives, tuple(assemblies), source.reduction, kind_of(collectives))


def communication(source: Layout, target: Layout, distance: Distance = index_distance) -> tuple[Collective, ...]:
    """The collectives of :func:`redistribute`, with its arguments and errors.

    Where only these matter, nobody has to say who assembles what of them.
    """
    collectives = collectives_of(planned(source, target, distance))
    order = order_of(source, target)
    return tuple(collectives) if order is None else collectives_in(collectives, inverse(order))


def planned(source: Layout, target: Layout, distance: Distance = index_distance) -> tuple[Planned, ...]:
    """The same before it is told as collectives: with the axes in the order in which plans are made."""
    _check(source, target)
    order, ranks = order_of(source, target), ranks_of(source, target)
    own, _ = _planned(*_in_order(source, target, order, ranks), place_distance(distance, ranks))
    return own if ranks == tuple(range(len(ranks))) else planned_among(own, ranks)


@lru_cache(maxsize=1 << 16)
def _planned(source: Layout, target: Layout, distance: Distance) -> tuple[tuple[Planned, ...], bool]:
    """What is planned where axes are in order, and whether it brings values, and not parts of them."""
    held, needs = _by_rank(source, target)
    wanted = _with_elements(needs)
    if source.partial:
        own, values = plan_parts(source, wanted, distance)
        return tuple(own), values
    return tuple(plan_values(held, wanted, distance)), True


def _with_elements(needs: Boxes) -> dict[int, Box]:
    return {rank: need for rank, need in needs.items() if volume(need)}


def direct_plan(source: Layout, target: Layout, distance: Distance = index_distance) -> Plan:
    """The plan of single messages for a tensor that is not partial: every element moves once, and no regular pattern.

    Raises:
        ValueError: As :func:`redistribute`, and if ``source`` is partial.
    """
    if source.partial:
        raise ValueError("a partial tensor has no plan of messages alone")
    _check(source, target)
    ranks = ranks_of(source, target)
    held, needs = _by_rank(layout_at(source, ranks), layout_at(target, ranks))
    collectives = tuple(sends(direct_tiles(held, needs, place_distance(distance, ranks))))
    assemblies = tuple(_assemblies(held, collectives, needs))
    return plan_among(Plan(collectives, assemblies, source.reduction, kind_of(collectives)), ranks)


def kind_of(collectives: Sequence[Collective]) -> str:
    """The name of a plan for a person, see :class:`Plan`."""
    patterns = {collective.pattern for collective in collectives}
    if not patterns:
        return "local"
    if len(patterns) > 1:
        return "mixed"
    if patterns != {Pattern.SEND_RECV}:
        return _NAMES[patterns.pop()]
    if len(collectives) > 1 and len({collective.group[0] for collective in collectives}) == 1:
        return "scatter"
    if len(collectives) > 1 and len({collective.group[1] for collective in collectives}) == 1:
        return "gather"
    return "p2p"


def _check(source: Layout, target: Layout) -> None:
    """Raise a ``ValueError`` where layouts are not what a redistribution can be between."""
    if source.shape != target.shape:
        raise ValueError(f"a tensor of shape {source.shape} cannot become one of shape {target.shape}")
    if target.partial:
        raise ValueError("a redistribution makes values: the target layout cannot be partial")
    for layout in (source, target):
        if len(set(layout.members)) != len(layout.members):
            raise ValueError(f"a rank is twice among {layout.members}")


def _by_rank(source: Layout, target: Layout) -> tuple[dict[int, Box], dict[int, Box]]:
    """What ranks hold (nothing without elements) and need."""
    held = {
        rank: box for rank, box in zip(source.members, source.boxes, strict=True) if box is not None and volume(box)
    }
    needs = {rank: box for rank, box in sorted(zip(target.members, target.boxes, strict=True)) if box is not None}
    return held, needs


def _assemblies(held: Boxes, collectives: Iterable[Collective], needs: Mapping[int, Box]) -> list[Assembly]:
    """How values that are held, or have been received, make up what is needed."""
    fragments: dict[int, list[Box]] = {rank: [box] for rank, box in held.items()}
    for collective in collectives:
        for rank, output in zip(collective.group, collective.outputs, strict=True):
            if output is not None:
                fragments.setdefault(rank, []).append(output.box)
    return [Assembly(rank, need, (_put_together(rank, need, fragments[rank]),)) for rank, need in needs.items()]


def _put_together(rank: int, need: Box, boxes: Sequence[Box]) -> tuple[Fragment, ...]:
    if any(contains(box, need) for box in boxes):
        return (Fragment(need),)
    pieces = Holders([(rank, box) for box in boxes], index_distance).tile(rank, need)
    return tuple(Fragment(box) for _, box in pieces)
