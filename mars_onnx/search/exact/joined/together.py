"""When branches on several sets are joined: what each set has to do before, and which ends are best together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.communication.moves import FloatArray

#: Seconds of one case, or of several.
Amount = float | FloatArray


def until_joined(groups: Sequence[int], home: int, alone: Sequence[Amount], moved: Sequence[Amount]) -> Amount:
    """Seconds until the join can start: the longest of what the set that goes on does, and what others do before it.

    What a set sends comes after all of its branches. From its first tensor on, the set that goes on takes in all that
    the join takes, one after the other.

    Args:
        groups: Per branch the number of its set.
        home: The number of the set that goes on.
        alone: Per branch the seconds on its set.
        moved: Per branch the seconds until its end is where it is needed.
    """
    least: Amount = sum((alone[i] for i, group in enumerate(groups) if group == home), sum(moved, 0.0))
    for other in dict.fromkeys(groups):
        if other != home:
            before: Amount = sum((alone[i] for i, group in enumerate(groups) if group == other), 0.0)
            least = np.maximum(least, sum(moved[groups.index(other) :], before))
    return least


def ends_apart(home: int, arrivals: Sequence[tuple[FloatArray, FloatArray]]) -> FloatArray:
    """Seconds until the join can start where each branch has a set of its own, ``[ends at home, strategies]``.

    Tensors come in the order in which the join takes them, each when its branch and the home set are ready.

    Args:
        home: The branch whose set goes on.
        arrivals: Per branch, for each of its ends, the seconds until then, and ``[ends, strategies]`` from there on.
    """
    reached, own = arrivals[home]
    time = np.repeat(reached[:, None], own.shape[1], axis=1)
    for branch, (ended, moved) in enumerate(arrivals):
        if branch == home:
            time = time + moved
        else:
            ready = np.maximum(ended[None, :, None], time[:, None, :])
            time = (ready + moved[None]).min(axis=1)
    return time


def ends_together(
    groups: Sequence[int], home: int, arrivals: Sequence[tuple[FloatArray, FloatArray]]
) -> tuple[float, list[int]]:
    """The least seconds until branches are joined, and the ends with which it is reached.

    Args:
        groups: Per branch the number of its set.
        home: The number of the set that goes on.
        arrivals: Per branch, for each of its ends, the seconds until then, and from there to the join.
    """
    if len(set(groups)) == 1:
        # One after the other: each end is best by itself, and many branches have too many combinations.
        totals = [ended + arrival for ended, arrival in arrivals]
        return float(sum(own.min() for own in totals)), [int(own.argmin()) for own in totals]
    kept = [_undominated(*own) for own in arrivals]
    alone: list[Amount] = []
    moved: list[Amount] = []
    for branch, (own, (ended, arrival)) in enumerate(zip(kept, arrivals, strict=True)):
        shape = [1] * len(kept)
        shape[branch] = len(own)
        alone.append(ended[own].reshape(shape))
        moved.append(arrival[own].reshape(shape))
    seconds = np.broadcast_to(until_joined(groups, home, alone, moved), tuple(map(len, kept)))
    # Of ends that do as well, those that are soonest.
    total = np.broadcast_to(sum([*alone, *moved]), seconds.shape)
    best = int(np.lexsort((total.ravel(), seconds.ravel()))[0])
    places = np.unravel_index(best, seconds.shape)
    return float(seconds.ravel()[best]), [int(own[place]) for own, place in zip(kept, places, strict=True)]


def _undominated(ended: FloatArray, arrival: FloatArray) -> IntArray:
    """Ends than which no other is both reached sooner and nearer to the join."""
    order = np.lexsort((arrival, ended))
    nearest = np.minimum.accumulate(np.concatenate([[np.inf], arrival[order][:-1]]))
    kept: IntArray = order[arrival[order] < nearest]
    return kept
