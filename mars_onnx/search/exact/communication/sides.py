"""Boxes of layouts, and what clusters of members hold and need together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.communication.ports import Ports
from mars_onnx.search.exact.strategies.cuts import BoolArray
from mars_onnx.search.exact.strategies.space import FloatArray


@dataclass(frozen=True, eq=False)
class Sides:
    """Layouts as what is held, and as what is needed. Behind the members come their clusters, if there are several.

    Attributes:
        members: How many there are.
        held: Per member its box, and per cluster the box around all that it holds, ``[layouts, boxes, rank, 2]``.
        needed: Per member its box, and per cluster the box that its members need together; if that is none, the
            largest that one needs.
    """

    members: int
    held: IntArray
    needed: IntArray

    def part(self, start: int, stop: int, rank: int) -> Sides:
        """Some of them, without further dimensions."""
        return Sides(self.members, self.held[start:stop, :, :rank], self.needed[start:stop, :, :rank])

    def with_more(self, others: Sides) -> Sides:
        """These and others."""
        held, needed = (self.held, others.held), (self.needed, others.needed)
        return Sides(self.members, np.concatenate(held), np.concatenate(needed))


def sides(boxes: IntArray, port: Ports) -> Sides:
    """Of layouts.

    Args:
        boxes: ``[layouts, members, rank, 2]``.
        port: Says which members are near each other.
    """
    count, members, *rest = boxes.shape
    if len(port.groups) == 1:
        return Sides(members, boxes, boxes)
    held = np.empty((count, members + len(port.groups), *rest), np.int64)
    needed = np.empty_like(held)
    held[:, :members] = needed[:, :members] = boxes
    for size in {len(inside) for inside in port.groups}:
        # Those of a size together.
        numbers = [number for number, inside in enumerate(port.groups) if len(inside) == size]
        own = boxes[:, np.stack([port.groups[number] for number in numbers])].reshape(-1, size, *rest)
        around = hull(own)
        largest = own[np.arange(len(own)), volumes(own).argmax(axis=1)]
        together = np.where(_complete(own)[:, None, None], around, largest)
        places = [members + number for number in numbers]
        held[:, places] = around.reshape(count, len(numbers), *rest)
        needed[:, places] = together.reshape(count, len(numbers), *rest)
    return Sides(members, held, needed)


def of_rank(boxes: IntArray, rank: int) -> IntArray:
    """Boxes ``[layouts, boxes, rank, 2]`` with further dimensions that have nothing to cut."""
    missing = rank - boxes.shape[2]
    if not missing:
        return boxes
    more = np.broadcast_to(np.array([0, 1]), (*boxes.shape[:2], missing, 2))
    return np.concatenate([boxes, more], axis=2)


def keys_of(rows: IntArray) -> list[bytes]:
    """What rows of whole numbers are known by, all at once: one at a time would take three times as long."""
    keys: list[bytes] = rows.view(f"V{rows.shape[1] * rows.itemsize}").ravel().tolist()
    return keys


def volumes(boxes: IntArray) -> FloatArray:
    """Elements of boxes ``[..., rank, 2]``."""
    found: FloatArray = np.maximum(boxes[..., 1] - boxes[..., 0], 0).prod(axis=-1).astype(np.float64)
    return found


def hull(boxes: IntArray) -> IntArray:
    """The box around some, ``[layouts, boxes, rank, 2]`` to ``[layouts, rank, 2]``."""
    something = np.all(boxes[..., 0] < boxes[..., 1], axis=-1, keepdims=True)
    low = np.where(something, boxes[..., 0], np.iinfo(np.int64).max).min(axis=1)
    high = np.where(something, boxes[..., 1], 0).max(axis=1)
    return np.stack([np.minimum(low, high), high], axis=-1)


def _complete(boxes: IntArray) -> BoolArray:
    """Whether boxes ``[layouts, boxes, rank, 2]`` fill the box around them, as all combinations of some ranges."""
    low, high = boxes[..., 0], boxes[..., 1]
    base = high.max(axis=(0, 1), initial=0) + 1
    number = low * base + high
    ranges = np.sort(number, axis=1)
    start, stop = np.divmod(ranges, base)
    joined = (start[:, 1:] <= np.maximum.accumulate(stop, axis=1)[:, :-1]).all(axis=(1, 2))
    combinations = (1 + (ranges[:, 1:] != ranges[:, :-1]).sum(axis=1)).prod(axis=-1)
    together = np.sort(_together(number, (base * base).tolist()), axis=1)
    different = 1 + (together[:, 1:] != together[:, :-1]).sum(axis=1)
    complete: BoolArray = (low < high).all(axis=(1, 2)) & joined & (different == combinations)
    return complete


def _together(numbers: IntArray, sizes: Sequence[int]) -> IntArray:
    """A number for each of some rows of numbers ``[..., numbers]``, equal for those that are equal.

    Args:
        numbers: From 0 on.
        sizes: How many there may be in each column.
    """
    found: IntArray = numbers[..., 0]
    room = sizes[0]
    for column, size in enumerate(sizes[1:], start=1):
        if room * size > 1 << 62:
            found = np.unique(found, return_inverse=True)[1].reshape(found.shape)
            room = int(found.max(initial=0)) + 1
        found, room = found * size + numbers[..., column], room * size
    return found
