"""What communication takes at least, for many pairs of layouts or many strategies at once."""

from __future__ import annotations

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
    width, ends = bits / 8, port.endpoint_latency_s
    latency = float(np.minimum(port.near_latency_s, port.far_latency_s).min())
    kept, waits = np.ones(()), np.zeros(())
    for dim in range(held.shape[2]):
        ranges = _Ranges(held[:, :, dim], needed[:, :, dim])
        kept = kept * ranges.spread(ranges.common)
        waits = waits + ranges.spread(_waiting(ranges.partners, port, latency))
    largest, whole = _volumes(held).max(axis=-1), _volumes(needed)
    lack = (whole[None] - kept) * width
    if port.one_port:
        # Whoever has taken in bytes of n members, one message at a time, has them after log2(1 + n) rounds.
        partners = np.ceil(lack / np.maximum(largest * width, 1e-30)[:, None, None])
        once = np.ceil(np.log2(1 + partners)) * (latency + ends) + ends
        rate = np.minimum(port.near_s_per_byte, port.far_s_per_byte)
    else:
        once, rate = np.asarray(latency + 2 * ends), port.all_s_per_byte
    waits = np.where((kept == 0) | _offered(held, needed), once, np.maximum(waits, once))
    waits = np.where(lack > 0, waits, 0.0)
    seconds: FloatArray = (waits + lack * rate).max(axis=-1)
    if len(np.unique(port.group)) > 1:
        # Who takes in what its cluster lacks waits for a message from afar instead of one from nearby.
        others = np.maximum(waits - latency, 2 * ends)
        seconds = np.maximum(seconds, _crossing(held, needed, lack, others, port, width))
    return seconds


def _waiting(partners: FloatArray, port: Ports, latency: float) -> FloatArray:
    """Seconds at least for messages along one axis, by from how many members they come."""
    ends = port.endpoint_latency_s
    rounds = np.ceil(np.log2(1 + partners)) if port.one_port else np.minimum(partners, 1)
    at_once = np.where(partners > 0, port.chunks * (rounds * (latency + ends) + ends), 0.0)
    seconds: FloatArray = np.minimum(at_once, partners * (latency + 2 * ends))
    return seconds


class _Ranges:
    """One dimension of all pairs of boxes, by distinct ranges.

    Attributes:
        common: Length of what two ranges have in common, ``[held, needed]``.
        partners: From how many others at least comes what a range lacks of another, ``[held, needed]``.
    """

    def __init__(self, held: IntArray, needed: IntArray) -> None:
        """From ranges ``[A, members, 2]`` and ``[B, members, 2]``."""
        longest = np.broadcast_to((held[..., 1] - held[..., 0]).max(axis=1)[:, None], held.shape[:2])
        (low, high, most), self._rows = _distinct(held[..., 0], held[..., 1], longest)
        (start, stop), self._columns = _distinct(needed[..., 0], needed[..., 1])
        low, high, most = low[:, None], high[:, None], np.maximum(most, 1)[:, None]
        self.common: FloatArray = np.maximum(np.minimum(high, stop) - np.maximum(low, start), 0).astype(np.float64)
        before = np.maximum(np.minimum(low, stop) - start, 0)
        behind = np.maximum(stop - np.maximum(high, start), 0)
        self.partners: FloatArray = np.ceil(before / most) + np.ceil(behind / most)

    def spread(self, table: FloatArray) -> FloatArray:
        """Values by distinct ranges, as ``[A, B, members]``, or one value for all."""
        if table.size == 1:
            return table.reshape(())
        return table[self._rows[:, None], self._columns[None]]


def _distinct(*columns: IntArray) -> tuple[list[IntArray], IntArray]:
    """Distinct entries of several arrays of one shape, and where each is."""
    number = np.zeros(columns[0].shape, np.int64)
    for column in columns:
        number = number * (int(column.max(initial=0)) + 1) + column
    _, first, at = np.unique(number, return_index=True, return_inverse=True)
    return [column.ravel()[first] for column in columns], at.reshape(number.shape)


def _volumes(boxes: IntArray) -> FloatArray:
    """Elements of boxes ``[..., rank, 2]``."""
    volumes: FloatArray = np.maximum(boxes[..., 1] - boxes[..., 0], 0).prod(axis=-1).astype(np.float64)
    return volumes


def _offered(held: IntArray, needed: IntArray) -> BoolArray:
    """Whether somebody holds exactly what a member needs, ``[A, B, members]``."""
    rank = held.shape[2]
    flat = np.concatenate([held.reshape(-1, 2 * rank), needed.reshape(-1, 2 * rank)])
    _, number = _distinct(*flat.T)
    rows, columns = number[: held[..., 0, 0].size].reshape(held.shape[:2]), number[held[..., 0, 0].size :]
    there = np.zeros((len(held), int(number.max()) + 1), np.bool_)
    there[np.arange(len(held))[:, None], rows] = True
    offered: BoolArray = there[:, columns.reshape(needed.shape[:2])]
    return offered


def _crossing(
    held: IntArray, needed: IntArray, lack: FloatArray, others: FloatArray, port: Ports, width: float
) -> FloatArray:
    """Seconds at least until clusters have what they lack.

    Args:
        held: Boxes ``[A, members, rank, 2]``.
        needed: Boxes ``[B, members, rank, 2]``.
        lack: Bytes that a member lacks, ``[A, B, members]``.
        others: Seconds that it waits for messages besides the one from afar.
        port: How fast data comes to the members.
        width: Bytes of an element.
    """
    seconds = np.zeros(lack.shape[:2])
    fastest = np.minimum(port.near_s_per_byte, port.far_s_per_byte)
    for number in np.unique(port.group):
        inside = port.group == number
        around, _ = _hull(held[:, inside])
        together, complete = _hull(needed[:, inside])
        # What one member needs, or all of them, as far as it lies outside of the box around all that the cluster has.
        wanted = np.concatenate([np.where(complete[:, None, None], together, 0)[:, None], needed[:, inside]], axis=1)
        available = np.ones(())
        for dim in range(held.shape[2]):
            ranges = _Ranges(around[:, None, dim], wanted[:, :, dim])
            available = available * ranges.spread(ranges.common)
        missing = ((_volumes(wanted)[None] - available) * width).max(axis=-1)
        if port.one_port:
            # Of the members, the one that takes most across pays for that, and for what it lacks itself.
            share = missing / inside.sum() * np.maximum(port.far_s_per_byte[inside].min() - fastest[inside].max(), 0.0)
            own = (lack[..., inside] * fastest[inside].min() + others[..., inside]).min(axis=-1)
        else:
            share, own = missing / port.far_bytes_per_s[inside].sum(), 2 * port.endpoint_latency_s
        across = port.far_latency_s[inside].min() + share + own
        seconds = np.maximum(seconds, np.where(missing > _ROUNDING, across, 0.0))
    return seconds


def _hull(boxes: IntArray) -> tuple[IntArray, BoolArray]:
    """The box around some boxes, and whether they fill it for sure.

    Args:
        boxes: ``[layouts, boxes, rank, 2]``.

    Returns:
        Boxes ``[layouts, rank, 2]``, and per layout whether its boxes are all combinations of ranges without gaps.
    """
    something = np.all(boxes[..., 0] < boxes[..., 1], axis=-1, keepdims=True)
    low = np.where(something, boxes[..., 0], np.iinfo(np.int64).max).min(axis=1)
    high = np.where(something, boxes[..., 1], 0).max(axis=1)
    hull = np.stack([np.minimum(low, high), high], axis=-1)
    complete = something.all(axis=(1, 2))
    combinations = np.ones(len(boxes), np.int64)
    for dim in range(boxes.shape[2]):
        order = np.argsort(boxes[:, :, dim, 0], axis=1, kind="stable")
        start, stop = (np.take_along_axis(boxes[:, :, dim, end], order, axis=1) for end in (0, 1))
        complete &= (start[:, 1:] <= np.maximum.accumulate(stop, axis=1)[:, :-1]).all(axis=1)
        combinations *= 1 + _changes(boxes[:, :, dim])
    return hull, complete & (1 + _changes(boxes.reshape(*boxes.shape[:2], -1)) == combinations)


def _changes(rows: IntArray) -> IntArray:
    """How many of several rows ``[layouts, rows, columns]`` are unlike all before them, but for the first."""
    alike = (rows[:, :, None] == rows[:, None]).all(axis=-1)
    first = ~np.tril(alike, -1).any(axis=-1)
    count: IntArray = first.sum(axis=1) - 1
    return count


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
