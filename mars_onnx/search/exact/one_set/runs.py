"""What a set takes at least without handing over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mars_onnx.search.exact.communication.moves import FloatArray
from mars_onnx.search.exact.one_set.build import SegmentTables


@dataclass(frozen=True, eq=False)
class Runs:
    """What a set takes at least, by gate.

    Attributes:
        own: Seconds of each segment.
        end: Seconds from each gate to the end.
        most: What :attr:`end` can be from a gate on at most, whatever the layout before it.
    """

    own: FloatArray
    end: FloatArray
    most: FloatArray


def runs_at_least(own: FloatArray, besides: Runs | None = None) -> Runs:
    """Of a set at which nobody has looked, from the least seconds of each segment, and what is known besides."""
    if besides is not None:
        own = np.maximum(own, besides.own)
    end = np.concatenate([np.cumsum(own[::-1])[::-1], [0.0]])
    if besides is not None:
        end = np.maximum(end, besides.end)
    return Runs(own, end, end)


def runs_of(known: SegmentTables, least: FloatArray) -> Runs:
    """Of a set, as its tables are by now; a segment that nobody has looked at has one layout, and ``least`` seconds."""
    count = len(known.chain.segments)
    own, end, most = least.copy(), np.zeros(count + 1), np.zeros(count + 1)
    after = np.zeros(1)
    # Of each kind of segment, the least seconds to every layout at its end.
    columns = {kind: known.solve(kind).seconds.min(axis=0) for kind in set(known.chain.alike) if known.built(kind)}
    least_of = {kind: least_to.min() for kind, least_to in columns.items()}
    kinds = known.chain.alike
    for index in reversed(range(count)):
        least_to = columns.get(kinds[index])
        if least_to is None:
            end[index] = own[index] + after.min()
        else:
            own[index] = least_of[kinds[index]]
            end[index] = (least_to + after).min()
        if index and least_to is not None and kinds[index - 1] in columns:
            # To broadcast takes as long as all else here, and is seldom called for.
            after = after if len(after) == len(least_to) else np.broadcast_to(after, least_to.shape)
            after = known.passage(index).backward(after)
        else:
            after = end[[index]]
        most[index] = after.max()
    return Runs(own, end, most)
