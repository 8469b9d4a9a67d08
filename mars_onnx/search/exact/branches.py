"""Branches from different model inputs on sets of their own, side by side, until one layer takes them all.

The branches of a network for several modalities have nothing to do with each other before they are joined. Each runs on
a set of its own; the set of one of them goes on with the join and what follows. Until then the longest counts, not the
sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from mars_onnx.pool.topology import Pool
from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.chain.chain import Chain
from mars_onnx.search.exact.chain.joins import Branches, groupings, inputs_apart, likeness_of, part_of, renamed
from mars_onnx.search.exact.claim import sets_overlap
from mars_onnx.search.exact.communication.moves import FloatArray, Moves
from mars_onnx.search.exact.communication.ports import crossing
from mars_onnx.search.exact.one_set.factors import Decision
from mars_onnx.search.exact.one_set.onset import SetLayouts
from mars_onnx.search.exact.together import Amount, ends_together, until_joined
from mars_onnx.search.exact.ways.aims import LeastLatency
from mars_onnx.search.exact.ways.answer import Assembly
from mars_onnx.search.exact.ways.forward import Forward, Way
from mars_onnx.search.exact.ways.sets import Sets, State, needed_of
from mars_onnx.search.exact.ways.shapes import Place, Shapes
from mars_onnx.search.exact.work import ASSIGNMENT, spend
from mars_onnx.search.problem import Problem, Source
from mars_onnx.sharding.mapping import Mapping

#: Seconds that differ by less, relatively, do so by rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class _Joined:
    """A choice of sets, and how well it does.

    Attributes:
        seconds: In all.
        states: Per branch its set.
        ends: Per branch the column at which it ends.
        strategy: Of the join.
        tail: The way from the join on, the join's own segment included.
    """

    seconds: float
    states: tuple[State, ...]
    ends: tuple[int, ...]
    strategy: int
    home: int
    tail: Way


class BranchSearch:
    """The least latency with branches on sets of their own, side by side, or several on one set."""

    def __init__(
        self, problem: Problem, pool: Pool, branches: Branches, check: Callable[[], None] = lambda: None
    ) -> None:
        """For the branches of a problem on a pool; ``check`` is called again and again in long work."""
        self.problem, self.pool, self.branches, self.check = problem, pool, branches, check
        self.shapes = Shapes(pool)
        #: Whether no two branches take the same model input.
        self.closed = inputs_apart(problem, branches)
        self.parts: list[Sets] = []
        #: Per branch the model inputs of the whole problem, in the order in which its part has them.
        self.inputs: list[tuple[int, ...]] = []
        alike: dict[tuple[object, ...], Sets] = {}
        for layers, last in zip(branches.layers, branches.last, strict=True):
            # A branch ends with the join, of which it is the only input: so its last tensor is at a gate.
            part, inputs = renamed(part_of(problem, (*layers, branches.join), last))
            key = likeness_of(part)
            if key not in alike:
                alike[key] = Sets(Chain.of(part), pool, self.shapes, check=check)
            self.parts.append(alike[key])
            self.inputs.append(inputs)
        numbers = tuple(range(branches.join, len(problem.layers)))
        self.tail = Sets(Chain.of(part_of(problem, numbers, None)), pool, self.shapes, check=check)
        #: Whether the tables say all there is to say where each branch is on one set.
        self.whole = self.closed and not sets_overlap(self.tail.chain)
        join = problem.layers[branches.join]
        #: Per branch the bytes of its end that the join takes at least.
        self._needed = [
            needed_of(problem, last, kind, (branches.join,))
            for last in branches.last
            for source, kind in zip(join.sources, join.signature.inputs, strict=False)
            if source == last and kind is not None
        ]
        self._moves: dict[tuple[object, ...], Moves] = {}
        self._goes_on: dict[tuple[object, ...], State] = {}
        self._least: dict[tuple[object, ...], tuple[int, float]] = {}

    def assignments(self) -> Iterator[tuple[float, tuple[State, ...], int]]:
        """Sets for all branches and the branch whose set goes on, with the least that they take as far as is known.

        Those that look best come first, by what is known when they come.
        """
        pending = [(0.0, number, *found) for number, found in enumerate(self._every())]
        while pending:
            before, number, states, home = heappop(pending)
            now = self.least(states, home)
            if now > before:
                heappush(pending, (now, number, states, home))
            else:
                yield now, states, home

    def _every(self) -> Iterator[tuple[tuple[State, ...], int]]:
        start = (0,) * len(self.shapes.cells)
        seen: set[tuple[object, ...]] = set()

        def deal(groups: tuple[int, ...], used: tuple[int, ...], own: tuple[State, ...]) -> Iterator[tuple[State, ...]]:
            if len(own) == max(groups) + 1:
                yield tuple(own[group] for group in groups)
                return
            for state in self.parts[groups.index(len(own))].states(used):
                yield from deal(groups, state.place.used, (*own, state))

        count = len(self.branches.layers)
        # A model input that several take comes to all their sets at once; what that takes is known of sets apart only.
        for groups in groupings(count) if self.closed else (tuple(range(count)),):
            for states in deal(groups, start, ()):
                spend(ASSIGNMENT)
                self.check()
                for home in range(max(groups) + 1):
                    key = (groups, tuple((s.place.counts, s.designs) for s in states), home)
                    if key not in seen:
                        seen.add(key)
                        yield states, groups.index(home)

    def least(self, states: tuple[State, ...], home: int) -> float:
        """Seconds at least on given sets, as far as is known: what each of the sets has to do by itself.

        The set that goes on does its branches and takes in the others; another one does its branches and sends them,
        after which those that come later still have to arrive.
        """
        own = states[home]
        alone = [self._branch_least(branch, state) for branch, state in enumerate(states)]
        moved = [self._crossing(branch, state, own) for branch, state in enumerate(states)]
        return float(until_joined(states, own, alone, moved)) + self._tail_least(self._after(states, home))

    def _crossing(self, branch: int, state: State, own: State) -> float:
        """Seconds at least until the end of a branch is where it is joined."""
        if state is own:
            return 0.0
        latency_s, s_per_byte = crossing(self.pool, state.place.members, own.place.members)
        return latency_s + self._needed[branch] * s_per_byte

    def _branch_least(self, branch: int, state: State) -> float:
        """Seconds at least of a branch, its inputs included."""
        sets = self.parts[branch]
        # Whoever looks at a branch looks at all of it.
        known = sets.known(state, len(sets.chain.segments) - 2)
        version = -1 if known is None else known.on.layouts.version
        key = (id(sets), sets.key(state))
        found = self._least.get(key)
        if found is None or found[0] != version:
            if known is None:
                seconds = float(sets.least(state)[:-1].sum()) + self._entering(sets, state)
            else:
                seconds = float(self._reach(branch, state)[-1].min())
            found = self._least[key] = version, seconds
        return found[1]

    def _entering(self, sets: Sets, state: State) -> float:
        """Seconds at least of the model inputs of a branch, one after the other."""
        if self.pool.inputs_at in state.place.members:
            return 0.0
        latency_s, s_per_byte = crossing(self.pool, (self.pool.inputs_at,), state.place.members)
        taken = {source: takers for source, takers in sets.chain.consumers.items() if source.layer is None}
        needed = [
            needed_of(sets.chain.problem, source, sets.chain.kinds[source], takers) for source, takers in taken.items()
        ]
        return sum(latency_s + nbytes * s_per_byte for nbytes in needed if nbytes)

    def _tail_least(self, state: State) -> float:
        """Seconds at least from the join on, where that starts on a set."""
        others = self.tail.states(state.place.used)
        if not others:
            return float(self.tail.runs(state).end[0])
        key = (self.tail.key(state), state.place.used)
        stamp = self.tail.stamp()
        found = self._least.get(key)
        if found is None or found[0] != stamp:
            own = self.tail.least(state)
            least = np.minimum(own, np.stack([self.tail.least(other) for other in others]).min(axis=0))
            found = self._least[key] = stamp, float(own[0] + least[1:].sum())
        return found[1]

    def _after(self, states: tuple[State, ...], home: int) -> State:
        """The set that goes on, when those of all branches are taken."""
        own = states[home]
        places = {state: state.place.counts for state in states}.values()
        used = tuple(map(sum, zip(*places, strict=True)))
        key = (own.place.members, used, own.designs)
        if key not in self._goes_on:
            self._goes_on[key] = State(Place(own.place.counts, used, own.place.members), own.designs)
        return self._goes_on[key]

    def ends(self, branch: int, state: State) -> tuple[IntArray, FloatArray]:
        """Layouts in which a branch can end on a set, and the least seconds until then."""
        sets = self.parts[branch]
        tables = sets.look(state, range(len(sets.chain.segments) - 1))
        reached = self._reach(branch, state)[-1]
        return tables.columns(len(sets.chain.segments) - 2), reached

    def _reach(self, branch: int, state: State) -> list[FloatArray]:
        """Least seconds per column of every segment of a branch."""
        part = self.parts[branch]
        return Forward(part).reach(state, len(part.chain.segments) - 1)

    def best(self, states: tuple[State, ...], home: int, limit: float) -> _Joined | None:
        """The best way on given sets through what is known; ``None`` if none stays below the limit."""
        goes_on = self._after(states, home)
        tables = self.tail.tables(goes_on)
        signature = self.problem.layers[self.branches.join].signature
        table = tables.on.layer(signature)
        needs = self._needs(tables.on.layouts)
        time = self._until_join(states, home, needs)
        first = tables.solve(0)
        outs = table.layouts.outs[0]
        if outs is None:
            return None
        own = table.own
        if Source(0, 0) in self.tail.chain.outputs:
            own = own + tables.on.layouts.outputs(self.tail.chain.kinds[Source(0, 0)], outs)
        places = np.searchsorted(first.columns, outs) if len(first.columns) > 1 else np.zeros(len(outs), np.int64)
        aim = LeastLatency(self.tail, None, limit, [goes_on])
        while True:
            total = time + own
            start = np.full(len(first.columns), np.inf)
            np.minimum.at(start, places, total)
            way = Forward(self.tail).way(aim, start={goes_on: start})
            if way is None:
                return None
            ending = places == way.steps[0].column
            strategy = int(np.flatnonzero(ending)[np.argmin(total[ending])])
            if len(set(states)) == len(states):
                break
            arrivals = self._arrivals(states, home, [numbers[[strategy]] for numbers in needs])
            seconds, _ = ends_together(states, home, arrivals)
            if seconds <= time[strategy] * (1 + _ROUNDING):
                break
            # Ends that are best one by one were not best together.
            time[strategy] = seconds
        chosen = self._ends_chosen(states, home, [numbers[[strategy]] for numbers in needs])
        return _Joined(way.seconds, states, tuple(chosen), strategy, home, way)

    def _needs(self, layouts: SetLayouts) -> list[IntArray]:
        """Per branch the layouts that the strategies of the join need."""
        signature = self.problem.layers[self.branches.join].signature
        every = (layouts.needs(signature, number) for number in range(len(signature.inputs)))
        return [numbers for numbers in every if numbers is not None][: len(self.branches.last)]

    def _until_join(self, states: tuple[State, ...], home: int, needs: Sequence[IntArray]) -> FloatArray:
        """Seconds at least until the join can start, per strategy; exact but for costs if no two share a set."""
        if len(set(states)) == len(states):
            least: FloatArray = self._joined(states, home, needs).min(axis=0)
            return least
        alone: list[Amount] = []
        moved: list[Amount] = []
        for branch, state in enumerate(states):
            columns, ended = self.ends(branch, state)
            arrival = self._arrival(branch, state, states[home], columns, needs[branch])
            moved.append(arrival.min(axis=0))
            # Where a branch counts whole, its end is one that is good for both; where it only arrives, any.
            alone.append((ended[:, None] + arrival).min(axis=0) - moved[-1])
        return np.asarray(until_joined(states, states[home], alone, moved))

    def _joined(self, states: tuple[State, ...], home: int, needs: Sequence[IntArray]) -> FloatArray:
        """Seconds until the join can start, ``[ends at home, strategies]``.

        Tensors come in the order in which the join takes them, each when its branch and the home set are ready.
        """
        columns, reached = self.ends(home, states[home])
        time = np.repeat(reached[:, None], len(needs[home]), axis=1)
        for branch, state in enumerate(states):
            if branch == home:
                time = time + self._arrival(home, state, state, columns, needs[home])
            else:
                others, ended = self.ends(branch, state)
                moved = self._arrival(branch, state, states[home], others, needs[branch])
                ready = np.maximum(ended[None, :, None], time[:, None, :])
                time = (ready + moved[None]).min(axis=1)
        return time

    def _ends_chosen(self, states: tuple[State, ...], home: int, needs: Sequence[IntArray]) -> list[int]:
        """Per branch the end that is best for one strategy of the join."""
        if len(set(states)) < len(states):
            return ends_together(states, home, self._arrivals(states, home, needs))[1]
        chosen = [0] * len(states)
        chosen[home] = int(self._joined(states, home, needs)[:, 0].argmin())
        columns, reached = self.ends(home, states[home])
        now = float(reached[chosen[home]])
        for branch, state in enumerate(states):
            if branch == home:
                now += float(self._arrival(home, state, state, columns, needs[home])[chosen[home], 0])
            else:
                others, ended = self.ends(branch, state)
                moved = self._arrival(branch, state, states[home], others, needs[branch])[:, 0]
                ready = np.maximum(ended, now) + moved
                chosen[branch], now = int(ready.argmin()), float(ready.min())
        return chosen

    def _arrivals(
        self, states: tuple[State, ...], home: int, needs: Sequence[IntArray]
    ) -> list[tuple[FloatArray, FloatArray]]:
        """Per branch, for one strategy of the join and every end: seconds until then, and from there to the join."""
        found = []
        for branch, state in enumerate(states):
            columns, ended = self.ends(branch, state)
            found.append((ended, self._arrival(branch, state, states[home], columns, needs[branch])[:, 0]))
        return found

    def _arrival(self, branch: int, state: State, home: State, columns: IntArray, needs: IntArray) -> FloatArray:
        """Seconds at least from every end of a branch to what every strategy of the join needs of it."""
        moves, sources, targets = self._between(branch, state, home, columns, needs)
        wanted, places = np.unique(targets, return_inverse=True)
        bounds: FloatArray = moves.bounds(sources, wanted)[:, places]
        return bounds

    def _between(
        self, branch: int, state: State, home: State, columns: IntArray, needs: IntArray
    ) -> tuple[Moves, IntArray, IntArray]:
        kind = self.parts[branch].chain.kinds[self.parts[branch].chain.segments[-1].gate or Source(None, 0)]
        theirs = self.parts[branch].tables(state).on.layouts.moves(kind)
        ours = self.tail.tables(home).on.layouts.moves(kind)
        own = state.place.members == home.place.members
        ranks = home.place.members if own else (*state.place.members, *home.place.members)
        key = (kind.shape, kind.dtype.bitwidth, ranks)
        if key not in self._moves:
            self._moves[key] = Moves(self.pool, kind.shape, kind.dtype.bitwidth, ranks)
        moves = self._moves[key]
        sources = moves.register(theirs.boxes(columns), state.place.members)
        return moves, sources, moves.register(ours.boxes(needs), home.place.members)

    def sharpen(self, joined: _Joined) -> bool:
        """Replace bounds on a way by exact costs; says whether there were any."""
        own = joined.states[joined.home]
        tables = self.tail.tables(own)
        signature = self.problem.layers[self.branches.join].signature
        changed = tables.on.layouts.price_resolution(signature, joined.strategy)
        needs = self._needs(tables.on.layouts)
        for branch, (state, column) in enumerate(zip(joined.states, joined.ends, strict=True)):
            columns, _ = self.ends(branch, state)
            moves, sources, targets = self._between(
                branch, state, own, columns[[column]], needs[branch][[joined.strategy]]
            )
            changed |= moves.sharpen(int(sources[0]), int(targets[0]))
            changed |= Forward(self.parts[branch]).sharpen(self._way(branch, state, column))
        return Forward(self.tail).sharpen(Way(joined.tail.seconds, joined.tail.steps), skip=1) or changed

    def _way(self, branch: int, state: State, column: int) -> Way:
        """The way of a branch to one of its ends."""
        return Forward(self.parts[branch]).back_from(state, self._reach(branch, state), column)

    def mapping(self, joined: _Joined) -> Mapping:
        """A choice, as a mapping of the whole problem."""
        assembly = Assembly(self.problem)
        for branch, (state, column) in enumerate(zip(joined.states, joined.ends, strict=True)):
            assembly.add(
                Forward(self.parts[branch]),
                self._way(branch, state, column),
                self.branches.layers[branch],
                inputs=self.inputs[branch],
            )
        numbers = tuple(range(self.branches.join, len(self.problem.layers)))
        decision = Decision({0: joined.strategy}, {}, ())
        assembly.add(Forward(self.tail), joined.tail, numbers, first=decision)
        return assembly.mapping()
