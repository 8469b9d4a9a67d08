"""All pairs of rows and columns, of several tables one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mars_onnx.rules.axes import IntArray


class Products:
    """Pairs of all rows of a table with all its columns, of several tables one after the other.

    Attributes:
        starts: At which pair each table starts.
        total: How many pairs there are.
    """

    def __init__(self, rows: Sequence[int] | IntArray, columns: Sequence[int] | IntArray) -> None:
        """Of tables with so many rows and so many columns, which are numbered through all tables."""
        height, self._width = np.asarray(rows, np.int64), np.asarray(columns, np.int64)
        ends = np.cumsum(height * self._width)
        self.starts: IntArray = ends - height * self._width
        self.total = int(ends[-1])
        self._row, self._column = np.cumsum(height) - height, np.cumsum(self._width) - self._width

    def parts(self, several: int) -> Iterator[tuple[IntArray, IntArray]]:
        """Rows and columns of all pairs, so many at a time."""
        for start in range(0, self.total, several):
            place = np.arange(start, min(start + several, self.total))
            table = np.searchsorted(self.starts, place, side="right") - 1
            row, column = np.divmod(place - self.starts[table], self._width[table])
            yield self._row[table] + row, self._column[table] + column
