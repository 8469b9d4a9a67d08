"""The factors of one segment on some members: variables, and what their costs come from; the same in all designs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.chain.chain import Chain
from mars_onnx.search.exact.chain.segments import inputs_of
from mars_onnx.search.exact.communication.moves import FloatArray
from mars_onnx.search.exact.one_set.onset import Edge, LayerLayouts, OnSet, SetLayouts
from mars_onnx.search.exact.one_set.sharing import SharedEdge, Sharing, hubs_of
from mars_onnx.search.exact.one_set.takers import charged, distinct, domain, needs_of, unstated
from mars_onnx.search.exact.sums.elimination import Bond
from mars_onnx.search.problem import Layer, Source


@dataclass(frozen=True, eq=False)
class Factor:
    """A factor that changes as costs become exact.

    Attributes:
        variables: Of the factor.
        version: Grows when the factor changes.
        make: The factor's array in a design.
    """

    variables: tuple[int, ...]
    version: Callable[[], int]
    make: Callable[[OnSet], FloatArray]


class Classes:
    """Strategies in classes, of which only the least matters."""

    def __init__(self, classes: IntArray, count: int) -> None:
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

    @property
    def examples(self) -> IntArray:
        """The first strategy of every class."""
        return self._order[self._starts]

    def least_own(self, own: FloatArray) -> FloatArray:
        """The least of every class of what strategies take by themselves."""
        least: FloatArray = np.minimum.reduceat(own[self._order], self._starts)
        return least


@dataclass(frozen=True, eq=False)
class Taken:
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

    def edge(self, chain: Chain, layouts: SetLayouts) -> tuple[Edge | SharedEdge, IntArray]:
        """Seconds to the different needs, and which one each strategy has."""
        wanted, columns = distinct(self.needs)
        edge = layouts.edge(chain.kinds[self.tensor], self.layouts, wanted)
        return edge if self.sharing is None else SharedEdge(self.sharing, edge, wanted), columns


@dataclass(frozen=True, eq=False)
class Candidates:
    """The strategies that belong to one value of a layer's variable.

    Attributes:
        strategies: Their numbers.
        columns: Per input and strategy, which of the seconds of its edge it takes.
        charged: Likewise, what part of them.
    """

    strategies: IntArray
    columns: tuple[IntArray, ...]
    charged: tuple[FloatArray, ...]


@dataclass(frozen=True, eq=False)
class LayerVariable:
    """A layer's variable: which value each strategy belongs to, and the layer's inputs."""

    variable: int
    classes: IntArray
    taken: tuple[Taken, ...]
    edges: tuple[tuple[Edge | SharedEdge, IntArray], ...]
    _candidates: dict[int, Candidates] = field(default_factory=dict)

    def candidates(self, value: int) -> Candidates:
        """The strategies that belong to a value: a search asks for the same ones again and again."""
        if value not in self._candidates:
            rows = np.flatnonzero(self.classes == value)
            self._candidates[value] = Candidates(
                rows,
                tuple(columns.take(rows) for _, columns in self.edges),
                tuple(entry.charged.take(rows) for entry in self.taken),
            )
        return self._candidates[value]


class SegmentShape:
    """The factors of one segment. Variables are numbered from 0, so that alike segments look alike.

    Layers that need one tensor in the same layout share its move. Hubs say so exactly, or nearly. They take wider
    tables; without them, everyone who may share a move is charged a part of it.

    Attributes:
        chain: The problem.
        index: Of the segment.
        hubs: How many a tensor can have at once.
        sizes: Of the variables.
        factors: What is added up.
        bonds: Of variables that are bound to others.
        ends: The variables of the layouts at both ends.
        rows: Layouts at the gate; a single row where there is none.
        columns: Those at the next gate.
        layers: Per layer its variable.
        made: Per tensor the variable that its layout depends on, and its layout for every value.
        entered: The same, once it is in the layout from which layers take it.
    """

    def __init__(self, chain: Chain, layouts: SetLayouts, index: int, hubs: int) -> None:
        """Put the factors together."""
        self.chain, self.index, self.hubs = chain, index, hubs
        self._layouts = layouts
        segment = chain.segments[index]
        self.factors: list[Factor] = []
        self.sizes: list[int] = []
        self.bonds: dict[int, Bond] = {}
        self.layers: dict[int, LayerVariable] = {}
        self.made: dict[Source, tuple[int, IntArray]] = {}
        self.entered: dict[Source, tuple[int, IntArray]] = {}
        #: What costs come from: layers, and types of tensors.
        self._layer_layouts: dict[int, LayerLayouts] = {}
        self._edges: dict[int, Edge | SharedEdge] = {}
        self._sharings: dict[Source, tuple[int, Sharing] | None] = {}
        gate = segment.gate
        self.rows = np.zeros(1, np.int64) if gate is None else domain(chain, layouts, gate)
        entry = self._variable(len(self.rows))
        if gate is not None:
            self.made[gate] = self.entered[gate] = (entry, self.rows)
        for number in segment.layers:
            self._layer(number)
        following = chain.gate(index + 1)
        if following is None:
            last, self.columns = self._variable(1), np.zeros(1, np.int64)
        elif following == gate:
            # Nothing but side outputs: the tensor goes on as it came.
            last = self._variable(len(self.rows))
            self.columns = self.rows
            self._fixed((entry, last), np.where(np.eye(len(self.rows), dtype=bool), 0.0, np.inf))
        else:
            last, self.columns = self.made[following]
        self.ends = (entry, last)

    def stamp(self) -> int:
        """Grows when costs that the factors are made of have become exact."""
        resolved = sum(layouts.version for layouts in self._layer_layouts.values())
        return resolved + sum(edge.refresh() for edge in self._edges.values())

    def _variable(self, size: int) -> int:
        self.sizes.append(size)
        return len(self.sizes) - 1

    def _fixed(self, variables: tuple[int, ...], array: FloatArray) -> None:
        self.factors.append(Factor(variables, lambda: 0, lambda on: array))

    def _changing(
        self, variables: tuple[int, ...], version: Callable[[], int], make: Callable[[OnSet], FloatArray]
    ) -> None:
        self.factors.append(Factor(variables, version, make))

    def _available(self, tensor: Source) -> tuple[int, IntArray]:
        """The variable and the layouts from which a layer takes a tensor."""
        if tensor not in self.entered:
            kind = self.chain.kinds[tensor]
            if tensor.layer is None:
                numbers = domain(self.chain, self._layouts, tensor)
                variable = self._variable(len(numbers))
                self._fixed((variable,), self._layouts.inputs(kind, numbers))
                self.entered[tensor] = (variable, numbers)
            elif len(self.chain.consumers.get(tensor, ())) > 1:
                made, layouts = self.made[tensor]
                numbers = domain(self.chain, self._layouts, tensor)
                variable = self._variable(len(numbers))
                edge = self._layouts.edge(kind, layouts, numbers)
                self._edges[id(edge)] = edge
                closed = unstated(self._layouts, kind, layouts, numbers)
                self._changing((made, variable), edge.refresh, lambda on: np.where(closed, np.inf, edge.seconds))
                self.entered[tensor] = (variable, numbers)
            else:
                self.entered[tensor] = self.made[tensor]
        return self.entered[tensor]

    def _layer(self, number: int) -> None:
        layer = self.chain.problem.layers[number]
        signature, own = layer.signature, self._layouts.layer(layer.signature)
        taken = self._inputs(number, layer)
        outs = [(index, numbers) for index, numbers in enumerate(own.outs) if numbers is not None]
        # With one input its cost is a table of two variables; with more, inputs meet in the layer's own variable.
        meeting = [entry.needs for entry in taken] if len(taken) > 1 else []
        columns = [*meeting, *(numbers for _, numbers in outs)]
        rows, numbers, classes = _classes(tuple(column.tobytes() for column in columns), own.space.count)
        edges = tuple(entry.edge(self.chain, self._layouts) for entry in taken)
        self._layer_layouts[id(own)] = own
        self._edges.update((id(edge), edge) for edge, _ in edges)
        variable = self._variable(len(rows))
        if len(taken) == 1:
            edge, column = edges[0]
            self._changing(
                (taken[0].variable, variable),
                lambda: edge.refresh() + own.version,
                lambda on: classes.least(edge.seconds, column, taken[0].charged, on.layer(signature).own),
            )
        else:
            self._changing((variable,), lambda: own.version, lambda on: classes.least_own(on.layer(signature).own))
            example = classes.examples
            for entry, (edge, column) in zip(taken, edges, strict=True):
                self._meeting((entry.variable, variable), edge, column[example], entry.charged[example])
        self.layers[number] = LayerVariable(variable, numbers, tuple(taken), edges)
        for place, (index, _) in enumerate(outs):
            tensor = Source(number, index)
            layouts = rows[:, len(meeting) + place]
            self.made[tensor] = (variable, layouts)
            if tensor in self.chain.outputs:
                self._fixed((variable,), self._layouts.outputs(self.chain.kinds[tensor], layouts))

    def _meeting(
        self, variables: tuple[int, int], edge: Edge | SharedEdge, columns: IntArray, charged: FloatArray
    ) -> None:
        """One of several inputs of a layer: what it takes to where each value of the layer's variable needs it."""
        self._changing(variables, edge.refresh, lambda on: edge.seconds.take(columns, axis=1) * charged)

    def _inputs(self, number: int, layer: Layer) -> list[Taken]:
        taken: list[Taken] = []
        for tensor in dict.fromkeys(inputs_of(layer)):
            if tensor not in self.chain.kinds:
                continue
            entered, layouts = self._available(tensor)
            found = self._sharing(tensor, entered, layouts)
            for needs in needs_of(self.chain, self._layouts, number, tensor):
                if found is None:
                    part = charged(self.chain, self._layouts, tensor, needs)
                    taken.append(Taken(tensor, entered, layouts, entered, needs, part, None))
                else:
                    hub, sharing = found
                    variable = self._variable(sharing.sources)
                    self.bonds[variable] = sharing.bond(entered, hub)
                    taken.append(Taken(tensor, entered, layouts, variable, needs, np.ones(len(needs)), sharing))
        return taken

    def _sharing(self, tensor: Source, entered: int, layouts: IntArray) -> tuple[int, Sharing] | None:
        """What the takers of a tensor can share, and the variable of its hubs, if there are any."""
        if tensor not in self._sharings:
            self._sharings[tensor] = None
            takers, hubs = hubs_of(self.chain, self._layouts, tensor) if self.hubs else (1, np.zeros(0, np.int64))
            if takers > 1 and len(hubs):
                edge = self._layouts.edge(self.chain.kinds[tensor], layouts, hubs)
                sharing = Sharing(takers, layouts, hubs, edge, min(self.hubs, takers // 2))
                variable = self._variable(sharing.states)
                self._edges[id(edge)] = edge
                self._changing((entered, variable), edge.refresh, lambda on: sharing.seconds())
                self._sharings[tensor] = variable, sharing
        return self._sharings[tensor]


@lru_cache(maxsize=256)
def _classes(columns: tuple[bytes, ...], count: int) -> tuple[IntArray, IntArray, Classes]:
    """Distinct rows of some columns, for each of ``count`` entries the number of its row, and these as classes.

    Layers that are alike ask for the same again and again, also on sets that number their layouts in the same way.
    """
    if not columns:
        number = np.zeros(count, np.int64)
        return np.zeros((1, 0), np.int64), number, Classes(number, 1)
    every = [np.frombuffer(column, np.int64) for column in columns]
    number = np.zeros(count, np.int64)
    for column in every:
        number = np.unique(number * (int(column.max()) + 1) + column, return_inverse=True)[1]
    rows = np.empty((int(number.max()) + 1, len(every)), np.int64)
    rows[number] = np.stack(every, axis=-1)
    return rows, number, Classes(number, len(rows))
