"""What makes a way hopeless where sets work side by side on a stream: the slowest of them counts."""

from __future__ import annotations

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.communication.moves import BoolArray, FloatArray
from mars_onnx.search.exact.ways.aims import Gates, Seconds, order_from
from mars_onnx.search.exact.ways.rest import Order, at_best
from mars_onnx.search.exact.ways.sets import Sets, State

#: How near a bound is found out, relatively.
_NEAR = 1e-3


class Within:
    """What others can still do within a period, by what is used, and what a set has to do at least before that.

    From the last sets to the first: a set can start at a gate if, in time, it gets to the end, or to a gate at which
    others can start. Layouts count on the way to the end only.

    Attributes:
        left: Seconds at least for which a state is at work from a gate on, crossings included, ``[states, gates]``.
        open: Whether others can start when something is used, ``[used, gates]``.
    """

    def __init__(self, sets: Sets, order: Order, limit: float) -> None:
        """With what the tables of the sets say by now."""
        count = len(sets.chain.segments)
        runs = [sets.runs(kind) for kind in order.kinds]
        ends = np.stack([own.end for own in runs])[:, :count]
        done = np.stack([np.concatenate([[0.0], np.cumsum(own.own)]) for own in runs])[:, :count]
        latency_s, s_per_byte = at_best(sets.pool)
        needed_s = np.asarray([sets.needed(gate) for gate in range(count)]) * s_per_byte
        members = np.asarray([len(state.place.members) for state in order.states])
        self.left = np.full((len(order.states), count), np.inf)
        self.open = np.zeros((len(order.first), count), np.bool_)
        latest_first = sorted(order.place, key=sum, reverse=True)
        for place in map(order.place.__getitem__, latest_first):
            states = order.first[place]
            if not len(states):
                continue
            kinds = order.kind[states]
            handed = done[kinds] + latency_s + needed_s / sets.pool.size
            handed[~self.open[order.after[states]]] = np.inf
            # The best gate behind each.
            later = np.full_like(handed, np.inf)
            later[:, :-1] = np.minimum.accumulate(handed[:, :0:-1], axis=1)[:, ::-1]
            self.left[states] = left = np.minimum(ends[kinds], later - done[kinds])
            coming = latency_s + needed_s / members[states, None]
            coming[:, 0] = 0.0
            self.open[place] = (left + coming < limit).any(axis=0)


class LeastPeriod:
    """Every set has to be done with one inference, crossings included, before the limit; sets work side by side."""

    alone = False

    def __init__(self, sets: Sets, limit: float) -> None:
        """With a limit of seconds."""
        self.limit, self._sets = limit, sets
        self._cells = [len(cell) for cell in sets.shapes.cells]
        work = np.full(len(sets.chain.segments), np.inf)
        for state in sets.start():
            work = np.minimum(work, sets.least(state) * len(state.place.members))
        #: The least accelerator seconds that are left, by gate.
        self._work = np.concatenate([np.cumsum(work[::-1])[::-1], [0.0]])
        self._order = order_from(sets, tuple(sets.start()), False)
        self._within = None if self._order.loose else Within(sets, self._order, limit)

    def _free(self, used: tuple[int, ...]) -> int:
        return sum(self._cells) - sum(used)

    def hopeless(self, state: State, index: Gates, seconds: Seconds) -> BoolArray:
        """Whether the accelerators that are left cannot do the work that is left."""
        seconds = np.asarray(seconds)
        if self._within is not None:
            seconds = seconds + self._within.left[self._order.number[state], index]
            return np.asarray(seconds >= self.limit)
        room = (self.limit - seconds) * len(state.place.members) + self.limit * self._free(state.place.used)
        return np.asarray((seconds >= self.limit) | (self._work[index] >= room))

    def hopeless_each(self, used: tuple[int, ...], index: IntArray, seconds: FloatArray) -> BoolArray:
        """Whether each of the sets that can start then cannot."""
        if self._within is not None:
            left = self._within.left[self._order.starting(self._sets, used)[:, None], index]
            return np.asarray(seconds + left >= self.limit)
        every = self._sets.states(used)
        return np.stack([self.hopeless(state, index, own) for state, own in zip(every, seconds, strict=True)])

    def hopeless_after(self, used: tuple[int, ...], index: Gates, seconds: Seconds) -> BoolArray:
        """Whether those that are free cannot."""
        seconds = np.asarray(seconds)
        if self._within is not None:
            return np.asarray((seconds >= self.limit) | ~self._within.open[self._order.place[used], index])
        return np.asarray((seconds >= self.limit) | (self._work[index] >= self.limit * self._free(used)))

    def hand_over(self, reached: FloatArray, crossing: FloatArray) -> FloatArray:
        """A crossing keeps both sets busy."""
        started: FloatArray = np.where(reached + crossing < self.limit, crossing, np.inf)
        return started

    def handed_over(self, least: FloatArray, crossing: FloatArray) -> FloatArray:
        """The same without layouts."""
        return self.hand_over(least, crossing[:, None])


def least_period(sets: Sets, most: float) -> float:
    """What every way takes at least, as far as is known without looking for one: halved until little is left."""
    low, high = 0.0, most
    while high - low > _NEAR * most:
        middle = (low + high) / 2
        nothing = (0,) * len(sets.shapes.cells)
        if LeastPeriod(sets, middle).hopeless_after(nothing, 0, 0.0):
            low = middle
        else:
            high = middle
    return low
