"""One plan for all redistributions that differ only in the order of axes of equal size, like the two of an image.

A plan is made with such axes in an order that depends on what is held and needed along them alone, and then told in the
order of the tensor. So a redistribution costs as much as its mirror image, and a search has to price only one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mars_onnx.geometry import Box, Layout
from mars_onnx.redistribution.plan import Assembly, Collective, Fragment, Plan

Order = tuple[int, ...]
"""Axes of a tensor, each once."""


def order_of(source: Layout, target: Layout) -> Order | None:
    """The order of the axes in which a plan is made; ``None`` if that is the order of the tensor."""
    alike: dict[int, list[int]] = {}
    for axis, size in enumerate(source.shape):
        alike.setdefault(size, []).append(axis)
    order = list(range(len(source.shape)))
    for size, axes in alike.items():
        if size > 1 and len(axes) > 1:
            along = {
                axis: [() if box is None else box[axis] for own in (source, target) for box in own.boxes]
                for axis in axes
            }
            for place, axis in zip(axes, sorted(axes, key=along.__getitem__), strict=True):
                order[place] = axis
    return None if order == sorted(order) else tuple(order)


def inverse(order: Order) -> Order:
    """What brings axes back from an order."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def layout_in(layout: Layout, order: Order) -> Layout:
    """A layout with the axes of the tensor in an order."""
    boxes = tuple(None if box is None else _box_in(box, order) for box in layout.boxes)
    return replace(layout, shape=tuple(layout.shape[axis] for axis in order), boxes=boxes)


def collectives_in(collectives: Sequence[Collective], order: Order) -> tuple[Collective, ...]:
    """Collectives of a tensor with its axes in an order."""
    place = inverse(order)
    return tuple(
        replace(
            own,
            inputs=tuple(None if given is None else _fragment_in(given, order) for given in own.inputs),
            outputs=tuple(None if taken is None else _fragment_in(taken, order) for taken in own.outputs),
            axis=None if own.axis is None else place[own.axis],
            split_axis=None if own.split_axis is None else place[own.split_axis],
        )
        for own in collectives
    )


def plan_in(plan: Plan, order: Order) -> Plan:
    """A plan of a tensor with its axes in an order."""
    return replace(
        plan,
        collectives=collectives_in(plan.collectives, order),
        assemblies=tuple(_assembly_in(own, order) for own in plan.assemblies),
    )


def _assembly_in(assembly: Assembly, order: Order) -> Assembly:
    terms = tuple(tuple(_fragment_in(own, order) for own in term) for term in assembly.terms)
    return replace(assembly, need=_box_in(assembly.need, order), terms=terms)


def _fragment_in(fragment: Fragment, order: Order) -> Fragment:
    return Fragment(_box_in(fragment.box, order), fragment.part)


def _box_in(box: Box, order: Order) -> Box:
    return tuple([box[axis] for axis in order])
