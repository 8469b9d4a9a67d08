"""The cost of mappings that put every layer whole on one accelerator: what H2H assigns and assigns again.

A layer that has weights to multiply with, and the light layers behind it that take nothing else, are one unit, as H2H's
layers are. The cost is that of ``mars_onnx.search.evaluate``, which a test says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mars_onnx.cost.shares import twin
from mars_onnx.cost.steps import input_seconds, layer_seconds, move_seconds, output_seconds
from mars_onnx.geometry import Box, Layout, hull
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.base import TensorType
from mars_onnx.rules.registry import rule_for
from mars_onnx.search.evaluate import needs_of
from mars_onnx.search.method import Objective
from mars_onnx.search.problem import Problem, Source
from mars_onnx.sharding.lowering import lower
from mars_onnx.sharding.mapping import AcceleratorSet, LayerChoice, Mapping
from mars_onnx.sharding.strategy import WHOLE


@dataclass(frozen=True, slots=True)
class Take:
    """A tensor that a layer takes: where from, of what type, and the box that it needs of it."""

    source: Source
    kind: TensorType
    box: Box | None


def takes_of(problem: Problem) -> list[list[Take]]:
    """Per layer what it takes from the graph, in the order in which it is moved."""
    return [
        [
            Take(source, kind, need.boxes[0])
            for source, kind, need in needs_of(layer, lower(layer.signature, WHOLE, (0,)))
        ]
        for layer in problem.layers
    ]


def units_of(problem: Problem, takes: Sequence[Sequence[Take]]) -> list[list[int]]:
    """Layers by unit, in topological order: one that begins it, and light ones that take nothing from outside."""
    unit: list[int] = []
    found: list[list[int]] = []
    for number, layer in enumerate(problem.layers):
        before = {unit[take.source.layer] if take.source.layer is not None else -1 for take in takes[number]}
        before |= {unit[other] for other in layer.tied}
        light = "weight" not in rule_for(layer.signature).operands.values()
        if light and len(before) == 1 and -1 not in before:
            unit.append(before.pop())
            found[unit[number]].append(number)
        else:
            unit.append(len(found))
            found.append([number])
    return found


class WholeLayers:
    """Costs of assignments of layers to accelerators that have one design each."""

    def __init__(self, problem: Problem, pool: Pool, designs: Sequence[str], objective: Objective) -> None:
        """For accelerators that take, by rank, these designs.

        Raises:
            InputError: A design cannot run a layer.
        """
        self.problem, self.pool, self.designs, self.objective = problem, pool, tuple(designs), objective
        self.takes = takes_of(problem)
        # Those that are alike take as long.
        kinds = [(twin(pool, rank), design) for rank, design in enumerate(designs)]
        places = {kind: place for place, kind in enumerate(dict.fromkeys(kinds))}
        seconds = [
            [layer_seconds(pool, layer.signature, WHOLE, (rank,), (design,)) for rank, design in places]
            for layer in problem.layers
        ]
        self.compute = [[own[places[kind]] for kind in kinds] for own in seconds]
        self._entering: dict[Source, list[tuple[int, Take]]] = {}
        for number, own in enumerate(self.takes):
            for take in own:
                if take.source.layer is None:
                    self._entering.setdefault(take.source, []).append((number, take))
        self._moves: dict[tuple[Source, Box | None, int, int], float] = {}
        self._inputs: dict[tuple[Source, tuple[int, ...]], float] = {}
        self._outputs: dict[tuple[Source, int], float] = {}

    def cost(self, ranks: Sequence[int]) -> float:
        """Seconds of the objective, if layers are computed by these accelerators.

        Args:
            ranks: Per layer its accelerator.
        """
        clock = [0.0] * self.pool.size
        busy = [0.0] * self.pool.size
        for source in sorted(self._entering, key=lambda source: source.output):
            seconds = self.entering(source, ranks)
            reached = sorted({ranks[number] for number, _ in self._entering[source]})
            end = max(clock[rank] for rank in reached) + seconds
            for rank in reached:
                clock[rank] = end
                busy[rank] += seconds
        moved: set[tuple[Source, int, Box | None]] = set()
        for number, own in enumerate(self.takes):
            rank = ranks[number]
            for take in own:
                if take.source.layer is None or take.box is None:
                    continue
                home = ranks[take.source.layer]
                if home != rank and (take.source, rank, take.box) not in moved:
                    moved.add((take.source, rank, take.box))
                    seconds = self.moving(take, home, rank)
                    clock[rank] = clock[home] = max(clock[rank], clock[home]) + seconds
                    busy[rank] += seconds
                    busy[home] += seconds
            clock[rank] += self.compute[number][rank]
            busy[rank] += self.compute[number][rank]
        for source in self.problem.outputs:
            if source.layer is not None:
                rank = ranks[source.layer]
                seconds = self.leaving(source, rank)
                clock[rank] += seconds
                busy[rank] += seconds
        return max(clock if self.objective is Objective.LATENCY else busy)

    def entering(self, source: Source, ranks: Sequence[int]) -> float:
        """Seconds of a model input on its way to all that take it."""
        taken = tuple(ranks[number] for number, _ in self._entering[source])
        if (source, taken) not in self._inputs:
            boxes: dict[int, list[Box | None]] = {}
            for (_, take), rank in zip(self._entering[source], taken, strict=True):
                boxes.setdefault(rank, []).append(take.box)
            hulls = {rank: hull(boxes[rank]) for rank in sorted(boxes)}
            kind = self._entering[source][0][1].kind
            layout = Layout(kind.shape, tuple(hulls), tuple(hulls.values()))
            self._inputs[source, taken] = input_seconds(self.pool, layout, kind.dtype.bitwidth)
        return self._inputs[source, taken]

    def moving(self, take: Take, home: int, rank: int) -> float:
        """Seconds of a tensor, or the part that is needed, from one accelerator to another."""
        key = (take.source, take.box, home, rank)
        if key not in self._moves:
            held = Layout.replicated(take.kind.shape, (home,))
            need = Layout(take.kind.shape, (rank,), (take.box,))
            self._moves[key] = move_seconds(self.pool, held, need, take.kind.dtype.bitwidth)
        return self._moves[key]

    def from_host(self, take: Take, rank: int) -> float:
        """Seconds of what a layer takes if it came from where model inputs start."""
        return input_seconds(self.pool, Layout(take.kind.shape, (rank,), (take.box,)), take.kind.dtype.bitwidth)

    def leaving(self, source: Source, rank: int) -> float:
        """Seconds of what a layer gives to where model outputs end."""
        key = (source, rank)
        if key not in self._outputs:
            kind = self.problem.layers[source.layer or 0].signature.outputs[source.output]
            layout = None if kind is None else Layout.replicated(kind.shape, (rank,))
            bits = 0 if kind is None else kind.dtype.bitwidth
            self._outputs[key] = 0.0 if layout is None else output_seconds(self.pool, layout, bits)
        return self._outputs[key]

    def mapping(self, ranks: Sequence[int]) -> Mapping:
        """The mapping of an assignment: sets of one accelerator each."""
        used = sorted(set(ranks))
        return Mapping(
            tuple(AcceleratorSet((rank,), (self.designs[rank],)) for rank in used),
            tuple(
                LayerChoice(layer.name, used.index(rank), WHOLE)
                for layer, rank in zip(self.problem.layers, ranks, strict=True)
            ),
        )
