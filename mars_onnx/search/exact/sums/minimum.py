"""The least sum of arrays over one dimension, and the same again after some entries have changed.

Costs become exact a few at a time. Of a sum over three dimensions most stays as it is, and what stays need not be added
up again. A place of the kept dimensions has to be where one of its least terms has become more; and where a term has
become less, it may be the least one now.

Arrays have all dimensions, of size 1 where they are the same for all values; the first is minimised over.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from mars_onnx.search.exact.work import ENTRY, spend

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
_Kind = TypeVar("_Kind", bound=np.generic)

#: With fewer places than these, all values are added up at once.
_SMALL = 8_000
#: A term that is looked at takes so many times as long as one that is added up, ...
_LOOKED_AT = 3
#: ... and one of a place that is picked so many times.
_PICKED = 2.5
#: Where the part that has changed takes more of the whole than this, the whole is added up.
_MOST_CHANGED = 0.7
#: With no more places to pick, arrays stay as they are in memory.
_FEW = 128
#: Terms that are looked at together: these stay in the processor's cache.
_AT_ONCE = 30_000


def least_of_whole(arrays: Sequence[FloatArray]) -> FloatArray:
    """The least sum over the first dimension, all at once."""
    # In the order of memory: transposed arrays would take twice as long to add up.
    total = reduce(np.add, (np.ascontiguousarray(array) for array in arrays))
    least: FloatArray = total.min(axis=0)
    return least


def least_sum(arrays: Sequence[FloatArray]) -> FloatArray:
    """The least sum over the first dimension; of large ones value by value: it stays in the processor's cache."""
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
    changes = [
        _Change(number, different, least.shape)
        for number, (own, new) in enumerate(zip(before, after, strict=True))
        if own is not new and (different := own != new).any()
    ]
    if not changes:
        return least
    values = max(map(len, after))
    most = _MOST_CHANGED * values * least.size
    terms = sum(change.terms for change in changes)
    if terms * _LOOKED_AT > most:
        return least_sum(after)
    spend(ENTRY, _LOOKED_AT * len(after) * terms)
    stale, found = np.zeros(least.shape, np.bool_), least.copy()
    for change in changes:
        change.look(stale, found, least, before, after)
    picked = int(np.count_nonzero(stale)) * values
    if terms * _LOOKED_AT + picked * _PICKED > most:
        return least_sum(after)
    spend(ENTRY, int(_PICKED * len(after) * picked))
    _pick(found, stale, after)
    return found


class _Change:
    """Entries of one of the arrays that are different from what they were."""

    def __init__(self, number: int, different: BoolArray, shape: tuple[int, ...]) -> None:
        """In an array of some.

        Args:
            number: Which of the arrays.
            different: Whether an entry is.
            shape: Of the places of all arrays together.
        """
        self._number = number
        #: Dimensions of places that the array has, and those in which it is the same for all.
        self._own = [dim for dim, size in enumerate(different.shape[1:]) if size > 1]
        self._free = [dim for dim, size in enumerate(different.shape[1:]) if size == 1]
        sizes = [shape[dim] for dim in self._own]
        self._width = prod(shape[dim] for dim in self._free)
        values, *places = np.unravel_index(np.flatnonzero(different), different.shape)
        at = [places[dim] for dim in self._own]
        rows = np.ravel_multi_index(at, sizes) if at else np.zeros_like(values)
        # Those of one row of places follow each other.
        order = np.argsort(rows, kind="stable")
        self._rows, self._value, self._at = rows[order], values[order], [own[order] for own in at]
        #: Terms of sums that have changed.
        self.terms = len(rows) * self._width

    def look(
        self,
        stale: BoolArray,
        found: FloatArray,
        least: FloatArray,
        before: Sequence[FloatArray],
        after: Sequence[FloatArray],
    ) -> None:
        """Note where a least term has become more, and take in those that have become less.

        Args:
            stale: Per place whether its least sum is not known any more.
            found: The least sums, those that have become less taken in.
            least: The least sums before.
            before: All arrays before.
            after: All arrays.
        """
        order = (*self._own, *self._free)
        known = least.transpose(order).reshape(-1, self._width)
        more = np.zeros(known.shape, np.bool_)
        if len(before[self._number]) == 1:
            # The same for all values: all terms of these places have changed.
            more[self._rows] = True
        else:
            grown = all((own <= new).all() for own, new in zip(before, after, strict=True) if own is not new)
            lower = None if grown else np.full(known.shape, np.inf)
            several = max(1, _AT_ONCE // self._width)
            for start in range(0, len(self._rows), several):
                entries = slice(start, start + several)
                at = self._rows[entries]
                starts = np.flatnonzero(np.diff(at, prepend=-1))
                old = self._terms(before, entries)
                was_least = old <= known.take(at, axis=0)
                if lower is not None:
                    new = self._terms(after, entries)
                    was_least &= new > old
                    least_new = np.minimum.reduceat(new, starts, axis=0)
                    lower[at[starts]] = np.minimum(lower[at[starts]], least_new)
                more[at[starts]] |= np.logical_or.reduceat(was_least, starts, axis=0)
            if lower is not None:
                np.minimum(found, self._back(lower, least), out=found)
        stale |= self._back(more, least)

    def _back(self, rows: npt.NDArray[_Kind], least: FloatArray) -> npt.NDArray[_Kind]:
        """What is in rows, of the places that the array has, in the dimensions of all."""
        order = (*self._own, *self._free)
        return rows.reshape([least.shape[dim] for dim in order]).transpose(np.argsort(order))

    def _terms(self, arrays: Sequence[FloatArray], entries: slice) -> FloatArray:
        """The sums of arrays at some of the entries, ``[entries, places of each]``."""
        found: list[FloatArray] = []
        for array in arrays:
            moved = array.transpose(0, *(dim + 1 for dim in self._own), *(dim + 1 for dim in self._free))
            lead = 1 + len(self._own)
            rows = moved.reshape(prod(moved.shape[:lead]), *moved.shape[lead:])
            index = tuple(own[entries] for own in (self._value, *self._at))
            found.append(rows.take(_row(index, moved.shape[:lead]), axis=0))
        total: FloatArray = reduce(np.add, found)
        return total.reshape(len(total), -1)


def _pick(least: FloatArray, stale: BoolArray, arrays: Sequence[FloatArray]) -> None:
    """Work out some places again."""
    places = np.unravel_index(np.flatnonzero(stale), stale.shape)
    if len(places[0]) <= _FEW:
        columns = [array.reshape(len(array), -1).take(_row(places, array.shape[1:]), axis=1) for array in arrays]
        least[places] = reduce(np.add, columns).min(axis=0)
        return
    # With all values of a place in a row.
    every = [np.ascontiguousarray(np.moveaxis(array, 0, -1)).reshape(-1, len(array)) for array in arrays]
    several = max(1, _AT_ONCE // max(map(len, arrays)))
    for start in range(0, len(places[0]), several):
        block = tuple(own[start : start + several] for own in places)
        rows = [own.take(_row(block, array.shape[1:]), axis=0) for own, array in zip(every, arrays, strict=True)]
        least[block] = reduce(np.add, rows).min(axis=1)


def _row(index: tuple[IntArray, ...], sizes: Sequence[int]) -> IntArray:
    """The number of each row, by its index in some dimensions; where one has only one value, it is that."""
    rows: IntArray = np.zeros(1, np.int64)
    for own, size in zip(index, sizes, strict=True):
        rows = rows * size + own if size > 1 else rows
    return np.broadcast_to(rows, index[0].shape) if index else rows
