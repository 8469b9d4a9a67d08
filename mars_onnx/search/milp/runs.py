"""Where a set can take over from another one, told from the problem alone."""

from __future__ import annotations

from dataclasses import dataclass

from mars_onnx.errors import UsageError
from mars_onnx.search.problem import Layer, Problem, Source


@dataclass(frozen=True)
class Runs:
    """Layers in runs that are on one set each; neighbouring runs may be on the same one.

    Attributes:
        of: Per layer the number of its run.
        takers: Per tensor the layers that take it, as often as they do.
    """

    of: tuple[int, ...]
    takers: dict[Source, tuple[int, ...]]

    @property
    def count(self) -> int:
        """How many runs there are."""
        return self.of[-1] + 1

    @staticmethod
    def of_problem(problem: Problem) -> Runs:
        """Cut before every layer where all data is in one tensor that a layer made, and nothing is tied across."""
        takers: dict[Source, list[int]] = {}
        tied = list(range(len(problem.layers)))
        for number, layer in enumerate(problem.layers):
            for source in taken_by(layer):
                takers.setdefault(source, []).append(number)
            for other in layer.tied:
                tied[other] = max(tied[other], number)
        of = [0]
        for place in range(1, len(problem.layers)):
            alive = [
                source
                for source, numbers in takers.items()
                if numbers[-1] >= place and (numbers[0] if source.layer is None else source.layer) < place
            ]
            fine = len(alive) == 1 and alive[0].layer is not None and max(tied[:place]) < place
            of.append(of[-1] + fine)
        return Runs(tuple(of), {source: tuple(numbers) for source, numbers in takers.items()})

    def check_in_order(self, problem: Problem) -> None:
        """Make sure that sets work one after the other, so that what their steps take adds up.

        Raises:
            UsageError: Some steps of two sets may overlap; the message names the layer.
        """
        for number, layer in enumerate(problem.layers):
            taken = taken_by(layer)
            late = self.of[number] > 0 and any(source.layer is None for source in taken)
            alone = self.of[number] > 0 and not taken
            far = any(source.layer is not None and self.of[source.layer] < self.of[number] - 1 for source in taken)
            if late or alone or far:
                raise UsageError(_OVERLAP.format(name=layer.name, why="does not wait for all that comes before it"))
        for source in problem.outputs:
            if source.layer is not None and self.of[source.layer] < self.count - 1:
                name = problem.layers[source.layer].name
                raise UsageError(_OVERLAP.format(name=name, why="makes an output of the model before the end"))


_OVERLAP = (
    "--search ilp: layer {name!r} {why}: two sets may be at work at the same time, which the integer program does not "
    "know; use --search exact"
)


def taken_by(layer: Layer) -> tuple[Source, ...]:
    """Every tensor that a layer takes from the graph, as often as it does."""
    return (*(source for source in layer.sources if source is not None), *(source for source, _ in layer.captured))
