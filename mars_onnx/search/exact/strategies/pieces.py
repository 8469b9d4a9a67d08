"""What an axis can be cut into equally: every piece of every number of pieces, each at its place in one table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mars_onnx.rules.axes import Axis, IntArray
from mars_onnx.rules.shares import cut_equally

#: The place of no piece at all, and that of the only piece of one.
NO_PIECE, WHOLE_PIECE = 0, 1


@dataclass(frozen=True, eq=False)
class Pieces:
    """An axis, cut into any number of pieces up to some; see :func:`place_of`.

    Attributes:
        low: Where each starts.
        high: Where each stops.
        empty: Whether there is nothing in it.
        rank: How many before it are not empty.
        count: By the number of pieces, how many of them are not empty; at least 1.
    """

    low: IntArray
    high: IntArray
    empty: npt.NDArray[np.bool_]
    rank: IntArray
    count: IntArray


def place_of(ways: IntArray, digits: IntArray) -> IntArray:
    """The places of pieces ``digits`` of ``ways``; arrays that broadcast together."""
    places: IntArray = 1 + ways * (ways - 1) // 2 + digits
    return places


@lru_cache(maxsize=8192)
def pieces_of(axis: Axis, most: int) -> Pieces:
    """What an axis can be cut into, up to so many pieces."""
    ways = np.repeat(np.arange(1, most + 1), np.arange(1, most + 1))
    starts = place_of(np.arange(1, most + 1), np.asarray(0))
    digits = np.arange(1, len(ways) + 1) - starts[ways - 1]
    low, high = (np.append(0, bound) for bound in cut_equally(axis, np.asarray(axis.size), ways, digits))
    empty = low >= high
    before: IntArray = np.cumsum(~empty) - ~empty
    first: IntArray = before[starts]
    return Pieces(
        low,
        high,
        empty,
        np.append(0, before[1:] - first[ways - 1]),
        np.append(1, np.maximum(1, np.append(first[1:], np.count_nonzero(~empty)) - first)),
    )
