"""All pairs of rows and columns, of several tables one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mars_onnx.rules.axes import IntArray


class Products:
    """Pairs of all rows of a table with all its columns, of several tables one after the other.

    Attributes:
        starts: At which pair each table starts.
        total: How many pairs there are.
    """

    def __init__(self, rows: Sequence[int] | IntArray, columns: Sequence[int] | IntArray) -> None:
        """Of tables with so many rows and so many columns, which are numbered through all tables."""
        self._height, self._width = np.asarray(rows, np.int64), np.asarray(columns, np.int64)
        ends = np.cumsum(self._height * self._width)
        self.starts: IntArray = ends - self._height * self._width
        self.total = int(ends[-1])
        width = np.repeat(self._width, self._height)
        self._row: IntArray = np.repeat(np.arange(len(width)), width)
        first = np.repeat(np.cumsum(self._width) - self._width, self._height)
        #: From the number of a pair to that of its column, which is the same for all pairs of a row.
        self._shift: IntArray = first - (np.cumsum(width) - width)

    def of(self, places: IntArray) -> tuple[IntArray, IntArray]:
        """The row and the column of some pairs."""
        row = self._row.take(places)
        return row, places + self._shift.take(row)

    def parts(self, several: int) -> Iterator[tuple[IntArray, IntArray]]:
        """Rows and columns of all pairs, so many at a time."""
        for start in range(0, self.total, several):
            yield self.of(np.arange(start, min(start + several, self.total)))

    def tables(self, every: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """What there is for all pairs, table by table; these are views."""
        sizes = zip(self.starts.tolist(), self._height.tolist(), self._width.tolist(), strict=True)
        return [every[start : start + height * width].reshape(height, width) for start, height, width in sizes]
