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


def runs_at_least(own: FloatArray) -> Runs:
    """Of a set at which nobody has looked, from the least seconds of each segment."""
    end = np.concatenate([np.cumsum(own[::-1])[::-1], [0.0]])
    return Runs(own, end, end)


def runs_of(known: SegmentTables, least: FloatArray) -> Runs:
    """Of a set, as its tables are by now; a segment that nobody has looked at has one layout, and ``least`` seconds."""
    count = len(known.chain.segments)
    own, end, most = least.copy(), np.zeros(count + 1), np.zeros(count + 1)
    after = np.zeros(1)
    for index in reversed(range(count)):
        if known.built(index):
            seconds = known.solve(index).seconds
            own[index] = seconds.min()
            end[index] = (seconds.min(axis=0) + after).min()
        else:
            end[index] = own[index] + after.min()
        if index and known.built(index) and known.built(index - 1):
            after = known.passage(index).backward(np.broadcast_to(after, seconds.shape[1:]))
        else:
            after = end[[index]]
        most[index] = after.max()
    return Runs(own, end, most)
