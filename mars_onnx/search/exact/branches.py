"""Branches from different model inputs on sets of their own, side by side, until one layer takes them all.

The branches of a network for several modalities have nothing to do with each other before they are joined. Each runs on
a set of its own; the set of one of them goes on with the join and what follows. Until then the longest counts, not the
sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mars_onnx.pool.topology import Pool
from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.aims import LeastLatency
from mars_onnx.search.exact.answer import Assembly
from mars_onnx.search.exact.chain import Chain
from mars_onnx.search.exact.factors import Decision
from mars_onnx.search.exact.forward import Forward, Way
from mars_onnx.search.exact.moves import FloatArray, Moves
from mars_onnx.search.exact.segments import inputs_of
from mars_onnx.search.exact.sets import Sets, State
from mars_onnx.search.exact.shapes import Place, Shapes
from mars_onnx.search.problem import Layer, Problem, Source
from mars_onnx.sharding.mapping import Mapping


@dataclass(frozen=True, slots=True)
class Branches:
    """A problem that begins with branches.

    Attributes:
        layers: Per branch the indices of its layers.
        last: Per branch the tensor that the join takes of it, in the order in which the join takes them.
        join: Index of the layer that joins them.
    """

    layers: tuple[tuple[int, ...], ...]
    last: tuple[Source, ...]
    join: int


def branches_of(problem: Problem) -> Branches | None:
    """The branches that a problem begins with; ``None`` if it does not, or if they are not joined by one layer."""
    group: dict[int, int] = {}
    for number, layer in enumerate(problem.layers):
        taken = [source for source in inputs_of(layer) if source.layer is not None]
        homes = {group[source.layer] for source in taken if source.layer is not None}
        if len(homes) > 1:
            return _checked(problem, group, number, taken)
        if homes:
            group[number] = homes.pop()
        elif layer.sources and any(source is not None for source in layer.sources):
            group[number] = len(set(group.values()))
        else:
            return None
        if layer.tied:
            return None
    return None


def _checked(problem: Problem, group: dict[int, int], join: int, taken: Sequence[Source]) -> Branches | None:
    """Branches, if the join takes one tensor of each, and nothing else does."""
    homes = [group[source.layer] for source in taken if source.layer is not None]
    rest = {source for layer in problem.layers[join + 1 :] for source in inputs_of(layer)}
    own_inputs = [source for layer in problem.layers[join:] for source in inputs_of(layer) if source.layer is None]
    outside = any(source.layer is not None and source.layer < join for source in (*rest, *problem.outputs))
    if len(set(homes)) != len(homes) or len(homes) != len(set(group.values())) or outside or own_inputs:
        return None
    if problem.layers[join].captured or len(problem.layers[join].signature.outputs) != 1:
        return None
    layers = tuple(tuple(number for number, home in group.items() if home == branch) for branch in homes)
    return Branches(layers, tuple(taken), join)


def _part(problem: Problem, numbers: Sequence[int], keep: Source | None) -> Problem:
    """Some layers of a problem, numbered anew; of tensors from outside, all but model inputs are taken as given."""
    place = {number: index for index, number in enumerate(numbers)}

    def moved(source: Source | None) -> Source | None:
        if source is None or source.layer is None:
            return source
        if source.layer not in place or (keep is not None and source.layer == keep.layer and source != keep):
            return None
        return Source(place[source.layer], source.output)

    layers: list[Layer] = []
    for number in numbers:
        layer = problem.layers[number]
        layers.append(replace(layer, sources=tuple(map(moved, layer.sources))))
    outputs = tuple(
        Source(place[source.layer], source.output)
        for source in problem.outputs
        if source.layer is not None and source.layer in place
    )
    return Problem(tuple(layers), outputs, problem.inputs)


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
    """The least latency with branches side by side."""

    def __init__(self, problem: Problem, pool: Pool, branches: Branches) -> None:
        """For the branches of a problem on a pool."""
        self.problem, self.pool, self.branches = problem, pool, branches
        self.shapes = Shapes(pool)
        # A branch ends with the join, of which it is the only input: so its last tensor is at a gate.
        self.parts = [
            Sets(Chain.of(_part(problem, (*layers, branches.join), last)), pool, self.shapes)
            for layers, last in zip(branches.layers, branches.last, strict=True)
        ]
        numbers = tuple(range(branches.join, len(problem.layers)))
        self.tail = Sets(Chain.of(_part(problem, numbers, None)), pool, self.shapes)
        self._ends: dict[tuple[int, State], tuple[int, FloatArray, Way | None]] = {}
        self._moves: dict[tuple[object, ...], Moves] = {}

    def assignments(self) -> Iterator[tuple[float, tuple[State, ...], int]]:
        """Sets for all branches and the branch whose set goes on, with the least that they take."""
        count = len(self.branches.layers)
        start = (0,) * len(self.shapes.cells)

        def deal(branch: int, used: tuple[int, ...]) -> Iterator[tuple[State, ...]]:
            if branch == count:
                yield ()
                return
            for state in self.parts[branch].states(used):
                for others in deal(branch + 1, state.place.used):
                    yield (state, *others)

        least: dict[tuple[int, object], float] = {}

        def of(sets: Sets, number: int, state: State) -> float:
            key = (number, (state.place.members, state.designs))
            if key not in least:
                seconds = sets.least(state)
                least[key] = float(seconds[:-1].sum() if number < count else seconds.sum())
            return least[key]

        found: list[tuple[float, tuple[State, ...], int]] = []
        seen: set[tuple[object, ...]] = set()
        for states in deal(0, start):
            for home in range(count):
                key = (tuple((s.place.counts, s.designs) for s in states), home)
                if key in seen:
                    continue
                seen.add(key)
                longest = max(of(self.parts[i], i, state) for i, state in enumerate(states))
                found.append((longest + of(self.tail, count, states[home]), states, home))
        yield from sorted(found, key=lambda entry: entry[0])

    def ends(self, branch: int, state: State) -> tuple[IntArray, FloatArray]:
        """Layouts in which a branch can end on a set, and the least seconds until then."""
        sets = self.parts[branch]
        tables = sets.look(state, range(len(sets.chain.segments) - 1))
        reached = self._reach(branch, state)[-1]
        return tables.solve(len(sets.chain.segments) - 2).columns, reached

    def _reach(self, branch: int, state: State) -> list[FloatArray]:
        """Least seconds per column of every segment of a branch."""
        part = self.parts[branch]
        return Forward(part).reach(state, len(part.chain.segments) - 1)

    def best(self, states: tuple[State, ...], home: int, limit: float) -> _Joined | None:
        """The best way on given sets through what is known; ``None`` if none stays below the limit."""
        own = states[home]
        everybody = tuple(map(sum, zip(*(state.place.counts for state in states), strict=True)))
        goes_on = State(Place(own.place.counts, everybody, own.place.members), own.designs)
        tables = self.tail.tables(goes_on)
        signature = self.problem.layers[self.branches.join].signature
        table = tables.on.layer(signature)
        needs = [numbers for numbers in table.layouts.needs if numbers is not None][: len(states)]
        time = self._joined(states, home, needs).min(axis=0)
        total = time + table.own
        first = tables.solve(0)
        outs = table.layouts.outs[0]
        if outs is None:
            return None
        start = np.full(len(first.columns), np.inf)
        places = np.searchsorted(first.columns, outs) if len(first.columns) > 1 else np.zeros(len(outs), np.int64)
        np.minimum.at(start, places, total)
        aim = LeastLatency(self.tail, None, limit, [goes_on])
        way = Forward(self.tail).way(aim, start={goes_on: start})
        if way is None:
            return None
        column = way.steps[0].column
        strategy = int(np.flatnonzero(places == column)[np.argmin(total[places == column])])
        chosen = self._ends_chosen(states, home, [numbers[[strategy]] for numbers in needs])
        return _Joined(way.seconds, states, tuple(chosen), strategy, home, way)

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
        table = tables.on.layer(signature)
        changed = tables.on.layouts.price_resolution(signature, joined.strategy)
        needs = [numbers for numbers in table.layouts.needs if numbers is not None]
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
            assembly.add(Forward(self.parts[branch]), self._way(branch, state, column), self.branches.layers[branch])
        numbers = tuple(range(self.branches.join, len(self.problem.layers)))
        decision = Decision({0: joined.strategy}, {}, ())
        assembly.add(Forward(self.tail), joined.tail, numbers, first=decision)
        return assembly.mapping()
