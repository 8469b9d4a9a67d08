"""What members gain along every dimension when tensors go from layouts to others, for many pairs of these at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.communication.ports import Ports
from mars_onnx.search.exact.communication.products import Products
from mars_onnx.search.exact.communication.sides import keys_of
from mars_onnx.search.exact.strategies.cuts import BoolArray
from mars_onnx.search.exact.strategies.space import FloatArray


@dataclass(frozen=True, eq=False)
class Gains:
    """What boxes of pairs of layouts gain: along one dimension, or along several.

    With the pairs last, processors have long rows to work on.

    Attributes:
        factors: What is multiplied to make one of several dimensions, ``[rows, pairs]``.
        added: What is added up, ``[rows, pairs]``.
        boxes: Boxes of a layout: of its members, and then of their clusters.
        members: How many there are.
        steady: The pairs in which everyone keeps its place, where that says something of what comes from afar.
        direct: Seconds per byte that members take at least for what comes from afar, besides what nearby messages
            would, ``[members, steady pairs]``; counted for what is kept along all other dimensions.
    """

    factors: FloatArray
    added: FloatArray
    boxes: int
    members: int
    steady: IntArray
    direct: FloatArray

    @property
    def kept(self) -> FloatArray:
        """Elements that a box keeps, ``[boxes, pairs]``; or how long it is."""
        return self.factors[: self.boxes]

    @property
    def piece(self) -> FloatArray:
        """Elements that a member can get of any other one, at most and one at least, ``[members, pairs]``."""
        return self.factors[self.boxes : self.boxes + self.members]

    @property
    def near(self) -> FloatArray | None:
        """Elements of what a member needs that its cluster has at most; ``None`` where nobody asks for that."""
        start = self.boxes + self.members
        return self.factors[start:] if start < len(self.factors) else None

    @property
    def waits(self) -> FloatArray:
        """Seconds at least for a collective along each dimension along which a member gains something.

        This is if all messages come from nearby.
        """
        return self._added(0)

    @property
    def messages(self) -> FloatArray:
        """From how many others at least comes what a member gains beside what it has."""
        return self._added(1)

    @property
    def far(self) -> FloatArray:
        """Along how many dimensions a member lacks what nobody in its cluster has, where there are several."""
        return self._added(2)

    def _added(self, number: int) -> FloatArray:
        return self.added[number * self.members : (number + 1) * self.members]


@dataclass(frozen=True, eq=False)
class _Rows:
    """The same along one dimension, before anything is multiplied or added up: arrays ``[rows, pairs]``.

    Attributes:
        factors: As in :class:`Gains`.
        added: Likewise.
        direct: Per element that is kept along it; nothing where nobody asks for that.
    """

    factors: list[FloatArray]
    added: list[FloatArray]
    direct: list[FloatArray]


def _rows_of(low: FloatArray, high: FloatArray, start: FloatArray, stop: FloatArray, port: Ports) -> _Rows:
    """Along one dimension, of pairs of layouts; the first boxes are those of members.

    Args:
        low: Where what is held starts, ``[boxes, pairs]``.
        high: Where it stops.
        start: Where what is needed starts, ``[boxes, pairs]``.
        stop: Where it stops.
        port: How fast data comes to the members.
    """
    members = len(port.group)
    kept = _overlap(low, high, start, stop)
    begin, end, first, last = start[:members], stop[:members], low[:members], high[:members]
    longest = np.maximum((last - first).max(axis=0), 1.0)
    before = np.maximum(np.minimum(first, end) - begin, 0.0)
    behind = np.maximum(end - np.maximum(last, begin), 0.0)
    messages = np.ceil(before / longest) + np.ceil(behind / longest)
    ends = port.endpoint_latency_s
    rounds = rounds_of(messages) if port.one_port else 1.0
    collective_s = port.chunks * (rounds * (port.least_latency_s + ends) + ends)
    waits = np.where(messages > 0, collective_s, 0.0)
    # Who needs nothing lacks nothing, whatever a piece of it is.
    found = _Rows([kept, np.maximum(np.minimum(longest, end - begin), 1.0)], [waits, messages], [])
    if len(low) > members:
        around = members + port.group
        first, last = low.take(around, axis=0), high.take(around, axis=0)
        found.added.append((((begin < first) | (end > last)) & (begin < end)).astype(np.float64))
        near = _overlap(first, last, begin, end)
        if port.straight:
            own, dearer_s = kept[:members], port.far_s_per_byte - port.near_s_per_byte
            beyond = (end - begin - near) * np.maximum(dearer_s, 0.0)[:, None]
            found.direct.append(np.divide(beyond, own, out=np.zeros(begin.shape), where=own > 0))
        if not port.one_port:
            found.factors.append(near)
    return found


def rounds_of(sources: FloatArray) -> FloatArray:
    """Rounds at least until something of so many others is there, with one message at a time: log2(1 + n)."""
    # The exponent of a number is how often it can be halved.
    rounds: FloatArray = np.frexp(sources)[1].astype(np.float64)
    return rounds


def _overlap(low: FloatArray, high: FloatArray, start: FloatArray, stop: FloatArray) -> FloatArray:
    """Length of what two ranges have in common."""
    length = np.minimum(high, stop)
    length -= np.maximum(low, start)
    return np.maximum(length, 0.0, out=length)


@dataclass(frozen=True, eq=False)
class Kinds:
    """Layouts of some tables, by dimension: in one, many are alike, of all tables and dimensions of equal size.

    Attributes:
        size: Of which size the dimensions of layouts are, by its number among all sizes, ``[rank, layouts]``.
        number: Of what kind each is, among those of that size, ``[rank, layouts]``.
        counts: How many kinds there are, by size.
        low: Where boxes start, of every kind, size by size, ``[boxes, kinds]``.
        high: Where they stop.
    """

    size: IntArray
    number: IntArray
    counts: IntArray
    low: FloatArray
    high: FloatArray


def kinds_of(boxes: IntArray, counts: Sequence[int], shapes: Sequence[Sequence[int]]) -> Kinds:
    """Of layouts.

    Args:
        boxes: Of all tables, ``[layouts, boxes, rank, 2]``.
        counts: How many layouts each table has.
        shapes: Sizes of its dimensions.
    """
    layouts, width, rank, _ = boxes.shape
    sizes = [shape[dim] for dim in range(rank) for shape in shapes]
    found: dict[int, dict[bytes, int]] = {size: {} for size in sizes}
    # Short keys are sooner compared.
    narrow = np.min_scalar_type(max(sizes))
    ranges = np.ascontiguousarray(boxes.transpose(2, 0, 3, 1), narrow).reshape(rank * layouts, 2 * width)
    keys = keys_of(ranges)
    number: list[int] = []
    for size, count in zip(sizes, [*counts] * rank, strict=True):
        own = found[size]
        number += [own.setdefault(key, len(own)) for key in keys[len(number) : len(number) + count]]
    different = np.frombuffer(b"".join(chain.from_iterable(found.values())), narrow).reshape(-1, 2, width)
    # As numbers with fractions: processors are quicker at these.
    low, high = np.ascontiguousarray(different.transpose(1, 2, 0), np.float64)
    places = {size: place for place, size in enumerate(found)}
    return Kinds(
        np.repeat([places[size] for size in sizes], [*counts] * rank).reshape(rank, layouts),
        np.reshape(number, (rank, layouts)),
        np.asarray([len(own) for own in found.values()]),
        low,
        high,
    )


def _places(kinds: Kinds, members: int) -> IntArray:
    """Per member the first one that has the same range, ``[members, kinds]``; -1 where somebody has nothing."""
    low, high = kinds.low[:members], kinds.high[:members]
    same = (low[:, None] == low[None]) & (high[:, None] == high[None])
    places: IntArray = same.argmax(axis=1)
    return np.where((low >= high).any(axis=0), -1, places)


def _moved(held: Kinds, needed: Kinds, pairs: Products, port: Ports) -> BoolArray:
    """Whether members are alike elsewhere than they have been, by pairs of kinds."""
    before, after = _places(held, len(port.group)), _places(needed, len(port.group))
    rows, columns = pairs.of(np.arange(pairs.total))
    place = before.take(rows, axis=1)
    moved: BoolArray = ((place != after.take(columns, axis=1)) | (place < 0)).any(axis=0)
    return moved


class KindGains:
    """What layouts gain, from what those of their kinds gain along every dimension."""

    def __init__(self, held: Kinds, needed: Kinds, port: Ports, several: int) -> None:
        """Between all kinds that are held and all that are needed along dimensions of equal size.

        Args:
            held: What layouts hold.
            needed: What layouts need.
            port: How fast data comes to the members.
            several: How many pairs of kinds are looked at in one go.
        """
        pairs = Products(held.counts, needed.counts)
        self._boxes, self._members = len(held.low), len(port.group)
        found: list[_Rows] = []
        for rows, columns in pairs.parts(several):
            own = held.low.take(rows, axis=1), held.high.take(rows, axis=1)
            other = needed.low.take(columns, axis=1), needed.high.take(columns, axis=1)
            found.append(_rows_of(*own, *other, port))
        #: ``[pairs of kinds, rows]``: those of many pairs are taken as a whole.
        self._factors = _by_pair([rows.factors for rows in found])
        self._added = _by_pair([rows.added for rows in found])
        #: Whether members are alike in a dimension elsewhere than they have been, and what is direct if they are not.
        self._straight = (
            (_moved(held, needed, pairs, port), _by_pair([rows.direct for rows in found])) if port.straight else None
        )
        #: Per dimension and layout that is held, where the pairs of its kind are; of one that is needed, which it is.
        self._rows = pairs.starts.take(held.size) + held.number * needed.counts.take(held.size)
        self._columns = needed.number

    def of(self, rows: IntArray, columns: IntArray) -> Gains:
        """Of pairs of layouts."""
        kinds = self._rows.take(rows, axis=1) + self._columns.take(columns, axis=1)
        factors, added = self._factors.take(kinds[0], axis=0), self._added.take(kinds[0], axis=0)
        for own in kinds[1:]:
            factors *= self._factors.take(own, axis=0)
            added += self._added.take(own, axis=0)
        factors, added = np.ascontiguousarray(factors.T), np.ascontiguousarray(added.T)
        steady, direct = self._direct_of(kinds)
        direct = direct * factors[: self._members].take(steady, axis=1)
        return Gains(factors, added, self._boxes, self._members, steady, direct)

    def _direct_of(self, kinds: IntArray) -> tuple[IntArray, FloatArray]:
        """Where everyone keeps its place, and what is direct there, from pairs of kinds ``[rank, pairs]``."""
        if self._straight is None:
            return np.zeros(0, np.int64), np.zeros((self._members, 0))
        moved, direct = self._straight
        steady = np.flatnonzero(~moved.take(kinds).any(axis=0))
        return steady, direct.take(kinds.take(steady, axis=1), axis=0).sum(axis=0).T


def _by_pair(parts: Sequence[Sequence[FloatArray]]) -> FloatArray:
    """Rows of some pairs after those of others, as ``[pairs, rows]``."""
    together = [np.concatenate(rows) for rows in parts]
    return np.ascontiguousarray(np.concatenate(together, axis=1).T)
