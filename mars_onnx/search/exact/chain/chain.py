"""A problem as a chain of segments, with what a search looks up again and again."""

from __future__ import annotations

from dataclasses import dataclass

from mars_onnx.rules.base import TensorType
from mars_onnx.search.exact.chain.segments import Segment, consumers_of, inputs_of, segments_of
from mars_onnx.search.problem import Problem, Source


@dataclass(frozen=True, eq=False)
class Chain:
    """A problem with its segments and who takes what.

    Attributes:
        problem: The problem.
        segments: In order.
        alike: Per segment the first segment that has the same layers with the same connections.
        consumers: Per tensor the layers that take it, as often as they do.
        kinds: Types of tensors.
        outputs: Tensors that leave the model.
    """

    problem: Problem
    segments: tuple[Segment, ...]
    alike: tuple[int, ...]
    consumers: dict[Source, tuple[int, ...]]
    kinds: dict[Source, TensorType]
    outputs: frozenset[Source]

    @staticmethod
    def of(problem: Problem) -> Chain:
        """Look at a problem."""
        kinds: dict[Source, TensorType] = {}
        for number, layer in enumerate(problem.layers):
            for index, kind in enumerate(layer.signature.outputs):
                if kind is not None:
                    kinds[Source(number, index)] = kind
            for source, taken in zip(layer.sources, layer.signature.inputs, strict=False):
                if source is not None and taken is not None:
                    kinds.setdefault(source, taken)
            kinds.update((source, kind) for source, kind in layer.captured)
        segments = segments_of(problem)
        consumers = consumers_of(problem)
        outputs = frozenset(problem.outputs)
        first: dict[tuple[object, ...], int] = {}
        alike = tuple(
            first.setdefault(_structure(problem, segments, place, consumers, outputs), place)
            for place in range(len(segments))
        )
        return Chain(problem, segments, alike, consumers, kinds, outputs)

    @property
    def overlaps(self) -> bool:
        """Whether two sets may be at work at the same time, were a set to take over at some gate."""
        if len(self.segments) < 2:
            return False
        first, last = self.segments[0].layers, self.segments[-1].layers
        late = any(
            not inputs_of(layer) or any(source.layer is None for source in inputs_of(layer))
            for layer in self.problem.layers[len(first) :]
        )
        early = any(source.layer is not None and source.layer < last[0] for source in self.outputs)
        return late or early

    def gate(self, index: int) -> Source | None:
        """The tensor at a segment's gate; past the last segment there is none."""
        return self.segments[index].gate if index < len(self.segments) else None


def _structure(
    problem: Problem,
    segments: tuple[Segment, ...],
    place: int,
    consumers: dict[Source, tuple[int, ...]],
    outputs: frozenset[Source],
) -> tuple[object, ...]:
    """Equal for segments that are the same but for where they are; those that take model inputs are all different."""
    segment = segments[place]
    start = segment.layers[0]
    following = segments[place + 1].gate if place + 1 < len(segments) else None

    def relative(source: Source) -> tuple[object, ...]:
        if source == segment.gate:
            # How the gate's layouts come about matters: they are those of its maker.
            maker = problem.layers[source.layer or 0].signature
            return ("gate", maker, source.output, len(consumers.get(source, ())))
        if source.layer is None:
            return ("input", source.output)
        return ("layer", source.layer - start, source.output)

    layers = []
    for number in segment.layers:
        layer = problem.layers[number]
        made = tuple(
            (len(consumers.get(tensor, ())), tensor in outputs)
            for tensor in (Source(number, index) for index in range(len(layer.signature.outputs)))
        )
        layers.append((layer.signature, tuple(map(relative, inputs_of(layer))), len(layer.captured), made))
    return (tuple(layers), None if following is None else relative(following), segment.gate is None)
