"""What makes a way through the sets hopeless, and how time goes on when a set hands over to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.moves import FloatArray
from mars_onnx.search.exact.sets import Sets, State


class Aim(Protocol):
    """An objective with a limit that ways have to stay below."""

    limit: float
    alone: bool

    def hopeless(self, state: State, index: int, seconds: float) -> bool:
        """Whether a set that starts a segment after so many seconds cannot stay below the limit."""
        ...

    def hopeless_after(self, used: tuple[int, ...], index: int, seconds: float) -> bool:
        """The same for every set that could take over when these accelerators are used."""
        ...

    def hand_over(self, reached: FloatArray, crossing: FloatArray) -> FloatArray:
        """Seconds of the set that takes over, ``[columns, layouts]``."""
        ...

    def handed_over(self, least: float, crossing: float) -> float:
        """The same for one column and one layout."""
        ...


class LeastLatency:
    """Seconds add up from the start to the end."""

    def __init__(
        self, sets: Sets, states: Sequence[State] | None, limit: float, start: Sequence[State] | None = None
    ) -> None:
        """With a limit of seconds; each of some states alone, or all that there are, one after the other.

        Args:
            sets: Of the pool.
            states: Look at these only.
            limit: Seconds.
            start: Sets that can be the first; by default all.
        """
        self.limit, self.alone = limit, states is not None
        count = len(sets.chain.segments)
        start = start or (sets.start() if states is None else states)
        self._number: dict[State, int] = {}
        first: dict[tuple[int, ...], IntArray] = {}
        pending = [((0,) * len(sets.shapes.cells), list(start))]
        while pending:
            used, found = pending.pop()
            if used in first:
                continue
            first[used] = np.asarray([self._number.setdefault(s, len(self._number)) for s in found], np.int64)
            if not self.alone:
                pending += [(state.place.used, sets.states(state.place.used)) for state in found]
        every = list(self._number)
        least = np.stack([sets.least(state) for state in every])
        self._place = {used: number for number, used in enumerate(first)}
        after = np.asarray([self._place.get(state.place.used, 0) for state in every])
        #: The least that is left, by state or by what is used, and by gate: without layouts, and crossings for nothing.
        self._rest = np.zeros((len(every), count + 1))
        self._rest_after = np.full((len(first), count + 1), np.inf)
        for index in reversed(range(count)):
            onward = self._rest[:, index + 1]
            if not self.alone and index + 1 < count:
                onward = np.minimum(onward, self._rest_after[after, index + 1])
            self._rest[:, index] = least[:, index] + onward
            for number, own in enumerate(first.values()):
                if len(own):
                    self._rest_after[number, index] = self._rest[own, index].min()

    @property
    def least_s(self) -> float:
        """What every way takes at least."""
        return float(self._rest_after[0, 0])

    def hopeless(self, state: State, index: int, seconds: float) -> bool:
        """Whether what is left takes too long at least."""
        return seconds + float(self._rest[self._number[state], index]) >= self.limit

    def hopeless_after(self, used: tuple[int, ...], index: int, seconds: float) -> bool:
        """Whether what is left takes every other set too long."""
        return seconds + float(self._rest_after[self._place[used], index]) >= self.limit

    def hand_over(self, reached: FloatArray, crossing: FloatArray) -> FloatArray:
        """The crossing comes after all that was before."""
        total: FloatArray = reached[:, None] + crossing
        return total

    def handed_over(self, least: float, crossing: float) -> float:
        """The same for one column and one layout."""
        return least + crossing


class LeastPeriod:
    """Every set has to be done with one inference, crossings included, before the limit; sets work side by side."""

    def __init__(self, sets: Sets, states: Sequence[State] | None, limit: float) -> None:
        """With a limit of seconds; each of some states alone, or all that there are, one after the other."""
        self.limit, self.alone = limit, states is not None
        self._cells = [len(cell) for cell in sets.shapes.cells]
        work = np.full(len(sets.chain.segments), np.inf)
        for state in sets.start() if states is None else states:
            work = np.minimum(work, sets.least(state) * len(state.place.members))
        #: The least accelerator seconds that are left, by gate.
        self._work = np.concatenate([np.cumsum(work[::-1])[::-1], [0.0]])

    def _free(self, used: tuple[int, ...]) -> int:
        return sum(self._cells) - sum(used)

    def hopeless(self, state: State, index: int, seconds: float) -> bool:
        """Whether the accelerators that are left cannot do the work that is left."""
        room = (self.limit - seconds) * len(state.place.members) + self.limit * self._free(state.place.used)
        return seconds >= self.limit or float(self._work[index]) >= room

    def hopeless_after(self, used: tuple[int, ...], index: int, seconds: float) -> bool:
        """Whether those that are free cannot."""
        return seconds >= self.limit or float(self._work[index]) >= self.limit * self._free(used)

    def hand_over(self, reached: FloatArray, crossing: FloatArray) -> FloatArray:
        """A crossing keeps both sets busy."""
        fits = reached[:, None] + crossing < self.limit
        started: FloatArray = np.where(fits, crossing, np.inf)
        return started

    def handed_over(self, least: float, crossing: float) -> float:
        """The same for one column and one layout."""
        return crossing if least + crossing < self.limit else float("inf")
