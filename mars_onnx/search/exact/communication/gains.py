"""What members gain along every dimension when tensors go from layouts to others, for many pairs of these at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.communication.ports import Ports
from mars_onnx.search.exact.strategies.space import FloatArray

Element = TypeVar("Element", np.float64, np.int8)


@dataclass(frozen=True, eq=False)
class Gains:
    """What boxes of layouts gain from each other, ``[A, B, boxes or members]``, or the same per dimension, first.

    Attributes:
        kept: Elements that a box keeps, of members and of clusters; or how long it is.
        waits: Seconds at least for collectives along each dimension along which a member gains something, if all
            messages come from nearby.
        messages: From how many others at least comes what it gains beside what it has.
        piece: Elements that it can get of any one member, at most; or how long they are.
        far: Along how many dimensions a member lacks what nobody in its cluster has.
        near: Elements of what a member needs that its cluster has at most; ``None`` where nobody asks for that.
    """

    kept: FloatArray
    waits: FloatArray
    messages: FloatArray
    piece: FloatArray
    far: npt.NDArray[np.int8]
    near: FloatArray | None

    def together(self) -> Gains:
        """Of all dimensions."""
        kept, piece = self.kept.prod(axis=0), self.piece.prod(axis=0)
        far = self.far.sum(axis=0, dtype=np.int8)
        near = None if self.near is None else self.near.prod(axis=0)
        return Gains(kept, self.waits.sum(axis=0), self.messages.sum(axis=0), piece, far, near)

    def between(self, rows: IntArray, columns: IntArray) -> Gains:
        """What is said of kinds of layouts, as of layouts."""
        pairs = rows[:, None] * self.kept.shape[1] + columns

        def of(gains: npt.NDArray[Element]) -> npt.NDArray[Element]:
            # Taking rows of one long list is several times as fast as indexing by two dimensions.
            found: npt.NDArray[Element] = gains.reshape(-1, gains.shape[-1]).take(pairs, axis=0)
            return found

        near = None if self.near is None else of(self.near)
        return Gains(of(self.kept), of(self.waits), of(self.messages), of(self.piece), of(self.far), near)

    def add(self, other: Gains) -> None:
        """Take in another dimension."""
        np.multiply(self.kept, other.kept, out=self.kept)
        np.add(self.waits, other.waits, out=self.waits)
        np.add(self.messages, other.messages, out=self.messages)
        np.multiply(self.piece, other.piece, out=self.piece)
        np.add(self.far, other.far, out=self.far)
        if self.near is not None and other.near is not None:
            np.multiply(self.near, other.near, out=self.near)


def gains_of(
    low: FloatArray, high: FloatArray, start: FloatArray, stop: FloatArray, piece: FloatArray, port: Ports
) -> Gains:
    """Per dimension, of ``A`` layouts that are held and ``B`` that are needed; the first boxes are those of members.

    Args:
        low: Where what is held starts, ``[rank, A, B or 1, boxes]``.
        high: Where it stops.
        start: Where what is needed starts, ``[rank, A or 1, B, boxes]``.
        stop: Where it stops.
        piece: How much of that one member has at most, ``[rank, A, B, members]``.
        port: How fast data comes to them.
    """
    members = piece.shape[-1]
    common = _overlap(low, high, start, stop)
    far, near = np.zeros(piece.shape, np.int8), None
    if low.shape[-1] > members:
        around = members + port.group
        first, last = low.take(around, axis=-1), high.take(around, axis=-1)
        begin, end = start[..., :members], stop[..., :members]
        far = (((begin < first) | (end > last)) & (begin < end)).astype(np.int8)
        near = None if port.one_port else _overlap(first, last, begin, end)
    low, high, start, stop = low[..., :members], high[..., :members], start[..., :members], stop[..., :members]
    longest = np.maximum((high - low).max(axis=-1, keepdims=True), 1)
    before = np.maximum(np.minimum(low, stop) - start, 0)
    behind = np.maximum(stop - np.maximum(high, start), 0)
    messages = np.ceil(before / longest) + np.ceil(behind / longest)
    ends = port.endpoint_latency_s
    rounds = rounds_of(messages) if port.one_port else 1.0
    collective_s = port.chunks * (rounds * (port.least_latency_s + ends) + ends)
    return Gains(common, np.where(messages > 0, collective_s, 0.0), messages, piece, far, near)


def rounds_of(sources: FloatArray) -> FloatArray:
    """Rounds at least until something of so many others is there, with one message at a time: log2(1 + n)."""
    # The exponent of a number is how often it can be halved.
    rounds: FloatArray = np.frexp(sources)[1].astype(np.float64)
    return rounds


@dataclass(frozen=True, eq=False)
class Ranges:
    """Boxes ``[layouts, boxes, rank, 2]`` as numbers with fractions: processors are quicker at these.

    Attributes:
        low: Where they start, ``[rank, layouts, boxes]``.
        high: Where they stop.
    """

    low: FloatArray
    high: FloatArray


def ranges_of(boxes: IntArray) -> Ranges:
    """Boxes ``[layouts, boxes, rank, 2]`` as ranges."""
    low, high = np.ascontiguousarray(boxes.transpose(3, 2, 0, 1), np.float64)
    return Ranges(low, high)


def piece_of(held: Ranges, needed: Ranges, members: int) -> FloatArray:
    """The most that any member has of what each needs, pair by pair, ``[rank, pairs, members]``."""
    # With the pairs last, processors have long rows to work on.
    low, high = (np.ascontiguousarray(own[..., :members].swapaxes(1, 2))[:, :, None] for own in (held.low, held.high))
    start, stop = (
        np.ascontiguousarray(own[..., :members].swapaxes(1, 2))[:, None] for own in (needed.low, needed.high)
    )
    found: FloatArray = np.ascontiguousarray(_overlap(low, high, start, stop).max(axis=1).swapaxes(1, 2))
    return found


def piece_along(held: IntArray, needed: IntArray) -> FloatArray:
    """The same of one dimension, ``[A, B, members]``, by distinct ranges: members are many here."""
    size = int(needed.max(initial=0)) + 1
    ranges, at = np.unique(needed[..., 0] * size + needed[..., 1], return_inverse=True)
    start, stop = (own.astype(np.float64) for own in np.divmod(ranges, size))
    low, high = held[..., :1].astype(np.float64), held[..., 1:].astype(np.float64)
    most = _overlap(low, high, start, stop).max(axis=1)
    found: FloatArray = most.take(at.reshape(needed.shape[:2]), axis=1)
    return found


def _overlap(low: FloatArray, high: FloatArray, start: FloatArray, stop: FloatArray) -> FloatArray:
    """Length of what two ranges have in common."""
    length = np.minimum(high, stop)
    length -= np.maximum(low, start)
    return np.maximum(length, 0.0, out=length)


def patterns_of(ranges: IntArray) -> tuple[IntArray, IntArray]:
    """Those of ``[layouts, boxes, 2]`` that are different, and which of them each layout has."""
    found: dict[bytes, int] = {}
    rows = np.ascontiguousarray(ranges)
    at = np.asarray([found.setdefault(row.tobytes(), len(found)) for row in rows])
    return np.frombuffer(b"".join(found), np.int64).reshape(len(found), *rows.shape[1:]), at
