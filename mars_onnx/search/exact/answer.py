"""A way through the tables, as a mapping."""

from __future__ import annotations

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
    for index, step in enumerate(way.steps):
        tables = forward.sets.look(step.state)
        own = number[step.state]
        decision = tables.decide(index, step.row, step.column)
        for layer, strategy in decision.strategies.items():
            found = tables.on.layer(problem.layers[layer].signature).space.strategies[strategy]
            layers[layer] = LayerChoice(problem.layers[layer].name, own, found)
        layouts = dict(decision.entries)
        gate = forward.chain.segments[index].gate
        if gate is not None:
            layouts[gate] = int(tables.domain(index)[step.row])
        same = {
            move.tensor for move in decision.moves if move.tensor in layouts and move.target == layouts[move.tensor]
        }
        for tensor, layout in layouts.items():
            stated = _stated(forward, step.state, tensor, layout)
            made = _made(forward, way, index, tensor)
            taken_once = len(forward.chain.consumers.get(tensor, ())) == 1
            if stated is None or made == layout or (taken_once and tensor in same):
                continue
            entries.append(Entry(problem.name_of(tensor), own, stated))
    sets = tuple(AcceleratorSet(state.place.members, state.designs) for state in states)
    return Mapping(sets, tuple(layers[place] for place in range(len(problem.layers))), tuple(entries))


def _stated(forward: Forward, state: State, tensor: Source, layout: int) -> Strategy | None:
    """The strategy that stands for a layout in which a tensor enters."""
    numbers, strategies = forward.sets.look(state).on.identity(forward.chain.kinds[tensor])
    return next((s for number, s in zip(numbers.tolist(), strategies, strict=True) if number == layout), None)


def _made(forward: Forward, way: Way, index: int, tensor: Source) -> int | None:
    """The layout in which a tensor is made, if that is on the same set."""
    if tensor.layer is None:
        return None
    step = way.steps[index]
    for place in range(index, -1, -1):
        if way.steps[place].state != step.state:
            return None
        if tensor.layer in forward.chain.segments[place].layers:
            decision = forward.sets.look(step.state).decide(place, way.steps[place].row, way.steps[place].column)
            table = forward.sets.look(step.state).on.layer(forward.chain.problem.layers[tensor.layer].signature)
            numbers = table.outs[tensor.output]
            return None if numbers is None else int(numbers[decision.strategies[tensor.layer]])
    return None
