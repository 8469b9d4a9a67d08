"""The lockstep cost of a mapping, from the problem alone: the judge of every search method.

It walks through the layers as insert-sharding does and adds up the same steps as ``mars_onnx.cost.price`` does for the
sharded graph, without either; a test says that the two agree. A search that keeps books of its own asks here what its
answer really costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mars_onnx.cost.steps import input_seconds, layers_seconds, move_seconds, output_seconds
from mars_onnx.geometry import Box, Layout, hull
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.base import TensorType
from mars_onnx.search.method import Objective
from mars_onnx.search.problem import Layer, Problem, Source
from mars_onnx.sharding.entries import entry_layout
from mars_onnx.sharding.lowering import Sharding, lower
from mars_onnx.sharding.mapping import Mapping
from mars_onnx.sharding.strategy import Strategy
from mars_onnx.stages.sharded import satisfied


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a mapping costs.

    Attributes:
        latency_s: Of one inference.
        busy_s: Per set, the seconds that one inference keeps it busy.
    """

    latency_s: float
    busy_s: tuple[float, ...]

    @property
    def period_s(self) -> float:
        """Seconds between two inferences of a stream: those of the busiest set.

        Sets work on different inferences at the same time. A step between two sets keeps both of them busy.
        """
        return max(self.busy_s, default=0.0)

    def cost_s(self, objective: Objective) -> float:
        """What is to be small."""
        return self.latency_s if objective is Objective.LATENCY else self.period_s


def evaluate(problem: Problem, pool: Pool, mapping: Mapping) -> Evaluation:
    """Price a mapping whose strategies are all decided."""
    return _Walk(problem, pool, mapping).run()


def needs_of(layer: Layer, sharding: Sharding) -> Iterator[tuple[Source, TensorType, Layout]]:
    """What a layer takes from the graph, and as what, in the order in which it is moved."""
    for source, need, kind in zip(layer.sources, sharding.needs, layer.signature.inputs, strict=False):
        if source is not None and need is not None and kind is not None:
            yield source, kind, need
    for source, kind in layer.captured:
        whole = Layout.replicated(kind.shape, sharding.members).boxes
        boxes = tuple(None if share is None else box for share, box in zip(sharding.shares, whole, strict=True))
        yield source, kind, Layout(kind.shape, sharding.members, boxes)


class _Walk:
    def __init__(self, problem: Problem, pool: Pool, mapping: Mapping) -> None:
        self.problem, self.pool, self.mapping = problem, pool, mapping
        self.clock = [0.0] * len(mapping.sets)
        self.busy = [0.0] * len(mapping.sets)
        #: Per tensor its layout after partial sums are resolved, and its set.
        self.held: dict[Source, tuple[Layout, int]] = {}
        #: Redistributed versions that are there already.
        self.moved: set[tuple[Source, int, Layout]] = set()
        self.entered: dict[tuple[Source, int], Layout] = {}
        self.entries: dict[tuple[str, int], Strategy] = {
            (entry.tensor, entry.set_index): entry.strategy for entry in mapping.entries
        }

    def run(self) -> Evaluation:
        shardings = [
            lower(layer.signature, choice.strategy, self.mapping.sets[choice.set_index].members)
            for layer, choice in zip(self.problem.layers, self.mapping.layers, strict=True)
        ]
        sets = self.mapping.sets
        computed = layers_seconds(
            self.pool,
            [
                (layer.signature, choice.strategy, sets[choice.set_index].members, sets[choice.set_index].designs)
                for layer, choice in zip(self.problem.layers, self.mapping.layers, strict=True)
            ],
        )
        self.inputs(shardings)
        for number, (layer, sharding) in enumerate(zip(self.problem.layers, shardings, strict=True)):
            own = self.mapping.layers[number].set_index
            for source, kind, need in needs_of(layer, sharding):
                if source.layer is not None or self.entry(source, own) is not None:
                    self.provide(source, kind, need, own)
            self.step((own,), computed[number])
            for index, (kind_, produced, resolved) in enumerate(
                zip(layer.signature.outputs, sharding.produced, sharding.resolved, strict=True)
            ):
                if kind_ is None or produced is None or resolved is None:
                    continue
                if produced != resolved:
                    self.step((own,), move_seconds(self.pool, produced, resolved, kind_.dtype.bitwidth))
                self.held[Source(number, index)] = (resolved, own)
        self.outputs()
        return Evaluation(max(self.clock, default=0.0), tuple(self.busy))

    def step(self, sets: tuple[int, ...], seconds: float) -> None:
        """Something that keeps sets busy, once all of them are free."""
        end = max(self.clock[index] for index in sets) + seconds
        for index in sets:
            self.clock[index] = end
            self.busy[index] += seconds

    def inputs(self, shardings: list[Sharding]) -> None:
        """Model inputs go from the host to whoever needs them: to each member the smallest box around all its needs."""
        wanted: dict[Source, tuple[TensorType, dict[int, list[Box | None]], set[int]]] = {}
        for number, (layer, sharding) in enumerate(zip(self.problem.layers, shardings, strict=True)):
            for source, kind, need in needs_of(layer, sharding):
                if source.layer is None:
                    own = self.mapping.layers[number].set_index
                    _, boxes, sets = wanted.setdefault(source, (kind, {}, set()))
                    sets.add(own)
                    strategy = self.entry(source, own)
                    if strategy is not None:
                        need = self.held_there(source, own, entry_layout(kind, strategy, sharding.members))
                    for rank, box in zip(need.members, need.boxes, strict=True):
                        boxes.setdefault(rank, []).append(box)
        for source in sorted(wanted, key=lambda source: source.output):
            kind, boxes, sets = wanted[source]
            hulls = {rank: hull(boxes[rank]) for rank in sorted(boxes)}
            layout = Layout(kind.shape, tuple(hulls), tuple(hulls.values()))
            self.step(tuple(sorted(sets)), input_seconds(self.pool, layout, kind.dtype.bitwidth))

    def provide(self, source: Source, kind: TensorType, need: Layout, own: int) -> None:
        """Move a tensor to where it is needed, unless it is there."""
        strategy = self.entry(source, own)
        if strategy is not None and (source, own) not in self.entered:
            layout, home = self.held[source]
            entered = entry_layout(kind, strategy, self.mapping.sets[own].members)
            if layout != entered:
                self.step(_both(home, own), move_seconds(self.pool, layout, entered, kind.dtype.bitwidth))
            self.held_there(source, own, entered)
        layout, home = (self.entered[source, own], own) if strategy is not None else self.held[source]
        if (source, own, need) not in self.moved:
            self.moved.add((source, own, need))
            if not satisfied(layout, need):
                self.step(_both(home, own), move_seconds(self.pool, layout, need, kind.dtype.bitwidth))

    def entry(self, source: Source, own: int) -> Strategy | None:
        """How the mapping says that a tensor comes to a set, if it does."""
        return self.entries.get((self.problem.name_of(source), own)) if self.entries else None

    def held_there(self, source: Source, own: int, layout: Layout) -> Layout:
        """Note that a tensor has entered a set."""
        self.entered[source, own] = layout
        return layout

    def outputs(self) -> None:
        """Model outputs leave as values."""
        for source in self.problem.outputs:
            if source not in self.held:
                continue
            layout, own = self.held[source]
            kind = self.problem.layers[source.layer or 0].signature.outputs[source.output]
            if kind is None:
                continue
            if layout.partial:
                whole = Layout(layout.shape, layout.members, layout.boxes)
                self.step((own,), move_seconds(self.pool, layout, whole, kind.dtype.bitwidth))
                layout = whole
            self.step((own,), output_seconds(self.pool, layout, kind.dtype.bitwidth))


def _both(home: int, own: int) -> tuple[int, ...]:
    """The sets that a move keeps busy."""
    return (own,) if home == own else (home, own)
