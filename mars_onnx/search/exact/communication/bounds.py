"""What redistributions take at least, for many pairs of layouts at once.

A plan (:mod:`mars_onnx.redistribution`) is regular for a member, or it gets single messages. A regular one goes axis by
axis, and who takes part in several collectives does so one after the other: a member that gains something along several
axes waits for messages along each of them. Single messages come one after the other too, each with a piece of what one
other member holds: as many as it takes to make up what is lacking; or, where something is kept, boxes beside that, on
one side each, unless another one holds all that is needed.

Where all of a cluster together hold nothing of some range that a member lacks, a message along that axis comes from
afar.

Who holds nothing gets messages at the end, from those who have gained something by then, if anybody has.

Few pairs of several tensors are looked at together, pair by pair. Of many pairs, most are alike in a dimension: there
it is found out once for all that are (:class:`_Grid`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.communication.gains import (
    Gains,
    gains_of,
    patterns_of,
    piece_along,
    piece_of,
    ranges_of,
    rounds_of,
)
from mars_onnx.search.exact.communication.ports import Ports
from mars_onnx.search.exact.communication.sides import Sides, numbered, volumes
from mars_onnx.search.exact.strategies.cuts import BoolArray
from mars_onnx.search.exact.strategies.space import FloatArray

#: Fewer elements than this are missing by rounding only.
_ROUNDING = 1e-9
#: Members of pairs of layouts that are looked at together: what is known of them stays in the processor's cache.
_AT_ONCE = 50_000
#: With no more than these, pairs of layouts are looked at one by one, and with those of other tensors.
_FEW = 10_000
#: Boxes of pairs that are looked at one by one, in one go: what is known of them fits into the memory of any machine.
_TOGETHER = 200_000


@dataclass(frozen=True, eq=False)
class Asked:
    """From which layouts to which others a tensor may have to go.

    Attributes:
        sources: What is held.
        targets: What is needed.
        bits: Width of an element.
    """

    sources: Sides
    targets: Sides
    bits: int


def move_bounds(asked: Sequence[Asked], port: Ports) -> list[FloatArray]:
    """Seconds at least from layouts to layouts: every member takes in what it lacks, and waits for it.

    Args:
        asked: Of tensors on the same members.
        port: How fast data comes to these.

    Returns:
        For each ``[sources, targets]``.
    """
    found: dict[int, FloatArray] = {}
    batches: list[list[int]] = [[]]
    size = 0
    for place, own in enumerate(asked):
        held, needed = own.sources.held, own.targets.needed
        boxes = held.shape[0] * needed.shape[0] * needed.shape[1]
        if boxes > _FEW:
            found[place] = _Grid(held, needed, own.sources.members, port, own.bits / 8).seconds()
            continue
        if size + boxes > _TOGETHER:
            batches.append([])
            size = 0
        batches[-1].append(place)
        size += boxes
    for batch in batches:
        found.update(zip(batch, _of_few([asked[place] for place in batch], port), strict=True))
    return [found[place] for place in range(len(asked))]


def _of_few(asked: Sequence[Asked], port: Ports) -> list[FloatArray]:
    """Pair by pair, all tensors together."""
    if not asked:
        return []
    rank = max(own.sources.held.shape[2] for own in asked)
    held: list[IntArray] = []
    needed: list[IntArray] = []
    shapes = [(len(own.sources.held), len(own.targets.needed)) for own in asked]
    for own, (rows, columns) in zip(asked, shapes, strict=True):
        held.append(_of_rank(own.sources.held, rank).repeat(columns, axis=0))
        wanted = _of_rank(own.targets.needed, rank)
        needed.append(np.broadcast_to(wanted, (rows, *wanted.shape)).reshape(-1, *wanted.shape[1:]))
    counts = [rows * columns for rows, columns in shapes]
    width = np.repeat([own.bits / 8 for own in asked], counts)[:, None, None]
    pairs = _Pairs(np.concatenate(held), np.concatenate(needed), asked[0].sources.members, port, width)
    ends = np.cumsum(counts).tolist()
    seconds = np.split(pairs.seconds(), ends[:-1])
    return [own.reshape(shape) for own, shape in zip(seconds, shapes, strict=True)]


def _of_rank(boxes: IntArray, rank: int) -> IntArray:
    """Boxes ``[layouts, boxes, rank, 2]`` with further dimensions that have nothing to cut."""
    missing = rank - boxes.shape[2]
    if not missing:
        return boxes
    more = np.broadcast_to(np.array([0, 1]), (*boxes.shape[:2], missing, 2))
    return np.concatenate([boxes, more], axis=2)


class _Pairs:
    """Moves from one layout each to another."""

    def __init__(self, held: IntArray, needed: IntArray, members: int, port: Ports, width: FloatArray) -> None:
        """From what is held to what is needed, of so many members and their clusters, with so many bytes an element."""
        self._port, self._width, self._members = port, width, members
        self._held, self._needed = held, needed
        number = numbered(np.concatenate([held[:, :members], needed[:, :members]]))
        self._own, self._wanted = number[: len(held)], number[len(held) :]

    def seconds(self) -> FloatArray:
        """Of all pairs."""
        several = max(1, _AT_ONCE // self._members)
        starts = range(0, len(self._held), several)
        return np.concatenate([self._seconds(slice(start, start + several)) for start in starts])

    def _seconds(self, rows: slice) -> FloatArray:
        members = self._members
        held, needed = ranges_of(self._held[rows]), ranges_of(self._needed[rows])
        piece = piece_of(held, needed, members)[:, :, None]
        gained = gains_of(
            held.low[:, :, None],
            held.high[:, :, None],
            needed.low[:, :, None],
            needed.high[:, :, None],
            piece,
            self._port,
        )
        sides = _Sides(
            volumes(self._needed[rows])[:, None],
            ~(self._own[rows, :, None] == self._wanted[rows, None]).any(axis=1)[:, None],
            (volumes(self._held[rows, :members]) == 0)[:, None],
        )
        return _seconds(gained.together(), sides, self._width[rows], members, self._port)[:, 0]


class _Grid:
    """Moves from all of some layouts to all of some others."""

    def __init__(self, held: IntArray, needed: IntArray, members: int, port: Ports, width: float) -> None:
        """From what is held to what is needed, of so many members and their clusters, with so many bytes an element."""
        self._port, self._width, self._members = port, width, members
        self._lacks, self._number = _offers(held[:, :members], needed[:, :members])
        self._empty = volumes(held[:, :members]) == 0
        self._volumes = volumes(needed)
        self._axes = [self._axis(held[:, :, dim], needed[:, :, dim]) for dim in range(held.shape[2])]

    def _axis(self, around: IntArray, wanted: IntArray) -> tuple[IntArray, IntArray, Gains]:
        """One dimension: of what kind every layout is in it, for many are alike, and what kinds gain of each other."""
        (held, rows), (needed, columns) = patterns_of(around), patterns_of(wanted)
        piece = piece_along(held[:, : self._members], needed[:, : self._members])
        one, other = ranges_of(held[:, :, None]), ranges_of(needed[:, :, None])
        gains = gains_of(
            one.low[:, :, None], one.high[:, :, None], other.low[:, None], other.high[:, None], piece[None], self._port
        )
        return rows, columns, gains.together()

    def seconds(self) -> FloatArray:
        """From every layout to every other."""
        several = max(1, _AT_ONCE // (len(self._number) * self._members))
        starts = range(0, len(self._empty), several)
        return np.concatenate([self._seconds(slice(start, start + several)) for start in starts])

    def _seconds(self, rows: slice) -> FloatArray:
        kinds, others, first = self._axes[0]
        gained = first.between(kinds[rows], others)
        for kinds, others, gains in self._axes[1:]:
            gained.add(gains.between(kinds[rows], others))
        sides = _Sides(self._volumes, self._lacks[rows].take(self._number, axis=1), self._empty[rows][:, None])
        return _seconds(gained, sides, self._width, self._members, self._port)


@dataclass(frozen=True, eq=False)
class _Sides:
    """What has to be known of layouts besides what they gain of each other.

    Attributes:
        volumes: Elements that members and clusters need.
        apart: Whether nobody holds just what a member needs.
        empty: Whether a member holds nothing.
    """

    volumes: FloatArray
    apart: BoolArray
    empty: BoolArray


def _seconds(gained: Gains, sides: _Sides, width: FloatArray | float, members: int, port: Ports) -> FloatArray:
    """Seconds at least of pairs of layouts, ``[A, B]``, by what members gain, and how wide elements are."""
    missing = sides.volumes - gained.kept
    waits, certain = _waits(gained, missing[..., :members], sides, port)
    missing *= width
    lack = missing[..., :members]
    if port.one_port:
        own = certain + lack * np.minimum(port.near_s_per_byte, port.far_s_per_byte)
    else:
        own = waits + lack * port.all_s_per_byte
        if gained.near is not None:
            # What is nearby comes while others wait for what is not.
            beyond = (sides.volumes[..., :members] - gained.near) * width
            own = np.maximum(own, certain + np.where(lack > 0, beyond, 0.0) * port.all_s_per_byte)
    seconds: FloatArray = own.max(axis=-1)
    for number, inside in enumerate(port.groups if missing.shape[-1] > members else ()):
        most = missing[..., members + number]
        idle: BoolArray = np.logical_and.reduce(sides.empty.take(inside, axis=-1), axis=-1)
        across = _crossing(most, own.take(inside, axis=-1), idle, port, inside)
        seconds = np.maximum(seconds, np.where(most > _ROUNDING, across, 0.0))
    return seconds


def _waits(gained: Gains, lack: FloatArray, sides: _Sides, port: Ports) -> tuple[FloatArray, FloatArray]:
    """Seconds at least that members wait for messages, by the elements that they lack, ``[A, B, members]``.

    First if all messages come from nearby, then with those that come from afar for certain.
    """
    ends, latency_s = port.endpoint_latency_s, port.least_latency_s
    members = lack.shape[-1]
    sources = np.maximum(gained.piece, 1.0)
    np.divide(lack, sources, out=sources)
    sources *= 1 - _ROUNDING
    np.ceil(sources, out=sources)
    once = (rounds_of(sources) if port.one_port else 1.0) * (latency_s + ends) + ends
    beside = (gained.kept[..., :members] > 0) & sides.apart
    single = np.maximum(sources, gained.messages * beside, out=sources)
    single *= latency_s + 2 * ends
    waits = certain = np.minimum(np.maximum(gained.waits, once), single)
    if gained.kept.shape[-1] > members:
        further = (gained.far > 0) * port.further_s
        along = gained.waits + gained.far * (port.chunks * port.further_s)
        certain = np.minimum(np.maximum(along, once + further), single + further)
    if sides.empty.any():
        # Messages may come from members of the own cluster that have gained what they have from afar.
        others_gain = ((lack > 0) & ~sides.empty).any(axis=-1, keepdims=True)
        unknown = np.where(others_gain, once, single)
        waits, certain = np.where(sides.empty, unknown, waits), np.where(sides.empty, unknown, certain)
    lacking = lack > 0
    return waits * lacking, certain * lacking


def _crossing(missing: FloatArray, own: FloatArray, idle: BoolArray, port: Ports, inside: IntArray) -> FloatArray:
    """Seconds at least until a cluster has what it lacks.

    Args:
        missing: Bytes that it lacks.
        own: Seconds at least that its members take if all that they lack comes as fast as anything, last dimension.
        idle: Whether none of them holds anything.
        port: How fast data comes to all members.
        inside: Places of those of the cluster.
    """
    seconds: FloatArray
    once = port.least_latency_s + 2 * port.endpoint_latency_s
    further = float(port.further_s[inside[0]])
    if not port.one_port:
        seconds = once + further + missing / port.far_bytes_per_s[inside].sum()
        return seconds
    # On average, members pay for what comes across besides what each pays in any case.
    fastest = np.minimum(port.near_s_per_byte, port.far_s_per_byte)[inside]
    share = missing / len(inside) * max(float(port.far_s_per_byte[inside].min() - fastest.max()), 0.0)
    seconds = own.mean(axis=-1) + share
    if idle.any():
        # What each pays does not say of those who hold nothing that a first message comes from afar.
        first = np.maximum(own.min(axis=-1), once) + further + share
        seconds = np.where(idle, np.maximum(seconds, first), seconds)
    return seconds


def _offers(held: IntArray, needed: IntArray) -> tuple[BoolArray, IntArray]:
    """Which boxes a layout lacks, ``[A, boxes]``, and the number among these of what members need, ``[B, members]``."""
    flat = np.concatenate([held.reshape(-1, *held.shape[2:]), needed.reshape(-1, *needed.shape[2:])])
    number = np.unique(numbered(flat), return_inverse=True)[1]
    count = held.shape[0] * held.shape[1]
    lacks = np.ones((len(held), int(number.max()) + 1), np.bool_)
    lacks[np.arange(len(held))[:, None], number[:count].reshape(held.shape[:2])] = False
    return lacks, number[count:].reshape(needed.shape[:2])
