"""What else could be on a best way: entries of tables through which a way is nearly as good.

To find a way anew costs more than to price a few redistributions, of which most would be on the next ways.
"""

from __future__ import annotations

import numpy as np

from mars_onnx.search.exact.build import SegmentTables
from mars_onnx.search.exact.moves import FloatArray


def alternatives(tables: SegmentTables, limit: float, count: int) -> list[tuple[int, int, int]]:
    """Of one set alone, the entries with the best ways through them.

    Args:
        tables: Of the set.
        limit: Ways that are no shorter are left out.
        count: Of entries.

    Returns:
        Segment, row and column of each, best first.
    """
    segments = len(tables.chain.segments)
    after = [np.zeros(0)] * segments
    after[-1] = np.zeros(tables.solve(segments - 1).seconds.shape[1])
    for index in range(segments - 1, 0, -1):
        after[index - 1] = tables.passage(index).backward(after[index])
    found: list[tuple[float, int, int, int]] = []
    before: FloatArray = np.zeros(len(tables.domain(0)))
    for index in range(segments):
        seconds = tables.solve(index).seconds
        through = before[:, None] + seconds + after[index]
        flat = through.ravel()
        several = min(count, flat.size)
        places = np.argpartition(flat, several - 1)[:several]
        width = through.shape[1]
        found += [
            (float(flat[place]), index, *divmod(place, width)) for place in places.tolist() if flat[place] < limit
        ]
        if index + 1 < segments:
            reached = (before[:, None] + seconds).min(axis=0)
            before = tables.passage(index + 1).arrive(reached)
    found.sort()
    return [(index, row, column) for _, index, row, column in found[:count]]
