"""Regular collectives: which groups along one axis (or from one axis to another) do a step of a redistribution.

A step changes one dimension of the boxes of all members. The others stay, so its groups are members whose boxes are
equal in the others: the rows or columns of a mesh, found from the boxes alone.

The search for a plan tries many steps and takes few. So boxes are kept by dimension here (``Columns``), and a step is
numbers until somebody wants its collectives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from mars_onnx.geometry import Box, Range, contains
from mars_onnx.redistribution.groups import (
    REMEMBERED,
    Classes,
    Column,
    Extension,
    Gathering,
    Wanted,
    extensions,
    tiles,
)
from mars_onnx.redistribution.plan import Collective, Fragment, Pattern

Boxes = Mapping[int, Box]
"""By rank."""

Columns = tuple[Column, ...]
"""The boxes of all members, dimension by dimension."""


class Step(NamedTuple):
    """A step of a redistribution: collectives over disjoint groups.

    Attributes:
        axis: The dimension in which every member comes to have what it wants.
        split_axis: The dimension along which an AllToAll splits; ``None`` for the other patterns.
        before: What everyone has before.
        after: What everyone has afterwards.
        groups: Who takes part in which collective.
        received: How many elements are received by all together.
    """

    axis: int
    split_axis: int | None
    before: Columns
    after: Columns
    groups: tuple[Extension, ...] | tuple[Gathering, ...]
    received: int


class Regular(NamedTuple):
    """A step among members with these ranks."""

    step: Step
    ranks: tuple[int, ...]


Planned = Collective | Regular
"""A collective, or a step that is told as collectives when somebody wants them."""


def replaced(box: Box, axis: int, extent: Range) -> Box:
    """The box with another range along ``axis``."""
    return (*box[:axis], extent, *box[axis + 1 :])


def shift(held: Boxes, needs: Boxes) -> list[Collective] | None:
    """Shifts, if all who lack something need exactly what another one of them holds, and each gives to one."""
    movers = [rank for rank in sorted(needs) if not contains(held.get(rank), needs[rank])]
    holders: dict[Box, list[int]] = {}
    for rank in sorted(held):
        holders.setdefault(held[rank], []).append(rank)
    source_of: dict[int, int] = {}
    for rank in movers:
        sources = holders.get(needs[rank], [])
        replica = holders[held[rank]].index(rank) if rank in held else 0
        if replica >= len(sources):
            return None
        source_of[rank] = sources[replica]
    if sorted(source_of.values()) != movers:
        return None
    place = {rank: i for i, rank in enumerate(movers)}
    offsets = {(place[rank] - place[source]) % len(movers) for rank, source in source_of.items()}
    if len(offsets) == 1:
        return [_shift(tuple(movers), offsets.pop(), held)]
    return [_shift(cycle, 1, held) for cycle in _cycles({source: rank for rank, source in source_of.items()})]


def _shift(group: tuple[int, ...], offset: int, held: Boxes) -> Collective:
    inputs = tuple(Fragment(held[rank]) for rank in group)
    outputs = tuple(inputs[(i - offset) % len(group)] for i in range(len(group)))
    return Collective(Pattern.SHIFT, group, inputs, outputs, offset=offset)


def _cycles(successor: Mapping[int, int]) -> Iterable[tuple[int, ...]]:
    """The cycles of a permutation, each from its lowest member on."""
    done: set[int] = set()
    for first in sorted(successor):
        cycle: list[int] = []
        rank = first
        while rank not in done:
            done.add(rank)
            cycle.append(rank)
            rank = successor[rank]
        if cycle:
            yield tuple(cycle)


@lru_cache(maxsize=REMEMBERED)
def classes(columns: Columns, axis: int) -> Classes:
    """Per place a number that is the same for members whose boxes are equal in all other dimensions."""
    numbers: dict[tuple[Range, ...], int] = {}
    others = zip(*columns[:axis], *columns[axis + 1 :], strict=True)
    found = tuple([numbers.setdefault(other, len(numbers)) for other in others])
    return found or (0,) * len(columns[axis])


def spans(alike: Classes, column: Column) -> Column:
    """Per place all that members with otherwise equal boxes have together.

    Where a mesh axis that cuts one dimension comes to cut another, while a second mesh axis takes over the first, there
    is a moment when nothing cuts that dimension. This is what to want for the step before.
    """
    found: dict[int, Range] = {}
    for number, (start, stop) in zip(alike, column, strict=True):
        low, high = found.get(number, (start, stop))
        found[number] = (start if start < low else low, stop if stop > high else high)
    return tuple([found[number] for number in alike])


def extend(axis: int, columns: Columns, alike: Classes, wanted: Wanted, after: Column) -> Step | None:
    """Bring every member the range along ``axis`` that it wants, all else as it is: AllGather, HaloExchange or nothing.

    Args:
        axis: The dimension.
        columns: What everyone has.
        alike: The :func:`classes` of the columns.
        wanted: What those who need something need of this dimension.
        after: What everyone has of it then.

    Returns:
        ``None`` if the members are not in regular groups.
    """
    groups = extensions(alike, columns[axis], wanted)
    if groups is None:
        return None
    received = sum([group.moved * width(columns, group.places[0], axis) for group in groups])
    return Step(axis, None, columns, _with(columns, axis, after), groups, received)


def exchange(
    axis: int, split_axis: int, columns: Columns, groups: tuple[Gathering, ...], after: Column, split: Wanted
) -> Step | None:
    """Gather along ``axis`` and at once split along ``split_axis``: AllToAll in all groups.

    What the members get tiles what they want along ``split_axis``; where that overlaps (halos), is equal or leaves
    gaps, the ranges there still differ from the wanted ones afterwards, and another step has to follow.

    Args:
        axis: The dimension that is gathered.
        split_axis: The one that is split.
        columns: What everyone has.
        groups: Who gathers what along ``axis`` (:func:`~mars_onnx.redistribution.groups.gatherings`).
        after: What everyone has along it then.
        split: What they need along ``split_axis``.

    Returns:
        ``None`` if somebody would get nothing.
    """
    split_column = list(columns[split_axis])
    received = 0
    for group in groups:
        first = group.places[0]
        made = tiles(columns[split_axis][first], tuple([split[place] for place in group.takers]))
        if made is None:
            return None
        moved = 0
        for place, lack, tile in zip(group.takers, group.lacks, made, strict=True):
            split_column[place] = tile
            moved += lack * (tile[1] - tile[0])
        received += moved * width(columns, first, axis, split_axis)
    changed = _with(_with(columns, axis, after), split_axis, tuple(split_column))
    return Step(axis, split_axis, columns, changed, groups, received)


def collectives_of(planned: Iterable[Planned]) -> list[Collective]:
    """The collectives of what is planned, in its order."""
    made: list[Collective] = []
    for own in planned:
        made += [own] if isinstance(own, Collective) else _collectives_of_step(*own)
    return made


def _collectives_of_step(step: Step, ranks: Sequence[int]) -> list[Collective]:
    before, axis = list(zip(*step.before, strict=True)), step.axis
    made: list[Collective] = []
    for group in step.groups:
        members = tuple(ranks[place] for place in group.places)
        boxes = [before[place] for place in group.places]
        if isinstance(group, Extension):
            inputs = tuple(Fragment(replaced(b, axis, piece)) for b, piece in zip(boxes, group.pieces, strict=True))
            outputs = tuple(Fragment(replaced(b, axis, range_)) for b, range_ in zip(boxes, group.ranges, strict=True))
            made.append(Collective(group.pattern, members, inputs, outputs, axis=axis))
            continue
        split = step.split_axis
        assert split is not None
        pieces = step.after[split]
        region = (pieces[group.takers[0]][0], pieces[group.takers[-1]][1])
        cut = replaced(boxes[0], split, region)
        inputs = tuple(Fragment(replaced(cut, axis, piece)) for piece in group.pieces)
        gathered = replaced(boxes[0], axis, group.whole)
        results = tuple(
            Fragment(replaced(gathered, split, pieces[place])) if place in group.takers else None
            for place in group.places
        )
        made.append(Collective(Pattern.ALL_TO_ALL, members, inputs, results, axis=axis, split_axis=split))
    return made


def _with(columns: Columns, axis: int, column: Column) -> Columns:
    return (*columns[:axis], column, *columns[axis + 1 :])


def width(columns: Columns, place: int, *without: int) -> int:
    """Number of elements of a box per unit of length along the dimensions ``without``."""
    result = 1
    for axis, column in enumerate(columns):
        if axis not in without:
            start, stop = column[place]
            result *= stop - start
    return result
