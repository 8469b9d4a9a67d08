"""A problem as a chain of segments, cut at the tensors through which everything flows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from mars_onnx.search.problem import Layer, Problem, Source


@dataclass(frozen=True, slots=True)
class Segment:
    """Layers between two gates.

    Attributes:
        layers: Indices of its layers, consecutive in topological order.
        gate: The tensor through which all data enters; ``None`` where only model inputs and constants do.
    """

    layers: tuple[int, ...]
    gate: Source | None


def inputs_of(layer: Layer) -> tuple[Source, ...]:
    """Every tensor that a layer takes from the graph."""
    return (*(source for source in layer.sources if source is not None), *(source for source, _ in layer.captured))


def consumers_of(problem: Problem) -> dict[Source, tuple[int, ...]]:
    """Per tensor the layers that take it, in order, each as often as it takes it."""
    found: dict[Source, list[int]] = {}
    for number, layer in enumerate(problem.layers):
        for source in inputs_of(layer):
            found.setdefault(source, []).append(number)
    return {source: tuple(numbers) for source, numbers in found.items()}


def width_of(problem: Problem) -> int:
    """The most tensors that are there between two layers, made before and taken after."""
    change = [0] * (len(problem.layers) + 1)
    for source, numbers in consumers_of(problem).items():
        change[numbers[0] if source.layer is None else source.layer + 1] += 1
        change[numbers[-1] + 1 if numbers[-1] + 1 < len(change) else -1] -= 1
    return max(accumulate(change))


def segments_of(problem: Problem) -> tuple[Segment, ...]:
    """Cut wherever exactly one tensor is made before and used after, no model input is, and nothing is tied across."""
    consumers = consumers_of(problem)
    last = {source: numbers[-1] for source, numbers in consumers.items()}
    for source in problem.outputs:
        # An output leaves where it is made; it does not hold a set back.
        last.setdefault(source, source.layer or 0)
    cuts: list[tuple[int, Source]] = []
    alive: set[Source] = set()
    latest_tie = -1
    tied: dict[int, int] = {}
    for number, layer in enumerate(problem.layers):
        for other in layer.tied:
            tied[other] = max(tied.get(other, -1), number)
    first_use = {source: numbers[0] for source, numbers in consumers.items()}
    for number, layer in enumerate(problem.layers):
        for source in inputs_of(layer):
            alive.add(source) if source.layer is None else None
        alive = {source for source in alive if last[source] > number}
        for output in range(len(layer.signature.outputs)):
            source = Source(number, output)
            if source in last and last[source] > number and source in first_use:
                alive.add(source)
        latest_tie = max(latest_tie, tied.get(number, -1))
        if len(alive) == 1 and latest_tie <= number and number + 1 < len(problem.layers):
            (gate,) = alive
            if gate.layer is not None:
                cuts.append((number + 1, gate))
    bounds = [(0, None), *cuts]
    stops = [start for start, _ in cuts] + [len(problem.layers)]
    return tuple(Segment(tuple(range(start, stop)), gate) for (start, gate), stop in zip(bounds, stops, strict=True))
