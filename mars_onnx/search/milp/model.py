"""The whole problem as a mixed integer program in flow form.

Variables, all between 0 and 1:

- per set and design (a *state*) whether it is used, and per state and run of layers whether it has that run; whole;
- per layer, state and offer whether it is chosen; whole;
- per tensor and set, from which layout it goes to which: to the layout in which it enters the set, and from there to
  what each taker needs; and from each set to each other one. With the others given, these are flows of one unit that
  only cheapest ways carry, so that they need not be whole.

Every accelerator is in one used state at most; a state has one stretch of runs. Offers that leave a layout feed the
flows that begin there, and flows that end in a layout feed the offers that need it. The sum of all costs is the
latency, as every set waits for the one before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mars_onnx.rules.base import TensorType
from mars_onnx.search.milp.offers import Designs, FloatArray, Prices
from mars_onnx.search.milp.program import IntArray, Program
from mars_onnx.search.milp.runs import Runs
from mars_onnx.search.milp.symmetry import Members
from mars_onnx.search.problem import Problem, Source
from mars_onnx.sharding.mapping import AcceleratorSet, Entry, LayerChoice, Mapping

State = tuple[Members, Designs]
#: Per layout the variables whose sum says whether a tensor is made in it, or needed in it.
Ends = dict[int, list[IntArray]]

#: Flows of more than this together are one that is there.
_MOSTLY = 0.5


@dataclass(frozen=True)
class _Taker:
    """A layer that takes a tensor, and as which of all that it takes."""

    layer: int
    slot: int


@dataclass(eq=False)
class Model:
    """The integer program of a problem.

    Attributes:
        problem: The model's layers.
        prices: What everything costs.
        runs: Where sets can change.
        tick: Called often; may end it all by raising.
    """

    problem: Problem
    prices: Prices
    runs: Runs
    tick: Callable[[], None]
    program: Program = field(default_factory=Program)
    _chosen: dict[tuple[int, State], IntArray] = field(default_factory=dict)
    _has: dict[tuple[State, int], IntArray] = field(default_factory=dict)
    _types: dict[Source, TensorType] = field(default_factory=dict)
    _entered: list[tuple[Source, Members, int, IntArray]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Put the program together."""
        self.sets = self.prices.family.sets
        self.designs = {members: self.prices.kind(members).designs() for members in self.sets}
        self.states: list[State] = [(members, own) for members in self.sets for own in self.designs[members]]
        self._states()
        for number in range(len(self.problem.layers)):
            self._layer(number)
        for source, takers in self._taken().items():
            self._tensor(source, takers)

    @property
    def least_s(self) -> float:
        """Seconds of the layers at least, if nothing had to be moved."""
        return sum(
            min(
                float(seconds.min())
                for members in self.sets
                for seconds in self.prices.kind(members).offers(number).seconds.values()
            )
            for number in range(len(self.problem.layers))
        )

    def _states(self) -> None:
        """Which states are used, and which runs they have."""
        program, count = self.program, self.runs.count
        used = program.variables(np.zeros(len(self.states)), whole=True)
        has = program.variables(np.zeros((len(self.states), count)), whole=True)
        starts = program.variables(np.zeros((len(self.states), count)))
        for rank in range(self.prices.pool.size):
            inside = [rank in members for members, _ in self.states]
            program.row([used[inside]], low=0.0, high=1.0)
        for run in range(count):
            program.row([has[:, run]], low=1.0, high=1.0)
        for place, state in enumerate(self.states):
            program.row([starts[place]], [used[place]], low=-1.0)
            for run in range(count):
                before = [has[place, run - 1]] if run else []
                program.row([has[place, run]], [*before, starts[place, run]], low=-2.0)
                program.row([has[place, run]], [used[place]], low=-1.0)
                self._has[state, run] = has[place, run]

    def _layer(self, number: int) -> None:
        """One offer of the state that has the layer's run."""
        for members, designs in self.states:
            self.tick()
            seconds = self.prices.kind(members).offers(number).seconds[designs]
            chosen = self.program.variables(seconds, whole=True)
            self.program.row([chosen], [self._has[(members, designs), self.runs.of[number]]])
            self._chosen[number, (members, designs)] = chosen

    def _taken(self) -> dict[Source, list[_Taker]]:
        """Per tensor who takes it."""
        kind = self.prices.kind(self.sets[0])
        found: dict[Source, list[_Taker]] = {}
        for number in range(len(self.problem.layers)):
            for slot, source in enumerate(kind.offers(number).taken):
                found.setdefault(source, []).append(_Taker(number, slot))
        return found

    def _every(self, number: int, members: Members) -> IntArray:
        """The variables of a layer on a set, ``[designs, offers]``."""
        return np.stack([self._chosen[number, (members, designs)] for designs in self.designs[members]])

    def _made(self, source: Source, members: Members) -> Ends:
        """The layouts in which a tensor can be made on a set."""
        number = source.layer or 0
        chosen = self._every(number, members)
        outs = self.prices.kind(members).offers(number).outs[source.output]
        return {int(layout): [chosen[:, outs == layout]] for layout in np.unique(outs)}

    def _needed(self, taker: _Taker, members: Members) -> Ends:
        """The layouts in which a layer can need what it takes."""
        chosen = self._every(taker.layer, members)
        needs = self.prices.kind(members).offers(taker.layer).needs[taker.slot]
        return {int(layout): [chosen[:, needs == layout]] for layout in np.unique(needs)}

    def _kind_of(self, source: Source, taker: _Taker) -> TensorType:
        """The type of a tensor."""
        if source.layer is not None:
            kind = self.problem.layers[source.layer].signature.outputs[source.output]
            if kind is not None:
                return kind
        layer = self.problem.layers[taker.layer]
        kinds = dict(zip(layer.sources, layer.signature.inputs, strict=False)) | dict(layer.captured)
        found = kinds[source]
        if found is None:
            raise ValueError("what is taken has a type")
        return found

    def _tensor(self, source: Source, takers: list[_Taker]) -> None:
        """All that can happen to a tensor."""
        type_ = self._types[source] = self._kind_of(source, takers[0])
        several = len(self.runs.takers[source]) > 1
        home = None if source.layer is None else self.runs.of[source.layer]
        changes = home is not None and self.runs.of[takers[0].layer] != home
        made = {} if source.layer is None else {members: self._made(source, members) for members in self.sets}
        #: Flows out of every made layout, per set.
        leaving: dict[Members, Ends] = {members: {layout: [] for layout in ends} for members, ends in made.items()}
        for members in self.sets:
            self.tick()
            kind = self.prices.kind(members)
            needs = [self._needed(taker, members) for taker in takers]
            arriving: list[Ends] = [{layout: [] for layout in own} for own in needs]
            entries = np.asarray(sorted(kind.entries(type_)))
            entering: Ends = {}
            if source.layer is None:
                self._from_outside(source, type_, members, entries, needs, several, entering, arriving)
            else:
                own = np.asarray(sorted(made[members]))
                if several:
                    stays = np.union1d(entries, own)
                    allowed = np.isin(stays, entries)[None] | (own[:, None] == stays[None])
                    self._flows(kind.moves(type_, own, stays), own, stays, leaving[members], entering, allowed)
                else:
                    wanted = np.asarray(sorted(needs[0]))
                    self._flows(kind.moves(type_, own, wanted), own, wanted, leaving[members], arriving[0])
                if changes:
                    for other in self.sets:
                        if not set(other) & set(members):
                            self._crossing(type_, other, members, leaving[other], entries, entering, arriving, several)
            self._entry(source, type_, members, entering, needs, arriving)
            for own_needs, own_arriving in zip(needs, arriving, strict=True):
                for layout, chosen in own_needs.items():
                    self.program.row(own_arriving[layout], chosen)
        for members, ends in made.items():
            for layout, chosen in ends.items():
                self.program.row(leaving[members][layout], chosen)

    def _flows(
        self,
        costs: FloatArray,
        sources: IntArray,
        targets: IntArray,
        leaving: Ends | None,
        arriving: Ends,
        allowed: np.ndarray | None = None,
    ) -> None:
        """Variables from layouts to layouts, ``[sources, targets]``."""
        open_ = np.ones(costs.shape, np.bool_) if allowed is None else allowed
        flows = np.full(costs.shape, -1, np.int64)
        flows[open_] = self.program.variables(costs[open_])
        for row, layout in enumerate(sources.tolist()):
            if leaving is not None:
                leaving[layout].append(flows[row, open_[row]])
        for column, layout in enumerate(targets.tolist()):
            arriving.setdefault(layout, []).append(flows[open_[:, column], column])

    def _from_outside(
        self,
        source: Source,
        type_: TensorType,
        members: Members,
        entries: IntArray,
        needs: list[Ends],
        several: bool,
        entering: Ends,
        arriving: list[Ends],
    ) -> None:
        """A model input comes to a set in a stated layout, or straight to the only layer that takes it."""
        kind = self.prices.kind(members)
        run = self.runs.of[self.runs.takers[source][0]]
        flows: list[IntArray] = []
        once = self.program.variables(kind.arrivals(type_, entries))
        for layout, flow in zip(entries.tolist(), once, strict=True):
            entering.setdefault(layout, []).append(flow)
        flows.append(once)
        if not several:
            wanted = np.asarray(sorted(set(needs[0]) - set(entries.tolist())), np.int64)
            straight = self.program.variables(kind.arrivals(type_, wanted))
            for layout, flow in zip(wanted.tolist(), straight, strict=True):
                arriving[0][layout].append(flow)
            flows.append(straight)
        self.program.row(flows, [self._has[(members, designs), run] for designs in self.designs[members]])

    def _crossing(
        self,
        type_: TensorType,
        home: Members,
        members: Members,
        leaving: Ends,
        entries: IntArray,
        entering: Ends,
        arriving: list[Ends],
        several: bool,
    ) -> None:
        """A tensor comes from another set in a stated layout, or straight to the only layer that takes it."""
        sources = np.asarray(sorted(leaving))
        costs = self.prices.crossings(type_, home, sources, members, entries)
        self._flows(costs, sources, entries, leaving, entering)
        if not several:
            wanted = np.asarray(sorted(set(arriving[0]) - set(entries.tolist())), np.int64)
            costs = self.prices.crossings(type_, home, sources, members, wanted)
            self._flows(costs, sources, wanted, leaving, arriving[0])

    def _entry(
        self,
        source: Source,
        type_: TensorType,
        members: Members,
        entering: Ends,
        needs: list[Ends],
        arriving: list[Ends],
    ) -> None:
        """From the layout in which a tensor has entered to what every taker needs; equal moves are made once."""
        kind = self.prices.kind(members)
        layouts = np.asarray(sorted(entering), np.int64)
        if not len(layouts):
            return
        entered = self.program.variables(np.zeros(len(layouts)))
        for layout, flow in zip(layouts.tolist(), entered, strict=True):
            self.program.row(entering[layout], [flow])
            self._entered.append((source, members, layout, flow))
        count: dict[int, int] = {}
        for own in needs:
            for layout in own:
                count[layout] = count.get(layout, 0) + 1
        shared: dict[int, IntArray] = {}
        for own, ends in zip(needs, arriving, strict=True):
            wanted = np.asarray(sorted(own))
            costs = kind.moves(type_, layouts, wanted)
            mutual = np.asarray([count[layout] > 1 for layout in wanted.tolist()])
            flows = self.program.variables(np.where(mutual[None], 0.0, costs))
            for row, flow in enumerate(entered):
                self.program.row([flows[row]], [flow])
            for column, layout in enumerate(wanted.tolist()):
                ends[layout].append(flows[:, column])
                if mutual[column]:
                    if layout not in shared:
                        shared[layout] = self.program.variables(costs[:, column])
                    for flow, paid in zip(flows[:, column], shared[layout], strict=True):
                        self.program.row([flow], [paid], low=-1.0)

    def mapping(self, values: FloatArray) -> Mapping:
        """The mapping that a solution stands for."""
        sets: list[State] = []
        layers: list[LayerChoice] = []
        made: dict[Source, tuple[Members, int]] = {}
        for number, layer in enumerate(self.problem.layers):
            state = max(self.states, key=lambda own: float(values[self._chosen[number, own]].max()))
            offers = self.prices.kind(state[0]).offers(number)
            offer = int(values[self._chosen[number, state]].argmax())
            if state not in sets:
                sets.append(state)
            layers.append(LayerChoice(layer.name, sets.index(state), offers.strategies[state[1]][offer]))
            made.update((Source(number, index), (state[0], int(outs[offer]))) for index, outs in offers.outs.items())
        return Mapping(
            tuple(AcceleratorSet(*state) for state in sets), tuple(layers), self._entries(values, sets, made)
        )

    def _entries(
        self, values: FloatArray, sets: list[State], made: dict[Source, tuple[Members, int]]
    ) -> tuple[Entry, ...]:
        """Per tensor and set the layout in which it enters, if it does."""
        flows: dict[tuple[Source, Members], list[tuple[float, int]]] = {}
        for source, members, layout, flow in self._entered:
            flows.setdefault((source, members), []).append((float(values[flow]), layout))
        # Of equally good ways a solution may carry parts; each of them is as good.
        best = {place: max(found)[1] for place, found in flows.items() if sum(value for value, _ in found) > _MOSTLY}
        places = {members: place for place, (members, _) in enumerate(sets)}
        found: list[Entry] = []
        for (source, members), layout in best.items():
            kind = self.prices.kind(members)
            strategy = kind.entries(self._types[source]).get(layout)
            if strategy is not None and made.get(source) != (members, layout):
                found.append(Entry(self.problem.name_of(source), places[members], strategy))
        return tuple(found)
