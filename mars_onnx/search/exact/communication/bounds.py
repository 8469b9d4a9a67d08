"""What redistributions take at least, for many pairs of layouts at once.

A plan (:mod:`mars_onnx.redistribution`) is regular for a member, or it gets single messages. A regular one goes axis by
axis, and who takes part in several collectives does so one after the other: a member that gains something along several
axes waits for messages along each of them. Single messages come one after the other too, each with a piece of what one
other member holds: as many as it takes to make up what is lacking; or, where something is kept, boxes beside that, on
one side each, unless another one holds all that is needed.

Where all of a cluster together hold nothing of some range that a member lacks, a message along that axis comes from
afar.

Who holds nothing gets messages at the end, from those who have gained something by then, if anybody has.

Where all members keep their places (they are alike along a dimension in the end if and only if they have been before),
there is no step but a halo exchange in every dimension, and nobody passes on what is not its own: what a member lacks
and its cluster does not hold comes from afar to this very member.

Many layouts are alike in a dimension: there it is found out once for all that are, and for all tables that are asked
for together (:class:`KindGains`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.communication.gains import Gains, KindGains, kinds_of, rounds_of
from mars_onnx.search.exact.communication.mirrors import Fold
from mars_onnx.search.exact.communication.ports import Ports
from mars_onnx.search.exact.communication.products import Products
from mars_onnx.search.exact.communication.sides import Sides, volumes
from mars_onnx.search.exact.strategies.cuts import BoolArray
from mars_onnx.search.exact.strategies.space import FloatArray

#: Fewer elements than this are missing by rounding only.
_ROUNDING = 1e-9
#: Members of pairs of layouts that are looked at together: their arrays stay in the processor's cache, and are so small
#: that the same memory is used again and again.
_AT_ONCE = 12_000
#: Boxes of pairs of tables that are looked at together: what is known of them fits into the memory of any machine.
_TOGETHER = 200_000


@dataclass(frozen=True, eq=False)
class Asked:
    """From which layouts to which others a tensor may have to go.

    Attributes:
        sources: What is held.
        targets: What is needed.
        bits: Width of an element.
        fold: Which pairs are mirror images of others, if some are.
    """

    sources: Sides
    targets: Sides
    bits: int
    fold: Fold | None = None

    @property
    def pairs(self) -> int:
        """How many have to be looked at."""
        images = 0 if self.fold is None else len(self.fold.rows) * len(self.fold.columns)
        return len(self.sources.held) * len(self.targets.needed) - images


def move_bounds(asked: Sequence[Asked], port: Ports) -> list[FloatArray]:
    """Seconds at least from layouts to layouts: every member takes in what it lacks, and waits for it.

    Args:
        asked: Of tensors on the same members.
        port: How fast data comes to these.

    Returns:
        For each ``[sources, targets]``.
    """
    batches: list[list[Asked]] = []
    room = 0
    for own in asked:
        boxes = own.sources.held.shape[0] * own.targets.needed.shape[0] * own.targets.needed.shape[1]
        if boxes > room:
            batches.append([])
            room = _TOGETHER
        batches[-1].append(own)
        room -= boxes
    return [seconds for batch in batches for seconds in _of_tables(batch, port)]


def _of_tables(asked: Sequence[Asked], port: Ports) -> list[FloatArray]:
    """The same of some tables, all together."""
    members = asked[0].sources.members
    rank = max(own.sources.held.shape[2] for own in asked)
    held = np.concatenate([_of_rank(own.sources.held, rank) for own in asked])
    needed = np.concatenate([_of_rank(own.targets.needed, rank) for own in asked])
    rows, columns = [len(own.sources.held) for own in asked], [len(own.targets.needed) for own in asked]
    several = max(1, _AT_ONCE // members)
    gains = KindGains(kinds_of(held, rows), kinds_of(needed, columns), port, several)
    width = np.repeat([table.bits / 8 for table in asked], rows)
    volume, empty = np.ascontiguousarray(volumes(needed).T), np.ascontiguousarray(volumes(held[:, :members]).T) == 0
    pairs = Products(rows, columns)
    seconds, unlike = np.empty(pairs.total), np.ones(pairs.total, np.bool_)
    tables, parts = pairs.tables(seconds), pairs.tables(unlike)
    for table, part in zip(asked, parts, strict=True):
        if table.fold is not None:
            table.fold.part(part)
    places = np.flatnonzero(unlike)
    for start in range(0, len(places), several):
        place = places[start : start + several]
        row, column = pairs.of(place)
        sides = _Sides(volume.take(column, axis=1), empty.take(row, axis=1))
        seconds[place] = _seconds(gains.of(row, column), sides, width[row], port)
    for table, own in zip(asked, tables, strict=True):
        if table.fold is not None:
            table.fold.unfold(own)
    return tables


def _of_rank(boxes: IntArray, rank: int) -> IntArray:
    """Boxes ``[layouts, boxes, rank, 2]`` with further dimensions that have nothing to cut."""
    missing = rank - boxes.shape[2]
    if not missing:
        return boxes
    more = np.broadcast_to(np.array([0, 1]), (*boxes.shape[:2], missing, 2))
    return np.concatenate([boxes, more], axis=2)


@dataclass(frozen=True, eq=False)
class _Sides:
    """What has to be known of layouts besides what they gain of each other.

    Attributes:
        volumes: Elements that members and clusters need, ``[boxes, pairs]``.
        empty: Whether a member holds nothing, ``[members, pairs]``.
    """

    volumes: FloatArray
    empty: BoolArray


def _seconds(gained: Gains, sides: _Sides, width: FloatArray, port: Ports) -> FloatArray:
    """Seconds at least of pairs of layouts, by what members gain, and how many bytes elements have."""
    members = gained.members
    missing = sides.volumes - gained.kept
    waits, certain = _waits(gained, missing[:members], sides, port)
    missing *= width
    lack = missing[:members]
    if port.one_port:
        own = certain + lack * np.minimum(port.near_s_per_byte, port.far_s_per_byte)[:, None]
    else:
        own = waits + lack * port.all_s_per_byte[:, None]
        if gained.near is not None:
            # What is nearby comes while others wait for what is not.
            beyond = (sides.volumes[:members] - gained.near) * width
            own = np.maximum(own, certain + np.where(lack > 0, beyond, 0.0) * port.all_s_per_byte[:, None])
    seconds: FloatArray = own.max(axis=0)
    steady = gained.steady
    if len(steady):
        direct = own.take(steady, axis=1) + gained.direct(steady) * width[steady]
        seconds[steady] = direct.max(axis=0)
    for number, inside in enumerate(port.groups if len(missing) > members else ()):
        most = missing[members + number]
        idle: BoolArray = np.logical_and.reduce(sides.empty.take(inside, axis=0))
        across = _crossing(most, own.take(inside, axis=0), idle, port, inside)
        seconds = np.maximum(seconds, np.where(most > _ROUNDING, across, 0.0))
    return seconds


def _waits(gained: Gains, lack: FloatArray, sides: _Sides, port: Ports) -> tuple[FloatArray, FloatArray]:
    """Seconds at least that members wait for messages, by the elements that they lack, ``[members, pairs]``.

    First if all messages come from nearby, then with those that come from afar for certain.
    """
    ends, latency_s = port.endpoint_latency_s, port.least_latency_s
    sources = np.maximum(gained.piece, 1.0)
    np.divide(lack, sources, out=sources)
    sources *= 1 - _ROUNDING
    np.ceil(sources, out=sources)
    once = (rounds_of(sources) if port.one_port else 1.0) * (latency_s + ends) + ends
    # Nobody holds all that a member needs where it is longer than what anybody holds.
    apart = gained.piece < sides.volumes[: gained.members]
    beside = (gained.kept[: gained.members] > 0) & apart
    single = np.maximum(sources, gained.messages * beside, out=sources)
    single *= latency_s + 2 * ends
    waits = certain = np.minimum(np.maximum(gained.waits, once), single)
    if gained.boxes > gained.members:
        further = (gained.far > 0) * port.further_s[:, None]
        along = gained.waits + gained.far * (port.chunks * port.further_s)[:, None]
        certain = np.minimum(np.maximum(along, once + further), single + further)
    if sides.empty.any():
        # Messages may come from members of the own cluster that have gained what they have from afar.
        others_gain = ((lack > 0) & ~sides.empty).any(axis=0)
        unknown = np.where(others_gain, once, single)
        waits, certain = np.where(sides.empty, unknown, waits), np.where(sides.empty, unknown, certain)
    lacking = lack > 0
    return waits * lacking, certain * lacking


def _crossing(missing: FloatArray, own: FloatArray, idle: BoolArray, port: Ports, inside: IntArray) -> FloatArray:
    """Seconds at least until a cluster has what it lacks.

    Args:
        missing: Bytes that it lacks.
        own: Seconds at least that its members take if all that they lack comes as fast as anything, first dimension.
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
    seconds = own.mean(axis=0) + share
    if idle.any():
        # What each pays does not say of those who hold nothing that a first message comes from afar.
        first = np.maximum(own.min(axis=0), once) + further + share
        seconds = np.where(idle, np.maximum(seconds, first), seconds)
    return seconds
