"""A way through the tables, as a mapping."""

from __future__ import annotations

from mars_onnx.rules.base import TensorType
from mars_onnx.search.exact.build import SegmentTables
from mars_onnx.search.exact.forward import Forward, Way
from mars_onnx.search.exact.sets import State
from mars_onnx.search.problem import Source
from mars_onnx.sharding.mapping import AcceleratorSet, Entry, LayerChoice, Mapping
from mars_onnx.sharding.strategy import Strategy


def mapping_of(forward: Forward, way: Way) -> Mapping:
    """A way through the tables, as a mapping."""
    problem = forward.chain.problem
    states = list(dict.fromkeys(step.state for step in way.steps))
    number = {state: index for index, state in enumerate(states)}
    layers: dict[int, LayerChoice] = {}
    entries: list[Entry] = []
    #: Where tensors were made, and in which layout there.
    made: dict[Source, tuple[State, int]] = {}
    for index, step in enumerate(way.steps):
        tables = forward.sets.look(step.state)
        own = number[step.state]
        decision = tables.decide(index, step.row, step.column)
        for layer, strategy in decision.strategies.items():
            table = tables.on.layouts.layer(problem.layers[layer].signature)
            layers[layer] = LayerChoice(problem.layers[layer].name, own, table.space.strategies[strategy])
            made.update(
                (Source(layer, output), (step.state, int(numbers[strategy])))
                for output, numbers in enumerate(table.outs)
                if numbers is not None
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
                entries.append(Entry(problem.name_of(tensor), own, stated))
    sets = tuple(AcceleratorSet(state.place.members, state.designs) for state in states)
    return Mapping(sets, tuple(layers[place] for place in range(len(problem.layers))), tuple(entries))


def _stated(tables: SegmentTables, kind: TensorType, layout: int) -> Strategy | None:
    """The strategy that stands for a layout in which a tensor enters."""
    numbers, strategies = tables.on.layouts.identity(kind)
    return next((s for number, s in zip(numbers.tolist(), strategies, strict=True) if number == layout), None)
