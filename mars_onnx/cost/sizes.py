"""How much the members of a collective give each other, in elements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from math import gcd
from typing import NamedTuple

from mars_onnx.geometry import Range, volume
from mars_onnx.redistribution.groups import Column, Extension, Gathering, length, overlap
from mars_onnx.redistribution.patterns import Planned, Step, width
from mars_onnx.redistribution.plan import Collective, Fragment, Pattern

Sizes = tuple[int, ...]

#: Proportions that are remembered. For a set of eight they take about a kilobyte each.
_REMEMBERED = 1 << 14


class Amounts(NamedTuple):
    """All that the time of a collective on a group depends on, but for what software adds.

    Attributes:
        pattern: Which operator.
        group: Ranks that take part.
        offset: Of Shift.
        proportions: The sizes (:func:`sizes_of`), without their greatest common divisor.
        unit: That divisor; 0 where nothing is moved.
    """

    pattern: Pattern
    group: tuple[int, ...]
    offset: int
    proportions: Sizes
    unit: int


def _elements(fragments: Iterable[Fragment | None]) -> Sizes:
    return tuple([volume(fragment.box) if fragment else 0 for fragment in fragments])


def assembled(collective: Collective) -> int:
    """Elements of a gathered result, where its pieces do not follow one another in memory."""
    if collective.pattern is not Pattern.ALL_GATHER or collective.axis is None:
        return 0
    boxes = [taken.box for taken in collective.outputs if taken]
    # A piece is one stretch if there is one of everything before the axis of the pieces.
    apart = (box for box in boxes if volume(box[: collective.axis]) > 1)
    return max(map(volume, apart), default=0)


def amounts_of(planned: Iterable[Planned]) -> Iterator[Amounts]:
    """What the collectives of a plan move. Steps need not be told as collectives for that."""
    for own in planned:
        if isinstance(own, Collective):
            yield Amounts(own.pattern, own.group, own.offset, *_proportions(sizes_of(own)))
            continue
        step, ranks = own
        for group in step.groups:
            members = tuple([ranks[place] for place in group.places])
            if isinstance(group, Extension):
                proportions, unit = _extended(group.pattern, group.pieces, group.ranges)
                unit *= width(step.before, group.places[0], step.axis)
                yield Amounts(group.pattern, members, 0, proportions, unit)
            else:
                yield Amounts(Pattern.ALL_TO_ALL, members, 0, *_exchanged(step, group))


@lru_cache(maxsize=_REMEMBERED)
def _proportions(sizes: Sizes) -> tuple[Sizes, int]:
    """Sizes without their greatest common divisor, and that."""
    unit = gcd(*sizes)
    return (tuple([size // unit for size in sizes]) if unit else sizes), unit


@lru_cache(maxsize=_REMEMBERED)
def _extended(pattern: Pattern, pieces: Column, ranges: Column) -> tuple[Sizes, int]:
    """The same of a group in which members come to have ranges, where a place along the axis is of one element."""
    if pattern is Pattern.ALL_GATHER:
        return _proportions(tuple(map(length, pieces)))
    moved = [overlap(piece, taken) if i != j else 0 for i, piece in enumerate(pieces) for j, taken in enumerate(ranges)]
    return _proportions(tuple(moved))


def _exchanged(step: Step, group: Gathering) -> tuple[Sizes, int]:
    """The same of a group that gathers along an axis and splits along another one."""
    assert step.split_axis is not None
    tiles = step.after[step.split_axis]
    taken = [length(tiles[place]) if place in group.takers else 0 for place in group.places]
    proportions, unit = _crossed(tuple(map(length, group.pieces)), tuple(taken))
    return proportions, unit * width(step.before, group.places[0], step.axis, step.split_axis)


@lru_cache(maxsize=_REMEMBERED)
def _crossed(given: Sizes, taken: Sizes) -> tuple[Sizes, int]:
    """Of members that each give so much of what each of the others takes."""
    moved = [one * other if i != j else 0 for i, one in enumerate(given) for j, other in enumerate(taken)]
    return _proportions(tuple(moved))


def sizes_of(collective: Collective) -> Sizes:
    """Elements of every member's piece, or of every message that takes place, from every member to every other."""
    inputs, outputs = collective.inputs, collective.outputs
    match collective.pattern:
        case Pattern.REDUCE_SCATTER:
            return _elements(outputs)
        case Pattern.ALL_TO_ALL | Pattern.HALO_EXCHANGE:
            # Boxes differ along one axis, or two, and are equal in all others.
            axes = [axis for axis in (collective.axis, collective.split_axis) if axis is not None]
            first = next(given.box for given in inputs if given)
            apart = volume(tuple(extent for axis, extent in enumerate(first) if axis not in axes))
            given_ranges = [[given.box[axis] for axis in axes] if given else None for given in inputs]
            taken_ranges = [[taken.box[axis] for axis in axes] if taken else None for taken in outputs]
            return tuple(
                [
                    apart * _common(given, taken) if given and taken and i != j else 0
                    for i, given in enumerate(given_ranges)
                    for j, taken in enumerate(taken_ranges)
                ]
            )
        case _:
            return _elements(inputs)


def _common(given: Sequence[Range], taken: Sequence[Range]) -> int:
    """Number of places that two boxes have in common."""
    result = 1
    for one, other in zip(given, taken, strict=True):
        result *= overlap(one, other)
    return result
