"""Into how many pieces strategies cut axes: a grid, every cell of which is the share of some member.

How long the longest share takes depends on the grid alone where members are alike, and so does what a rule objects to.
There are far fewer grids than patterns, which also say who has which cell; and most are those of several sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from mars_onnx.rules.axes import Axis, IntArray
from mars_onnx.search.exact.strategies.cuts import (
    BoolArray,
    Cuts,
    Levels,
    RangeArrays,
    factors_of,
    long_enough,
    pieces_on,
    worthwhile,
)
from mars_onnx.search.exact.strategies.pieces import place_of


@dataclass(frozen=True, eq=False)
class Grids:
    """All grids on sets of some levels, of axes by their names.

    Attributes:
        number: Which grid cuts each axis into so many pieces.
        ways: The same as an array, ``[axes, grids]``.
        starts: The first cell of each grid.
        grid: Per cell its grid.
        places: Per cell the piece that it is of each axis, ``[axes, cells]``.
        listed: The grids on sets of each of the levels, one after the other.
        level: Per one of these, the number of the levels.
    """

    number: dict[tuple[int, ...], int]
    ways: IntArray
    starts: IntArray
    grid: IntArray
    places: IntArray
    listed: IntArray
    level: IntArray

    def of(self, cuts: Cuts) -> IntArray:
        """The grid of each pattern."""
        return np.asarray([self.number[own] for own in _columns(cuts.ways)], np.int64)

    def cells(self, cuts: Cuts) -> IntArray:
        """The cell of every member, ``[patterns, members]``; one after the last where there is nothing to do."""
        place = np.zeros(cuts.idle.shape, np.int64)
        for ways, pieces in zip(cuts.ways[..., None], cuts.places, strict=True):
            place = place * ways + (pieces - place_of(ways, np.asarray(0)))
        cells: IntArray = np.where(cuts.idle, len(self.grid), self.starts[self.of(cuts)][:, None] + place)
        return cells


@dataclass(frozen=True, eq=False)
class Cells:
    """What the cells of grids are where axes have a size.

    Attributes:
        grids: All of them, whether it pays to cut these axes like that or not.
        fine: Per grid whether it may.
        busy: Per cell whether anything is to be done there, in a grid that may pay; and one more where nothing is.
        ranges: Per axis the ranges of the cells where there is.
    """

    grids: Grids
    fine: BoolArray
    busy: BoolArray
    ranges: RangeArrays


@lru_cache(maxsize=2048)
def cells_of(axes: tuple[Axis, ...], family: tuple[Levels, ...]) -> Cells:
    """The grids of layers with these axes on sets of some levels."""
    names = tuple(axis.name for axis in axes)
    grids = _grids(names, tuple((levels, long_enough(axes, prod(levels))) for levels in family))
    pieces = pieces_on(axes, max(map(prod, family)))
    fine = worthwhile(axes, grids.ways)
    busy = fine[grids.grid]
    for own, places in zip(pieces, grids.places, strict=True):
        busy &= ~own.empty.take(places)
    ranges = {
        name: (own.low.take(places), own.high.take(places))
        for name, own, places in zip(names, pieces, grids.places[:, busy], strict=True)
    }
    return Cells(grids, fine, np.append(busy, False), ranges)


@lru_cache(maxsize=512)
def _grids(names: tuple[str, ...], family: tuple[tuple[Levels, tuple[bool, ...]], ...]) -> Grids:
    """Those of axes by their names, of which on sets of some levels only the long ones are cut."""
    every = [
        {tuple(map(dict(own).get, names, [1] * len(names))) for own in ((), *factors_of(names, long, levels))}
        for levels, long in family
    ]
    number = {own: place for place, own in enumerate(sorted(set().union(*every)))}
    ways = np.asarray(list(number), np.int64).reshape(len(number), len(names)).T
    counts = ways.prod(axis=0)
    starts = np.cumsum(counts) - counts
    grid = np.repeat(np.arange(len(number)), counts)
    left = np.arange(len(grid)) - starts[grid]
    digits = np.zeros((len(names), len(grid)), np.int64)
    for place in reversed(range(len(names))):
        left, digits[place] = np.divmod(left, ways[place, grid])
    return Grids(
        number,
        ways,
        starts,
        grid,
        place_of(ways[:, grid], digits),
        np.asarray([number[own] for each in every for own in sorted(each)], np.int64),
        np.repeat(np.arange(len(every)), [len(each) for each in every]),
    )


def _columns(ways: IntArray) -> list[tuple[int, ...]]:
    return list(map(tuple, ways.T.tolist()))
