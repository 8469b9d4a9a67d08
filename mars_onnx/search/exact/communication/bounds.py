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
from mars_onnx.search.exact.communication.sides import of_rank, volumes
from mars_onnx.search.exact.strategies.cuts import BoolArray
from mars_onnx.search.exact.strategies.space import FloatArray

#: Fewer elements than this are missing by rounding only.
_ROUNDING = 1e-9
#: Members of pairs of layouts that are looked at together: their arrays stay in the processor's cache, and are so small
#: that the same memory is used again and again.
_AT_ONCE = 12_000
#: Boxes of pairs of tables that are looked at together: what is known of them fits into the memory of any machine.
_TOGETHER = 1_000_000


@dataclass(frozen=True, eq=False)
class Asked:
    """From which layouts to which others a tensor may have to go.

    Attributes:
        members: How many there are.
        shape: Sizes of the dimensions that are looked at.
        held: What is held, ``[sources, boxes, rank, 2]``: per member, and then per cluster, as :class:`Sides` says.
        needed: What is needed, ``[targets, boxes, rank, 2]``.
        bits: Width of an element.
        fold: Which pairs are mirror images of others, if some are.
    """

    members: int
    shape: tuple[int, ...]
    held: IntArray
    needed: IntArray
    bits: int
    fold: Fold | None = None

    @property
    def pairs(self) -> int:
        """How many have to be looked at."""
        images = 0 if self.fold is None else len(self.fold.rows) * len(self.fold.columns)
        return len(self.held) * len(self.needed) - images


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
        boxes = len(own.held) * len(own.needed) * own.needed.shape[1]
        if boxes > room:
            batches.append([])
            room = _TOGETHER
        batches[-1].append(own)
        room -= boxes
    return [seconds for batch in batches for seconds in _of_tables(batch, port)]


def _of_tables(asked: Sequence[Asked], port: Ports) -> list[FloatArray]:
    """The same of some tables, all together."""
    members = asked[0].members
    rank = max(len(own.shape) for own in asked)
    held = np.concatenate([of_rank(own.held, rank) for own in asked])
    needed = np.concatenate([of_rank(own.needed, rank) for own in asked])
    rows, columns = [len(own.held) for own in asked], [len(own.needed) for own in asked]
    shapes = [(*own.shape, *[1] * (rank - len(own.shape))) for own in asked]
    several = max(1, _AT_ONCE // members)
    gains = KindGains(kinds_of(held, rows, shapes), kinds_of(needed, columns, shapes), port, several)
    width = np.repeat([table.bits / 8 for table in asked], rows)
    volume = np.ascontiguousarray(volumes(needed).T)
    empty = _Empty.of(np.ascontiguousarray(volumes(held[:, :members]).T) == 0, port)
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
        seconds[place] = _seconds(gains.of(row, column), volume.take(column, axis=1), row, empty, width[row], port)
    for table, own in zip(asked, tables, strict=True):
        if table.fold is not None:
            table.fold.unfold(own)
    return tables


@dataclass(frozen=True, eq=False)
class _Empty:
    """Who holds nothing, of layouts, or of what pairs go out from.

    Attributes:
        members: Whether a member does not, ``[members, layouts]``.
        some: Whether some member does not, ``[layouts]``.
        clusters: Whether nobody in a cluster does, ``[clusters, layouts]``.
    """

    members: BoolArray
    some: BoolArray
    clusters: BoolArray

    @classmethod
    def of(cls, members: BoolArray, port: Ports) -> _Empty:
        """By its members."""
        clusters = [members.take(inside, axis=0).all(axis=0) for inside in port.groups]
        return cls(members, np.asarray(members.any(axis=0)), np.asarray(clusters))


def _seconds(
    gained: Gains, volume: FloatArray, row: IntArray, empty: _Empty, width: FloatArray, port: Ports
) -> FloatArray:
    """Seconds at least of pairs of layouts.

    Args:
        gained: What members gain.
        volume: Elements that members and clusters need, ``[boxes, pairs]``.
        row: What is held, by its place.
        empty: Who holds nothing of that.
        width: How many bytes an element has.
        port: How fast data comes to the members.
    """
    members = gained.members
    missing = volume - gained.kept
    waits, certain = _waits(gained, missing[:members], volume[:members], row, empty, port)
    missing *= width
    lack = missing[:members]
    if port.one_port:
        own = certain + lack * port.fastest_s_per_byte[:, None]
    else:
        own = waits + lack * port.all_s_per_byte[:, None]
        if gained.near is not None:
            # What is nearby comes while others wait for what is not.
            beyond = (volume[:members] - gained.near) * width
            own = np.maximum(own, certain + np.where(lack > 0, beyond, 0.0) * port.all_s_per_byte[:, None])
    seconds: FloatArray = own.max(axis=0)
    steady = gained.steady
    if len(steady):
        direct = own.take(steady, axis=1) + gained.direct * width[steady]
        seconds[steady] = direct.max(axis=0)
    for number, inside in enumerate(port.groups if len(missing) > members else ()):
        most = missing[members + number]
        across = _crossing(most, own.take(inside, axis=0), empty.clusters[number].take(row), port, number)
        seconds = np.maximum(seconds, np.where(most > _ROUNDING, across, 0.0))
    return seconds


def _waits(
    gained: Gains, lack: FloatArray, volume: FloatArray, row: IntArray, empty: _Empty, port: Ports
) -> tuple[FloatArray, FloatArray]:
    """Seconds at least that members wait for messages, by the elements that they lack and need, ``[members, pairs]``.

    First if all messages come from nearby, then with those that come from afar for certain; where a member takes one
    message at a time nobody asks for the first, and both are the same.
    """
    ends, latency_s = port.endpoint_latency_s, port.least_latency_s
    sources = lack / gained.piece
    sources *= 1 - _ROUNDING
    np.ceil(sources, out=sources)
    once = (rounds_of(sources) if port.one_port else np.ones(sources.shape)) * (latency_s + ends) + ends
    # Nobody holds all that a member needs where it is longer than what anybody holds.
    beside = (gained.kept[: gained.members] > 0) & (gained.piece < volume)
    single = np.maximum(sources, gained.messages * beside, out=sources)
    single *= latency_s + 2 * ends
    several, found = gained.boxes > gained.members, []
    if not (several and port.one_port):
        found.append(np.minimum(np.maximum(gained.waits, once), single))
    if several:
        further = (gained.far > 0) * port.further_s[:, None]
        along = gained.waits + gained.far * (port.chunks * port.further_s)[:, None]
        found.append(np.minimum(np.maximum(along, once + further), single + further))
    pairs = np.flatnonzero(empty.some.take(row))
    if len(pairs):
        # Messages may come from members of the own cluster that have gained what they have from afar.
        nothing = empty.members.take(row[pairs], axis=1)
        others_gain = ((lack.take(pairs, axis=1) > 0) & ~nothing).any(axis=0)
        unknown = np.where(others_gain, once.take(pairs, axis=1), single.take(pairs, axis=1))
        for own in found:
            own[:, pairs] = np.where(nothing, unknown, own.take(pairs, axis=1))
    lacking = lack > 0
    for own in found:
        own *= lacking
    return found[0], found[-1]


def _crossing(missing: FloatArray, own: FloatArray, idle: BoolArray, port: Ports, number: int) -> FloatArray:
    """Seconds at least until a cluster has what it lacks.

    Args:
        missing: Bytes that it lacks.
        own: Seconds at least that its members take if all that they lack comes as fast as anything, first dimension.
        idle: Whether none of them holds anything.
        port: How fast data comes to all members.
        number: Of the cluster.
    """
    seconds: FloatArray
    once = port.least_latency_s + 2 * port.endpoint_latency_s
    inside = port.groups[number]
    further = float(port.further_s[inside[0]])
    if not port.one_port:
        seconds = once + further + missing / port.far_bytes_per_s[inside].sum()
        return seconds
    # On average, members pay for what comes across besides what each pays in any case.
    share = missing / len(inside) * float(port.dearer_s_per_byte[number, 0])
    seconds = own.sum(axis=0) / len(inside) + share
    if idle.any():
        # What each pays does not say of those who hold nothing that a first message comes from afar.
        first = np.maximum(own.min(axis=0), once) + further + share
        seconds = np.where(idle, np.maximum(seconds, first), seconds)
    return seconds
