"""The least latency over sets, designs, cuts and strategies: dynamic programming on bounds that become exact.

States at a gate are (accelerators used so far, current set, its designs), each with the least seconds until then for
every layout of the tensor at the gate. Costs start as lower bounds: of a set that nobody has looked at, the least
compute; of a redistribution, what its bytes need. The best way through the bounds is priced exactly, and found again,
until nothing on it is a bound any more. It is then optimal: every other way costs at least its bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from mars_onnx.cost.shares import twin
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.build import Decision, SegmentTables, Solved, needs_of, unstated
from mars_onnx.search.exact.chain import Chain
from mars_onnx.search.exact.least import least_seconds
from mars_onnx.search.exact.moves import BoolArray, FloatArray, Moves
from mars_onnx.search.exact.onset import OnSet, SetType
from mars_onnx.search.exact.shapes import Place, Shapes
from mars_onnx.search.exact.tables import Tables
from mars_onnx.search.problem import Problem, Source


@dataclass(frozen=True, slots=True)
class State:
    """A set that is at work, with its designs."""

    place: Place
    designs: tuple[str, ...]


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


@dataclass(eq=False)
class Sets:
    """The sets of a pool as a search knows them: by bounds, until somebody looks."""

    chain: Chain
    pool: Pool
    shapes: Shapes
    tables: Tables = field(default_factory=Tables)
    _known: dict[tuple[object, ...], SegmentTables] = field(default_factory=dict)
    _least: dict[tuple[object, ...], FloatArray] = field(default_factory=dict)
    _between: dict[tuple[object, ...], Moves] = field(default_factory=dict)
    _placed: dict[tuple[int, ...], list[State]] = field(default_factory=dict)
    _keys: dict[State, tuple[object, ...]] = field(default_factory=dict)

    def states(self, used: tuple[int, ...]) -> list[State]:
        """Sets that can start when some accelerators are used."""
        if used not in self._placed:
            self._placed[used] = [
                State(place, designs) for place in self.shapes.placed(used) for designs in self._designs(place.members)
            ]
        return self._placed[used]

    def _designs(self, members: tuple[int, ...]) -> Iterator[tuple[str, ...]]:
        """Every choice of one design per kind of accelerator."""
        kinds = list(dict.fromkeys(twin(self.pool, rank) for rank in members))
        names = [[design.name for design in self.pool.accelerators[kind].designs] for kind in kinds]
        for chosen in product(*names):
            of = dict(zip(kinds, chosen, strict=True))
            yield tuple(of[twin(self.pool, rank)] for rank in members)

    def known(self, state: State) -> SegmentTables | None:
        """The tables of a set, if somebody has looked at it."""
        return self._known.get(self._key(state))

    def look(self, state: State) -> SegmentTables:
        """The tables of a set."""
        key = self._key(state)
        if key not in self._known:
            members = state.place.members
            type_ = SetType(members, state.designs, self.shapes.levels(members))
            self._known[key] = SegmentTables(self.chain, OnSet(self.pool, type_), self.tables)
        return self._known[key]

    def _key(self, state: State) -> tuple[object, ...]:
        if state not in self._keys:
            self._keys[state] = (self.shapes.likeness(state.place.members), state.designs)
        return self._keys[state]

    def least(self, state: State) -> FloatArray:
        """Per segment the least seconds of compute."""
        members = state.place.members
        kinds = frozenset((twin(self.pool, rank), design) for rank, design in zip(members, state.designs, strict=True))
        key = (kinds, len(members))
        if key not in self._least:
            layers = self.chain.problem.layers
            self._least[key] = np.asarray(
                [
                    sum(least_seconds(self.pool, layers[n].signature, kinds, len(members)) for n in segment.layers)
                    for segment in self.chain.segments
                ]
            )
        return self._least[key]

    def between(self, tensor: Source, first: State, second: State) -> tuple[Moves, IntArray, IntArray]:
        """Moves of a tensor from a set to another; and the place of their layouts in it, by number there.

        Returns:
            The table, and for the first and the second set the members' ranks as they are placed.
        """
        kind = self.chain.kinds[tensor]
        ranks = (*first.place.members, *second.place.members)
        key = (kind.shape, kind.dtype.bitwidth, ranks)
        if key not in self._between:
            self._between[key] = Moves(self.pool, kind.shape, kind.dtype.bitwidth, ranks)
        moves = self._between[key]
        return moves, np.asarray(first.place.members), np.asarray(second.place.members)


class LatencySearch:
    """Dynamic programming over segments and sets."""

    def __init__(self, problem: Problem, pool: Pool) -> None:
        self.chain = Chain.of(problem)
        self.pool = pool
        self.sets = Sets(self.chain, pool, Shapes(pool))
        self.count = len(self.chain.segments)
        self._crossings: dict[tuple[object, ...], tuple[int, FloatArray]] = {}
        self._lowest: dict[int, tuple[int, FloatArray]] = {}

    def way(self, limit: float, states: Sequence[State] | None = None) -> Way | None:
        """The best way through what is known; ``None`` if all take at least ``limit`` seconds.

        Args:
            limit: Seconds.
            states: Look at these only, each alone; by default at all.
        """
        alone = states is not None
        start = self.sets.states((0,) * len(self.sets.shapes.cells)) if states is None else states
        rest = _Rest(self, start, alone)
        fronts: list[dict[State, _Front]] = [{} for _ in range(self.count + 1)]
        solved: list[dict[State, tuple[FloatArray, IntArray]]] = [{} for _ in range(self.count)]
        numbers: list[dict[State, int]] = [{} for _ in range(self.count)]
        for state in start:
            if rest.of(state, 0) < limit:
                size = self._size(state, 0)
                fronts[0][state] = _Front(np.zeros(size), np.full(size, -1), np.full(size, -1))
        for index in range(self.count):
            ends: dict[State, FloatArray] = {}
            for state, front in fronts[index].items():
                if front.seconds.min() + rest.of(state, index) >= limit:
                    continue
                reached, rows = self._through(state, index, front.seconds)
                numbers[index][state] = len(numbers[index])
                solved[index][state] = (reached, rows)
                ends[state] = reached
            if index + 1 < self.count:
                fronts[index + 1] = self._arrive(index + 1, ends, numbers[index], rest, limit)
            else:
                fronts[index + 1] = {
                    state: _Front(reached, np.full(len(reached), numbers[index][state]), np.arange(len(reached)))
                    for state, reached in ends.items()
                    if reached.min() < limit
                }
        return self._back(fronts, solved, numbers)

    def least(self, state: State) -> FloatArray:
        """Per segment the least seconds on a set, as far as is known."""
        known = self.sets.known(state)
        if known is None:
            return self.sets.least(state)
        version = known.on.version
        found = self._lowest.get(id(known))
        if found is None or found[0] != version:
            lowest = np.asarray([known.solve(index).seconds.min() for index in range(self.count)])
            found = self._lowest[id(known)] = (version, lowest)
        return found[1]

    def _size(self, state: State, index: int) -> int:
        known = self.sets.known(state)
        return 1 if known is None else len(known.domain(index))

    def _through(self, state: State, index: int, seconds: FloatArray) -> tuple[FloatArray, IntArray]:
        """From the gate of a segment to its end: seconds per column, and the best row of each."""
        known = self.sets.known(state)
        if known is None:
            return seconds + self.sets.least(state)[index], np.zeros(1, np.int64)
        total = seconds[:, None] + known.solve(index).seconds
        return total.min(axis=0), total.argmin(axis=0)

    def _arrive(
        self, index: int, ends: dict[State, FloatArray], numbers: dict[State, int], rest: _Rest, limit: float
    ) -> dict[State, _Front]:
        """At the gate of a segment: sets go on, or hand over to others."""
        fronts: dict[State, _Front] = {}
        for state, reached in ends.items():
            least = float(reached.min())
            if least + rest.of(state, index) < limit:
                self._merge(fronts, state, numbers[state], self._stay(state, index, reached))
            if rest.alone or least + rest.after(state.place.used, index) >= limit:
                continue
            for other in self.sets.states(state.place.used):
                if least + rest.of(other, index) >= limit:
                    continue
                total = reached[:, None] + self._cross(state, other, index)
                if total.min() + rest.of(other, index) < limit:
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

    def _stay(self, state: State, index: int, reached: FloatArray) -> tuple[FloatArray, IntArray]:
        """The tensor at a gate stays on its set; where several layers take it, in a layout of choice."""
        known = self.sets.known(state)
        if known is None:
            return reached, np.zeros(1, np.int64)
        total = reached[:, None] + self._conversion(known, index)
        return total.min(axis=0), total.argmin(axis=0)

    def _conversion(self, known: SegmentTables, index: int) -> FloatArray:
        gate = self.chain.segments[index].gate
        if gate is None:
            return np.zeros((1, 1))
        columns, domain = known.solve(index - 1).columns, known.domain(index)
        if len(self.chain.consumers[gate]) > 1:
            kind = self.chain.kinds[gate]
            closed = unstated(known.on, kind, columns, domain)
            opened: FloatArray = np.where(closed, np.inf, known.on.edge(kind, columns, domain).seconds)
            return opened
        same: FloatArray = np.where(columns[:, None] == domain[None], 0.0, np.inf)
        return same

    def _cross(self, state: State, other: State, index: int) -> FloatArray:
        """Seconds at least from every column of a set to every layout at the gate on another."""
        first, second = self.sets.known(state), self.sets.known(other)
        gate = self.chain.segments[index].gate
        rows = 1 if first is None else len(first.solve(index - 1).columns)
        width = self._size(other, index)
        if gate is None or first is None or second is None:
            return np.full((rows, width), self._least_crossing(state, other, gate))
        moves, sources, targets = self._layouts(state, other, index)
        key = (id(moves), sources.tobytes(), targets.tobytes())
        found = self._crossings.get(key)
        if found is None or found[0] != len(moves.log):
            bounds = moves.bounds(sources, targets)
            bounds[:, ~self._landing(second, index)] = np.inf
            found = self._crossings[key] = (len(moves.log), bounds)
        return found[1]

    def _landing(self, known: SegmentTables, index: int) -> BoolArray:
        """In which layouts of a gate's domain a tensor can come from another set."""
        gate = self.chain.segments[index].gate
        if gate is None:
            raise ValueError("a segment without a gate is not crossed into")
        allowed = [known.on.identity(self.chain.kinds[gate])[0]]
        takers = self.chain.consumers[gate]
        if len(takers) == 1:
            allowed += needs_of(self.chain, known.on, takers[0], gate)
        landing: BoolArray = np.isin(known.domain(index), np.concatenate(allowed))
        return landing

    def _least_crossing(self, state: State, other: State, gate: Source | None) -> float:
        """What the whole tensor takes to reach the fastest of the other set's members, or all of them its parts."""
        if gate is None:
            return 0.0
        return min(self.pool.latency(i, j) for i in state.place.members for j in other.place.members)

    def _layouts(self, state: State, other: State, index: int) -> tuple[Moves, IntArray, IntArray]:
        """A tensor's layouts on two sets, as layouts of both together."""
        gate = self.chain.segments[index].gate
        first, second = self.sets.look(state), self.sets.look(other)
        if gate is None:
            raise ValueError("a segment without a gate is not crossed into")
        kind = self.chain.kinds[gate]
        moves, _, _ = self.sets.between(gate, state, other)
        columns, domain = first.solve(index - 1).columns, second.domain(index)
        sources = moves.register(first.on.moves(kind).boxes(columns), state.place.members)
        targets = moves.register(second.on.moves(kind).boxes(domain), other.place.members)
        return moves, sources, targets

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

    def sharpen(self, way: Way) -> bool:
        """Replace bounds on a way by exact costs; says whether there were any."""
        unknown = {step.state for step in way.steps if self.sets.known(step.state) is None}
        if unknown:
            for state in unknown:
                self.sets.look(state)
            return True
        changed = False
        for index, step in enumerate(way.steps):
            tables = self.sets.look(step.state)
            decision = tables.decide(index, step.row, step.column)
            changed |= self._price(tables, decision)
            if index:
                changed |= self._price_gate(index, way.steps[index - 1], step)
        return changed

    def _price(self, tables: SegmentTables, decision: Decision) -> bool:
        changed = False
        for move in decision.moves:
            moves = tables.on.moves(self.chain.kinds[move.tensor])
            changed |= moves.sharpen(move.source, move.target)
        for number, strategy in decision.strategies.items():
            changed |= tables.on.price_resolution(self.chain.problem.layers[number].signature, strategy)
        return changed

    def _price_gate(self, index: int, before: Step, after: Step) -> bool:
        gate = self.chain.segments[index].gate
        if gate is None:
            return False
        if before.state != after.state:
            moves, sources, targets = self._layouts(before.state, after.state, index)
            return moves.sharpen(int(sources[before.column]), int(targets[after.row]))
        tables = self.sets.look(after.state)
        source = int(self._solved(before, index - 1).columns[before.column])
        target = int(tables.domain(index)[after.row])
        return tables.on.moves(self.chain.kinds[gate]).sharpen(source, target)

    def _solved(self, step: Step, index: int) -> Solved:
        return self.sets.look(step.state).solve(index)


class _Rest:
    """What is left to do at least, from every state at every gate: without layouts, and crossings for nothing."""

    def __init__(self, search: LatencySearch, start: Sequence[State], alone: bool) -> None:
        self.alone = alone
        self._number: dict[State, int] = {}
        self._first: dict[tuple[int, ...], IntArray] = {}
        pending = [((0,) * len(search.sets.shapes.cells), list(start))]
        while pending:
            used, states = pending.pop()
            if used in self._first:
                continue
            self._first[used] = np.asarray([self._number.setdefault(s, len(self._number)) for s in states], np.int64)
            if not alone:
                pending += [(state.place.used, search.sets.states(state.place.used)) for state in states]
        states = list(self._number)
        least = np.stack([search.least(state) for state in states])
        self._seconds = np.zeros((len(states), search.count + 1))
        #: Per state the number of what can follow it.
        follow = list(self._first)
        place = {used: number for number, used in enumerate(follow)}
        after = np.asarray([place.get(state.place.used, 0) for state in states])
        self._after = np.full((len(follow), search.count + 1), np.inf)
        self._place = place
        for index in reversed(range(search.count)):
            onward = self._seconds[:, index + 1]
            if not alone and index + 1 < search.count:
                onward = np.minimum(onward, self._after[after, index + 1])
            self._seconds[:, index] = least[:, index] + onward
            for number, used in enumerate(follow):
                own = self._first[used]
                if len(own):
                    self._after[number, index] = self._seconds[own, index].min()

    def of(self, state: State, index: int) -> float:
        """From the gate of a segment on, if a set is at work there."""
        return float(self._seconds[self._number[state], index])

    def after(self, used: tuple[int, ...], index: int) -> float:
        """From the gate of a segment on, if a new set starts there when these accelerators are used."""
        return float(self._after[self._place[used], index])
