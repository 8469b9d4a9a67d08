"""A way through the tables, as a mapping."""

from __future__ import annotations

from collections.abc import Sequence

from mars_onnx.rules.base import TensorType
from mars_onnx.search.exact.one_set.build import SegmentTables
from mars_onnx.search.exact.one_set.factors import Decision
from mars_onnx.search.exact.ways.forward import Forward, Way
from mars_onnx.search.exact.ways.sets import State
from mars_onnx.search.problem import Problem, Source
from mars_onnx.sharding.mapping import AcceleratorSet, Entry, LayerChoice, Mapping
from mars_onnx.sharding.strategy import Strategy


def mapping_of(forward: Forward, way: Way) -> Mapping:
    """A way through the tables, as a mapping."""
    assembly = Assembly(forward.chain.problem)
    assembly.add(forward, way, range(len(forward.chain.problem.layers)))
    return assembly.mapping()


class Assembly:
    """A mapping, put together from ways through parts of a problem."""

    def __init__(self, problem: Problem) -> None:
        """For a problem."""
        self.problem = problem
        self._sets: list[tuple[tuple[int, ...], tuple[str, ...]]] = []
        self._layers: dict[int, LayerChoice] = {}
        self._entries: list[Entry] = []

    def add(
        self,
        forward: Forward,
        way: Way,
        numbers: Sequence[int],
        first: Decision | None = None,
        inputs: Sequence[int] | None = None,
    ) -> None:
        """Take in a way.

        Args:
            forward: Of the part.
            way: Through it.
            numbers: Per layer of the part its number in the whole problem.
            first: What was decided for the first segment, if not by the way.
            inputs: Per model input of the part its number in the whole problem, if they differ.
        """
        #: Where tensors of the part were made, and in which layout there.
        made: dict[Source, tuple[State, int]] = {}
        for index, step in enumerate(way.steps):
            tables = forward.sets.tables(step.state)
            key = (step.state.place.members, step.state.designs)
            if key not in self._sets:
                self._sets.append(key)
            own = self._sets.index(key)
            decision = first if first is not None and index == 0 else tables.decide(index, step.row, step.column)
            for layer, strategy in decision.strategies.items():
                table = tables.on.layouts.layer(forward.chain.problem.layers[layer].signature)
                number = numbers[layer]
                self._layers[number] = LayerChoice(
                    self.problem.layers[number].name, own, table.space.strategy(strategy)
                )
                made.update(
                    (Source(layer, output), (step.state, int(own_numbers[strategy])))
                    for output, own_numbers in enumerate(table.outs)
                    if own_numbers is not None
                )
            layouts = dict(decision.entries)
            gate = forward.chain.segments[index].gate
            if gate is not None:
                layouts[gate] = int(tables.domain(index)[step.row])
            direct = {move.tensor for move in decision.moves if layouts.get(move.tensor) == move.target}
            for tensor, layout in layouts.items():
                stated = _stated(tables, forward.chain.kinds[tensor], layout)
                # What one layer alone takes goes to it straight, in the layout that it needs.
                taken_once = len(forward.chain.consumers.get(tensor, ())) == 1
                if stated and made.get(tensor) != (step.state, layout) and not (taken_once and tensor in direct):
                    known = inputs if tensor.layer is None else numbers
                    place = tensor.output if tensor.layer is None else tensor.layer
                    whole = place if known is None else known[place]
                    whole_tensor = Source(None, whole) if tensor.layer is None else Source(whole, tensor.output)
                    name = self.problem.name_of(whole_tensor)
                    self._entries.append(Entry(name, own, stated))

    def mapping(self) -> Mapping:
        """What has been put together."""
        sets = tuple(AcceleratorSet(members, designs) for members, designs in self._sets)
        layers = tuple(self._layers[place] for place in range(len(self.problem.layers)))
        return Mapping(sets, layers, tuple(self._entries))


def _stated(tables: SegmentTables, kind: TensorType, layout: int) -> Strategy | None:
    """The strategy that stands for a layout in which a tensor enters."""
    return tables.on.layouts.entering(kind, layout)
