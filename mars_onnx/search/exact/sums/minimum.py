"""The least sum of arrays over one dimension, and the same again after some entries have changed.

Costs become exact a few at a time. Of a sum over three dimensions most stays as it is, and what stays need not be added
up again: where a value of a kept dimension has changed, only what belongs to it is; where one of the dimension that is
minimised over has, only places at which that one was the least, and the others can at most become less by it.

Arrays have all dimensions, of size 1 where they are the same for all values; the first is minimised over.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mars_onnx.search.exact.work import ENTRY, spend

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: With more of the places to work out again than this, all are.
_MOST_CHANGED = 0.7
#: Places that are picked one by one take so many times as long as all of them in a row.
_PICKED = 10
#: With fewer places than these, all values are added up at once.
_SMALL = 8_000
#: The only value of a dimension of size 1.
_ALL = np.zeros(1, np.int64)


def least_of_whole(arrays: Sequence[FloatArray]) -> FloatArray:
    """The least sum over the first dimension, all at once."""
    # In the order of memory: transposed arrays would take twice as long to add up.
    total = reduce(np.add, (np.ascontiguousarray(array) for array in arrays))
    least: FloatArray = total.min(axis=0)
    return least


def least_sum(arrays: Sequence[FloatArray]) -> FloatArray:
    """The least sum over the first dimension; of large ones value by value, so that it stays in the processor's cache."""
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    spend(ENTRY, len(arrays) * prod(shape))
    if prod(shape[1:]) < _SMALL:
        return least_of_whole(arrays)
    first, *others = (np.broadcast_to(np.ascontiguousarray(own), (shape[0], *own.shape[1:])) for own in arrays)
    least = np.full(shape[1:], np.inf)
    total = np.empty(shape[1:])
    for value in range(shape[0]):
        np.add(first[value], others[0][value] if others else 0.0, out=total)
        for own in others[1:]:
            total += own[value]
        np.minimum(least, total, out=least)
    return least


def least_sum_again(least: FloatArray, before: Sequence[FloatArray], after: Sequence[FloatArray]) -> FloatArray:
    """The least sum of arrays, from the least sum of what they were before.

    Args:
        least: The least sum before; the same object is returned if nothing has changed.
        before: The arrays before; those that have not changed are the same objects.
        after: The arrays.
    """
    changes = [_change(own, new) for own, new in zip(before, after, strict=True) if own is not new]
    changes = [change for change in changes if change.part]
    if not changes:
        return least
    slices = [change for change in changes if change.dimension]
    if sum(change.part for change in slices) > _MOST_CHANGED:
        return least_sum(after)
    found = least.copy()
    minimised = [change.values for change in changes if not change.dimension]
    if minimised:
        values = np.unique(np.concatenate(minimised))
        if 2 * len(values) > _MOST_CHANGED * max(map(len, after)):
            return least_sum(after)
        stale = _lower(found, values, before, after)
        smallest = min((_values(stale, own) for own in range(stale.ndim)), key=lambda own: own[:2])
        if _PICKED * np.count_nonzero(stale) < smallest.part * stale.size:
            _pick(found, np.nonzero(stale), after)
        else:
            slices.append(smallest._replace(dimension=smallest.dimension + 1))
    if sum(change.part for change in slices) > _MOST_CHANGED:
        return least_sum(after)
    for change in slices:
        if change.part:
            inside = [_within(own, change) for own in after]
            found[(slice(None),) * (change.dimension - 1) + (change.values,)] = least_sum(inside)
    return found


class _Change(NamedTuple):
    """Where an array has changed: values of one dimension, so that they are the least part of it."""

    part: float
    dimension: int
    values: IntArray


def _change(before: FloatArray, after: FloatArray) -> _Change:
    different = before != after
    found = [_values(different, dimension) for dimension, size in enumerate(different.shape) if size > 1]
    # A single entry is in every sum: all places have changed.
    return min(found, key=lambda change: change[:2], default=_Change(float(different.any()), 1, _ALL))


def _within(array: FloatArray, change: _Change) -> FloatArray:
    """The part of an array where something has changed."""
    return array if array.shape[change.dimension] == 1 else array.take(change.values, change.dimension)


def _values(different: BoolArray, dimension: int) -> _Change:
    """The values of a dimension at which something is different."""
    others = tuple(other for other in range(different.ndim) if other != dimension)
    values = np.flatnonzero(different.any(axis=others))
    return _Change(len(values) / different.shape[dimension], dimension, values)


def _lower(least: FloatArray, values: IntArray, before: Sequence[FloatArray], after: Sequence[FloatArray]) -> BoolArray:
    """Lower the least sum where changed values of the first dimension are less now.

    Returns:
        Whether one of these was the least before and is more now, at every place.
    """
    spend(ENTRY, 2 * len(after) * len(values) * least.size)
    stale = np.zeros(least.shape, np.bool_)
    lowest = np.full(least.shape, np.inf)
    for value in values.tolist():
        old, new = _at(before, value), _at(after, value)
        stale |= (old <= least) & (new > old)
        np.minimum(lowest, new, out=lowest)
    np.minimum(least, lowest, out=least)
    return stale


def _at(arrays: Sequence[FloatArray], value: int) -> FloatArray:
    """The sum at one value of the first dimension."""
    return reduce(np.add, (array[value if len(array) > 1 else 0] for array in arrays))


def _pick(least: FloatArray, places: tuple[IntArray, ...], arrays: Sequence[FloatArray]) -> None:
    """Work out some places again."""
    spend(ENTRY, _PICKED * len(arrays) * max(map(len, arrays)) * len(places[0]))
    picked: list[FloatArray] = []
    for array in arrays:
        sizes = array.shape[1:]
        index = tuple(own if size > 1 else np.zeros_like(own) for own, size in zip(places, sizes, strict=True))
        picked.append(array.reshape(len(array), -1).take(np.ravel_multi_index(index, sizes), axis=1))
    least[places] = reduce(np.add, picked).min(axis=0)
