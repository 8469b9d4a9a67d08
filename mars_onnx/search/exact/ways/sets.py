"""The sets of a pool as a search knows them: by bounds, until somebody looks, segment by segment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, product
from math import prod

import numpy as np

from mars_onnx.cost.shares import member_kinds, twin
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.axes import Along, DimMap, Ranges, Whole, Window
from mars_onnx.rules.base import Signature, TensorType
from mars_onnx.rules.registry import rule_for
from mars_onnx.search.exact.chain.chain import Chain
from mars_onnx.search.exact.communication.moves import BoolArray, FloatArray
from mars_onnx.search.exact.communication.ports import crossing
from mars_onnx.search.exact.one_set.build import SegmentTables
from mars_onnx.search.exact.one_set.factors import SegmentShapes
from mars_onnx.search.exact.one_set.onset import OnSet, SetLayouts
from mars_onnx.search.exact.one_set.runs import Runs, runs_at_least, runs_of
from mars_onnx.search.exact.one_set.takers import needs_of
from mars_onnx.search.exact.strategies.least import least_seconds
from mars_onnx.search.exact.strategies.shares import ShareTables
from mars_onnx.search.exact.strategies.tariff import Tariff
from mars_onnx.search.exact.ways.crossings import Between, Crossing
from mars_onnx.search.exact.ways.shapes import Place, Shapes
from mars_onnx.search.exact.work import LEAST, kinds_of, spend
from mars_onnx.search.problem import Problem, Source

#: Sets of more members have so many shares that they are priced one set at a time.
_SMALL = 8


@dataclass(frozen=True, eq=False)
class State:
    """A set that is at work, with its designs; each is made once, so that they compare by identity."""

    place: Place
    designs: tuple[str, ...]


@dataclass(eq=False)
class Sets:
    """The sets of a pool, and what goes from one to another.

    Attributes:
        chain: The problem.
        pool: The accelerators.
        shapes: Which sets there are.
        tariff: What memory costs, if it does.
        check: Called again and again in long work; what it raises ends the work.
        at_least: What somebody else knows of a set at which nobody has looked.
    """

    chain: Chain
    pool: Pool
    shapes: Shapes
    tariff: Tariff | None = None
    check: Callable[[], None] = lambda: None
    at_least: Callable[[State], Runs] | None = None
    _known: dict[int, SegmentTables] = field(default_factory=dict)
    _layouts: dict[tuple[object, ...], SetLayouts] = field(default_factory=dict)
    _shapes: dict[tuple[object, ...], SegmentShapes] = field(default_factory=dict)
    _least: dict[tuple[object, ...], FloatArray] = field(default_factory=dict)
    _surplus: tuple[int, dict[frozenset[str], FloatArray]] | None = None
    _least_of: dict[State, FloatArray] = field(default_factory=dict)
    _needed: dict[int, float] = field(default_factory=dict)
    _rates: dict[tuple[object, ...], FloatArray] = field(default_factory=dict)
    _placed: dict[tuple[int, ...], list[State]] = field(default_factory=dict)
    _kinds: dict[tuple[object, ...], int] = field(default_factory=dict)
    _keys: dict[State, int] = field(default_factory=dict)
    _runs: dict[int, tuple[int, Runs]] = field(default_factory=dict)
    _crossings: dict[tuple[object, ...], Crossing] = field(default_factory=dict)

    def start(self) -> list[State]:
        """Sets that can be the first."""
        return self.states((0,) * len(self.shapes.cells))

    def states(self, used: tuple[int, ...]) -> list[State]:
        """Sets that can start when some accelerators are used."""
        if used not in self._placed:
            self._placed[used] = [
                State(place, designs) for place in self.shapes.placed(used) for designs in self._designs(place.members)
            ]
        return self._placed[used]

    def kinds(self) -> list[State]:
        """One set of each kind; of all that can come up if the shapes are uniform."""
        found: dict[int, State] = {}
        for place in self.shapes.first():
            for designs in self._designs(place.members):
                state = State(place, designs)
                found.setdefault(self.key(state), state)
        return list(found.values())

    def _designs(self, members: tuple[int, ...]) -> Iterator[tuple[str, ...]]:
        """Every choice of one design per kind of accelerator."""
        kinds = list(dict.fromkeys(twin(self.pool, rank) for rank in members))
        names = [[design.name for design in self.pool.accelerators[kind].designs] for kind in kinds]
        for chosen in product(*names):
            of = dict(zip(kinds, chosen, strict=True))
            yield tuple(of[twin(self.pool, rank)] for rank in members)

    def known(self, state: State, index: int) -> SegmentTables | None:
        """The tables of a set, if somebody has looked at one of its segments."""
        tables = self._known.get(self.key(state))
        return tables if tables is not None and tables.built(index) else None

    def look(self, state: State, segments: Iterable[int]) -> SegmentTables:
        """The tables of a set, after a look at some segments."""
        self.look_at([(state, index) for index in segments])
        return self.tables(state)

    def look_at(self, unknown: Sequence[tuple[State, int]]) -> None:
        """Look at segments of sets."""
        # What all of them are made of first, as much of it is bounded together.
        for state, index in unknown:
            self.tables(state).build([index])
        for state, index in unknown:
            self.tables(state).solve(index)

    def tables(self, state: State) -> SegmentTables:
        """The tables of a set, which look at a segment when they are asked for it."""
        key = self.key(state)
        if key not in self._known:
            members = state.place.members
            likeness = self.shapes.likeness(members)
            if likeness not in self._layouts:
                levels = self.shapes.levels(members)
                self._layouts[likeness] = SetLayouts(self.pool, members, levels, self.tariff, self._shares(members))
                self._shapes[likeness] = SegmentShapes(self.chain)
            on = OnSet(self._layouts[likeness], state.designs)
            self._known[key] = SegmentTables(self._shapes[likeness], on, self.check)
        return self._known[key]

    def beside(self, state: State, tables: SegmentTables) -> Sets:
        """The same sets, of which one that somebody has looked at has other tables, and the others are not known."""
        return replace(self, _known={self.key(state): tables}, _runs={}, _crossings={})

    @property
    def looks(self) -> int:
        """At how many segments of sets somebody has looked."""
        return sum(tables.count for tables in self._known.values())

    def stamp(self) -> int:
        """Grows when more is known of what sets take inside."""
        return self.looks + sum(layouts.version for layouts in self._layouts.values())

    def looked(self) -> tuple[SetLayouts, ...]:
        """What is known of the members of sets at which somebody has looked."""
        return tuple(self._layouts.values())

    def charge(self) -> None:
        """Follow the tariff after it has changed."""
        for layouts in self._layouts.values():
            layouts.charge()

    def key(self, state: State) -> int:
        """Equal for states that share their tables."""
        if state not in self._keys:
            kind = (self.shapes.likeness(state.place.members), state.designs)
            self._keys[state] = self._kinds.setdefault(kind, len(self._kinds))
        return self._keys[state]

    def least(self, state: State) -> FloatArray:
        """Per segment the least seconds on a set, as far as is known."""
        return self.runs(state).own

    def runs(self, state: State) -> Runs:
        """What a set takes at least without handing over, as far as is known."""
        key = self.key(state)
        known = self._known.get(key)
        version = -1 if known is None else known.on.layouts.version + known.count
        found = self._runs.get(key)
        if found is None or found[0] != version:
            least = self._compute(state)
            if known is None:
                runs = runs_at_least(least, None if self.at_least is None else self.at_least(state))
            else:
                runs = runs_of(known, least)
            found = self._runs[key] = version, runs
        return found[1]

    def runs_before(self, state: State) -> Runs:
        """The same as somebody last knew it: costs only grow, so that it is a bound all the same."""
        found = self._runs.get(self.key(state))
        return self.runs(state) if found is None else found[1]

    def most_promising(self, states: Sequence[State]) -> State:
        """Of some sets the one that takes least alone, as far as is known; of the others only a bound need be known."""
        while True:
            state = min(states, key=lambda own: self.runs_before(own).end[0])
            before = self.runs_before(state)
            if self.runs(state) is before:
                return state

    def surplus(self, state: State) -> FloatArray:
        """Seconds that segments probably take besides their compute: as on the set of these designs that is best at it.

        If nobody knows one of these, as on any other; 0 if nobody knows one at all.
        """
        now = self.stamp()
        if self._surplus is None or self._surplus[0] != now:
            self._surplus = now, self._surpluses()
        known = self._surplus[1]
        found = known.get(frozenset(state.designs))
        if found is None:
            found = np.min([*known.values()], axis=0) if known else np.zeros(len(self.chain.segments))
        return found

    def _surpluses(self) -> dict[frozenset[str], FloatArray]:
        """The same of the designs of sets at all segments of which somebody has looked."""
        found: dict[frozenset[str], FloatArray] = {}
        for state in {self.key(state): state for state in self.start()}.values():
            known = self._known.get(self.key(state))
            if known is not None and known.count == len(set(self.chain.alike)):
                end, own = self.runs_before(state).end, frozenset(state.designs)
                least = np.maximum(end[:-1] - end[1:] - self._compute(state), 0.0)
                found[own] = np.minimum(found[own], least) if own in found else least
        return found

    def least_of_any(self) -> FloatArray:
        """Per segment the least seconds of compute on any set."""
        least: FloatArray = np.stack([self._compute(state) for state in self.start()]).min(axis=0)
        return least

    def _compute(self, state: State) -> FloatArray:
        """Per segment the least seconds of compute."""
        if state not in self._least_of:
            self._least_of[state] = self._computed(state)
        return self._least_of[state]

    def _computed(self, state: State) -> FloatArray:
        members = state.place.members
        kinds = member_kinds(self.pool, members, state.designs)
        key = (kinds, self.shapes.levels(members))
        if key not in self._least:
            every, shares, levels = self.chain.problem.layers, self._shares(members), self.shapes.levels(members)
            spend(LEAST, kinds_of(self.chain.problem) * len(members))

            def seconds(signature: Signature) -> float:
                if self.tariff is None and shares is not None:
                    return shares.least_compute(signature, levels, members, state.designs)
                return least_seconds(self.pool, signature, frozenset(kinds), len(members))

            alike = self.chain.alike
            segments = {index: [every[n].signature for n in self.chain.segments[index].layers] for index in alike}
            least = {signature: seconds(signature) for signature in dict.fromkeys(chain(*segments.values()))}
            own = {index: sum(map(least.__getitem__, layers)) for index, layers in segments.items()}
            self._least[key] = np.asarray([own[index] for index in alike])
        return self._least[key]

    def _shares(self, members: tuple[int, ...]) -> ShareTables | None:
        return self.small if len(members) <= _SMALL else None

    @cached_property
    def between(self) -> Between:
        """What there is to move between sets."""
        return Between(self.pool, self.shapes)

    @cached_property
    def small(self) -> ShareTables:
        """What shares take to compute on one accelerator, and on all small sets: not many, and priced at once."""
        sets = (state.place.members for state in self.start())
        levels = {self.shapes.levels(own) for own in sets if len(own) <= _SMALL}
        return ShareTables(self.pool, sorted({(), *levels}), (layer.signature for layer in self.chain.problem.layers))

    def size(self, state: State, index: int) -> int:
        """Layouts of the tensor at a gate; one where nobody has looked."""
        known = self.known(state, index)
        return 1 if known is None else len(known.domain(index))

    def cross(self, state: State, other: State, index: int) -> FloatArray:
        """Seconds at least from every column of a set to every layout at the gate on another."""
        first, second = self.known(state, index - 1), self.known(other, index)
        gate = self.chain.segments[index].gate
        rows = 1 if first is None else len(first.columns(index - 1))
        width = self.size(other, index)
        if gate is None or first is None or second is None:
            return np.full((rows, width), self.least_crossing(state, other, index))
        return self.crossing(state, other, index).seconds()

    def crossing(self, state: State, other: State, index: int) -> Crossing:
        """From the columns of a set that somebody has looked at to the layouts at the gate on another one."""
        alike = self.between.likeness(state.place.members, other.place.members)
        key = (alike, self.chain.alike[index - 1], self.chain.alike[index])
        if key not in self._crossings:
            gate = self.chain.segments[index].gate
            if gate is None:
                raise ValueError("a segment without a gate is not crossed into")
            first, second = self.tables(state), self.tables(other)
            self._crossings[key] = self.between.crossing(
                self.chain.kinds[gate],
                first.on.layouts,
                first.columns(index - 1),
                second.on.layouts,
                second.domain(index),
                (state.place.members, other.place.members),
                ~self._landing(second, index),
            )
        return self._crossings[key]

    def least_crossing(self, state: State, other: State, index: int) -> float:
        """Seconds at least until what is needed of the tensor at a gate is on another set."""
        latency_s, s_per_byte = crossing(self.pool, state.place.members, other.place.members)
        return latency_s + self.needed(index) * s_per_byte

    def least_crossings(self, state: State, index: int) -> FloatArray:
        """The same to each of the sets that can take over from a set."""
        key = (state.place.members, state.place.used)
        if key not in self._rates:
            others = [other.place.members for other in self.states(state.place.used)]
            rates = [crossing(self.pool, state.place.members, other) for other in others]
            self._rates[key] = np.asarray(rates).reshape(-1, 2)
        latency_s, s_per_byte = self._rates[key].T
        total: FloatArray = latency_s + self.needed(index) * s_per_byte
        return total

    def needed(self, index: int) -> float:
        """Bytes of the tensor at a gate that are taken behind it at least."""
        if index not in self._needed:
            self._needed[index] = needed_bytes(self.chain, index)
        return self._needed[index]

    def _landing(self, known: SegmentTables, index: int) -> BoolArray:
        """In which layouts of a gate's domain a tensor can come from another set."""
        gate = self.chain.segments[index].gate
        if gate is None:
            raise ValueError("a segment without a gate is not crossed into")
        allowed = [known.on.layouts.identity(self.chain.kinds[gate])[0]]
        takers = self.chain.consumers[gate]
        if len(takers) == 1:
            allowed += needs_of(self.chain, known.on.layouts, takers[0], gate)
        landing: BoolArray = np.isin(known.domain(index), np.concatenate(allowed))
        return landing


def needed_bytes(chain: Chain, index: int) -> float:
    """How much of the tensor at a gate is taken behind it at least, whatever the strategies; 0 if nobody can say."""
    gate = chain.gate(index)
    if gate is None:
        return 0.0
    return needed_of(chain.problem, gate, chain.kinds[gate], chain.consumers.get(gate, ()))


def needed_of(problem: Problem, tensor: Source, kind: TensorType, takers: Iterable[int]) -> float:
    """How many bytes of a tensor some layers take at least, whatever the strategies; 0 if nobody can say."""
    most = 0.0
    for number in dict.fromkeys(takers):
        layer = problem.layers[number]
        rule = rule_for(layer.signature)
        for source, dims in zip(layer.sources, rule.inputs, strict=False):
            if source == tensor and dims is not None:
                whole = {axis.name: (np.asarray(0), np.asarray(axis.size)) for axis in rule.axes}
                most = max(most, prod((_needed(dim, whole) for dim in dims), start=1.0))
    return most * kind.dtype.bitwidth / 8


def _needed(dim: DimMap, whole: Ranges) -> float:
    """Places along a dimension that all members together need at least."""
    low, high = dim(whole)
    extent = float(high - low)
    if isinstance(dim, Window):
        # Steps that are wider than the kernel leave gaps.
        return extent * min(1.0, dim.kernel / dim.stride) if dim.dilation == 1 else 0.0
    return extent if isinstance(dim, Along | Whole) else 0.0
