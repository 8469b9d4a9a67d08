"""The strategies that exact search looks at, in a canonical order of digits.

A set has *levels*: ``(2, 4)`` are two clusters of four. A split of a level deals its digit out to iteration axes, or
to ``*`` (replicas); to several at once where it has factors. Inside a level only one order of axes is looked at: the
rule's, with replicas last. Between levels the order is that of the topology.

Which strategies there are, and who gets which range of an axis, depends on the axes alone. So it is worked out once for
all layers whose axes are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from itertools import combinations, product
from math import prod

import numpy as np
import numpy.typing as npt

from mars_onnx.rules.axes import Axis, IntArray
from mars_onnx.rules.base import Signature
from mars_onnx.rules.registry import rule_for
from mars_onnx.rules.shares import cut
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
        factors: Per pattern the axes that it splits, outermost first, and into how many pieces; none for ``whole``
            and ``single``.
        single: Whether a pattern is ``single``.
        origin: Per pattern its number before some were left out.
        ranges: Per axis what every member does of it, two arrays ``[patterns, members]``.
        idle: Who does nothing, ``[patterns, members]``.
        pattern: Per strategy its pattern.
        scatter: Per strategy the number of the axis along which partial sums are scattered, or -1.
        parts: Per strategy, in how many partial sums it leaves its outputs.
        part: Per strategy and member, which of them it has.
    """

    axes: tuple[Axis, ...]
    factors: tuple[Factors, ...]
    single: BoolArray
    origin: IntArray
    ranges: RangeArrays
    idle: BoolArray
    pattern: IntArray
    scatter: IntArray
    parts: IntArray
    part: IntArray

    @cached_property
    def scattering(self) -> IntArray:
        """The strategies whose partial sums are scattered."""
        rows: IntArray = np.flatnonzero(self.scatter >= 0)
        return rows

    @cached_property
    def kept(self) -> RangeArrays:
        """Per axis what every member keeps of it after that, two arrays ``[strategies that scatter, members]``."""
        pattern, along = self.pattern[self.scattering], self.scatter[self.scattering]
        kept = {name: (low[pattern], high[pattern]) for name, (low, high) in self.ranges.items()}
        parts, part = self.parts[self.scattering], self.part[self.scattering]
        for number, axis in enumerate(self.axes):
            rows = np.flatnonzero((along == number) & (parts > 1))
            if len(rows):
                low, high = kept[axis.name]
                low[rows], high[rows] = _scattered(axis, low[rows], high[rows], parts[rows], part[rows])
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
        number = np.cumsum(sound) - 1
        rows = np.flatnonzero(sound[self.pattern])
        return Cuts(
            self.axes,
            tuple(own for own, fine in zip(self.factors, sound.tolist(), strict=True) if fine),
            self.single[sound],
            self.origin[sound],
            {name: (low[sound], high[sound]) for name, (low, high) in self.ranges.items()},
            self.idle[sound],
            number[self.pattern[rows]],
            self.scatter[rows],
            self.parts[rows],
            self.part[rows],
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
    least = members if members > _SMALL_SET else 2
    names = tuple(axis.name for axis in axes if axis.size >= (least if axis.reduction else 2))
    patterns = _patterns(names, levels)
    ways = np.ones((len(patterns.factors), len(axes)), np.int64)
    digits = np.zeros((len(patterns.factors), members, len(axes)), np.int64)
    place = [number for number, axis in enumerate(axes) if axis.name in names]
    ways[:, place], digits[..., place] = patterns.ways, patterns.digits
    # More ways than iterations leaves members idle; a few may be, half of them or more never pays.
    size = np.asarray([axis.size for axis in axes], np.int64)
    shortest = np.asarray([_SHORTEST_REDUCTION if axis.reduction else 1 for axis in axes], np.int64)
    fine = ((ways == 1) | (size * 2 > ways * shortest)).all(axis=1)
    factors = tuple(own for own, good in zip(patterns.factors, fine.tolist(), strict=True) if good)
    ways, digits = ways[fine], digits[fine]
    single = np.arange(len(factors)) == (1 if members > 1 else -1)
    first_only = np.broadcast_to(single[:, None] & (np.arange(members) > 0), digits.shape[:2])
    idle = first_only.copy()
    ranges: RangeArrays = {}
    parts, part = np.ones(len(ways), np.int64), np.zeros(digits.shape[:2], np.int64)
    for number, axis in enumerate(axes):
        if axis.name in names:
            pieces = _pieces(axis, max(members, _SMALL_SET))
            low, high, count, rank = pieces.of(ways[:, number], digits[..., number])
            if axis.reduction:
                parts, part = parts * count, part * count[:, None] + rank
        else:
            low, high = np.zeros(part.shape, np.int64), np.full(part.shape, axis.size, np.int64)
        low[first_only] = high[first_only] = 0
        ranges[axis.name] = low, high
        idle |= low >= high
    part[idle] = 0
    pattern, scatter = _resolved(axes, ways)
    everything = np.arange(len(factors))
    return Cuts(axes, factors, single, everything, ranges, idle, pattern, scatter, parts[pattern], part[pattern])


@dataclass(frozen=True, eq=False)
class _Pieces:
    """An axis, cut into any number of pieces up to some: piece ``d`` of ``n`` is at place ``n (n - 1) / 2 + d``.

    Attributes:
        low: Where each starts.
        high: Where each stops.
        rank: How many before it are not empty.
        count: By the number of pieces, how many of them are not empty; at least 1.
    """

    low: IntArray
    high: IntArray
    rank: IntArray
    count: IntArray

    def of(self, ways: IntArray, digits: IntArray) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        """Starts and stops of pieces; per pattern how many are not empty, and which of these each is."""
        place = (ways * (ways - 1) // 2)[:, None] + digits
        return self.low.take(place), self.high.take(place), self.count.take(ways), self.rank.take(place)


@lru_cache(maxsize=8192)
def _pieces(axis: Axis, most: int) -> _Pieces:
    every = [np.asarray(cut(axis, (1,) * number), np.int64) for number in range(1, most + 1)]
    some = [pieces[:, 0] < pieces[:, 1] for pieces in every]
    low, high = np.concatenate(every).T
    rank = np.concatenate([np.cumsum(own) - own for own in some])
    return _Pieces(low, high, rank, np.asarray([1, *(max(1, int(own.sum())) for own in some)]))


def _resolved(axes: tuple[Axis, ...], ways: IntArray) -> tuple[IntArray, IntArray]:
    """Per strategy its pattern and how partial sums are resolved: every pattern with every way to do that."""
    every = np.zeros((len(ways), len(axes) + 1), np.bool_)
    every[:, 0] = True
    parts = np.ones(len(ways), np.int64)
    for number, axis in enumerate(axes):
        parts *= ways[:, number] if axis.reduction else 1
    for number, axis in enumerate(axes):
        if not axis.reduction and axis.size >= 2:
            every[:, number + 1] = (parts > 1) & (axis.size // axis.granularity >= parts * ways[:, number])
    pattern, way = np.nonzero(every)
    return pattern, way - 1


def _scattered(axis: Axis, low: IntArray, high: IntArray, parts: IntArray, part: IntArray) -> tuple[IntArray, IntArray]:
    """Which piece of its range of an axis everyone keeps: ``part`` of ``parts``."""
    most = int(parts.max()) + 1
    kind = np.maximum(high - low, 0) * most + parts[:, None]
    first, last = np.zeros_like(low), np.zeros_like(low)
    for number in np.unique(kind).tolist():
        at = kind == number
        size, count = divmod(number, most)
        pieces = np.asarray(cut(replace(axis, size=size), (1,) * count), np.int64)
        first[at], last[at] = pieces[part[at]].T
    return low + first, low + last


@dataclass(frozen=True, eq=False)
class _Patterns:
    """Ways to deal the digits of all levels out to axes, whatever their sizes.

    Attributes:
        factors: As in :class:`Cuts`.
        ways: Into how many pieces each axis is cut, ``[patterns, axes]``.
        digits: Which of these each member has, ``[patterns, members, axes]``.
    """

    factors: tuple[Factors, ...]
    ways: IntArray
    digits: IntArray


@lru_cache(maxsize=512)
def _patterns(names: tuple[str, ...], levels: Levels) -> _Patterns:
    members = prod(levels)
    found: dict[Factors, None] = {}
    for per_level in product(*(_one_level((*names, REPLICAS), size) for size in levels)):
        joined = _joined(per_level)
        if joined is not None and any(axis != REPLICAS for axis, _ in joined):
            found[joined[:-1] if joined[-1][0] == REPLICAS else joined] = None
    several = ((), ()) if members > 1 else ((),)
    factors = (*several, *found)
    ways = np.ones((len(factors), len(names)), np.int64)
    digits = np.zeros((len(factors), members, len(names)), np.int64)
    column = {name: number for number, name in enumerate(names)}
    for row, own in enumerate(factors):
        counts = tuple(count for _, count in own)
        positions = np.arange(members) // (members // prod(counts))
        for (axis, count), digit in zip(own, np.unravel_index(positions, counts) if own else (), strict=True):
            if axis != REPLICAS:
                ways[row, column[axis]], digits[row, :, column[axis]] = count, digit
    return _Patterns(factors, ways, digits)


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
