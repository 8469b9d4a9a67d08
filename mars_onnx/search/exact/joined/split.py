"""A problem that begins with branches, as the parts that it falls into: the branches, and what follows the join."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mars_onnx.pool.topology import Pool
from mars_onnx.rules.base import Signature
from mars_onnx.search.exact.chain.chain import Chain
from mars_onnx.search.exact.chain.joins import Branches, inputs_apart, likeness_of, part_of, renamed
from mars_onnx.search.exact.joined.part import Part
from mars_onnx.search.exact.ways.sets import Sets, needed_of
from mars_onnx.search.exact.ways.shapes import Shapes
from mars_onnx.search.problem import Problem


@dataclass(frozen=True, eq=False)
class Split:
    """Branches and what follows.

    Attributes:
        problem: The whole.
        pool: The accelerators.
        shapes: Which sets there are.
        branches: Where the problem falls apart.
        parts: Per branch what is known of it; branches that are alike share that.
        inputs: Per branch the model inputs of the whole problem, in the order in which its part has them.
        tail: What follows, from the join on.
        needed: Per branch the bytes of its end that the join takes at least.
        closed: Whether no two branches take the same model input.
    """

    problem: Problem
    pool: Pool
    shapes: Shapes
    branches: Branches
    parts: tuple[Part, ...]
    inputs: tuple[tuple[int, ...], ...]
    tail: Sets
    needed: tuple[float, ...]
    closed: bool

    @staticmethod
    def of(problem: Problem, pool: Pool, branches: Branches, check: Callable[[], None] = lambda: None) -> Split:
        """Take a problem apart; ``check`` is called again and again in long work."""
        shapes = Shapes(pool)
        parts: list[Part] = []
        inputs: list[tuple[int, ...]] = []
        alike: dict[tuple[object, ...], Part] = {}
        for layers, last in zip(branches.layers, branches.last, strict=True):
            # A branch ends with the join, of which it is the only input: so its last tensor is at a gate.
            part, own_inputs = renamed(part_of(problem, (*layers, branches.join), last))
            key = likeness_of(part)
            if key not in alike:
                alike[key] = Part(Sets(Chain.of(part), pool, shapes, check=check))
            parts.append(alike[key])
            inputs.append(own_inputs)
        numbers = tuple(range(branches.join, len(problem.layers)))
        tail = Sets(Chain.of(part_of(problem, numbers, None)), pool, shapes, check=check)
        join = problem.layers[branches.join]
        needed = tuple(
            needed_of(problem, last, kind, (branches.join,))
            for last in branches.last
            for source, kind in zip(join.sources, join.signature.inputs, strict=False)
            if source == last and kind is not None
        )
        closed = inputs_apart(problem, branches)
        return Split(problem, pool, shapes, branches, tuple(parts), tuple(inputs), tail, needed, closed)

    @property
    def join(self) -> Signature:
        """The layer that takes all branches."""
        return self.problem.layers[self.branches.join].signature

    @property
    def whole(self) -> bool:
        """Whether the tables say all there is to say where each branch is on one set."""
        return self.closed and not self.tail.chain.overlaps
