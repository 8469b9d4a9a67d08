"""The best way through sets and segments: dynamic programming on bounds that become exact.

States at a gate are (accelerators used so far, current set, its designs), each with the least seconds until then for
every layout of the tensor at the gate. Costs start as lower bounds: of a set that nobody has looked at, the least
compute; of a redistribution, what its bytes need. The best way through the bounds is priced exactly, and found again,
until nothing on it is a bound any more. It is then optimal: every other way costs at least its bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.communication.moves import FloatArray
from mars_onnx.search.exact.one_set.alternatives import alternatives, least_places
from mars_onnx.search.exact.ways.aims import Aim
from mars_onnx.search.exact.ways.sets import Sets, State
from mars_onnx.search.exact.work import ARRIVAL, ENTRY, FOLLOWER, SEGMENT, WAY, spend

#: To find a way through so many segments takes about as long as to price a redistribution.
_SEGMENTS_PER_PRICE = 16
#: Entries of the tables of one set that are priced besides those on the best way.
_ALTERNATIVES = 48
#: Entries of tables that are added up together.
_MOST_AT_ONCE = 2_000_000


@dataclass(eq=False)
class _Arrival:
    """What comes to a set from others, at the gates of one class.

    Attributes:
        seconds: ``[gates, layouts]``.
        origin: The number of the state that was at work before.
    """

    seconds: FloatArray
    origin: IntArray


@dataclass(eq=False)
class _Front:
    """What is known of a set.

    Attributes:
        arrivals: By class of gates what it has from others, or begins with.
        reached: Per segment that it does, and per column, the seconds until its end.
    """

    arrivals: dict[int, _Arrival]
    reached: dict[int, FloatArray]


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
    """Dynamic programming over sets and segments.

    Sets come one after the other, those with fewer accelerators used first. Gates between segments that are alike are a
    class: a set hands over at all gates of a class at once.
    """

    def __init__(self, sets: Sets) -> None:
        """Over the sets of a pool."""
        self.sets = sets
        self.chain = sets.chain
        self.count = len(sets.chain.segments)
        classes: dict[tuple[int, int], list[int]] = {}
        for index in range(self.count):
            key = (self.chain.alike[index - 1] if index else -1, self.chain.alike[index])
            classes.setdefault(key, []).append(index)
        self._classes = tuple(np.asarray(gates) for gates in classes.values())
        #: Per gate the number of its class, and its place in it.
        self._place = {
            int(gate): (number, place) for number, gates in enumerate(self._classes) for place, gate in enumerate(gates)
        }

    def way(
        self, aim: Aim, states: Sequence[State] | None = None, start: dict[State, FloatArray] | None = None
    ) -> Way | None:
        """The best way through what is known; ``None`` if none stays below the limit.

        Args:
            aim: What is to be small, and the limit.
            states: Look at these only, each alone; by default at all.
            start: Sets that have done the first segment, and the seconds per column that this took.
        """
        spend(WAY)
        fronts: dict[State, _Front] = {}
        pending: dict[int, list[State]] = {}
        numbers: list[State] = []

        def front(state: State) -> _Front:
            if state not in fronts:
                fronts[state] = _Front({}, {})
                pending.setdefault(sum(state.place.used), []).append(state)
            return fronts[state]

        for state in (self.sets.start() if states is None else states) if start is None else start:
            if not aim.hopeless(state, 0, 0.0):
                size = self.sets.size(state, 0)
                front(state).arrivals[0] = _Arrival(np.zeros((1, size)), np.full((1, size), -1))
        while pending:
            for state in pending.pop(min(pending)):
                self.sets.check()
                own = fronts[state]
                self._run(state, own, aim, None if start is None else start.get(state))
                if own.reached and not aim.alone:
                    self._hand_over(state, own, len(numbers), aim, front)
                numbers.append(state)
        return self._back(fronts, numbers, aim)

    def _run(self, state: State, front: _Front, aim: Aim, start: FloatArray | None) -> None:
        """From every gate at which a set can take over, on to the end."""
        spend(SEGMENT, self.count)
        takes_over = np.zeros(self.count, np.bool_)
        for number, arrival in front.arrivals.items():
            gates = self._classes[number]
            takes_over[gates] = ~aim.hopeless(state, gates, arrival.seconds.min(axis=1))
        before: FloatArray | None = None
        for index in range(self.count):
            found: FloatArray | None = None
            if before is not None and not aim.hopeless(state, index, float(before.min())):
                found = self.onward(state, index, before)
            if takes_over[index]:
                number, place = self._place[index]
                anew = self.through(state, index, front.arrivals[number].seconds[place])
                found = anew if found is None else np.minimum(found, anew)
            if start is not None and index == 0:
                found = start
            if found is not None and found.min() < aim.limit:
                front.reached[index] = found
                before = found
            else:
                before = None

    def _hand_over(
        self, state: State, front: _Front, number: int, aim: Aim, front_of: Callable[[State], _Front]
    ) -> None:
        """At every gate, to every other set that can start then."""
        for place, every in enumerate(self._classes):
            gates = np.asarray([gate for gate in every.tolist() if gate - 1 in front.reached], np.int64)
            if not len(gates):
                continue
            reached = np.stack([front.reached[gate - 1] for gate in gates.tolist()])
            least = reached.min(axis=1)
            open_gates = ~aim.hopeless_after(state.place.used, gates, 0.0 * least)
            gates, reached, least = gates[open_gates], reached[open_gates], least[open_gates]
            if not len(gates):
                continue
            others = self.sets.states(state.place.used)
            if not others:
                return
            spend(FOLLOWER, len(others))
            # Cheap first: the least that a crossing takes, without layouts.
            handed = aim.handed_over(least, self.sets.least_crossings(state, int(gates[0])))
            near = ~aim.hopeless_each(state.place.used, gates, handed)
            for which in np.flatnonzero(near.any(axis=1)).tolist():
                own = near[which]
                self._arrive(state, others[which], gates[own], reached[own], place, number, aim, front_of)

    def _arrive(
        self,
        state: State,
        other: State,
        gates: IntArray,
        reached: FloatArray,
        place: int,
        number: int,
        aim: Aim,
        front_of: Callable[[State], _Front],
    ) -> None:
        """From one set to another at some gates of a class."""
        cross = self.sets.cross(state, other, int(gates[0]))
        spend(ARRIVAL)
        spend(ENTRY, len(gates) * cross.size)
        several = max(1, _MOST_AT_ONCE // max(1, cross.size))
        blocks = [
            aim.hand_over(reached[begin : begin + several, :, None], cross).min(axis=1)
            for begin in range(0, len(gates), several)
        ]
        seconds = np.concatenate(blocks)
        fine = ~aim.hopeless(other, gates, seconds.min(axis=1))
        if not fine.any():
            return
        gates, seconds = gates[fine], seconds[fine]
        arrivals = front_of(other).arrivals
        if place not in arrivals:
            shape = (len(self._classes[place]), seconds.shape[1])
            arrivals[place] = _Arrival(np.full(shape, np.inf), np.full(shape, -1))
        own = arrivals[place]
        rows = np.searchsorted(self._classes[place], gates)
        better = seconds < own.seconds[rows]
        own.seconds[rows] = np.where(better, seconds, own.seconds[rows])
        own.origin[rows] = np.where(better, number, own.origin[rows])

    def through(self, state: State, index: int, seconds: FloatArray) -> FloatArray:
        """From the layouts at a segment's gate to its end: the least seconds per column."""
        known = self.sets.known(state, index)
        if known is None:
            unseen: FloatArray = seconds.min(keepdims=True) + self.sets.least(state)[index]
            return unseen
        least: FloatArray = (seconds[:, None] + known.solve(index).seconds).min(axis=0)
        return least

    def onward(self, state: State, index: int, seconds: FloatArray) -> FloatArray:
        """The same from the columns of the segment before, on the same set."""
        known = self.sets.known(state, index)
        if known is None or not known.built(index - 1):
            return self.through(state, index, seconds.min(keepdims=True))
        return known.passage(index).onward(seconds)

    def _back(self, fronts: dict[State, _Front], numbers: list[State], aim: Aim) -> Way | None:
        """Follow the best end back to the start."""
        last = self.count - 1
        ends = {state: front.reached[last] for state, front in fronts.items() if last in front.reached}
        if not ends:
            return None
        state = min(ends, key=lambda own: float(ends[own].min()))
        column = int(ends[state].argmin())
        seconds = float(ends[state][column])
        if not np.isfinite(seconds):
            return None
        steps: list[Step] = []
        ended: list[FloatArray] = []
        for index in reversed(range(self.count)):
            front = fronts[state]
            ended.append(front.reached[index])
            number, place = self._place[index]
            arrival = front.arrivals.get(number)
            before = front.reached.get(index - 1)
            row, least = 0, np.inf
            if arrival is not None:
                total = arrival.seconds[place] + self._to(state, index, column)
                row = int(total.argmin())
                least = float(total[row])
            if before is not None and (going_on := self._from(state, index, before, column))[0] <= least:
                _, previous, row = going_on
                steps.append(Step(state, row, column))
                column = previous
                continue
            steps.append(Step(state, row, column))
            if index and arrival is not None:
                origin = numbers[int(arrival.origin[place, row])]
                cross = self.sets.cross(origin, state, index)[:, [row]]
                column = int(aim.hand_over(fronts[origin].reached[index - 1][:, None], cross).argmin())
                state = origin
        steps.reverse()
        return Way(seconds, tuple(steps), tuple(reversed(ended)), aim.limit - seconds)

    def _to(self, state: State, index: int, column: int) -> FloatArray:
        """Seconds from every layout at a segment's gate to one column."""
        known = self.sets.known(state, index)
        return self.sets.least(state)[[index]] if known is None else known.solve(index).seconds[:, column]

    def _from(self, state: State, index: int, before: FloatArray, column: int) -> tuple[float, int, int]:
        """From the end of the segment before on the same set to a column: seconds, the column there, and the row."""
        known = self.sets.known(state, index)
        if known is None or not known.built(index - 1):
            # Nothing is known of how the tensor at the gate gets from one layout to another.
            after, previous = self._to(state, index, column), int(before.argmin())
            return float(before[previous] + after.min()), previous, int(after.argmin())
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

    def unknown(self, way: Way) -> list[tuple[State, int]]:
        """Sets and segments on a way at which nobody has looked."""
        return [
            (step.state, index) for index, step in enumerate(way.steps) if self.sets.known(step.state, index) is None
        ]

    def sharpen(self, way: Way, skip: int = 0) -> bool:
        """Replace bounds on a way by exact costs; says whether there were any.

        Args:
            way: The way.
            skip: Segments at its start that somebody else takes care of.
        """
        unknown = self.unknown(way)
        if unknown:
            self.sets.look_at(unknown)
            return True
        # All as it is now: what becomes exact on the way does not call for new tables yet, nor for other choices.
        tables = [self.sets.tables(step.state) for step in way.steps]
        solved = [own.solve(index) for index, own in enumerate(tables)]
        # Segments that are alike may well be done alike: once is enough.
        chosen = {
            (own, solved[index], step.row, step.column): own.choice(solved[index], step.row, step.column)
            for index, (own, step) in enumerate(zip(tables, way.steps, strict=True))
            if index >= skip
        }
        alone = all(step.state is way.steps[0].state for step in way.steps) and not skip
        every = alternatives(tables[0], way.seconds + way.room, _ALTERNATIVES) if alone else []
        others = [
            (solved[index], row, column, tables[0].choice(solved[index], row, column)) for index, row, column in every
        ]
        changed = False
        for (own, table, row, column), choice in chosen.items():
            if choice is not None:
                changed |= own.sharpen(table, row, column, choice)
        for index in range(1, len(way.steps)):
            if way.steps[index - 1].state is not way.steps[index].state:
                changed |= self._price_crossing(index, way)
            else:
                changed |= self._price_gate(index, way.steps[index - 1], way.steps[index])
        if changed:
            for table, row, column, choice in others:
                if choice is not None:
                    tables[0].sharpen(table, row, column, choice)
        return changed

    def _price_gate(self, index: int, before: Step, after: Step) -> bool:
        gate = self.chain.segments[index].gate
        if gate is None:
            return False
        tables = self.sets.tables(after.state)
        source = int(tables.columns(index - 1)[before.column])
        target = int(tables.domain(index)[after.row])
        return tables.on.layouts.moves(self.chain.kinds[gate]).sharpen(source, target)

    def _price_crossing(self, index: int, way: Way) -> bool:
        """Price where a way crosses to another set; and other crossings there that are as promising.

        A long way is found anew no sooner than some crossings are priced.
        """
        before, after = way.steps[index - 1], way.steps[index]
        crossing = self.sets.crossing(before.state, after.state, index)
        changed = crossing.sharpen(before.column, after.row)
        several = min(self.count // _SEGMENTS_PER_PRICE, crossing.seconds().size)
        if not changed or not way.ended or several < 2:
            return changed
        total = way.ended[index - 1][:, None] + crossing.seconds() + self._to(after.state, index, after.column)
        flat = total.ravel()
        for place in least_places(flat, several).tolist():
            row, column = divmod(place, total.shape[1])
            if flat[place] < total[before.column, after.row] + way.room:
                crossing.sharpen(row, column)
        return changed
