"""Problems that begin with branches, which one layer joins: what the branches are, and each as a problem by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mars_onnx.search.exact.chain.segments import inputs_of
from mars_onnx.search.problem import Layer, Problem, Source

#: Of more branches than these, either all share a set or none do.
_MOST_GROUPED = 4


@dataclass(frozen=True, slots=True)
class Branches:
    """A problem that begins with branches.

    Attributes:
        layers: Per branch the indices of its layers.
        last: Per branch the tensor that the join takes of it, in the order in which the join takes them.
        join: Index of the layer that joins them.
    """

    layers: tuple[tuple[int, ...], ...]
    last: tuple[Source, ...]
    join: int


def branches_of(problem: Problem) -> Branches | None:
    """The branches that a problem begins with; ``None`` if it does not, or if they are not joined by one layer."""
    group: dict[int, int] = {}
    for number, layer in enumerate(problem.layers):
        taken = [source for source in inputs_of(layer) if source.layer is not None]
        homes = {group[source.layer] for source in taken if source.layer is not None}
        if len(homes) > 1:
            return _checked(problem, group, number, taken)
        if homes:
            group[number] = homes.pop()
        elif layer.sources and any(source is not None for source in layer.sources):
            group[number] = len(set(group.values()))
        else:
            return None
        if layer.tied:
            return None
    return None


def _checked(problem: Problem, group: dict[int, int], join: int, taken: Sequence[Source]) -> Branches | None:
    """Branches, if the join takes one tensor of each, and nothing else does."""
    homes = [group[source.layer] for source in taken if source.layer is not None]
    rest = {source for layer in problem.layers[join + 1 :] for source in inputs_of(layer)}
    own_inputs = [source for layer in problem.layers[join:] for source in inputs_of(layer) if source.layer is None]
    outside = any(source.layer is not None and source.layer < join for source in (*rest, *problem.outputs))
    if len(set(homes)) != len(homes) or len(homes) != len(set(group.values())) or outside or own_inputs:
        return None
    if problem.layers[join].captured or len(problem.layers[join].signature.outputs) != 1:
        return None
    layers = tuple(tuple(number for number, home in group.items() if home == branch) for branch in homes)
    return Branches(layers, tuple(taken), join)


def inputs_apart(problem: Problem, branches: Branches) -> bool:
    """Whether no model input is taken by two branches."""
    taken = [
        {source for number in layers for source in inputs_of(problem.layers[number]) if source.layer is None}
        for layers in branches.layers
    ]
    return sum(map(len, taken)) == len(set().union(*taken))


def part_of(problem: Problem, numbers: Sequence[int], keep: Source | None) -> Problem:
    """Some layers of a problem, numbered anew; of tensors from outside, all but model inputs are taken as given."""
    place = {number: index for index, number in enumerate(numbers)}

    def moved(source: Source | None) -> Source | None:
        if source is None or source.layer is None:
            return source
        if source.layer not in place or (keep is not None and source.layer == keep.layer and source != keep):
            return None
        return Source(place[source.layer], source.output)

    layers: list[Layer] = []
    for number in numbers:
        layer = problem.layers[number]
        captured = tuple((own, kind) for source, kind in layer.captured if (own := moved(source)) is not None)
        tied = tuple(place[other] for other in layer.tied if other in place)
        layers.append(replace(layer, sources=tuple(map(moved, layer.sources)), captured=captured, tied=tied))
    outputs = tuple(
        Source(place[source.layer], source.output)
        for source in problem.outputs
        if source.layer is not None and source.layer in place
    )
    return Problem(tuple(layers), outputs, problem.inputs)


def renamed(part: Problem) -> tuple[Problem, tuple[int, ...]]:
    """A part with the model inputs that it takes alone, numbered anew, and their numbers before."""
    taken = [source.output for layer in part.layers for source in inputs_of(layer) if source.layer is None]
    inputs = tuple(dict.fromkeys(taken))

    def moved(source: Source | None) -> Source | None:
        return source if source is None or source.layer is not None else Source(None, inputs.index(source.output))

    layers = tuple(
        replace(
            layer,
            sources=tuple(map(moved, layer.sources)),
            captured=tuple((moved(source) or source, kind) for source, kind in layer.captured),
        )
        for layer in part.layers
    )
    return Problem(layers, part.outputs, tuple(part.inputs[number] for number in inputs)), inputs


def likeness_of(part: Problem) -> tuple[object, ...]:
    """Equal for branches that are the same but for names, and for where the join takes them."""
    *layers, _ = part.layers
    return (tuple((own.signature, own.sources, own.captured) for own in layers), part.outputs)


def groupings(count: int) -> list[tuple[int, ...]]:
    """Every way to group some branches, as the number of the group of each; of many, all apart and all together."""
    if count > _MOST_GROUPED:
        return [tuple(range(count)), (0,) * count]
    found: list[tuple[int, ...]] = [()]
    for _ in range(count):
        found = [(*groups, own) for groups in found for own in range(max(groups, default=-1) + 2)]
    return found
