"""What else could be on a best way: entries of tables through which a way is nearly as good.

To find a way anew costs more than to price a few redistributions, of which most would be on the next ways.
"""

from __future__ import annotations

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.communication.moves import FloatArray
from mars_onnx.search.exact.one_set.build import SegmentTables


def alternatives(tables: SegmentTables, limit: float, count: int) -> list[tuple[int, int, int]]:
    """Of one set alone, the entries with the best ways through them, without those that are exact already.

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
    #: Per segment that is unlike those before it, the best ways through its entries anywhere.
    best: dict[int, FloatArray] = {}
    before: FloatArray = np.zeros(len(tables.domain(0)))
    for index in range(segments):
        seconds = tables.solve(index).seconds
        through = before[:, None] + seconds + after[index]
        like = tables.chain.alike[index]
        best[like] = np.minimum(best[like], through) if like in best else through
        if index + 1 < segments:
            reached = (before[:, None] + seconds).min(axis=0)
            before = tables.passage(index + 1).arrive(reached)
    kinds: list[IntArray] = []
    places: list[IntArray] = []
    values: list[FloatArray] = []
    for index, through in best.items():
        for row, column in tables.solve(index).sharp:
            through[row, column] = np.inf
        flat = through.ravel()
        own = least_places(flat, count)
        kinds.append(np.full(len(own), index))
        places.append(own)
        values.append(flat[own])
    kind, place, value = np.concatenate(kinds), np.concatenate(places), np.concatenate(values)
    order = np.lexsort((place, kind, value))[:count]
    order = order[value[order] < limit]
    chosen = zip(kind[order].tolist(), place[order].tolist(), strict=True)
    return [(index, *divmod(at, best[index].shape[1])) for index, at in chosen]


def least_places(values: FloatArray, count: int) -> IntArray:
    """Where the least values are, so many of them; of equal ones the first.

    Which of equal values ``argpartition`` takes depends on the processor.
    """
    if count >= len(values):
        return np.arange(len(values))
    last = np.partition(values, count - 1)[count - 1]
    below = np.flatnonzero(values < last)
    places: IntArray = np.concatenate([below, np.flatnonzero(values == last)[: count - len(below)]])
    return places
