"""What communication takes at least, for many pairs of layouts or many strategies at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.ports import Ports
from mars_onnx.search.exact.space import FloatArray, LayerSpace

BoolArray = npt.NDArray[np.bool_]

#: Fewer elements than this are missing by rounding only.
_ROUNDING = 1e-9


def move_bounds(held: IntArray, needed: IntArray, port: Ports, bits: int) -> FloatArray:
    """Seconds at least from layouts to layouts, ``[A, B]``: every member takes in what it lacks.

    Plans (:mod:`mars_onnx.redistribution`) go axis by axis, and who takes part in several collectives does so one after
    the other. So a member that keeps something, and gains something along several axes, waits for messages along each
    of them. Single messages, where nothing is regular, are boxes beside what it has, on one side each. Only who keeps
    nothing, or gets exactly what another one holds, may get it in one message.

    Args:
        held: Boxes ``[A, members, rank, 2]``.
        needed: Boxes ``[B, members, rank, 2]``.
        port: How fast data comes to the members.
        bits: Width of an element.
    """
    width, ends, members = bits / 8, port.endpoint_latency_s, held.shape[1]
    latency = float(np.minimum(port.near_latency_s, port.far_latency_s).min())
    clusters = _clusters(held, needed, port.group)
    around, wanted = np.concatenate([held, clusters.around], axis=1), np.concatenate([needed, clusters.wanted], axis=1)
    kept, waits = np.ones(()), np.zeros(())
    for dim in range(held.shape[2]):
        low, high = around[0, 0, dim].tolist()
        if (around[:, :, dim] == (low, high)).all() and (wanted[:, :, dim] == (low, high)).all():
            kept = kept * (high - low)
            continue
        ranges = _Ranges(around[:, :, dim], wanted[:, :, dim], members)
        kept = kept * ranges.spread(ranges.common)
        waits = waits + ranges.spread(_waiting(ranges.partners, port, latency), members)
    volumes = _volumes(wanted)
    missing = (volumes[None] - kept) * width
    lack, kept = missing[..., :members], np.broadcast_to(kept, missing.shape)[..., :members]
    if port.one_port:
        # Whoever has taken in bytes of n members, one message at a time, has them after log2(1 + n) rounds.
        largest = _volumes(held).max(axis=-1) * width
        partners = np.ceil(lack / np.maximum(largest, 1e-30)[:, None, None])
        once = np.ceil(np.log2(1 + partners)) * (latency + ends) + ends
        rate = np.minimum(port.near_s_per_byte, port.far_s_per_byte)
    else:
        once, rate = np.asarray(latency + 2 * ends), port.all_s_per_byte
    waits = np.where((kept == 0) | _offered(held, needed), once, np.maximum(waits, once))
    waits = np.where(lack > 0, waits, 0.0)
    seconds: FloatArray = (waits + lack * rate).max(axis=-1)
    # Who takes in what its cluster lacks waits for a message from afar instead of one from nearby.
    others = np.maximum(waits - latency, 2 * ends)
    for number, inside in enumerate(clusters.members):
        most = missing[..., members + number]
        across = _crossing(most, lack[..., inside], others[..., inside], port, inside)
        seconds = np.maximum(seconds, np.where(most > _ROUNDING, across, 0.0))
    return seconds


def _waiting(partners: FloatArray, port: Ports, latency: float) -> FloatArray:
    """Seconds at least for messages along one axis, by from how many members they come."""
    ends = port.endpoint_latency_s
    rounds = np.ceil(np.log2(1 + partners)) if port.one_port else np.minimum(partners, 1)
    at_once = np.where(partners > 0, port.chunks * (rounds * (latency + ends) + ends), 0.0)
    seconds: FloatArray = np.minimum(at_once, partners * (latency + 2 * ends))
    return seconds


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
    """One dimension of all pairs of boxes, by distinct ranges.

    Attributes:
        common: Length of what two ranges have in common, ``[held, needed]``.
        partners: From how many others at least comes what a range lacks of another, ``[held, needed]``.
    """

    def __init__(self, held: IntArray, needed: IntArray, members: int) -> None:
        """From ranges ``[A, boxes, 2]`` and ``[B, boxes, 2]``, of which the first are those of members."""
        longest = (held[:, :members, 1] - held[:, :members, 0]).max(axis=1)[:, None]
        (low, high, most), self._rows = _distinct(held[..., 0], held[..., 1], longest)
        (start, stop), self._columns = _distinct(needed[..., 0], needed[..., 1])
        low, high, most = low[:, None], high[:, None], np.maximum(most, 1)[:, None]
        self.common: FloatArray = np.maximum(np.minimum(high, stop) - np.maximum(low, start), 0).astype(np.float64)
        before = np.maximum(np.minimum(low, stop) - start, 0)
        behind = np.maximum(stop - np.maximum(high, start), 0)
        self.partners: FloatArray = np.ceil(before / most) + np.ceil(behind / most)

    def spread(self, table: FloatArray, members: int | None = None) -> FloatArray:
        """Values by distinct ranges, as ``[A, B, boxes]``, or one value for all; if asked for, of the first boxes."""
        if table.size == 1:
            return table.reshape(())
        return table[self._rows[:, None, :members], self._columns[None, :, :members]]


def _distinct(*columns: IntArray) -> tuple[list[IntArray], IntArray]:
    """Distinct entries of several arrays that broadcast together, and where each is."""
    number: IntArray = columns[0]
    for column in columns[1:]:
        number = number * (int(column.max(initial=0)) + 1) + column
    flat = number.ravel()
    if (flat == flat[0]).all():
        return [column.ravel()[:1] for column in columns], np.zeros(number.shape, np.int64)
    _, first, at = np.unique(flat, return_index=True, return_inverse=True)
    return [np.broadcast_to(column, number.shape).ravel()[first] for column in columns], at.reshape(number.shape)


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
