"""From the end of one segment to the end of the next on the same set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.chain.chain import Chain
from mars_onnx.search.exact.communication.moves import BoolArray, FloatArray
from mars_onnx.search.exact.one_set.onset import Edge, OnSet
from mars_onnx.search.exact.one_set.takers import unstated
from mars_onnx.search.exact.work import ENTRY, spend

#: With no more entries than this, both steps are made one.
_MOST_JOINED = 2_000_000


@dataclass(eq=False)
class Passage:
    """A tensor at a gate goes from how it is made to how it is taken, and through the segment behind.

    Attributes:
        rows: Where one layer takes the tensor: per column of the segment before, the row of the segment behind.
        edge: Where several do: seconds from every column to every row.
        closed: Which of these no mapping can state.
    """

    rows: IntArray | None
    edge: Edge | None
    closed: BoolArray | None
    _version: int = -1
    _conversion: FloatArray | None = None
    _seconds: FloatArray | None = None
    _joined: FloatArray | None = None

    def now(self, seconds: FloatArray) -> Passage:
        """The passage with the table of the segment behind, as it is by now."""
        version = 0 if self.edge is None else self.edge.refresh()
        if self._seconds is seconds and self._version == version:
            return self
        if self.edge is not None and self.closed is not None and version != self._version:
            self._conversion = np.where(self.closed, np.inf, self.edge.seconds)
        self._seconds, self._version = seconds, version
        if self.rows is not None:
            self._joined = seconds[self.rows]
        elif self._conversion is not None and self._conversion.size * seconds.shape[1] <= _MOST_JOINED:
            spend(ENTRY, self._conversion.size * seconds.shape[1])
            self._joined = (self._conversion[:, :, None] + seconds[None]).min(axis=1)
        else:
            self._joined = None
        return self

    def _tables(self) -> tuple[FloatArray, FloatArray]:
        if self._conversion is None:
            raise ValueError("a passage without a conversion")
        return self._conversion, self._table()

    def onward(self, before: FloatArray) -> FloatArray:
        """The least seconds per column, from those per column of the segment before."""
        if self._joined is not None:
            least: FloatArray = (before[:, None] + self._joined).min(axis=0)
        else:
            conversion, seconds = self._tables()
            least = ((before[:, None] + conversion).min(axis=0)[:, None] + seconds).min(axis=0)
        return least

    def arrive(self, before: FloatArray) -> FloatArray:
        """The least seconds per row of the segment behind, from those per column of the segment before."""
        seconds = self._table()
        if self.rows is not None:
            least: FloatArray = np.full(len(seconds), np.inf)
            np.minimum.at(least, self.rows, before)
        else:
            least = (before[:, None] + self._tables()[0]).min(axis=0)
        return least

    def _table(self) -> FloatArray:
        if self._seconds is None:
            raise ValueError("a passage without tables")
        return self._seconds

    def backward(self, after: FloatArray) -> FloatArray:
        """The least seconds that are left, per column of the segment before, from those per column."""
        if self._joined is not None:
            least: FloatArray = (self._joined + after).min(axis=1)
        else:
            conversion, seconds = self._tables()
            least = (conversion + (seconds + after).min(axis=1)).min(axis=1)
        return least

    def origin(self, before: FloatArray, column: int) -> tuple[float, int, int]:
        """The best way to a column: its seconds, the column of the segment before, and the row between them."""
        if self.rows is not None:
            total = before + self._table()[self.rows, column]
            previous = int(total.argmin())
            return float(total[previous]), previous, int(self.rows[previous])
        conversion, seconds = self._tables()
        every = before[:, None] + conversion + seconds[:, column]
        previous, row = divmod(int(every.argmin()), every.shape[1])
        return float(every[previous, row]), previous, row


def passage(chain: Chain, on: OnSet, index: int, columns: IntArray, domain: IntArray) -> Passage:
    """The passage to a segment.

    Args:
        chain: The problem.
        on: The set.
        index: Of the segment.
        columns: Layouts in which the tensor at its gate is made.
        domain: Those in which the segment takes it.
    """
    gate = chain.segments[index].gate
    if gate is None:
        return Passage(np.zeros(len(columns), np.int64), None, None)
    if len(chain.consumers[gate]) == 1:
        # Everything that the tensor is made in is among what it is taken in.
        return Passage(np.searchsorted(domain, columns), None, None)
    kind = chain.kinds[gate]
    return Passage(None, on.layouts.edge(kind, columns, domain), unstated(on.layouts, kind, columns, domain))
