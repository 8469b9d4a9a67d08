"""The best way through sets and segments: dynamic programming on bounds that become exact.

States at a gate are (accelerators used so far, current set, its designs), each with the least seconds until then for
every layout of the tensor at the gate. Costs start as lower bounds: of a set that nobody has looked at, the least
compute; of a redistribution, what its bytes need. The best way through the bounds is priced exactly, and found again,
until nothing on it is a bound any more. It is then optimal: every other way costs at least its bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.aims import Aim
from mars_onnx.search.exact.moves import FloatArray
from mars_onnx.search.exact.sets import Sets, State


@dataclass(frozen=True, eq=False)
class _Front:
    """What is known of a state at a gate.

    Attributes:
        seconds: Per layout of the gate's domain.
        origin: Per layout the state that was at work before the gate, as an index.
        column: Per layout the column of that state's segment.
    """

    seconds: FloatArray
    origin: IntArray
    column: IntArray


@dataclass(frozen=True, slots=True)
class Step:
    """One segment on the best way.

    Attributes:
        state: The set at work.
        row: Layout at the gate, as an index.
        column: Layout at the next gate, as an index.
    """

    state: State
    row: int
    column: int


@dataclass(frozen=True, slots=True)
class Way:
    """The best way through the bounds.

    Attributes:
        seconds: Its length.
        steps: Per segment.
    """

    seconds: float
    steps: tuple[Step, ...]


class Forward:
    """Dynamic programming over segments and sets."""

    def __init__(self, sets: Sets) -> None:
        """Over the sets of a pool."""
        self.sets = sets
        self.chain = sets.chain
        self.count = len(sets.chain.segments)

    def way(
        self, aim: Aim, states: Sequence[State] | None = None, start: dict[State, FloatArray] | None = None
    ) -> Way | None:
        """The best way through what is known; ``None`` if none stays below the limit.

        Args:
            aim: What is to be small, and the limit.
            states: Look at these only, each alone; by default at all.
            start: Sets that have done the first segment, and the seconds per column that this took.
        """
        fronts: list[dict[State, _Front]] = [{} for _ in range(self.count + 1)]
        solved: list[dict[State, tuple[FloatArray, IntArray]]] = [{} for _ in range(self.count)]
        numbers: list[dict[State, int]] = [{} for _ in range(self.count)]
        for state in (self.sets.start() if states is None else states) if start is None else start:
            if not aim.hopeless(state, 0, 0.0):
                size = self.sets.size(state, 0)
                fronts[0][state] = _Front(np.zeros(size), np.full(size, -1), np.full(size, -1))
        for index in range(self.count):
            ends: dict[State, FloatArray] = {}
            for state, front in fronts[index].items():
                if aim.hopeless(state, index, float(front.seconds.min())):
                    continue
                reached, rows = self.through(state, index, front.seconds)
                if start is not None and index == 0:
                    reached = start[state]
                if reached.min() >= aim.limit:
                    continue
                numbers[index][state] = len(numbers[index])
                solved[index][state] = (reached, rows)
                ends[state] = reached
            if index + 1 < self.count:
                fronts[index + 1] = self._arrive(index + 1, ends, numbers[index], aim)
            else:
                fronts[index + 1] = {
                    state: _Front(reached, np.full(len(reached), numbers[index][state]), np.arange(len(reached)))
                    for state, reached in ends.items()
                }
        return self._back(fronts, solved, numbers)

    def through(self, state: State, index: int, seconds: FloatArray) -> tuple[FloatArray, IntArray]:
        """From the gate of a segment to its end: seconds per column, and the best row of each."""
        known = self.sets.known(state)
        if known is None:
            return seconds + self.sets.least(state)[index], np.zeros(1, np.int64)
        total = seconds[:, None] + known.solve(index).seconds
        return total.min(axis=0), total.argmin(axis=0)

    def _arrive(
        self, index: int, ends: dict[State, FloatArray], numbers: dict[State, int], aim: Aim
    ) -> dict[State, _Front]:
        """At the gate of a segment: sets go on, or hand over to others."""
        fronts: dict[State, _Front] = {}
        for state, reached in ends.items():
            least = float(reached.min())
            if not aim.hopeless(state, index, least):
                self._merge(fronts, state, numbers[state], self.stay(state, index, reached))
            if aim.alone or aim.hopeless_after(state.place.used, index, 0.0):
                continue
            for other in self.sets.states(state.place.used):
                # Cheap first: the least that a crossing takes, without layouts.
                if aim.hopeless(other, index, aim.handed_over(least, self.sets.least_crossing(state, other, index))):
                    continue
                total = aim.hand_over(reached, self.sets.cross(state, other, index))
                if not aim.hopeless(other, index, float(total.min())):
                    self._merge(fronts, other, numbers[state], (total.min(axis=0), total.argmin(axis=0)))
        return fronts

    @staticmethod
    def _merge(fronts: dict[State, _Front], state: State, origin: int, found: tuple[FloatArray, IntArray]) -> None:
        seconds, columns = found
        front = fronts.get(state)
        if front is None:
            fronts[state] = _Front(seconds, np.full(len(seconds), origin), columns)
            return
        better = seconds < front.seconds
        fronts[state] = _Front(
            np.where(better, seconds, front.seconds),
            np.where(better, origin, front.origin),
            np.where(better, columns, front.column),
        )

    def stay(self, state: State, index: int, reached: FloatArray) -> tuple[FloatArray, IntArray]:
        """The tensor at a gate stays on its set; where several layers take it, in a layout of choice."""
        known = self.sets.known(state)
        if known is None:
            return reached, np.zeros(1, np.int64)
        total = reached[:, None] + known.conversion(index)
        return total.min(axis=0), total.argmin(axis=0)

    def _back(
        self,
        fronts: list[dict[State, _Front]],
        solved: list[dict[State, tuple[FloatArray, IntArray]]],
        numbers: list[dict[State, int]],
    ) -> Way | None:
        """Follow the best end back to the start."""
        if not fronts[self.count]:
            return None
        state, front = min(fronts[self.count].items(), key=lambda item: float(item[1].seconds.min()))
        place = int(front.seconds.argmin())
        seconds = float(front.seconds[place])
        if not np.isfinite(seconds):
            return None
        steps: list[Step] = []
        for index in reversed(range(self.count)):
            origin, column = int(front.origin[place]), int(front.column[place])
            state = next(own for own, number in numbers[index].items() if number == origin)
            row = int(solved[index][state][1][column])
            steps.append(Step(state, row, column))
            front, place = fronts[index][state], row
        return Way(seconds, tuple(reversed(steps)))

    def back_from(self, state: State, reached: Sequence[FloatArray], column: int) -> Way:
        """The best way to a column on one set, from the seconds per column of every segment."""
        steps: list[Step] = []
        for index in reversed(range(len(reached))):
            size = self.sets.size(state, 0)
            before = np.zeros(size) if index == 0 else self.stay(state, index, reached[index - 1])[0]
            row = int(self.through(state, index, before)[1][column])
            steps.append(Step(state, row, column))
            if index:
                column = int(self.stay(state, index, reached[index - 1])[1][row])
        return Way(float(reached[-1].min()), tuple(reversed(steps)))

    def sharpen(self, way: Way, skip: int = 0) -> bool:
        """Replace bounds on a way by exact costs; says whether there were any.

        Args:
            way: The way.
            skip: Segments at its start that somebody else takes care of.
        """
        unknown = {step.state for step in way.steps if self.sets.known(step.state) is None}
        if unknown:
            for state in unknown:
                self.sets.look(state)
            return True
        changed = False
        for index, step in enumerate(way.steps):
            tables = self.sets.look(step.state)
            if index >= skip:
                changed |= tables.sharpen(index, step.row, step.column)
            if index:
                changed |= self._price_gate(index, way.steps[index - 1], step)
        return changed

    def _price_gate(self, index: int, before: Step, after: Step) -> bool:
        gate = self.chain.segments[index].gate
        if gate is None:
            return False
        if before.state != after.state:
            moves, sources, targets = self.sets.layouts(before.state, after.state, index)
            return moves.sharpen(int(sources[before.column]), int(targets[after.row]))
        tables = self.sets.look(after.state)
        source = int(tables.solve(index - 1).columns[before.column])
        target = int(tables.domain(index)[after.row])
        return tables.on.layouts.moves(self.chain.kinds[gate]).sharpen(source, target)
