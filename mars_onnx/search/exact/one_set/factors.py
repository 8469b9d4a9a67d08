"""The factors of one segment on one set, and the way back from values of variables to strategies."""

from __future__ import annotations

from dataclasses import dataclass

from mars_onnx.search.exact.chain.chain import Chain
from mars_onnx.search.exact.communication.moves import FloatArray
from mars_onnx.search.exact.one_set.onset import OnSet
from mars_onnx.search.exact.one_set.shape import LayerVariable, SegmentShape
from mars_onnx.search.exact.one_set.sharing import SharedEdge
from mars_onnx.search.exact.sums.elimination import Elimination, TooWideError
from mars_onnx.search.exact.sums.relaxation import Relaxation
from mars_onnx.search.problem import Source

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


class SegmentShapes:
    """The factors of segments on some members; all designs of these have the same."""

    def __init__(self, chain: Chain) -> None:
        """Of a problem."""
        self.chain = chain
        self._known: dict[tuple[int, int], SegmentShape] = {}

    def of(self, on: OnSet, index: int, hubs: int) -> SegmentShape:
        """Those of a segment, where a tensor can have so many hubs at once."""
        key = (index, hubs)
        if key not in self._known:
            self._known[key] = SegmentShape(self.chain, on.layouts, index, hubs)
        return self._known[key]


class SegmentBuild:
    """The sum of the factors of one segment in one design.

    Attributes:
        shape: The factors.
        on: The set.
    """

    def __init__(self, shape: SegmentShape, on: OnSet) -> None:
        """Of factors.

        Raises:
            TooWideError: Some variables are bound to others, and tables are too wide with them.
        """
        self.shape, self.on = shape, on
        #: The version of every factor that is in the sum.
        self._put = [-1] * len(shape.factors)
        for number in shape.layers:
            on.layer(shape.chain.problem.layers[number].signature)
        scopes = [factor.variables for factor in shape.factors]
        self._sum: Elimination | Relaxation
        try:
            self._sum = Elimination(shape.sizes, scopes, shape.ends, shape.bonds)
        except TooWideError:
            if shape.bonds:
                raise
            self._sum = Relaxation(shape.sizes, scopes, shape.ends)

    @property
    def wide(self) -> bool:
        """Whether there are only bounds, as the factors are too wide for elimination."""
        return isinstance(self._sum, Relaxation)

    def least(self) -> FloatArray:
        """Seconds at least between the layouts at both ends, as exact as costs are known by now."""
        for number, factor in enumerate(self.shape.factors):
            version = factor.version()
            if version != self._put[number]:
                self._put[number] = version
                self._sum.put(number, factor.make(self.on))
        return self._sum.least()

    def decision(self, row: int, column: int) -> Decision:
        """The best strategies and moves from a layout at the gate to one at the next."""
        values = self._sum.assignment(dict(zip(self._sum.keep, (row, column), strict=True)))
        strategies: dict[int, int] = {}
        moves: list[Move] = []
        #: Per tensor with more shared moves than hubs, seconds to each need, and what the tables charge for all.
        paid: dict[Source, dict[int, float]] = {}
        promised: dict[Source, float] = {}
        for number, own in self.shape.layers.items():
            best = strategies[number] = self._best(number, own, values)
            for entry, (edge, columns) in zip(own.taken, own.edges, strict=True):
                held, needed = int(entry.layouts[values[entry.entered]]), int(entry.needs[best])
                moves.append(Move(entry.tensor, held, needed))
                if isinstance(edge, SharedEdge) and edge.in_parts(values[entry.variable]):
                    edge.refresh()
                    full = edge.edge.row(values[entry.entered])[columns[best]]
                    paid.setdefault(entry.tensor, {})[needed] = float(full)
                    part = float(edge.row(values[entry.variable])[columns[best]])
                    promised[entry.tensor] = promised.get(entry.tensor, 0.0) + part
        entries: dict[Source, int] = {}
        for tensor, (variable, layouts) in self.shape.entered.items():
            made, made_layouts = self.shape.made.get(tensor, (variable, layouts))
            if tensor.layer is None or made != variable:
                entries[tensor] = int(layouts[values[variable]])
            if made != variable:
                moves.append(Move(tensor, int(made_layouts[values[made]]), entries[tensor]))
        loose = any(sum(own.values()) > promised[tensor] * (1 + _ROUNDING) for tensor, own in paid.items())
        return Decision(strategies, entries, tuple(moves), loose)

    def _best(self, number: int, own: LayerVariable, values: dict[int, int]) -> int:
        """The best strategy of a layer, of those that belong to the value of its variable."""
        candidates = own.candidates(values[own.variable])
        if len(candidates.strategies) == 1:
            return int(candidates.strategies[0])
        cost = self.on.layer(self.shape.chain.problem.layers[number].signature).own_of(candidates.strategies)
        for place, (entry, (edge, _)) in enumerate(zip(own.taken, own.edges, strict=True)):
            edge.refresh()
            seconds = edge.row(values[entry.variable])
            cost = cost + seconds.take(candidates.columns[place]) * candidates.charged[place]
        return int(candidates.strategies[cost.argmin()])


def segment_build(shapes: SegmentShapes, on: OnSet, index: int) -> SegmentBuild:
    """A segment, with hubs where its tables are not too wide for that."""
    try:
        return SegmentBuild(shapes.of(on, index, 1), on)
    except TooWideError:
        return SegmentBuild(shapes.of(on, index, 0), on)


def finer_build(shapes: SegmentShapes, build: SegmentBuild) -> SegmentBuild | None:
    """The same with more hubs at once; ``None`` where its tables are too wide for that."""
    try:
        return SegmentBuild(shapes.of(build.on, build.shape.index, build.shape.hubs + 1), build.on)
    except TooWideError:
        return None
