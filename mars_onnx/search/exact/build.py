"""The tables of one segment on one set, and the way back from values of variables to strategies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.rules.base import TensorType
from mars_onnx.search.exact.chain import Chain
from mars_onnx.search.exact.moves import BoolArray, FloatArray
from mars_onnx.search.exact.onset import Edge, OnSet
from mars_onnx.search.exact.segments import inputs_of
from mars_onnx.search.exact.tables import Elimination, Factor, Tables
from mars_onnx.search.problem import Layer, Source


@dataclass(frozen=True, slots=True)
class Move:
    """A tensor goes from one layout to another."""

    tensor: Source
    source: int
    target: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided for a segment.

    Attributes:
        strategies: Per layer the number of its strategy.
        entries: Tensors that are brought, once for all takers, into a layout.
        moves: Every redistribution, entries included; those that nothing moves in, too.
    """

    strategies: dict[int, int]
    entries: dict[Source, int]
    moves: tuple[Move, ...]


@dataclass(frozen=True, eq=False)
class Solved:
    """A segment on a set, as a table.

    Attributes:
        rows: Layout numbers of the tensor at the gate; a single row where there is none.
        columns: Layout numbers of the tensor at the next gate, some of them several times; one column at the end.
        seconds: ``[rows, columns]``.
        steps: How the variables were eliminated.
        build: The variables.
    """

    rows: IntArray
    columns: IntArray
    seconds: FloatArray
    steps: tuple[Elimination, ...]
    build: SegmentBuild


@dataclass(eq=False)
class SegmentTables:
    """All segments of a problem on one set."""

    chain: Chain
    on: OnSet
    tables: Tables
    _solved: dict[int, tuple[int, Solved]] = field(default_factory=dict)
    _builds: dict[int, SegmentBuild] = field(default_factory=dict)
    _domains: dict[int, IntArray] = field(default_factory=dict)
    _eliminated: dict[tuple[object, ...], tuple[FloatArray, tuple[Elimination, ...]]] = field(default_factory=dict)

    def solve(self, index: int) -> Solved:
        """The table of a segment, as exact as costs are known by now."""
        index = self.chain.alike[index]
        known = self._solved.get(index)
        if known is not None and known[0] == self.on.layouts.version:
            return known[1]
        if index not in self._builds:
            self._builds[index] = SegmentBuild(self.chain, self.on, self.tables, index)
        build = self._builds[index]
        factors = build.refresh()
        key = (factors, build.keep)
        if key not in self._eliminated:
            self._eliminated[key] = self.tables.eliminate(factors, build.keep)
        seconds, steps = self._eliminated[key]
        solved = Solved(build.rows, build.columns, seconds, steps, build)
        self._solved[index] = (self.on.layouts.version, solved)
        return solved

    def decide(self, index: int, row: int, column: int) -> Decision:
        """What is best for a segment from a layout at its gate to one at the next."""
        solved = self.solve(index)
        values = self.tables.assignment(solved.steps, dict(zip(solved.build.keep, (row, column), strict=True)))
        found = solved.build.decision(values)
        like = self.chain.segments[self.chain.alike[index]]
        own = self.chain.segments[index]
        return _shifted(found, own.layers[0] - like.layers[0], like.gate, own.gate)

    def domain(self, index: int) -> IntArray:
        """Layouts in which the tensor at a segment's gate can be there for it."""
        index = self.chain.alike[index]
        if index not in self._domains:
            gate = self.chain.segments[index].gate
            self._domains[index] = np.zeros(1, np.int64) if gate is None else domain(self.chain, self.on, gate)
        return self._domains[index]


def _shifted(decision: Decision, offset: int, gate: Source | None, own: Source | None) -> Decision:
    """The decision for a segment that is like another one but for its place."""

    def moved(source: Source) -> Source:
        if source == gate and own is not None:
            return own
        return source if source.layer is None else Source(source.layer + offset, source.output)

    return Decision(
        {number + offset: strategy for number, strategy in decision.strategies.items()},
        {moved(source): layout for source, layout in decision.entries.items()},
        tuple(Move(moved(move.tensor), move.source, move.target) for move in decision.moves),
    )


def domain(chain: Chain, on: OnSet, tensor: Source) -> IntArray:
    """Layouts from which the takers of a tensor may take it: those that it is made in, and those it can enter in.

    Where one layer alone takes it, also what that layer needs: it may be moved there at once.
    """
    identity, _ = on.layouts.identity(chain.kinds[tensor])
    numbers = [identity]
    if tensor.layer is not None:
        made = on.layouts.layer(chain.problem.layers[tensor.layer].signature).outs[tensor.output]
        if made is not None:
            numbers.append(made)
    takers = chain.consumers.get(tensor, ())
    if len(takers) == 1:
        numbers += needs_of(chain, on, takers[0], tensor)
    return np.unique(np.concatenate(numbers))


def unstated(on: OnSet, kind: TensorType, made: IntArray, entered: IntArray) -> BoolArray:
    """Which changes of a layout no mapping can state: a tensor enters as the operator that does nothing would leave it.

    Args:
        on: The set.
        kind: Type of the tensor.
        made: Layout numbers.
        entered: Layout numbers.
    """
    stated = np.isin(entered, on.layouts.identity(kind)[0])
    closed: BoolArray = ~stated[None] & (made[:, None] != entered[None])
    return closed


def needs_of(chain: Chain, on: OnSet, number: int, tensor: Source) -> list[IntArray]:
    """Per input of a layer that is this tensor, the layouts that its strategies need."""
    layer = chain.problem.layers[number]
    table = on.layouts.layer(layer.signature)
    found = [
        needs
        for source, needs in zip(layer.sources, table.needs, strict=False)
        if source == tensor and needs is not None
    ]
    if any(source == tensor for source, _ in layer.captured):
        # Idle members are counted as if they needed it too, which is at most too much.
        kind = chain.kinds[tensor]
        boxes = np.zeros((1, len(on.layouts.members), max(1, len(kind.shape)), 2), np.int64)
        boxes[..., 1] = kind.shape or (1,)
        whole = on.layouts.moves(kind).register(boxes, on.layouts.members)
        found.append(np.repeat(whole, len(table.space.strategies)))
    return found


def charged(chain: Chain, on: OnSet, tensor: Source, needs: IntArray) -> FloatArray:
    """Per strategy what part of the move to its layout a layer is charged, as others may share that."""
    takers = dict.fromkeys(chain.consumers.get(tensor, ()))
    every = [needed for taker in takers for needed in needs_of(chain, on, taker, tensor)]
    if len(every) < 2:
        return np.ones(len(needs))
    sharing = np.sum([np.isin(needs, needed) for needed in every], axis=0)
    # Two takers that need the same do as well if the tensor enters in that layout, where it can.
    if len(every) == 2:
        sharing = np.where(np.isin(needs, on.layouts.identity(chain.kinds[tensor])[0]), 1, sharing)
    parts: FloatArray = 1.0 / np.maximum(sharing, 1)
    return parts


@dataclass(eq=False)
class _Maker:
    """A factor that changes as costs become exact.

    Attributes:
        variables: Of the factor.
        version: Grows when the factor changes.
        make: The factor's array.
    """

    variables: tuple[int, ...]
    version: Callable[[], int]
    make: Callable[[], FloatArray]
    made: int = -1
    factor: Factor | None = None


class _Classes:
    """Strategies in classes, of which only the least matters."""

    def __init__(self, classes: IntArray, count: int) -> None:
        self.of = classes
        self._order = np.argsort(classes, kind="stable")
        self._starts = np.searchsorted(classes[self._order], np.arange(count))
        self._plain = count == len(classes) and bool((self._order == np.arange(count)).all())

    def least(self, seconds: FloatArray) -> FloatArray:
        """The least column of every class, ``[rows, classes]``."""
        if self._plain:
            return seconds
        least: FloatArray = np.minimum.reduceat(seconds[:, self._order], self._starts, axis=1)
        return least


@dataclass(frozen=True, eq=False)
class _Taken:
    """An input of a layer: from which variable and layouts, to which layout per strategy; and what part it is charged.

    Layers that take one tensor in the same layout share its move, so that each is charged its part of it at least.
    """

    tensor: Source
    variable: int
    layouts: IntArray
    needs: IntArray
    charged: FloatArray

    def edge(self, chain: Chain, on: OnSet) -> tuple[Edge, IntArray]:
        """Seconds to the different needs, and which one each strategy has."""
        wanted, columns = np.unique(self.needs, return_inverse=True)
        return on.layouts.edge(chain.kinds[self.tensor], self.layouts, wanted), columns


@dataclass(frozen=True, eq=False)
class _LayerVariable:
    """A layer's variable: which value each strategy belongs to, and the layer's inputs."""

    variable: int
    classes: IntArray
    taken: tuple[_Taken, ...]
    edges: tuple[tuple[Edge, IntArray], ...]


class SegmentBuild:
    """The factors of one segment. Variables are numbered from 0, so that alike segments look alike."""

    def __init__(self, chain: Chain, on: OnSet, tables: Tables, index: int) -> None:
        self.chain, self.on, self.tables = chain, on, tables
        self.segment = chain.segments[index]
        self._makers: list[_Maker] = []
        self._count = 0
        #: Per tensor the variable that its layout depends on, and its layout for every value.
        self._made: dict[Source, tuple[int, IntArray]] = {}
        self._entered: dict[Source, tuple[int, IntArray]] = {}
        self._layers: dict[int, _LayerVariable] = {}
        gate = self.segment.gate
        self.rows = np.zeros(1, np.int64) if gate is None else domain(chain, on, gate)
        self._entry = self._variable(np.zeros(len(self.rows)))
        if gate is not None:
            self._made[gate] = self._entered[gate] = (self._entry, self.rows)
        for number in self.segment.layers:
            self._layer(number)
        following = chain.gate(index + 1)
        if following is None:
            last, self.columns = self._variable(np.zeros(1)), np.zeros(1, np.int64)
        elif following == gate:
            # Nothing but side outputs: the tensor goes on as it came.
            last = self._variable(np.zeros(len(self.rows)))
            self.columns = self.rows
            self._fixed((self._entry, last), np.where(np.eye(len(self.rows), dtype=bool), 0.0, np.inf))
        else:
            last, self.columns = self._made[following]
        self.keep = (self._entry, last)

    def refresh(self) -> tuple[Factor, ...]:
        """The factors, as exact as costs are known by now."""
        found: list[Factor] = []
        for maker in self._makers:
            version = maker.version()
            if maker.factor is None or version != maker.made:
                maker.factor, maker.made = Factor(maker.variables, self.tables.number(maker.make())), version
            found.append(maker.factor)
        return tuple(found)

    def _variable(self, seconds: FloatArray) -> int:
        self._count += 1
        self._fixed((self._count - 1,), seconds)
        return self._count - 1

    def _fixed(self, variables: tuple[int, ...], array: FloatArray) -> None:
        self._makers.append(_Maker(variables, lambda: 0, lambda: array))

    def _changing(self, variables: tuple[int, ...], version: Callable[[], int], make: Callable[[], FloatArray]) -> None:
        self._makers.append(_Maker(variables, version, make))

    def _available(self, tensor: Source) -> tuple[int, IntArray]:
        """The variable and the layouts from which a layer takes a tensor."""
        if tensor not in self._entered:
            kind = self.chain.kinds[tensor]
            if tensor.layer is None:
                numbers = domain(self.chain, self.on, tensor)
                self._entered[tensor] = (self._variable(self.on.layouts.inputs(kind, numbers)), numbers)
            elif len(self.chain.consumers.get(tensor, ())) > 1:
                made, layouts = self._made[tensor]
                numbers = domain(self.chain, self.on, tensor)
                variable = self._variable(np.zeros(len(numbers)))
                edge = self.on.layouts.edge(kind, layouts, numbers)
                closed = unstated(self.on, kind, layouts, numbers)
                self._changing((made, variable), edge.refresh, lambda: np.where(closed, np.inf, edge.seconds))
                self._entered[tensor] = (variable, numbers)
            else:
                self._entered[tensor] = self._made[tensor]
        return self._entered[tensor]

    def _layer(self, number: int) -> None:
        layer = self.chain.problem.layers[number]
        table = self.on.layer(layer.signature)
        taken = self._inputs(number, layer)
        outs = [(index, numbers) for index, numbers in enumerate(table.layouts.outs) if numbers is not None]
        # With one input its cost is a table of two variables; with more, inputs meet in the layer's own variable.
        meeting = [entry.needs for entry in taken] if len(taken) > 1 else []
        columns = [*meeting, *(numbers for _, numbers in outs)]
        rows, numbers = _classes(columns, len(table.compute))
        classes = _Classes(numbers, len(rows))
        edges = tuple(entry.edge(self.chain, self.on) for entry in taken)
        variable = self._variable(np.zeros(len(rows)))
        if len(taken) == 1:
            edge, column = edges[0]
            self._changing(
                (taken[0].variable, variable),
                lambda: edge.refresh() + table.layouts.version,
                lambda: classes.least(edge.seconds[:, column] * taken[0].charged + table.own),
            )
        else:
            self._changing((variable,), lambda: table.layouts.version, lambda: classes.least(table.own[None])[0])
            first = np.searchsorted(numbers[np.argsort(numbers, kind="stable")], np.arange(len(rows)))
            example = np.argsort(numbers, kind="stable")[first]
            for entry, (edge, column) in zip(taken, edges, strict=True):
                self._meeting((entry.variable, variable), edge, column[example], entry.charged[example])
        self._layers[number] = _LayerVariable(variable, numbers, tuple(taken), edges)
        for place, (index, _) in enumerate(outs):
            tensor = Source(number, index)
            layouts = rows[:, len(meeting) + place]
            self._made[tensor] = (variable, layouts)
            if tensor in self.chain.outputs:
                self._fixed((variable,), self.on.layouts.outputs(self.chain.kinds[tensor], layouts))

    def _meeting(self, variables: tuple[int, int], edge: Edge, columns: IntArray, charged: FloatArray) -> None:
        """One of several inputs of a layer: what it takes to where each value of the layer's variable needs it."""
        self._changing(variables, edge.refresh, lambda: edge.seconds[:, columns] * charged)

    def _inputs(self, number: int, layer: Layer) -> list[_Taken]:
        return [
            _Taken(tensor, *self._available(tensor), needs, charged(self.chain, self.on, tensor, needs))
            for tensor in dict.fromkeys(inputs_of(layer))
            if tensor in self.chain.kinds
            for needs in needs_of(self.chain, self.on, number, tensor)
        ]

    def decision(self, values: dict[int, int]) -> Decision:
        """Strategies and moves that values of the variables stand for."""
        strategies: dict[int, int] = {}
        moves: list[Move] = []
        for number, own in self._layers.items():
            table = self.on.layer(self.chain.problem.layers[number].signature)
            candidates = np.flatnonzero(own.classes == values[own.variable])
            cost = table.own[candidates]
            for entry, (edge, columns) in zip(own.taken, own.edges, strict=True):
                edge.refresh()
                cost = cost + edge.seconds[values[entry.variable], columns[candidates]] * entry.charged[candidates]
            best = int(candidates[np.argmin(cost)])
            strategies[number] = best
            for entry in own.taken:
                held = int(entry.layouts[values[entry.variable]])
                moves.append(Move(entry.tensor, held, int(entry.needs[best])))
        entries: dict[Source, int] = {}
        for tensor, (variable, layouts) in self._entered.items():
            made, made_layouts = self._made.get(tensor, (variable, layouts))
            if tensor.layer is None or made != variable:
                entries[tensor] = int(layouts[values[variable]])
            if made != variable:
                moves.append(Move(tensor, int(made_layouts[values[made]]), entries[tensor]))
        return Decision(strategies, entries, tuple(moves))


def _classes(columns: list[IntArray], count: int) -> tuple[IntArray, IntArray]:
    """Distinct rows of some columns, and for each of ``count`` entries the number of its row."""
    if not columns:
        return np.zeros((1, 0), np.int64), np.zeros(count, np.int64)
    rows, classes = np.unique(np.stack(columns, axis=-1), axis=0, return_inverse=True)
    return rows, classes.ravel()
