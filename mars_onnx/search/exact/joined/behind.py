"""The least that is left behind the join, by the set that goes on and what is used then."""

from __future__ import annotations

from math import prod

import numpy as np

from mars_onnx.search.exact.communication.moves import FloatArray
from mars_onnx.search.exact.ways.rest import at_best
from mars_onnx.search.exact.ways.sets import Sets, State
from mars_onnx.search.exact.ways.shapes import Counts

#: Where accelerators of a cell can be told apart: of more ways to use some of them than these, sets are not told apart.
_MOST_USED = 5_000


class Behind:
    """Of a problem that begins with the join.

    What looks at sets have found out is taken in when they have been looked at; what becomes exact later makes bounds
    better, but not by as much as it takes to find that out.
    """

    def __init__(self, sets: Sets) -> None:
        """On the sets of a pool."""
        self._sets = sets
        self._looks = -1
        self._others: dict[Counts, FloatArray] = {}
        self._left: dict[tuple[int, Counts], FloatArray] = {}
        self._kinds: dict[Counts, dict[int, State]] = {}
        latency_s, s_per_byte = at_best(sets.pool)
        count = len(sets.chain.segments)
        crossing = [latency_s + sets.needed(index) * s_per_byte / sets.pool.size for index in range(1, count)]
        self._crossing = np.asarray(crossing)

    def left(self, state: State) -> FloatArray:
        """Per gate the least seconds until the end, where a set is at work."""
        if self._looks != self._sets.looks:
            self._looks = self._sets.looks
            self._others.clear()
            self._left.clear()
        key = (self._sets.key(state), state.place.used)
        if key not in self._left:
            self._left[key] = self._found(state)
        return self._left[key]

    def _found(self, state: State) -> FloatArray:
        runs, others = self._sets.runs(state), self._after(state.place.used)
        left = runs.end.copy()
        count = len(runs.own)
        if np.isfinite(others).any():
            before = np.concatenate([[0.0], np.cumsum(runs.own)])
            for gate in range(count - 1):
                # The set hands over at a later gate: it has done what is between, and as much as others cannot save.
                done = before[gate + 1 : count] - before[gate]
                if np.isfinite(runs.end[gate]):
                    done = np.fmax(done, runs.end[gate] - runs.most[gate + 1 : count])
                left[gate] = min(left[gate], float((done + others[gate:]).min()))
        return left

    def _after(self, used: Counts) -> FloatArray:
        """Per gate but the first the least seconds until the end, where other sets take over when some are used."""
        if used not in self._others:
            own = self._least_of_others(used)
            if own is None:
                self._others[used] = np.full(len(self._crossing), np.inf)
            else:
                self._others[used] = np.cumsum(own[:0:-1])[::-1] + self._crossing
        return self._others[used]

    def _least_of_others(self, used: Counts) -> FloatArray | None:
        """Per segment the least seconds of all sets that can be at work then or later; ``None`` if there are none."""
        shapes = self._sets.shapes
        if not shapes.uniform and prod(len(cell) + 1 for cell in shapes.cells) > _MOST_USED:
            return self._sets.least_of_any()
        states = self._following(used).values()
        least: FloatArray | None = np.stack([*map(self._sets.least, states)]).min(axis=0) if states else None
        return least

    def _following(self, used: Counts) -> dict[int, State]:
        """One set of each kind that can be at work when some accelerators are used, then or later."""
        if used not in self._kinds:
            states = self._sets.states(used)
            found = {self._sets.key(state): state for state in states}
            # Where members of a cell can be told apart, sets of the same size may be better when more is used.
            for later in dict.fromkeys(state.place.used for state in states if not self._sets.shapes.uniform):
                found |= self._following(later)
            self._kinds[used] = found
        return self._kinds[used]
