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


#: To find a way through so many segments takes about as long as to price a redistribution.
_SEGMENTS_PER_PRICE = 16


@dataclass(eq=False)
class _Arrival:
    """What comes to a set from others at a gate.

    Attributes:
        seconds: Per layout of the gate's domain.
        origin: Per layout the number of the state that was at work before the gate.
        column: Per layout the column of that state's segment.
    """

    seconds: FloatArray
    origin: IntArray
    column: IntArray

    def merge(self, seconds: FloatArray, origin: int, column: IntArray) -> None:
        """Take in what comes from another set, where it is better."""
        better = seconds < self.seconds
        self.seconds = np.where(better, seconds, self.seconds)
        self.origin = np.where(better, origin, self.origin)
        self.column = np.where(better, column, self.column)


@dataclass(eq=False)
class _Gate:
    """A gate, and the segment behind it.

    Attributes:
        arrivals: What sets have from others, or begin with.
        reached: Per set that does the segment, and per column, the seconds until its end.
    """

    arrivals: dict[State, _Arrival]
    reached: dict[State, FloatArray]


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
        ended: Per segment the seconds until its end, for every column.
        room: How much longer it could be without being hopeless.
    """

    seconds: float
    steps: tuple[Step, ...]
    ended: tuple[FloatArray, ...] = ()
    room: float = 0.0


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
        gates = [_Gate({}, {})]
        for state in (self.sets.start() if states is None else states) if start is None else start:
            if not aim.hopeless(state, 0, 0.0):
                size = self.sets.size(state, 0)
                gates[0].arrivals[state] = _Arrival(np.zeros(size), np.full(size, -1), np.full(size, -1))
        for index in range(self.count):
            gate = gates[-1]
            before = gates[-2].reached if index else {}
            for state in dict.fromkeys((*before, *gate.arrivals)):
                reached = self._reached(state, index, before.get(state), gate.arrivals.get(state), aim)
                if start is not None and index == 0:
                    reached = start[state]
                if reached is not None and reached.min() < aim.limit:
                    gate.reached[state] = reached
            if index + 1 < self.count:
                gates.append(_Gate(self._arrive(index + 1, gate.reached, aim), {}))
        return self._back(gates, aim.limit)

    def _reached(
        self, state: State, index: int, before: FloatArray | None, arrival: _Arrival | None, aim: Aim
    ) -> FloatArray | None:
        """At the end of a segment: from the end of the one before on the same set, or from others."""
        going_on = before is not None and not aim.hopeless(state, index, float(before.min()))
        found = self.onward(state, index, before) if before is not None and going_on else None
        if arrival is None or aim.hopeless(state, index, float(arrival.seconds.min())):
            return found
        anew = self.through(state, index, arrival.seconds)
        return anew if found is None else np.minimum(found, anew)

    def through(self, state: State, index: int, seconds: FloatArray) -> FloatArray:
        """From the layouts at a segment's gate to its end: the least seconds per column."""
        known = self.sets.known(state)
        if known is None:
            return seconds + self.sets.least(state)[index]
        least: FloatArray = (seconds[:, None] + known.solve(index).seconds).min(axis=0)
        return least

    def onward(self, state: State, index: int, seconds: FloatArray) -> FloatArray:
        """The same from the columns of the segment before, on the same set."""
        known = self.sets.known(state)
        if known is None:
            return seconds + self.sets.least(state)[index]
        return known.passage(index).onward(seconds)

    def _arrive(self, index: int, ends: dict[State, FloatArray], aim: Aim) -> dict[State, _Arrival]:
        """At the gate of a segment: sets hand over to others."""
        arrivals: dict[State, _Arrival] = {}
        for number, (state, reached) in enumerate(ends.items()):
            if aim.alone or aim.hopeless_after(state.place.used, index, 0.0):
                continue
            least = float(reached.min())
            for other in self.sets.states(state.place.used):
                # Cheap first: the least that a crossing takes, without layouts.
                if aim.hopeless(other, index, aim.handed_over(least, self.sets.least_crossing(state, other, index))):
                    continue
                total = aim.hand_over(reached, self.sets.cross(state, other, index))
                seconds = total.min(axis=0)
                if aim.hopeless(other, index, float(seconds.min())):
                    continue
                column = total.argmin(axis=0)
                if other in arrivals:
                    arrivals[other].merge(seconds, number, column)
                else:
                    arrivals[other] = _Arrival(seconds, np.full(len(seconds), number), column)
        return arrivals

    def _back(self, gates: list[_Gate], limit: float) -> Way | None:
        """Follow the best end back to the start."""
        if not gates[-1].reached:
            return None
        state, ends = min(gates[-1].reached.items(), key=lambda item: float(item[1].min()))
        column = int(ends.argmin())
        seconds = float(ends[column])
        if not np.isfinite(seconds):
            return None
        steps: list[Step] = []
        for index in reversed(range(self.count)):
            arrival = gates[index].arrivals.get(state)
            before = gates[index - 1].reached.get(state) if index else None
            row, least = 0, np.inf
            if arrival is not None:
                total = arrival.seconds + self._to(state, index, column)
                row = int(total.argmin())
                least = float(total[row])
            if before is not None and (going_on := self._from(state, index, before, column))[0] <= least:
                _, previous, row = going_on
                steps.append(Step(state, row, column))
                column = previous
                continue
            steps.append(Step(state, row, column))
            if index and arrival is not None:
                column = int(arrival.column[row])
                state = list(gates[index - 1].reached)[int(arrival.origin[row])]
        steps.reverse()
        ended = tuple(gate.reached[step.state] for gate, step in zip(gates, steps, strict=True))
        return Way(seconds, tuple(steps), ended, limit - seconds)

    def _to(self, state: State, index: int, column: int) -> FloatArray:
        """Seconds from every layout at a segment's gate to one column."""
        known = self.sets.known(state)
        return self.sets.least(state)[[index]] if known is None else known.solve(index).seconds[:, column]

    def _from(self, state: State, index: int, before: FloatArray, column: int) -> tuple[float, int, int]:
        """From the end of the segment before on the same set to a column: seconds, the column there, and the row."""
        known = self.sets.known(state)
        if known is None:
            return float(before[0] + self.sets.least(state)[index]), 0, 0
        return known.passage(index).origin(before, column)

    def reach(self, state: State, count: int) -> list[FloatArray]:
        """On one set alone: per segment, up to a number of them, the least seconds until its end."""
        found = [self.through(state, 0, np.zeros(self.sets.size(state, 0)))]
        for index in range(1, count):
            found.append(self.onward(state, index, found[-1]))
        return found

    def back_from(self, state: State, reached: Sequence[FloatArray], column: int) -> Way:
        """The best way to a column on one set, from the seconds per column of every segment."""
        steps: list[Step] = []
        for index in reversed(range(len(reached))):
            if index:
                _, previous, row = self._from(state, index, reached[index - 1], column)
            else:
                previous, row = 0, int(self._to(state, index, column).argmin())
            steps.append(Step(state, row, column))
            column = previous
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
            if index and way.steps[index - 1].state is not step.state:
                changed |= self._price_crossing(index, way)
            elif index:
                changed |= self._price_gate(index, way.steps[index - 1], step)
        return changed

    def _price_gate(self, index: int, before: Step, after: Step) -> bool:
        gate = self.chain.segments[index].gate
        if gate is None:
            return False
        tables = self.sets.look(after.state)
        source = int(tables.solve(index - 1).columns[before.column])
        target = int(tables.domain(index)[after.row])
        return tables.on.layouts.moves(self.chain.kinds[gate]).sharpen(source, target)

    def _price_crossing(self, index: int, way: Way) -> bool:
        """Price where a way crosses to another set; and other crossings there that are as promising.

        A long way is found anew no sooner than some crossings are priced.
        """
        before, after = way.steps[index - 1], way.steps[index]
        moves, sources, targets = self.sets.layouts(before.state, after.state, index)
        changed = moves.sharpen(int(sources[before.column]), int(targets[after.row]))
        several = min(self.count // _SEGMENTS_PER_PRICE, sources.size * targets.size)
        if not changed or not way.ended or several < 2:
            return changed
        crossing = self.sets.cross(before.state, after.state, index)
        total = way.ended[index - 1][:, None] + crossing + self._to(after.state, index, after.column)
        flat = total.ravel()
        for place in np.argpartition(flat, several - 1)[:several].tolist():
            row, column = divmod(place, total.shape[1])
            if flat[place] < total[before.column, after.row] + way.room:
                moves.sharpen(int(sources[row]), int(targets[column]))
        return changed
