"""What redistributions take at least, for many pairs of layouts at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.communication.ports import Ports
from mars_onnx.search.exact.communication.sides import Sides, numbered, volumes
from mars_onnx.search.exact.strategies.space import FloatArray

BoolArray = npt.NDArray[np.bool_]
Element = TypeVar("Element", np.float64, np.bool_)

#: Fewer elements than this are missing by rounding only.
_ROUNDING = 1e-9
#: Members of pairs of layouts that are looked at together: what is known of them stays in the processor's cache.
_AT_ONCE = 50_000
#: With no more than these, all dimensions are looked at together.
_FEW = 10_000


def move_bounds(sources: Sides, targets: Sides, port: Ports, bits: int) -> FloatArray:
    """Seconds at least from ``A`` layouts to ``B`` layouts: every member takes in what it lacks, and waits for it.

    Args:
        sources: What is held.
        targets: What is needed.
        port: How fast data comes to the members.
        bits: Width of an element.

    Returns:
        ``[A, B]``.
    """
    held, needed = sources.held, targets.needed
    moves = _Moves(held, needed, sources.members, port, bits / 8)
    several = max(1, _AT_ONCE // (len(needed) * sources.members))
    return np.concatenate([moves.seconds(slice(start, start + several)) for start in range(0, len(held), several)])


class _Moves:
    """All moves from some layouts to some others.

    A plan (:mod:`mars_onnx.redistribution`) is regular for a member, or it gets single messages. A regular one goes
    axis by axis, and who takes part in several collectives does so one after the other: a member that gains something
    along several axes waits for messages along each of them. Single messages come one after the other too, each with a
    piece of what one other member holds: as many as it takes to make up what is lacking; or, where something is kept,
    boxes beside that, on one side each, unless another one holds all that is needed.

    Where all of a cluster together hold nothing of some range that a member lacks, a message along that axis comes from
    afar.

    Who holds nothing gets messages at the end, from those who have gained something by then, if anybody has.
    """

    def __init__(self, held: IntArray, needed: IntArray, members: int, port: Ports, width: float) -> None:
        """From what is held to what is needed, of so many members and their clusters, with so many bytes an element."""
        self._port, self._width, self._members = port, width, members
        self._clusters = port.groups if held.shape[1] > members else ()
        self._around, self._wanted = held, needed
        self._lacks, self._number = _offers(held[:, :members], needed[:, :members])
        self._empty = volumes(held[:, :members]) == 0
        self._volumes = volumes(needed)
        few = len(held) * self._volumes.size <= _FEW
        self._axes = () if few else tuple(self._axis(dim) for dim in range(held.shape[2]))

    def _axis(self, dim: int) -> tuple[IntArray, IntArray, _Gains]:
        """One dimension: of what kind every layout is in it, for many are alike, and what kinds gain of each other."""
        (held, rows), (needed, columns) = _patterns(self._around[:, :, dim]), _patterns(self._wanted[:, :, dim])
        piece = _piece_along(held[:, : self._members], needed[:, : self._members])
        ranges = _ranges(held[:, :, None]), _ranges(needed[:, :, None])
        return rows, columns, _gains(*ranges, piece[None], self._port).together()

    def _gained(self, rows: slice) -> _Gains:
        """What some of the layouts gain to all others."""
        if not self._axes:
            held, needed = _ranges(self._around[rows]), _ranges(self._wanted)
            return _gains(held, needed, _piece(held, needed, self._members), self._port).together()
        kinds, others, first = self._axes[0]
        gained = first.between(kinds[rows], others)
        for kinds, others, gains in self._axes[1:]:
            gained.add(gains.between(kinds[rows], others))
        return gained

    def seconds(self, rows: slice) -> FloatArray:
        """From some of the layouts to all others."""
        port, members = self._port, self._members
        gained = self._gained(rows)
        missing = self._volumes - gained.kept
        own = self._waits(rows, missing[..., :members], gained)
        missing *= self._width
        rate = np.minimum(port.near_s_per_byte, port.far_s_per_byte) if port.one_port else port.all_s_per_byte
        own += missing[..., :members] * rate
        seconds: FloatArray = own.max(axis=-1)
        for number, inside in enumerate(self._clusters):
            most = missing[..., members + number]
            across = _crossing(most, own.take(inside, axis=-1), port, inside)
            seconds = np.maximum(seconds, np.where(most > _ROUNDING, across, 0.0))
        return seconds

    def _waits(self, rows: slice, lack: FloatArray, gained: _Gains) -> FloatArray:
        """Seconds at least that members wait for messages, by the elements that they lack, ``[A, B, members]``."""
        port = self._port
        ends, latency_s = port.endpoint_latency_s, port.least_latency_s
        sources = np.maximum(gained.piece, 1.0)
        np.divide(lack, sources, out=sources)
        sources *= 1 - _ROUNDING
        np.ceil(sources, out=sources)
        once = (_rounds(sources) if port.one_port else 1.0) * (latency_s + ends) + ends
        beside = (gained.kept[..., : self._members] > 0) & self._lacks[rows].take(self._number, axis=1)
        single = np.maximum(sources, gained.messages * beside, out=sources)
        single *= latency_s + 2 * ends
        empty = self._empty[rows][:, None]
        unknown = None
        if empty.any():
            # Messages may come from members of the own cluster that have gained what they have from afar.
            others_gain = ((lack > 0) & ~empty).any(axis=-1, keepdims=True)
            unknown = np.where(others_gain, once, single)
        if self._clusters:
            further = gained.far * port.further_s
            single += further
            once = once + further
        waits: FloatArray = np.maximum(gained.waits, once)
        np.minimum(waits, single, out=waits)
        if unknown is not None:
            waits = np.where(empty, unknown, waits)
        waits *= lack > 0
        return waits


@dataclass(frozen=True, eq=False)
class _Gains:
    """What boxes of layouts gain from each other, ``[A, B, boxes or members]``, or the same per dimension, first.

    Attributes:
        kept: Elements that a box keeps, of members and of clusters; or how long it is.
        waits: Seconds at least for collectives along each dimension along which a member gains something; for one with
            a message from afar if it lacks what nobody in its cluster has.
        messages: From how many others at least comes what it gains beside what it has.
        piece: Elements that it can get of any one member, at most; or how long they are.
        far: Whether there is such a dimension.
    """

    kept: FloatArray
    waits: FloatArray
    messages: FloatArray
    piece: FloatArray
    far: BoolArray

    def together(self) -> _Gains:
        """Of all dimensions."""
        kept, piece = self.kept.prod(axis=0), self.piece.prod(axis=0)
        far: BoolArray = np.logical_or.reduce(self.far, axis=0)
        return _Gains(kept, self.waits.sum(axis=0), self.messages.sum(axis=0), piece, far)

    def between(self, rows: IntArray, columns: IntArray) -> _Gains:
        """What is said of kinds of layouts, as of layouts."""
        pairs = rows[:, None] * self.kept.shape[1] + columns

        def of(gains: npt.NDArray[Element]) -> npt.NDArray[Element]:
            # Taking rows of one long list is several times as fast as indexing by two dimensions.
            found: npt.NDArray[Element] = gains.reshape(-1, gains.shape[-1]).take(pairs, axis=0)
            return found

        return _Gains(of(self.kept), of(self.waits), of(self.messages), of(self.piece), of(self.far))

    def add(self, other: _Gains) -> None:
        """Take in another dimension."""
        np.multiply(self.kept, other.kept, out=self.kept)
        np.add(self.waits, other.waits, out=self.waits)
        np.add(self.messages, other.messages, out=self.messages)
        np.multiply(self.piece, other.piece, out=self.piece)
        np.logical_or(self.far, other.far, out=self.far)


def _gains(held: _Ranges, needed: _Ranges, piece: FloatArray, port: Ports) -> _Gains:
    """Per dimension, of ``A`` layouts that are held and ``B`` that are needed; the first boxes are those of members.

    Args:
        held: What is held.
        needed: What is needed.
        piece: How much of that one member has at most, ``[rank, A, B, members]``.
        port: How fast data comes to them.
    """
    members = piece.shape[-1]
    low, high = held.low[:, :, None], held.high[:, :, None]
    start, stop = needed.low[:, None], needed.high[:, None]
    common = _overlap(low, high, start, stop)
    far = np.zeros(piece.shape, np.bool_)
    if low.shape[-1] > members:
        around = members + port.group
        beyond = (start[..., :members] < low.take(around, axis=-1)) | (stop[..., :members] > high.take(around, axis=-1))
        far = beyond & (start < stop)[..., :members]
    low, high, start, stop = low[..., :members], high[..., :members], start[..., :members], stop[..., :members]
    longest = np.maximum((high - low).max(axis=-1, keepdims=True), 1)
    before = np.maximum(np.minimum(low, stop) - start, 0)
    behind = np.maximum(stop - np.maximum(high, start), 0)
    messages = np.ceil(before / longest) + np.ceil(behind / longest)
    ends = port.endpoint_latency_s
    rounds = _rounds(messages) if port.one_port else 1.0
    collective_s = port.chunks * (rounds * (port.least_latency_s + ends) + ends + far * port.further_s)
    return _Gains(common, np.where(messages > 0, collective_s, 0.0), messages, piece, far)


def _rounds(sources: FloatArray) -> FloatArray:
    """Rounds at least until something of so many others is there, with one message at a time: log2(1 + n)."""
    # The exponent of a number is how often it can be halved.
    rounds: FloatArray = np.frexp(sources)[1].astype(np.float64)
    return rounds


def _crossing(missing: FloatArray, own: FloatArray, port: Ports, inside: IntArray) -> FloatArray:
    """Seconds at least until a cluster has what it lacks.

    Args:
        missing: Bytes that it lacks.
        own: Seconds at least that its members take if all that they lack comes as fast as anything, last dimension.
        port: How fast data comes to all members.
        inside: Places of those of the cluster.
    """
    seconds: FloatArray
    if port.one_port:
        # On average, members pay for what comes across besides what each pays in any case.
        fastest = np.minimum(port.near_s_per_byte, port.far_s_per_byte)[inside]
        extra = max(float(port.far_s_per_byte[inside].min() - fastest.max()), 0.0)
        seconds = own.mean(axis=-1) + missing / len(inside) * extra
        return seconds
    far = float(port.far_latency_s[inside].min())
    seconds = far + missing / port.far_bytes_per_s[inside].sum() + 2 * port.endpoint_latency_s
    return seconds


@dataclass(frozen=True, eq=False)
class _Ranges:
    """Boxes ``[layouts, boxes, rank, 2]`` as numbers with fractions: processors are quicker at these.

    Attributes:
        low: Where they start, ``[rank, layouts, boxes]``.
        high: Where they stop.
    """

    low: FloatArray
    high: FloatArray


def _ranges(boxes: IntArray) -> _Ranges:
    low, high = np.ascontiguousarray(boxes.transpose(3, 2, 0, 1), np.float64)
    return _Ranges(low, high)


def _piece(held: _Ranges, needed: _Ranges, members: int) -> FloatArray:
    """The most that any member has of what each needs, ``[rank, A, B, members]``."""
    low, high = held.low[:, :, :members, None, None], held.high[:, :, :members, None, None]
    start, stop = needed.low[:, None, None, :, :members], needed.high[:, None, None, :, :members]
    found: FloatArray = _overlap(low, high, start, stop).max(axis=2)
    return found


def _piece_along(held: IntArray, needed: IntArray) -> FloatArray:
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


def _patterns(ranges: IntArray) -> tuple[IntArray, IntArray]:
    """Those of ``[layouts, boxes, 2]`` that are different, and which of them each layout has."""
    found: dict[bytes, int] = {}
    rows = np.ascontiguousarray(ranges)
    at = np.asarray([found.setdefault(row.tobytes(), len(found)) for row in rows])
    return np.frombuffer(b"".join(found), np.int64).reshape(len(found), *rows.shape[1:]), at


def _offers(held: IntArray, needed: IntArray) -> tuple[BoolArray, IntArray]:
    """Which boxes a layout lacks, ``[A, boxes]``, and the number among these of what members need, ``[B, members]``."""
    flat = np.concatenate([held.reshape(-1, *held.shape[2:]), needed.reshape(-1, *needed.shape[2:])])
    number = np.unique(numbered(flat), return_inverse=True)[1]
    count = held.shape[0] * held.shape[1]
    lacks = np.ones((len(held), int(number.max()) + 1), np.bool_)
    lacks[np.arange(len(held))[:, None], number[:count].reshape(held.shape[:2])] = False
    return lacks, number[count:].reshape(needed.shape[:2])
