"""What communication takes at least, for many pairs of layouts or many strategies at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.ports import Ports
from mars_onnx.search.exact.space import FloatArray, LayerSpace

BoolArray = npt.NDArray[np.bool_]
AnyArray = TypeVar("AnyArray", IntArray, FloatArray)

#: Fewer elements than this are missing by rounding only.
_ROUNDING = 1e-9


def move_bounds(held: IntArray, needed: IntArray, port: Ports, bits: int) -> FloatArray:
    """Seconds at least from layouts to layouts, ``[A, B]``: every member takes in what it lacks, and waits for it.

    Args:
        held: Boxes ``[A, members, rank, 2]``.
        needed: Boxes ``[B, members, rank, 2]``.
        port: How fast data comes to the members.
        bits: Width of an element.
    """
    width, ends, members = bits / 8, port.endpoint_latency_s, held.shape[1]
    clusters = _clusters(held, needed, port.group)
    around, wanted = np.concatenate([held, clusters.around], axis=1), np.concatenate([needed, clusters.wanted], axis=1)
    gains = _gains(around, wanted, members, port)
    missing = (_volumes(wanted)[None] - gains.kept) * width
    lack = missing[..., :members]
    rate = np.minimum(port.near_s_per_byte, port.far_s_per_byte) if port.one_port else port.all_s_per_byte
    waits = _waits(held, needed, gains, lack / width, port)
    seconds: FloatArray = (waits + lack * rate).max(axis=-1)
    # Who takes in what its cluster lacks waits for a message from afar instead of one from nearby.
    others = np.maximum(waits - port.least_latency_s, 2 * ends)
    for number, inside in enumerate(clusters.members):
        most = missing[..., members + number]
        across = _crossing(most, lack[..., inside], others[..., inside], port, inside)
        seconds = np.maximum(seconds, np.where(most > _ROUNDING, across, 0.0))
    return seconds


@dataclass(frozen=True, eq=False)
class _Gains:
    """What boxes gain from layout to layout, axis by axis; all broadcast to ``[A, B, boxes]``, or to the members only.

    Attributes:
        kept: Elements that a box keeps, of members and of clusters.
        waits: Seconds at least for collectives along each axis along which a member gains something, added up.
        messages: Pieces at least beside what a member has, added up over the axes.
        piece: Elements that it can get of any one member, at most.
    """

    kept: FloatArray
    waits: FloatArray
    messages: FloatArray
    piece: FloatArray


def _gains(held: IntArray, needed: IntArray, members: int, port: Ports) -> _Gains:
    """From boxes ``[A, boxes, rank, 2]`` and ``[B, boxes, rank, 2]``, of which the first are those of members."""
    kept, waits, messages, piece = np.ones(()), np.zeros(()), np.zeros(()), np.ones(())
    for dim in range(held.shape[2]):
        low, high = held[0, 0, dim].tolist()
        if (held[:, :, dim] == (low, high)).all() and (needed[:, :, dim] == (low, high)).all():
            kept, piece = kept * (high - low), piece * (high - low)
            continue
        ranges = _Ranges(held[:, :, dim], needed[:, :, dim], members)
        partners = ranges.partners[..., :members]
        kept = kept * ranges.spread(ranges.common)
        waits = waits + ranges.spread(_waiting(partners, port))
        messages = messages + ranges.spread(partners)
        piece = piece * ranges.spread(ranges.most_in_common())
    return _Gains(kept, waits, messages, piece)


def _waiting(partners: IntArray, port: Ports) -> FloatArray:
    """Seconds at least for a collective along one axis, by from how many members something comes."""
    ends = port.endpoint_latency_s
    rounds = _rounds(partners, port)
    seconds: FloatArray = port.chunks * (rounds * (port.least_latency_s + ends) + ends)
    return np.where(partners > 0, seconds, 0.0)


def _rounds(sources: AnyArray, port: Ports) -> IntArray:
    """Rounds at least until something of so many others is there: with one message at a time, log2(1 + n)."""
    # The exponent of a number is how often it can be halved.
    rounds: IntArray = np.frexp(sources)[1] if port.one_port else (sources > 0).astype(np.int64)
    return rounds


def _waits(held: IntArray, needed: IntArray, gains: _Gains, lack: FloatArray, port: Ports) -> FloatArray:
    """Seconds at least that members wait for messages, ``[A, B, members]``.

    A plan (:mod:`mars_onnx.redistribution`) is regular for a member, or it gets single messages. A regular one goes
    axis by axis, and who takes part in several collectives does so one after the other: a member that gains something
    along several axes waits for messages along each of them. Single messages come one after the other too, each with a
    piece of what one other member holds: as many as it takes to make up what is lacking; or, where something is kept,
    boxes beside that, on one side each, unless another one holds all that is needed.

    Who holds nothing gets messages at the end, from those who have gained something by then, if anybody has.

    Args:
        held: Boxes ``[A, members, rank, 2]``.
        needed: Boxes ``[B, members, rank, 2]``.
        gains: What members gain.
        lack: Elements that they lack.
        port: How fast data comes to them.
    """
    ends = port.endpoint_latency_s
    message_s = port.least_latency_s + 2 * ends
    sources = np.ceil(lack * (1 - _ROUNDING) / np.maximum(gains.piece, 1))
    rounds = _rounds(sources, port)
    once = rounds * (port.least_latency_s + ends) + ends
    beside = (lack < _volumes(needed)) & ~_offered(held, needed)
    messages = np.where(beside, gains.messages, 0)
    single = np.maximum(sources, messages) * message_s
    empty = (_volumes(held) == 0)[:, None]
    others_gain = ((lack > 0) & ~empty).any(axis=-1, keepdims=True)
    waits = np.minimum(np.maximum(gains.waits, once), single)
    waits = np.where(empty, np.where(others_gain, once, single), waits)
    found: FloatArray = np.where(lack > 0, waits, 0.0)
    return found


def _crossing(missing: FloatArray, lack: FloatArray, others: FloatArray, port: Ports, inside: IntArray) -> FloatArray:
    """Seconds at least until a cluster has what it lacks.

    Args:
        missing: Bytes that it lacks.
        lack: Bytes that its members lack, last dimension.
        others: Seconds that they wait for messages besides the one from afar.
        port: How fast data comes to all members.
        inside: Places of those of the cluster.
    """
    fastest = np.minimum(port.near_s_per_byte, port.far_s_per_byte)[inside]
    far = float(port.far_latency_s[inside].min())
    seconds: FloatArray = far + missing / port.far_bytes_per_s[inside].sum() + 2 * port.endpoint_latency_s
    if port.one_port:
        # Of the members, the one that takes most across pays for that, and for what it lacks itself.
        share = missing / len(inside) * np.maximum(port.far_s_per_byte[inside].min() - fastest.max(), 0.0)
        seconds = far + share + (lack * fastest.min() + others).min(axis=-1)
    return seconds


class _Ranges:
    """One dimension of all pairs of layouts, by what this dimension of them looks like: many are alike in it.

    Attributes:
        common: Length of what a held and a needed range have in common, ``[held, needed, boxes]``.
        partners: From how many others at least comes what a range lacks of another, ``[held, needed, boxes]``.
    """

    def __init__(self, held: IntArray, needed: IntArray, members: int) -> None:
        """From ranges ``[A, boxes, 2]`` and ``[B, boxes, 2]``, of which the first are those of members."""
        (self._held, rows), (self._needed, columns) = _patterns(held), _patterns(needed)
        self._members, self._pairs = members, (rows[:, None], columns)
        low, high = np.moveaxis(self._held, -1, 0)[:, :, None]
        start, stop = np.moveaxis(self._needed, -1, 0)[:, None]
        longest = np.maximum((high - low)[..., :members].max(axis=-1, keepdims=True), 1)
        self.common: IntArray = np.maximum(np.minimum(high, stop) - np.maximum(low, start), 0)
        before = np.maximum(np.minimum(low, stop) - start, 0)
        behind = np.maximum(stop - np.maximum(high, start), 0)
        self.partners: IntArray = -(-before // longest) - (-behind // longest)

    def most_in_common(self) -> IntArray:
        """The most that a member of a layout has of what each of another needs, ``[held, needed, members]``."""
        size = int(self._needed.max(initial=0)) + 1
        needed = self._needed[:, : self._members]
        ranges, at = np.unique(needed[..., 0] * size + needed[..., 1], return_inverse=True)
        start, stop = np.divmod(ranges, size)
        low, high = np.moveaxis(self._held[:, : self._members], -1, 0)[..., None]
        most = np.maximum(np.minimum(high, stop) - np.maximum(low, start), 0).max(axis=1)
        found: IntArray = most[:, at.reshape(needed.shape[:2])]
        return found

    def spread(self, table: AnyArray) -> AnyArray:
        """What is said of kinds of layouts, ``[held, needed, ...]``, as ``[A, B, ...]``."""
        return table[self._pairs]


def _patterns(ranges: IntArray) -> tuple[IntArray, IntArray]:
    """Those of ``[layouts, boxes, 2]`` that are different, and which of them each layout has."""
    found: dict[bytes, int] = {}
    rows = np.ascontiguousarray(ranges)
    at = np.asarray([found.setdefault(row.tobytes(), len(found)) for row in rows])
    return np.frombuffer(b"".join(found), np.int64).reshape(len(found), *rows.shape[1:]), at


def _volumes(boxes: IntArray) -> FloatArray:
    """Elements of boxes ``[..., rank, 2]``."""
    volumes: FloatArray = np.maximum(boxes[..., 1] - boxes[..., 0], 0).prod(axis=-1).astype(np.float64)
    return volumes


def _numbered(boxes: IntArray) -> IntArray:
    """A number per box ``[..., rank, 2]``, equal for those that are equal."""
    number: IntArray = np.zeros(boxes.shape[:-2], np.int64)
    room = 1
    for column in np.moveaxis(boxes.reshape(*boxes.shape[:-2], -1), -1, 0):
        size = int(column.max(initial=0)) + 1
        if room * size > 1 << 62:
            number = np.unique(number, return_inverse=True)[1].reshape(number.shape)
            room = int(number.max(initial=0)) + 1
        number, room = number * size + column, room * size
    return number


def _offered(held: IntArray, needed: IntArray) -> BoolArray:
    """Whether somebody holds exactly what a member needs, ``[A, B, members]``."""
    flat = np.concatenate([held.reshape(-1, *held.shape[2:]), needed.reshape(-1, *needed.shape[2:])])
    number = np.unique(_numbered(flat), return_inverse=True)[1]
    count = held.shape[0] * held.shape[1]
    there = np.zeros((len(held), int(number.max()) + 1), np.bool_)
    there[np.arange(len(held))[:, None], number[:count].reshape(held.shape[:2])] = True
    offered: BoolArray = there[:, number[count:].reshape(needed.shape[:2])]
    return offered


@dataclass(frozen=True, eq=False)
class _Clusters:
    """Members that are near each other; none if all are.

    Attributes:
        members: Places of those of each.
        around: Per cluster the box around all that it holds, ``[A, clusters, rank, 2]``.
        wanted: Per cluster the box that its members need together; if that is none, the largest that one needs.
    """

    members: tuple[IntArray, ...]
    around: IntArray
    wanted: IntArray


def _clusters(held: IntArray, needed: IntArray, group: IntArray) -> _Clusters:
    places = tuple(np.flatnonzero(group == number) for number in np.unique(group))
    if len(places) < 2:
        return _Clusters((), held[:, :0], needed[:, :0])
    around: list[IntArray] = []
    wanted: list[IntArray] = []
    for inside in places:
        around.append(_hull(held[:, inside]))
        own = needed[:, inside]
        largest = own[np.arange(len(own)), _volumes(own).argmax(axis=1)]
        wanted.append(np.where(_complete(own)[:, None, None], _hull(own), largest))
    return _Clusters(places, np.stack(around, axis=1), np.stack(wanted, axis=1))


def _hull(boxes: IntArray) -> IntArray:
    """The box around some, ``[layouts, boxes, rank, 2]`` to ``[layouts, rank, 2]``."""
    something = np.all(boxes[..., 0] < boxes[..., 1], axis=-1, keepdims=True)
    low = np.where(something, boxes[..., 0], np.iinfo(np.int64).max).min(axis=1)
    high = np.where(something, boxes[..., 1], 0).max(axis=1)
    return np.stack([np.minimum(low, high), high], axis=-1)


def _complete(boxes: IntArray) -> BoolArray:
    """Whether boxes ``[layouts, boxes, rank, 2]`` fill the box around them, as all combinations of some ranges."""
    low, high = boxes[..., 0], boxes[..., 1]
    base = int(high.max(initial=0)) + 1
    ranges = np.sort(low * base + high, axis=1)
    start, stop = np.divmod(ranges, base)
    joined = (start[:, 1:] <= np.maximum.accumulate(stop, axis=1)[:, :-1]).all(axis=(1, 2))
    combinations = (1 + (ranges[:, 1:] != ranges[:, :-1]).sum(axis=1)).prod(axis=-1)
    number = np.sort(_numbered(boxes), axis=1)
    different = 1 + (number[:, 1:] != number[:, :-1]).sum(axis=1)
    complete: BoolArray = (low < high).all(axis=(1, 2)) & joined & (different == combinations)
    return complete


def resolution_bounds(kept: FloatArray, space: LayerSpace, port: Ports) -> FloatArray:
    """Seconds at least to resolve the partial sums of strategies, 0 where there are none.

    Of ``p`` parts, a member that keeps ``r`` bytes of the sum has to take in ``(p - 1) r`` if it alone keeps them, and
    ``2 (p - 1) / p r`` if all holders keep all (Patarasuk and Yuan, 2009), in as many rounds as doubling takes.

    Args:
        kept: Bytes that each member keeps, ``[strategies, members]``.
        space: The strategies.
        port: How fast data can come in.
    """
    scattered = space.scattered[:, None]
    parts = space.parts[:, None]
    volume = kept * np.where(scattered, parts - 1, 2 * (parts - 1) / np.maximum(parts, 1))
    rounds = np.ceil(np.log2(np.maximum(parts, 1))) * np.where(scattered, 1, 2)
    latency = np.minimum(port.near_latency_s, port.far_latency_s)
    fastest = np.minimum(port.near_s_per_byte, port.far_s_per_byte)
    if not port.one_port:
        rounds, fastest = np.ones_like(rounds), port.all_s_per_byte
        volume = kept
    # Of unequal pieces a member takes in those of the others, too: the mean is what is certain.
    seconds = rounds.max(axis=-1) * latency.min() + volume.mean(axis=-1) * fastest.min()
    groups = np.unique(port.group)
    if len(groups) > 1 and port.one_port:
        for group in groups:
            inside = port.group == group
            # Where a group lacks a part, every byte that it keeps takes in something from another group.
            lacking = np.asarray(
                [
                    len(set(row[inside].tolist())) < count
                    for row, count in zip(space.part, space.parts.tolist(), strict=True)
                ]
            )
            # Pieces of one group pass through members of another, so that only means over all of them are certain.
            across = np.minimum(kept[:, inside].mean(axis=-1), kept.mean(axis=-1))
            # All holders of an all-reduce keep the same bytes, of which each may take in its share.
            across = np.where(scattered[:, 0], across, across / inside.sum())
            gathered = volume.mean(axis=-1) * fastest.min()
            extra = np.maximum(port.far_s_per_byte[inside].min() - fastest[inside].max(), 0.0)
            crossing = port.far_latency_s[inside].min() + gathered + across * extra
            seconds = np.maximum(seconds, np.where(lacking & (across > 0), crossing, 0.0))
    bounds: FloatArray = np.where(space.parts > 1, seconds, 0.0)
    return bounds
