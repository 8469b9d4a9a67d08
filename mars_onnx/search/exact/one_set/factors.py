"""The factors of one segment on one set, and the way back from values of variables to strategies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.chain.chain import Chain
from mars_onnx.search.exact.chain.segments import inputs_of
from mars_onnx.search.exact.communication.moves import FloatArray
from mars_onnx.search.exact.one_set.onset import Edge, LayerLayouts, OnSet
from mars_onnx.search.exact.one_set.sharing import SharedEdge, Sharing, hubs_of
from mars_onnx.search.exact.one_set.takers import charged, domain, needs_of, unstated
from mars_onnx.search.exact.sums.elimination import Bond, Elimination, TooWideError
from mars_onnx.search.exact.sums.relaxation import Relaxation
from mars_onnx.search.problem import Layer, Source

#: Costs that differ by less, relatively, do so by rounding.
_ROUNDING = 1e-12


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
        loose: Whether the tables may promise less, as layers share fewer moves than it seems there.
    """

    strategies: dict[int, int]
    entries: dict[Source, int]
    moves: tuple[Move, ...]
    loose: bool = False


@dataclass(eq=False)
class _Maker:
    """A factor that changes as costs become exact.

    Attributes:
        variables: Of the factor.
        version: Grows when the factor changes.
        make: The factor's array.
        made: The version that is in the sum.
    """

    variables: tuple[int, ...]
    version: Callable[[], int]
    make: Callable[[], FloatArray]
    made: int = -1


class _Classes:
    """Strategies in classes, of which only the least matters."""

    def __init__(self, classes: IntArray, count: int) -> None:
        self.of = classes
        self._order = np.argsort(classes, kind="stable")
        self._starts = np.searchsorted(classes[self._order], np.arange(count))
        self._plain = count == len(classes) and bool((self._order == np.arange(count)).all())

    def least(self, seconds: FloatArray, columns: IntArray, charged: FloatArray, own: FloatArray) -> FloatArray:
        """The least of every class, ``[rows, classes]``.

        Args:
            seconds: ``[rows, columns]``.
            columns: Per strategy, which of these it takes.
            charged: Per strategy what part of it.
            own: Per strategy what comes on top.
        """
        # Put in order before anything else is done: there are few columns and many strategies.
        every = seconds.take(columns[self._order], axis=1)
        if (charged != 1.0).any():
            every *= charged[self._order]
        every += own[self._order]
        if self._plain:
            return every
        least: FloatArray = np.minimum.reduceat(every, self._starts, axis=1)
        return least

    def least_own(self, own: FloatArray) -> FloatArray:
        """The least of every class of what strategies take by themselves."""
        least: FloatArray = np.minimum.reduceat(own[self._order], self._starts)
        return least


@dataclass(frozen=True, eq=False)
class _Taken:
    """An input of a layer: how its tensor is there, and how it is needed.

    Attributes:
        tensor: What is taken.
        entered: The variable that says in which layout it is there, for all takers.
        layouts: The layout for each of its values.
        variable: The variable that says from where this layer takes it: the same, unless layers can share moves.
        needs: Per strategy the layout that it needs.
        charged: Per strategy what part of a move it is charged.
        sharing: What layers can share.
    """

    tensor: Source
    entered: int
    layouts: IntArray
    variable: int
    needs: IntArray
    charged: FloatArray
    sharing: Sharing | None

    def edge(self, chain: Chain, on: OnSet) -> tuple[Edge | SharedEdge, IntArray]:
        """Seconds to the different needs, and which one each strategy has."""
        wanted, columns = np.unique(self.needs, return_inverse=True)
        edge = on.layouts.edge(chain.kinds[self.tensor], self.layouts, wanted)
        return edge if self.sharing is None else SharedEdge(self.sharing, edge, wanted), columns


@dataclass(frozen=True, eq=False)
class _LayerVariable:
    """A layer's variable: which value each strategy belongs to, and the layer's inputs."""

    variable: int
    classes: IntArray
    taken: tuple[_Taken, ...]
    edges: tuple[tuple[Edge | SharedEdge, IntArray], ...]


class SegmentBuild:
    """The factors of one segment. Variables are numbered from 0, so that alike segments look alike.

    Layers that need one tensor in the same layout share its move. Hubs say so exactly, or nearly. They take wider
    tables; without them, everyone who may share a move is charged a part of it.
    """

    def __init__(self, chain: Chain, on: OnSet, index: int, hubs: int = 1) -> None:
        """Put the factors together.

        Args:
            chain: The problem.
            on: The set.
            index: Of the segment.
            hubs: How many a tensor can have at once.

        Raises:
            TooWideError: There are some, and tables are too wide with them.
        """
        self.chain, self.on, self.hubs = chain, on, hubs
        self.index, self.segment = index, chain.segments[index]
        self._makers: list[_Maker] = []
        #: What costs come from: layers, and types of tensors.
        self._layer_layouts: dict[int, LayerLayouts] = {}
        self._edges: dict[int, Edge | SharedEdge] = {}
        self._sizes: list[int] = []
        #: Per tensor the variable that its layout depends on, and its layout for every value.
        self._made: dict[Source, tuple[int, IntArray]] = {}
        self._entered: dict[Source, tuple[int, IntArray]] = {}
        self._layers: dict[int, _LayerVariable] = {}
        self._sharings: dict[Source, tuple[int, Sharing] | None] = {}
        self._bonds: dict[int, Bond] = {}
        gate = self.segment.gate
        self.rows = np.zeros(1, np.int64) if gate is None else domain(chain, on, gate)
        self._entry = self._variable(len(self.rows))
        if gate is not None:
            self._made[gate] = self._entered[gate] = (self._entry, self.rows)
        for number in self.segment.layers:
            self._layer(number)
        following = chain.gate(index + 1)
        if following is None:
            last, self.columns = self._variable(1), np.zeros(1, np.int64)
        elif following == gate:
            # Nothing but side outputs: the tensor goes on as it came.
            last = self._variable(len(self.rows))
            self.columns = self.rows
            self._fixed((self._entry, last), np.where(np.eye(len(self.rows), dtype=bool), 0.0, np.inf))
        else:
            last, self.columns = self._made[following]
        scopes = [maker.variables for maker in self._makers]
        self._sum: Elimination | Relaxation
        try:
            self._sum = Elimination(self._sizes, scopes, (self._entry, last), self._bonds)
        except TooWideError:
            if self._bonds:
                raise
            self._sum = Relaxation(self._sizes, scopes, (self._entry, last))

    @property
    def wide(self) -> bool:
        """Whether there are only bounds, as the factors are too wide for elimination."""
        return isinstance(self._sum, Relaxation)

    def stamp(self) -> int:
        """Grows when costs that the factors are made of have become exact."""
        resolved = sum(layouts.version for layouts in self._layer_layouts.values())
        return resolved + sum(edge.refresh() for edge in self._edges.values())

    def least(self) -> FloatArray:
        """Seconds at least between the layouts at both ends, as exact as costs are known by now."""
        for number, maker in enumerate(self._makers):
            version = maker.version()
            if version != maker.made:
                maker.made = version
                self._sum.put(number, maker.make())
        return self._sum.least()

    def _variable(self, size: int) -> int:
        self._sizes.append(size)
        return len(self._sizes) - 1

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
                variable = self._variable(len(numbers))
                self._fixed((variable,), self.on.layouts.inputs(kind, numbers))
                self._entered[tensor] = (variable, numbers)
            elif len(self.chain.consumers.get(tensor, ())) > 1:
                made, layouts = self._made[tensor]
                numbers = domain(self.chain, self.on, tensor)
                variable = self._variable(len(numbers))
                edge = self.on.layouts.edge(kind, layouts, numbers)
                self._edges[id(edge)] = edge
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
        self._layer_layouts[id(table.layouts)] = table.layouts
        self._edges.update((id(edge), edge) for edge, _ in edges)
        variable = self._variable(len(rows))
        if len(taken) == 1:
            edge, column = edges[0]
            self._changing(
                (taken[0].variable, variable),
                lambda: edge.refresh() + table.layouts.version,
                lambda: classes.least(edge.seconds, column, taken[0].charged, table.own),
            )
        else:
            self._changing((variable,), lambda: table.layouts.version, lambda: classes.least_own(table.own))
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

    def _meeting(
        self, variables: tuple[int, int], edge: Edge | SharedEdge, columns: IntArray, charged: FloatArray
    ) -> None:
        """One of several inputs of a layer: what it takes to where each value of the layer's variable needs it."""
        self._changing(variables, edge.refresh, lambda: edge.seconds[:, columns] * charged)

    def _inputs(self, number: int, layer: Layer) -> list[_Taken]:
        taken: list[_Taken] = []
        for tensor in dict.fromkeys(inputs_of(layer)):
            if tensor not in self.chain.kinds:
                continue
            entered, layouts = self._available(tensor)
            found = self._sharing(tensor, entered, layouts)
            for needs in needs_of(self.chain, self.on, number, tensor):
                if found is None:
                    part = charged(self.chain, self.on, tensor, needs)
                    taken.append(_Taken(tensor, entered, layouts, entered, needs, part, None))
                else:
                    hub, sharing = found
                    variable = self._variable(sharing.sources)
                    self._bonds[variable] = sharing.bond(entered, hub)
                    taken.append(_Taken(tensor, entered, layouts, variable, needs, np.ones(len(needs)), sharing))
        return taken

    def _sharing(self, tensor: Source, entered: int, layouts: IntArray) -> tuple[int, Sharing] | None:
        """What the takers of a tensor can share, and the variable of its hubs, if there are any."""
        if tensor not in self._sharings:
            self._sharings[tensor] = None
            takers, hubs = hubs_of(self.chain, self.on, tensor) if self.hubs else (1, np.zeros(0, np.int64))
            if takers > 1 and len(hubs):
                edge = self.on.layouts.edge(self.chain.kinds[tensor], layouts, hubs)
                sharing = Sharing(takers, layouts, hubs, edge, min(self.hubs, takers // 2))
                variable = self._variable(sharing.states)
                self._edges[id(edge)] = edge
                self._changing((entered, variable), edge.refresh, sharing.seconds)
                self._sharings[tensor] = variable, sharing
        return self._sharings[tensor]

    def decision(self, row: int, column: int) -> Decision:
        """The best strategies and moves from a layout at the gate to one at the next."""
        values = self._sum.assignment(dict(zip(self._sum.keep, (row, column), strict=True)))
        strategies: dict[int, int] = {}
        moves: list[Move] = []
        #: Per tensor with more shared moves than hubs, seconds to each need, and what the tables charge for all.
        paid: dict[Source, dict[int, float]] = {}
        promised: dict[Source, float] = {}
        for number, own in self._layers.items():
            table = self.on.layer(self.chain.problem.layers[number].signature)
            candidates = np.flatnonzero(own.classes == values[own.variable])
            cost = table.own[candidates]
            for entry, (edge, columns) in zip(own.taken, own.edges, strict=True):
                edge.refresh()
                cost = cost + edge.seconds[values[entry.variable], columns[candidates]] * entry.charged[candidates]
            best = int(candidates[np.argmin(cost)])
            strategies[number] = best
            for entry, (edge, columns) in zip(own.taken, own.edges, strict=True):
                held, needed = int(entry.layouts[values[entry.entered]]), int(entry.needs[best])
                moves.append(Move(entry.tensor, held, needed))
                if isinstance(edge, SharedEdge) and edge.in_parts(values[entry.variable]):
                    full = edge.edge.seconds[values[entry.entered], columns[best]]
                    paid.setdefault(entry.tensor, {})[needed] = float(full)
                    part = float(edge.seconds[values[entry.variable], columns[best]])
                    promised[entry.tensor] = promised.get(entry.tensor, 0.0) + part
        entries: dict[Source, int] = {}
        for tensor, (variable, layouts) in self._entered.items():
            made, made_layouts = self._made.get(tensor, (variable, layouts))
            if tensor.layer is None or made != variable:
                entries[tensor] = int(layouts[values[variable]])
            if made != variable:
                moves.append(Move(tensor, int(made_layouts[values[made]]), entries[tensor]))
        loose = any(sum(own.values()) > promised[tensor] * (1 + _ROUNDING) for tensor, own in paid.items())
        return Decision(strategies, entries, tuple(moves), loose)


def segment_build(chain: Chain, on: OnSet, index: int) -> SegmentBuild:
    """The factors of a segment, with hubs where its tables are not too wide for that."""
    try:
        return SegmentBuild(chain, on, index)
    except TooWideError:
        return SegmentBuild(chain, on, index, hubs=0)


def finer_build(build: SegmentBuild) -> SegmentBuild | None:
    """The same with more hubs at once; ``None`` where its tables are too wide for that."""
    try:
        return SegmentBuild(build.chain, build.on, build.index, build.hubs + 1)
    except TooWideError:
        return None


def _classes(columns: list[IntArray], count: int) -> tuple[IntArray, IntArray]:
    """Distinct rows of some columns, and for each of ``count`` entries the number of its row."""
    if not columns:
        return np.zeros((1, 0), np.int64), np.zeros(count, np.int64)
    number = np.zeros(count, np.int64)
    for column in columns:
        number = np.unique(number * (int(column.max()) + 1) + column, return_inverse=True)[1]
    rows = np.empty((int(number.max()) + 1, len(columns)), np.int64)
    rows[number] = np.stack(columns, axis=-1)
    return rows, number
