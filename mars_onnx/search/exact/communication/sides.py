"""Boxes of layouts, and what clusters of members hold and need together."""

from __future__ import annotations

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

    def of(self, places: IntArray) -> Sides:
        """Some of them."""
        return Sides(self.members, self.held.take(places, axis=0), self.needed.take(places, axis=0))

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
    clusters = len(port.groups) if len(port.groups) > 1 else 0
    held = np.empty((count, members + clusters, *rest), np.int64)
    needed = np.empty_like(held)
    held[:, :members] = needed[:, :members] = boxes
    for size in {len(inside) for inside in port.groups} if clusters else ():
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
    base = int(high.max(initial=0)) + 1
    ranges = np.sort(low * base + high, axis=1)
    start, stop = np.divmod(ranges, base)
    joined = (start[:, 1:] <= np.maximum.accumulate(stop, axis=1)[:, :-1]).all(axis=(1, 2))
    combinations = (1 + (ranges[:, 1:] != ranges[:, :-1]).sum(axis=1)).prod(axis=-1)
    number = np.sort(_numbered(boxes), axis=1)
    different = 1 + (number[:, 1:] != number[:, :-1]).sum(axis=1)
    complete: BoolArray = (low < high).all(axis=(1, 2)) & joined & (different == combinations)
    return complete


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
