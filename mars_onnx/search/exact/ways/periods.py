"""What makes a way hopeless where sets work side by side on a stream: the slowest of them counts."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.communication.moves import BoolArray, FloatArray
from mars_onnx.search.exact.ways.aims import Gates, Seconds, order_from
from mars_onnx.search.exact.ways.rest import Order, at_best
from mars_onnx.search.exact.ways.sets import Sets, State
from mars_onnx.search.exact.ways.shapes import Counts

#: How near a bound is found out, relatively.
_NEAR = 1e-3


class _Left(Protocol):
    """What is left within a period, where a set is at work, and where others are to take over."""

    def left(self, state: State, index: Gates) -> FloatArray:
        """Seconds at least for which a set is at work from a gate on."""
        ...

    def left_each(self, used: Counts, index: IntArray) -> FloatArray:
        """The same of each of the sets that can start when something is used, ``[sets, gates]``."""
        ...

    def closed(self, used: Counts, index: Gates) -> BoolArray:
        """Whether no set can start then."""
        ...


class Within:
    """By which sets can follow which.

    From the last sets to the first: a set can start at a gate if, in time, it gets to the end, or to a gate at which
    others can start. Layouts count on the way to the end only.
    """

    def __init__(self, sets: Sets, order: Order, limit: float) -> None:
        """With what the tables of the sets say by now."""
        self._sets, self._order = sets, order
        count = len(sets.chain.segments)
        runs = [sets.runs(kind) for kind in order.kinds]
        ends = np.stack([own.end for own in runs])[:, :count]
        done = np.stack([np.concatenate([[0.0], np.cumsum(own.own)]) for own in runs])[:, :count]
        latency_s, s_per_byte = at_best(sets.pool)
        needed_s = np.asarray([sets.needed(gate) for gate in range(count)]) * s_per_byte
        members = np.asarray([len(state.place.members) for state in order.states])
        #: ``[states, gates]``, crossings included.
        self._left = np.full((len(order.states), count), np.inf)
        #: ``[used, gates]``
        self._open = np.zeros((len(order.first), count), np.bool_)
        latest_first = sorted(order.place, key=sum, reverse=True)
        for place in map(order.place.__getitem__, latest_first):
            states = order.first[place]
            if not len(states):
                continue
            kinds = order.kind[states]
            handed = done[kinds] + latency_s + needed_s / sets.pool.size
            handed[~self._open[order.after[states]]] = np.inf
            # The best gate behind each.
            later = np.full_like(handed, np.inf)
            later[:, :-1] = np.minimum.accumulate(handed[:, :0:-1], axis=1)[:, ::-1]
            self._left[states] = left = np.minimum(ends[kinds], later - done[kinds])
            coming = latency_s + needed_s / members[states, None]
            coming[:, 0] = 0.0
            self._open[place] = (left + coming < limit).any(axis=0)

    def left(self, state: State, index: Gates) -> FloatArray:
        """Until it may hand over, or is at the end."""
        found: FloatArray = self._left[self._order.number[state], index]
        return found

    def left_each(self, used: Counts, index: IntArray) -> FloatArray:
        """The same of each set."""
        found: FloatArray = self._left[self._order.starting(self._sets, used)[:, None], index]
        return found

    def closed(self, used: Counts, index: Gates) -> BoolArray:
        """Whether none gets to the end, or to where it may hand over."""
        return np.asarray(~self._open[self._order.place[used], index])


class _ByWork:
    """By accelerator seconds alone, where there are too many sets to tell apart."""

    def __init__(self, sets: Sets, limit: float) -> None:
        self._sets, self._limit = sets, limit
        self._size = sum(len(cell) for cell in sets.shapes.cells)
        work = np.full(len(sets.chain.segments), np.inf)
        for state in sets.start():
            work = np.minimum(work, sets.least(state) * len(state.place.members))
        #: The least accelerator seconds that are left, by gate.
        self._work = np.concatenate([np.cumsum(work[::-1])[::-1], [0.0]])

    def _beyond(self, used: Counts, index: Gates) -> FloatArray:
        """Accelerator seconds that those which are free cannot do."""
        found: FloatArray = self._work[index] - self._limit * (self._size - sum(used))
        return found

    def left(self, state: State, index: Gates) -> FloatArray:
        """What the others cannot do."""
        least: FloatArray = np.maximum(self._beyond(state.place.used, index) / len(state.place.members), 0.0)
        return least

    def left_each(self, used: Counts, index: IntArray) -> FloatArray:
        """The same of each set."""
        return np.stack([self.left(state, index) for state in self._sets.states(used)])

    def closed(self, used: Counts, index: Gates) -> BoolArray:
        """Whether all that are free cannot do it."""
        return np.asarray(self._beyond(used, index) >= 0)


class LeastPeriod:
    """Every set has to be done with one inference, crossings included, before the limit; sets work side by side."""

    alone = False

    def __init__(self, sets: Sets, limit: float) -> None:
        """With a limit of seconds."""
        self.limit = limit
        order = order_from(sets, tuple(sets.start()), False)
        self._rest: _Left = _ByWork(sets, limit) if order.loose else Within(sets, order, limit)

    def hopeless(self, state: State, index: Gates, seconds: Seconds) -> BoolArray:
        """Whether the set is at work for too long, whatever others do."""
        return np.asarray(seconds + self._rest.left(state, index) >= self.limit)

    def hopeless_each(self, used: Counts, index: IntArray, seconds: FloatArray) -> BoolArray:
        """The same of each of the sets that can start then."""
        return np.asarray(seconds + self._rest.left_each(used, index) >= self.limit)

    def hopeless_after(self, used: Counts, index: Gates, seconds: Seconds) -> BoolArray:
        """Whether the set has been at work for too long, or no other one can take over."""
        return np.asarray((np.asarray(seconds) >= self.limit) | self._rest.closed(used, index))

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
