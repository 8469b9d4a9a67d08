"""A problem on one set: per layer a table of costs between layouts, with bounds that become exact where it matters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mars_onnx.cost.steps import entering_seconds, layer_seconds, move_seconds, output_seconds
from mars_onnx.geometry import Layout
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.axes import IntArray
from mars_onnx.rules.base import Signature, TensorType
from mars_onnx.rules.registry import rule_for
from mars_onnx.search.exact.communication.moves import Clock, FloatArray, Moves, bounds_of, layout_of
from mars_onnx.search.exact.communication.ports import ports
from mars_onnx.search.exact.communication.resolutions import resolution_bounds
from mars_onnx.search.exact.communication.sides import volumes
from mars_onnx.search.exact.strategies.cuts import Levels
from mars_onnx.search.exact.strategies.shares import ShareTables
from mars_onnx.search.exact.strategies.space import LayerSpace, Touched, layer_space
from mars_onnx.search.exact.strategies.tariff import Tariff
from mars_onnx.search.exact.work import COMPUTE, COMPUTE_LAYER, STRATEGY, STRATEGY_LAYER, spend, spend_on_plan
from mars_onnx.sharding.strategy import Strategy


@dataclass(eq=False)
class LayerLayouts:
    """The strategies of one layer on some members, with numbers of layouts instead of boxes; the same in all designs.

    Attributes:
        space: The strategies.
        resolve: Seconds to resolve partial sums, at least.
        since: The time from which on ``resolve`` is exact; -1 where it is not.
        outs: Per output the layout numbers that they leave.
        excess: Bytes of weights that each takes more than once, where memory binds.
        toll: What these cost, in seconds; infinite for a strategy that cannot fit.
        version: Grows whenever a cost has become exact, or the toll another one.
    """

    space: LayerSpace
    resolve: FloatArray
    since: IntArray
    outs: tuple[IntArray | None, ...]
    excess: FloatArray | float = 0.0
    toll: FloatArray | float = 0.0
    version: int = 0


@dataclass(frozen=True, eq=False)
class LayerTable:
    """The strategies of one layer on one set.

    Attributes:
        layouts: What they need and leave.
        compute: Seconds of each.
    """

    layouts: LayerLayouts
    compute: FloatArray

    @property
    def own(self) -> FloatArray:
        """Seconds of each strategy, without its inputs."""
        total: FloatArray = self.compute + self.layouts.resolve + self.layouts.toll
        return total

    def own_of(self, strategies: IntArray) -> FloatArray:
        """The same of some of them."""
        layouts = self.layouts
        toll = layouts.toll if isinstance(layouts.toll, float) else layouts.toll.take(strategies)
        total: FloatArray = self.compute.take(strategies) + layouts.resolve.take(strategies) + toll
        return total


def _identity_of(kind: TensorType) -> Signature:
    """The operator that does nothing, of a tensor."""
    return Signature("", "Identity", 13, inputs=(kind,), outputs=(kind,))


def _kind_key(kind: TensorType) -> tuple[tuple[int, ...], int]:
    return kind.shape, kind.dtype.bitwidth


def _places(numbers: IntArray) -> dict[int, list[int]]:
    """Where each number is."""
    found: dict[int, list[int]] = {}
    for place, number in enumerate(numbers.tolist()):
        found.setdefault(number, []).append(place)
    return found


class Edge:
    """Seconds at least from some layouts to some others, kept up to date.

    Nobody works them out before they are asked for, and then those of all edges that nobody has asked for yet: together
    they take less than one by one.

    Attributes:
        wanted: From which layouts to which, of which tensors.
        version: Grows whenever a cost in it has become exact.
    """

    def __init__(self, moves: Moves, sources: IntArray, targets: IntArray, bound: Callable[[], None]) -> None:
        """Of some layouts; ``bound`` gives this edge its seconds, and others theirs."""
        self.wanted = (moves, sources, targets)
        self._moves, self._bound = moves, bound
        self._rows, self._columns = _places(sources), _places(targets)
        self._seen = 0
        self._seconds: FloatArray | None = None
        self.version = 0

    @property
    def seconds(self) -> FloatArray:
        """``[sources, targets]``."""
        if self._seconds is None:
            self._bound()
        if self._seconds is None:
            raise RuntimeError("an edge that nobody gives its seconds")
        return self._seconds

    @seconds.setter
    def seconds(self, seconds: FloatArray) -> None:
        if self._seconds is None:
            self._seen = len(self._moves.log)
        self._seconds = seconds

    def refresh(self) -> int:
        """Take in what has become exact since; returns the version."""
        log = self._moves.log
        if self._seconds is None or self._seen == len(log):
            return self.version
        for source, target in log[self._seen :]:
            rows, columns = self._rows.get(source), self._columns.get(target)
            if rows is not None and columns is not None:
                self.seconds[np.ix_(rows, columns)] = self._moves.exact(source, target)
                self.version += 1
        self._seen = len(log)
        return self.version

    def row(self, source: int) -> FloatArray:
        """Seconds from one source."""
        found: FloatArray = self.seconds[source]
        return found

    def dear(self, factor: float) -> FloatArray:
        """The seconds, with those that are bounds so many times as large."""
        self.refresh()
        seconds: FloatArray = self.seconds * factor
        for source, target in self._moves.log:
            rows, columns = self._rows.get(source), self._columns.get(target)
            if rows is not None and columns is not None:
                place = np.ix_(rows, columns)
                seconds[place] = self.seconds[place]
        return seconds


@dataclass(eq=False)
class SetLayouts:
    """What tensors look like on some members, and what it takes to move them there; the same in all designs.

    Attributes:
        pool: Of the members.
        members: Their ranks.
        levels: Sizes of the levels that they form, outermost first.
        tariff: What memory costs, if it does.
        shares: What their shares take to compute; by default of these levels alone.
    """

    pool: Pool
    members: tuple[int, ...]
    levels: Levels
    tariff: Tariff | None = None
    shares: ShareTables | None = None
    _moves: dict[tuple[tuple[int, ...], int], Moves] = field(default_factory=dict)
    _layers: dict[Signature, LayerLayouts] = field(default_factory=dict)
    _needs: dict[tuple[Signature, int], IntArray | None] = field(default_factory=dict)
    _touched: dict[tuple[object, ...], IntArray] = field(default_factory=dict)
    _identity: dict[tuple[tuple[int, ...], int], tuple[IntArray, IntArray]] = field(default_factory=dict)
    _edges: dict[tuple[object, ...], Edge] = field(default_factory=dict)
    _unbound: list[Edge] = field(default_factory=list)
    _leaving: dict[tuple[object, ...], float] = field(default_factory=dict)
    _clock: Clock = field(default_factory=Clock)

    @property
    def version(self) -> int:
        """Grows whenever a cost has become exact."""
        return self._clock.now

    @cached_property
    def every_share(self) -> ShareTables:
        """What shares take to compute."""
        return self.shares or ShareTables(self.pool, (self.levels,))

    def moves(self, kind: TensorType) -> Moves:
        """Layouts of tensors of a type."""
        key = _kind_key(kind)
        if key not in self._moves:
            self._moves[key] = Moves(self.pool, *key, self.members, self._clock)
        return self._moves[key]

    def layer(self, signature: Signature) -> LayerLayouts:
        """What the strategies of a layer need and leave."""
        if signature not in self._layers:
            self._layers[signature] = self._made(signature)
        return self._layers[signature]

    def _made(self, signature: Signature) -> LayerLayouts:
        space = layer_space(signature, self.levels)
        spend(STRATEGY, STRATEGY_LAYER + space.count * len(self.members))
        if self.tariff is not None:
            space = self.tariff.rings(signature, space, self.members)
        bounds, partial = np.zeros(space.count), bool((space.parts > 1).any())
        outs: list[IntArray | None] = []
        for number, kind in enumerate(signature.outputs):
            touched = space.left(number)
            if touched is None or kind is None:
                outs.append(None)
                continue
            boxes = touched.boxes() if partial else None
            if boxes is not None:
                bounds += self._resolve_bounds(space, boxes, kind)
            outs.append(self._registered(kind, touched, boxes)[space.out])
        made = LayerLayouts(space, bounds, np.where(space.parts <= 1, 0, -1), tuple(outs))
        if self.tariff is not None:
            made.excess = self.tariff.excess(signature, space)
            made.toll = self.tariff.toll(signature, space, made.excess, self.members)
        return made

    def needs(self, signature: Signature, number: int) -> IntArray | None:
        """The layout numbers that the strategies of a layer need of an input; ``None`` if they need nothing of it."""
        key = (signature, number)
        if key not in self._needs:
            space, kind = self.layer(signature).space, signature.inputs[number]
            touched = space.needed(number)
            if touched is None or kind is None:
                self._needs[key] = None
            else:
                known, rings = self._registered(kind, touched), space.needed_by_rings(number)
                if rings is not None:
                    known = np.concatenate([known, self.moves(kind).register(rings, self.members)])
                self._needs[key] = known[space.need]
        return self._needs[key]

    def _registered(self, kind: TensorType, touched: Touched, boxes: IntArray | None = None) -> IntArray:
        """The layout numbers of what strategies touch of a tensor; ``boxes`` are those, if somebody has them."""
        key = _kind_key(kind), touched
        if key not in self._touched:
            own = touched.boxes() if boxes is None else boxes
            self._touched[key] = self.moves(kind).register(own, self.members)
        return self._touched[key]

    def charge(self) -> None:
        """Follow the tariff after it has changed."""
        for signature, layer in self._layers.items():
            if self.tariff is not None and isinstance(layer.excess, np.ndarray):
                layer.toll = self.tariff.toll(signature, layer.space, layer.excess, self.members)
                layer.version += 1
        self._clock.tick()

    def _resolve_bounds(self, space: LayerSpace, left: IntArray, kind: TensorType) -> FloatArray:
        """Seconds at least to resolve the partial sums of an output, by what every way to do it has to move.

        Args:
            space: The strategies.
            left: The different boxes that they leave.
            kind: Of the output.
        """
        seconds, rows = np.zeros(space.count), np.flatnonzero(space.parts > 1)
        port, parts, part, scattered = ports(self.pool, self.members), space.parts, space.part, space.scattered
        kept = (volumes(left) * (kind.dtype.bitwidth / 8)).take(space.out[rows], axis=0)
        seconds[rows] = resolution_bounds(kept, parts[rows], part[rows], scattered[rows], port)
        return seconds

    def entering(self, kind: TensorType, layout: int) -> Strategy | None:
        """The strategy that says that a tensor enters in a layout, if there is one."""
        numbers, rows = self.identity(kind)
        places = np.flatnonzero(numbers == layout)
        return self.layer(_identity_of(kind)).space.strategy(int(rows[places[0]])) if len(places) else None

    def identity(self, kind: TensorType) -> tuple[IntArray, IntArray]:
        """The layouts in which a tensor can enter, and for each the number of an Identity's strategy that says so."""
        key = _kind_key(kind)
        if key not in self._identity:
            table = self.layer(_identity_of(kind))
            numbers = table.outs[0]
            if numbers is None:
                raise ValueError("an Identity has an output")
            distinct, first = np.unique(numbers, return_index=True)
            self._identity[key] = distinct, first
        return self._identity[key]

    def edge(self, kind: TensorType, sources: IntArray, targets: IntArray) -> Edge:
        """Seconds at least from every source to every target layout, as exact as is known by now."""
        key = (_kind_key(kind), sources.tobytes(), targets.tobytes())
        if key not in self._edges:
            self._edges[key] = edge = Edge(self.moves(kind), sources, targets, self._bound)
            self._unbound.append(edge)
        self._edges[key].refresh()
        return self._edges[key]

    def _bound(self) -> None:
        """Give seconds to all edges that have none."""
        for edge, seconds in zip(self._unbound, bounds_of([edge.wanted for edge in self._unbound]), strict=True):
            edge.seconds = seconds
        self._unbound.clear()

    def price_resolution(self, signature: Signature, strategy: int) -> bool:
        """Make the cost of resolving one strategy's partial sums exact; says whether it was not."""
        table = self.layer(signature)
        if table.since[strategy] >= 0:
            return False
        spend_on_plan(len(self.members))
        seconds = 0.0
        for kind, produced, resolved in self._partial(signature, table, strategy):
            if produced != resolved:
                seconds += move_seconds(self.pool, produced, resolved, kind.dtype.bitwidth)
        table.resolve[strategy] = seconds
        table.version += 1
        self._clock.tick()
        table.since[strategy] = self._clock.now
        return True

    def _partial(
        self, signature: Signature, table: LayerLayouts, strategy: int
    ) -> Iterator[tuple[TensorType, Layout, Layout]]:
        """The outputs of a strategy, before and after its partial sums are resolved; a ring leaves none."""
        space = table.space
        parts = tuple(space.part[strategy].tolist()), int(space.parts[strategy]), rule_for(signature).reduction
        for kind, boxes, outs in zip(signature.outputs, space.produced(strategy), table.outs, strict=True):
            if kind is not None and boxes is not None and outs is not None:
                before = layout_of(boxes, kind.shape, self.members, self.members)
                after = self.moves(kind).layout(int(outs[strategy]))
                yield kind, Layout(kind.shape, self.members, before.boxes, *parts), after

    def tick(self) -> None:
        """Note that some table says more than before."""
        self._clock.tick()

    @property
    def edges(self) -> tuple[Edge, ...]:
        """All edges by now."""
        return tuple(self._edges.values())

    def inputs(self, kind: TensorType, numbers: IntArray) -> FloatArray:
        """Seconds to bring a model input into each of these layouts."""
        # All that matters is how much everyone takes: many layouts are alike in that.
        elements = volumes(self.moves(kind).boxes(numbers)).astype(np.int64)
        every, which = np.unique(elements, axis=0, return_inverse=True)
        takers = [[own for own in zip(self.members, row, strict=True) if own[1]] for row in every.tolist()]
        seconds = [entering_seconds(self.pool, tuple(own), kind.dtype.bitwidth) for own in takers]
        return np.asarray(seconds).take(which.ravel())

    def outputs(self, kind: TensorType, numbers: IntArray) -> FloatArray:
        """Seconds until a model output has left each of these layouts."""
        moves, known = self.moves(kind), self._leaving
        for number in numbers.tolist():
            key = (_kind_key(kind), number)
            if key not in known:
                known[key] = output_seconds(self.pool, moves.layout(number), kind.dtype.bitwidth)
        return np.asarray([known[_kind_key(kind), number] for number in numbers.tolist()])


@dataclass(eq=False)
class OnSet:
    """Tables of one set type. Layers are known by their signatures, tensors by their types.

    Attributes:
        layouts: Those of its members.
        designs: Per member.
    """

    layouts: SetLayouts
    designs: tuple[str, ...]
    _layers: dict[Signature, LayerTable] = field(default_factory=dict)

    def layer(self, signature: Signature) -> LayerTable:
        """The table of a layer."""
        if signature not in self._layers:
            layouts, own = self.layouts.layer(signature), self.layouts
            spend(COMPUTE, COMPUTE_LAYER + layouts.space.count * len(own.members))
            by_pattern = own.every_share.compute_seconds(signature, own.levels, own.members, self.designs)
            rings = [
                layer_seconds(own.pool, signature, strategy, own.members, self.designs)
                for strategy in layouts.space.rings
            ]
            compute = np.concatenate([by_pattern[layouts.space.cuts.pattern], rings])
            self._layers[signature] = LayerTable(layouts, compute)
        return self._layers[signature]
