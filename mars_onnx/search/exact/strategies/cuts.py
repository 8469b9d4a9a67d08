"""The strategies that exact search looks at, in a canonical order of digits.

A set has *levels*: ``(2, 4)`` are two clusters of four. A split of a level deals its digit out to iteration axes, or
to ``*`` (replicas); to several at once where it has factors. Inside a level only one order of axes is looked at: the
rule's, with replicas last. Between levels the order is that of the topology.

Which strategies there are, and who gets which range of an axis, depends on the axes alone. So it is worked out once for
all layers whose axes are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import combinations, product
from math import prod

import numpy as np
import numpy.typing as npt

from mars_onnx.rules.axes import Axis, IntArray
from mars_onnx.rules.base import Signature
from mars_onnx.rules.registry import rule_for
from mars_onnx.rules.shares import cut_equally
from mars_onnx.search.exact.strategies.pieces import NO_PIECE, Pieces, pieces_of, place_of
from mars_onnx.sharding.strategy import REPLICAS, SINGLE, WHOLE, Placement, Resolution, Split, Strategy

Levels = tuple[int, ...]
Factors = tuple[tuple[str, int], ...]
RangeArrays = dict[str, tuple[IntArray, IntArray]]
BoolArray = npt.NDArray[np.bool_]

#: A set of more members is not cut along more than this many axes at one level.
_MOST_AXES = 3
#: Larger sets cut no reduction that is shorter than they have members: there are enough other axes.
_SMALL_SET = 8
#: Splitting a reduction into pieces shorter than this leaves more to add up than to multiply.
_SHORTEST_REDUCTION = 2


@dataclass(frozen=True, eq=False)
class Cuts:
    """Every strategy for layers with some axes on a set, without shared shards. A *pattern* is a way to cut.

    Attributes:
        axes: Of the layers.
        pieces: Per axis what it can be cut into.
        factors: Per pattern the axes that it splits, outermost first, and into how many pieces; none for ``whole``
            and ``single``.
        single: Whether a pattern is ``single``.
        ways: Into how many pieces each axis is cut, ``[axes, patterns]``.
        places: Which of its pieces every member has, ``[axes, patterns, members]``.
    """

    axes: tuple[Axis, ...]
    pieces: tuple[Pieces, ...]
    factors: tuple[Factors, ...]
    single: BoolArray
    ways: IntArray
    places: IntArray

    @cached_property
    def ranges(self) -> RangeArrays:
        """Per axis what every member does of it, two arrays ``[patterns, members]``."""
        every = zip(self.axes, self.pieces, self.places, strict=True)
        return {axis.name: (own.low.take(places), own.high.take(places)) for axis, own, places in every}

    @cached_property
    def idle(self) -> BoolArray:
        """Who does nothing, ``[patterns, members]``."""
        idle: BoolArray = self.single[:, None] & (np.arange(self.places.shape[2]) > 0)
        for own, places in zip(self.pieces, self.places, strict=True):
            idle |= own.empty.take(places)
        return idle

    @cached_property
    def _resolved(self) -> tuple[IntArray, IntArray]:
        """Per strategy its pattern and how partial sums are resolved: every pattern with every way to do that."""
        every = np.zeros((len(self.axes) + 1, len(self.factors)), np.bool_)
        every[0] = True
        parts = np.ones(len(self.factors), np.int64)
        for axis, ways in zip(self.axes, self.ways, strict=True):
            parts = parts * ways if axis.reduction else parts
        for number, axis in enumerate(self.axes):
            if not axis.reduction and axis.size >= 2:
                granules = axis.size // axis.granularity
                every[number + 1] = (parts > 1) & (granules >= parts * self.ways[number])
        pattern, way = np.nonzero(every.T)
        return pattern, way - 1

    @property
    def pattern(self) -> IntArray:
        """Per strategy its pattern."""
        return self._resolved[0]

    @property
    def scatter(self) -> IntArray:
        """Per strategy the number of the axis along which partial sums are scattered, or -1."""
        return self._resolved[1]

    @cached_property
    def _partial(self) -> tuple[IntArray, IntArray]:
        """Per pattern, in how many partial sums it leaves outputs, and per member which of these it has."""
        parts, part = np.ones(len(self.factors), np.int64), np.zeros(self.places.shape[1:], np.int64)
        for axis, own, ways, places in zip(self.axes, self.pieces, self.ways, self.places, strict=True):
            if axis.reduction:
                count = own.count.take(ways)
                parts, part = parts * count, part * count[:, None] + own.rank.take(places)
        part[self.idle] = 0
        return parts, part

    @property
    def parts(self) -> IntArray:
        """Per strategy, in how many partial sums it leaves its outputs."""
        return self._partial[0][self.pattern]

    @property
    def part(self) -> IntArray:
        """Per strategy and member, which of them it has."""
        return self._partial[1][self.pattern]

    @cached_property
    def scattering(self) -> IntArray:
        """The strategies whose partial sums are scattered."""
        rows: IntArray = np.flatnonzero(self.scatter >= 0)
        return rows

    @cached_property
    def kept(self) -> RangeArrays:
        """Per axis what every member keeps of it after that, two arrays ``[strategies that scatter, members]``."""
        pattern, along = self.pattern[self.scattering], self.scatter[self.scattering]
        ranges = self.ranges.items()
        kept = {name: (low.take(pattern, axis=0), high.take(pattern, axis=0)) for name, (low, high) in ranges}
        parts, part = (of_patterns.take(pattern, axis=0) for of_patterns in self._partial)
        for number, axis in enumerate(self.axes):
            rows = np.flatnonzero((along == number) & (parts > 1))
            if len(rows):
                low, high = kept[axis.name]
                first, last = cut_equally(axis, high[rows] - low[rows], parts[rows, None], part[rows])
                low[rows], high[rows] = low[rows] + first, low[rows] + last
        return kept

    def strategy(self, row: int) -> Strategy:
        """A strategy as a mapping says it."""
        pattern = int(self.pattern[row])
        if self.single[pattern]:
            return SINGLE
        if not self.factors[pattern]:
            return WHOLE
        splits = tuple(Split(axis, (1,) * count) for axis, count in self.factors[pattern])
        if self.scatter[row] < 0:
            return Strategy(Placement.SHARDED, splits)
        scattered = self.axes[self.scatter[row]].name
        return Strategy(Placement.SHARDED, splits, None, Resolution.REDUCE_SCATTER, scattered)

    def only(self, sound: BoolArray) -> Cuts:
        """Those of some patterns."""
        if sound.all():
            return self
        return Cuts(
            self.axes,
            self.pieces,
            tuple(own for own, fine in zip(self.factors, sound.tolist(), strict=True) if fine),
            self.single[sound],
            self.ways[:, sound],
            self.places[:, sound],
        )


def strategies(signature: Signature, levels: Levels) -> tuple[Strategy, ...]:
    """All strategies for a layer on a set with these levels, without shared shards; a rule may refuse some of them.

    Args:
        signature: Of the layer.
        levels: Sizes of the set's levels, outermost first; their product is the size of the set.
    """
    found = cuts(rule_for(signature).axes, levels)
    return tuple(found.strategy(row) for row in range(len(found.pattern)))


@lru_cache(maxsize=8192)
def cuts(axes: tuple[Axis, ...], levels: Levels) -> Cuts:
    """All strategies for layers with these axes on a set with these levels."""
    members = prod(levels)
    names = tuple(axis.name for axis in axes)
    known = _patterns(names, long_enough(axes, members), levels)
    every = Cuts(axes, pieces_on(axes, members), known.factors, known.single, known.ways, known.places)
    return every.only(worthwhile(axes, known.ways))


def pieces_on(axes: tuple[Axis, ...], members: int) -> tuple[Pieces, ...]:
    """Per axis what it can be cut into on sets of at most so many members."""
    return tuple(pieces_of(axis, max(members, _SMALL_SET)) for axis in axes)


def long_enough(axes: tuple[Axis, ...], members: int) -> tuple[bool, ...]:
    """Per axis whether a set of so many members cuts it at all."""
    least = members if members > _SMALL_SET else 2
    return tuple(axis.size >= (least if axis.reduction else 2) for axis in axes)


def worthwhile(axes: tuple[Axis, ...], ways: IntArray) -> BoolArray:
    """Whether it can pay to cut axes into so many pieces, ``[axes, any number of ways to cut]``."""
    # More ways than iterations leaves members idle; a few may be, half of them or more never pays.
    size = np.asarray([axis.size for axis in axes], np.int64)[:, None]
    shortest = np.asarray([_SHORTEST_REDUCTION if axis.reduction else 1 for axis in axes], np.int64)[:, None]
    fine: BoolArray = ((ways == 1) | (size * 2 > ways * shortest)).all(axis=0)
    return fine


@dataclass(frozen=True, eq=False)
class _Patterns:
    """Ways to deal the digits of all levels out to axes, whatever their sizes. Attributes as in :class:`Cuts`."""

    factors: tuple[Factors, ...]
    single: BoolArray
    ways: IntArray
    places: IntArray


@lru_cache(maxsize=512)
def _patterns(axes: tuple[str, ...], long: tuple[bool, ...], levels: Levels) -> _Patterns:
    """Of axes by their names, of which those that are not long are not cut at all."""
    members = prod(levels)
    several = ((), ()) if members > 1 else ((),)
    factors = (*several, *factors_of(axes, long, levels))
    ways = np.ones((len(axes), len(factors)), np.int64)
    digits = np.zeros((*ways.shape, members), np.int64)
    number = {name: place for place, name in enumerate(axes)}
    cut: list[tuple[int, int, int, int]] = []
    for row, own in enumerate(factors):
        neighbours = members
        for axis, count in own:
            # As many neighbours have the same piece.
            neighbours //= count
            if axis != REPLICAS:
                cut.append((number[axis], row, count, neighbours))
    if cut:
        along, rows, counts, runs = np.asarray(cut, np.int64).T
        ways[along, rows] = counts
        digits[along, rows] = np.arange(members) // runs[:, None] % counts[:, None]
    places = place_of(ways[..., None], digits)
    single = np.zeros(len(factors), np.bool_)
    if members > 1:
        single[1] = True
        places[:, 1, 1:] = NO_PIECE
    return _Patterns(factors, single, ways, places)


@lru_cache(maxsize=512)
def factors_of(axes: tuple[str, ...], long: tuple[bool, ...], levels: Levels) -> tuple[Factors, ...]:
    """The factors of all patterns that cut axes, of which only the long ones are; see :func:`long_enough`."""
    names = tuple(name for name, own in zip(axes, long, strict=True) if own)
    found: dict[Factors, None] = {}
    for per_level in product(*(_one_level((*names, REPLICAS), size) for size in levels)):
        joined = _joined(per_level)
        if joined is not None and any(axis != REPLICAS for axis, _ in joined):
            found[joined[:-1] if joined[-1][0] == REPLICAS else joined] = None
    return tuple(found)


@cache
def _one_level(names: tuple[str, ...], size: int) -> tuple[Factors, ...]:
    """Ways to deal one digit out: ordered factors over axes in canonical order."""
    if size == 1:
        return ((),)
    found: list[Factors] = []
    for count in range(1, min(_MOST_AXES, len(names)) + 1):
        for factors in _factorisations(size, count):
            found += [tuple(zip(axes, factors, strict=True)) for axes in combinations(names, count)]
    return tuple(found)


@cache
def _factorisations(size: int, count: int) -> tuple[tuple[int, ...], ...]:
    """Ordered factors, each 2 or more, with this product."""
    if count == 1:
        return ((size,),)
    return tuple(
        (first, *rest)
        for first in range(2, size // 2 + 1)
        if size % first == 0
        for rest in _factorisations(size // first, count - 1)
    )


def _joined(per_level: Sequence[Factors]) -> Factors | None:
    """Levels one after the other; an axis of two neighbouring levels is one split, elsewhere it cannot be twice."""
    joined: list[tuple[str, int]] = []
    for factors in per_level:
        own = list(factors)
        last = joined[-1][0] if joined else None
        if last is not None and any(axis == last for axis, _ in own):
            first = next(pair for pair in own if pair[0] == last)
            own.remove(first)
            joined[-1] = (last, joined[-1][1] * first[1])
        joined += own
    names = [axis for axis, _ in joined]
    return tuple(joined) if len(set(names)) == len(names) else None
