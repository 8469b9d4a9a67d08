"""``--search exact``: the search, its clock, and its answer as a mapping."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic

from mars_onnx.pool.topology import Pool
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.exact.latency import LatencySearch, State, Way
from mars_onnx.search.greedy import greedy_mapping
from mars_onnx.search.method import Ending, Progress, SearchOptions, SearchResult
from mars_onnx.search.problem import Problem, Source
from mars_onnx.sharding.mapping import AcceleratorSet, Entry, LayerChoice, Mapping
from mars_onnx.sharding.strategy import Strategy

SPACE = (
    "sets of accelerators in the pool's order, one design each, a run of layers each, changed where one tensor carries "
    "all data; per layer exclusive shards of all axes, several at a time, partial sums all-reduced or "
    "reduce-scattered; tensors that several layers take, and model inputs, in one layout per set"
)

#: Good mappings that are kept for a second look.
_KEPT = 4
#: Seconds between two looks at what the best way so far really costs.
_LOOK_S = 0.5


def exact_search(problem: Problem, pool: Pool, options: SearchOptions) -> SearchResult:
    """The mapping of least latency, with a proof, or the best so far when time is up."""
    return _Run(problem, pool, options).run()


@dataclass(eq=False)
class _Run:
    problem: Problem
    pool: Pool
    options: SearchOptions
    started: float = field(default_factory=monotonic)
    looked: float = 0.0
    best: list[tuple[float, Mapping]] = field(default_factory=list)
    bound: float = 0.0

    def run(self) -> SearchResult:
        ending = Ending.PROVEN
        try:
            search = LatencySearch(self.problem, self.pool)
            start = search.sets.states((0,) * len(search.sets.shapes.cells))
            # One set of everything is nearly always good, and quickly found: what is worse need not be looked at.
            whole = [state for state in start if len(state.place.members) == self.pool.size]
            if not (self.improve(search, whole) and self.improve(search, None)):
                ending = Ending.TIME_LIMIT
        except KeyboardInterrupt:
            ending = Ending.INTERRUPTED
        if not self.best:
            self.note(greedy_mapping(self.problem, self.pool))
        cost_s, mapping = self.best[0]
        bound = min(self.bound, cost_s)
        if ending is Ending.PROVEN:
            bound = cost_s
        others = tuple(other for _, other in self.best[1:])
        return SearchResult(mapping, cost_s, bound, ending, SPACE, others)

    def improve(self, search: LatencySearch, states: list[State] | None) -> bool:
        """Look for a better mapping until there is none; says whether it came to the end."""
        while True:
            limit = self.best[0][0] if self.best else float("inf")
            way = search.way(limit * (1 - 1e-12), states)
            if way is None:
                return True
            if states is None:
                self.bound = way.seconds
            sharp = not search.sharpen(way)
            now = monotonic()
            if sharp or now - self.looked > _LOOK_S:
                self.looked = now
                if all(search.sets.known(step.state) is not None for step in way.steps):
                    self.note(mapping_of(search, way))
                self.options.report(Progress("exact search", self.best[0][0] if self.best else None, self.bound))
            if self.options.time_limit_s is not None and now - self.started > self.options.time_limit_s:
                return False

    def note(self, mapping: Mapping) -> None:
        """Keep a mapping if it is good."""
        if any(mapping == other for _, other in self.best):
            return
        cost_s = evaluate(self.problem, self.pool, mapping).latency_s
        self.best = sorted([*self.best, (cost_s, mapping)], key=lambda entry: entry[0])[:_KEPT]


def mapping_of(search: LatencySearch, way: Way) -> Mapping:
    """A way through the tables, as a mapping."""
    problem = search.chain.problem
    states = list(dict.fromkeys(step.state for step in way.steps))
    number = {state: index for index, state in enumerate(states)}
    layers: dict[int, LayerChoice] = {}
    entries: list[Entry] = []
    for index, step in enumerate(way.steps):
        tables = search.sets.look(step.state)
        own = number[step.state]
        decision = tables.decide(index, step.row, step.column)
        for layer, strategy in decision.strategies.items():
            found = tables.on.layer(problem.layers[layer].signature).space.strategies[strategy]
            layers[layer] = LayerChoice(problem.layers[layer].name, own, found)
        layouts = dict(decision.entries)
        gate = search.chain.segments[index].gate
        if gate is not None:
            layouts[gate] = int(tables.domain(index)[step.row])
        same = {
            move.tensor for move in decision.moves if move.tensor in layouts and move.target == layouts[move.tensor]
        }
        for tensor, layout in layouts.items():
            stated = _stated(search, step.state, tensor, layout)
            made = _made(search, way, index, tensor)
            taken_once = len(search.chain.consumers.get(tensor, ())) == 1
            if stated is None or made == layout or (taken_once and tensor in same):
                continue
            entries.append(Entry(problem.name_of(tensor), own, stated))
    sets = tuple(AcceleratorSet(state.place.members, state.designs) for state in states)
    return Mapping(sets, tuple(layers[place] for place in range(len(problem.layers))), tuple(entries))


def _stated(search: LatencySearch, state: State, tensor: Source, layout: int) -> Strategy | None:
    """The strategy that stands for a layout in which a tensor enters."""
    numbers, strategies = search.sets.look(state).on.identity(search.chain.kinds[tensor])
    return next((s for number, s in zip(numbers.tolist(), strategies, strict=True) if number == layout), None)


def _made(search: LatencySearch, way: Way, index: int, tensor: Source) -> int | None:
    """The layout in which a tensor is made, if that is on the same set."""
    if tensor.layer is None:
        return None
    step = way.steps[index]
    for place in range(index, -1, -1):
        if way.steps[place].state != step.state:
            return None
        if tensor.layer in search.chain.segments[place].layers:
            decision = search.sets.look(step.state).decide(place, way.steps[place].row, way.steps[place].column)
            table = search.sets.look(step.state).on.layer(search.chain.problem.layers[tensor.layer].signature)
            numbers = table.outs[tensor.output]
            return None if numbers is None else int(numbers[decision.strategies[tensor.layer]])
    return None
