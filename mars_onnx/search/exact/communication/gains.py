"""What members gain along every dimension when tensors go from layouts to others, for many pairs of these at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.communication.ports import Ports
from mars_onnx.search.exact.communication.products import Products
from mars_onnx.search.exact.strategies.cuts import BoolArray
from mars_onnx.search.exact.strategies.space import FloatArray


@dataclass(frozen=True, eq=False)
class Gains:
    """What boxes of pairs of layouts gain: along one dimension, or along several.

    Attributes:
        values: ``[rows, pairs]``: what is multiplied to make one of several dimensions, then what is added up. With the
            pairs last, processors have long rows to work on.
        boxes: Boxes of a layout: of its members, and then of their clusters.
        members: How many there are.
        factors: How many rows are multiplied.
    """

    values: FloatArray
    boxes: int
    members: int
    factors: int

    @property
    def kept(self) -> FloatArray:
        """Elements that a box keeps, ``[boxes, pairs]``; or how long it is."""
        return self.values[: self.boxes]

    @property
    def piece(self) -> FloatArray:
        """Elements that a member can get of any other one, at most, ``[members, pairs]``."""
        return self.values[self.boxes : self.boxes + self.members]

    @property
    def near(self) -> FloatArray | None:
        """Elements of what a member needs that its cluster has at most; ``None`` where nobody asks for that."""
        start = self.boxes + self.members
        return self.values[start : self.factors] if start < self.factors else None

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
        """Along how many dimensions a member lacks what nobody in its cluster has."""
        return self._added(2)

    @property
    def steady(self) -> IntArray:
        """The pairs in which everyone keeps its place, where that says something of what comes from afar."""
        told = len(self.values) > self.factors + 3 * self.members
        return np.flatnonzero(self.values[-1] == 0) if told else np.zeros(0, np.int64)

    def direct(self, pairs: IntArray) -> FloatArray:
        """Seconds per byte that members take at least for what comes from afar, besides what nearby messages would.

        ``[members, pairs]``, for those of pairs that are steady. Counted for what is kept along all other dimensions.
        """
        return self._added(3).take(pairs, axis=1) * self.kept[: self.members].take(pairs, axis=1)

    def _added(self, number: int) -> FloatArray:
        start = self.factors + number * self.members
        return self.values[start : start + self.members]


def gains_of(
    low: FloatArray, high: FloatArray, start: FloatArray, stop: FloatArray, moved: BoolArray, port: Ports
) -> Gains:
    """Along one dimension, of pairs of layouts; the first boxes are those of members.

    Args:
        low: Where what is held starts, ``[boxes, pairs]``.
        high: Where it stops.
        start: Where what is needed starts, ``[boxes, pairs]``.
        stop: Where it stops.
        moved: Whether members are alike in this dimension elsewhere than they have been.
        port: How fast data comes to them.
    """
    members = len(port.group)
    factors = [_overlap(low, high, start, stop)]
    begin, end = start[:members], stop[:members]
    far, direct = np.zeros(begin.shape), []
    longest = np.maximum((high[:members] - low[:members]).max(axis=0), 1.0)
    factors.append(np.minimum(longest, end - begin))
    if len(low) > members:
        around = members + port.group
        first, last = low.take(around, axis=0), high.take(around, axis=0)
        far = (((begin < first) | (end > last)) & (begin < end)).astype(np.float64)
        near = _overlap(first, last, begin, end)
        if port.one_port and port.first_hand:
            kept, dearer_s = factors[0][:members], port.far_s_per_byte - port.near_s_per_byte
            beyond = (end - begin - near) * np.maximum(dearer_s, 0.0)[:, None]
            direct = [np.divide(beyond, kept, out=np.zeros(begin.shape), where=kept > 0), moved[None]]
        if not port.one_port:
            factors.append(near)
    before = np.maximum(np.minimum(low[:members], end) - begin, 0.0)
    behind = np.maximum(end - np.maximum(high[:members], begin), 0.0)
    messages = np.ceil(before / longest) + np.ceil(behind / longest)
    ends = port.endpoint_latency_s
    rounds = rounds_of(messages) if port.one_port else 1.0
    collective_s = port.chunks * (rounds * (port.least_latency_s + ends) + ends)
    waits = np.where(messages > 0, collective_s, 0.0)
    return Gains(np.concatenate([*factors, waits, messages, far, *direct]), len(low), members, sum(map(len, factors)))


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
    """Layouts of some tables, by dimension: in one, many are alike.

    Attributes:
        sizes: How many layouts each table has.
        number: Of what kind each is, among those of its table, ``[rank, layouts]``.
        counts: How many kinds there are, by dimension and table, ``[rank, tables]``.
        low: Where boxes start, of every kind, dimension by dimension and there table by table, ``[boxes, kinds]``.
        high: Where they stop.
    """

    sizes: Sequence[int]
    number: IntArray
    counts: IntArray
    low: FloatArray
    high: FloatArray


def kinds_of(boxes: IntArray, sizes: Sequence[int]) -> Kinds:
    """Of layouts.

    Args:
        boxes: Of all tables, ``[layouts, boxes, rank, 2]``.
        sizes: How many layouts each table has.
    """
    count, width, rank, _ = boxes.shape
    # As numbers with fractions: processors are quicker at these.
    ranges = np.ascontiguousarray(boxes.transpose(2, 0, 3, 1), np.float64).reshape(rank * count, 2 * width)
    keys = ranges.view(f"V{ranges.shape[1] * ranges.itemsize}").ravel().tolist()
    number: list[int] = []
    counts: list[int] = []
    different: list[bytes] = []
    for size in [*sizes] * rank:
        found: dict[bytes, int] = {}
        number += [found.setdefault(key, len(found)) for key in keys[len(number) : len(number) + size]]
        counts.append(len(found))
        different += found
    low, high = np.frombuffer(b"".join(different)).reshape(-1, 2, width).transpose(1, 2, 0)
    return Kinds(sizes, np.reshape(number, (rank, count)), np.reshape(counts, (rank, len(sizes))), low, high)


def _places(kinds: Kinds, members: int) -> IntArray:
    """Per member the first one that has the same range, ``[members, kinds]``; -1 where somebody has nothing."""
    low, high = kinds.low[:members], kinds.high[:members]
    same = (low[:, None] == low[None]) & (high[:, None] == high[None])
    places: IntArray = same.argmax(axis=1)
    return np.where((low >= high).any(axis=0), -1, places)


class KindGains:
    """What layouts gain, from what those of their kinds gain along every dimension."""

    def __init__(self, held: Kinds, needed: Kinds, port: Ports, several: int) -> None:
        """Between all kinds that are held and all that are needed, of every table and dimension.

        Args:
            held: What layouts hold.
            needed: What layouts need.
            port: How fast data comes to the members.
            several: How many pairs of kinds are looked at in one go.
        """
        pairs = Products(held.counts.ravel(), needed.counts.ravel())
        before, after = _places(held, len(port.group)), _places(needed, len(port.group))
        found = []
        for rows, columns in pairs.parts(several):
            place = before.take(rows, axis=1)
            moved = ((place != after.take(columns, axis=1)) | (place < 0)).any(axis=0)
            own = held.low.take(rows, axis=1), held.high.take(rows, axis=1)
            other = needed.low.take(columns, axis=1), needed.high.take(columns, axis=1)
            found.append(gains_of(*own, *other, moved, port))
        self._boxes, self._members, self._factors = found[0].boxes, found[0].members, found[0].factors
        #: ``[pairs of kinds, rows]``: those of many pairs are taken as a whole.
        self._values = np.concatenate([np.ascontiguousarray(own.values.T) for own in found])
        first = pairs.starts.reshape(held.counts.shape)
        #: Per dimension and layout that is held, where the pairs of its kind are; of one that is needed, which it is.
        self._rows = first.repeat(held.sizes, axis=1) + held.number * needed.counts.repeat(held.sizes, axis=1)
        self._columns = needed.number

    def of(self, rows: IntArray, columns: IntArray) -> Gains:
        """Of pairs of layouts."""
        kinds = self._rows.take(rows, axis=1) + self._columns.take(columns, axis=1)
        factors = self._factors
        found = self._values.take(kinds[0], axis=0)
        for own in kinds[1:]:
            other = self._values.take(own, axis=0)
            found[:, :factors] *= other[:, :factors]
            found[:, factors:] += other[:, factors:]
        return Gains(np.ascontiguousarray(found.T), self._boxes, self._members, factors)
