"""What it takes to bring a tensor from the layouts of one set to those of another."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mars_onnx.pool.topology import Pool
from mars_onnx.rules.axes import IntArray
from mars_onnx.rules.base import TensorType
from mars_onnx.search.exact.communication.moves import BoolArray, FloatArray, Moves, bounds_of
from mars_onnx.search.exact.one_set.onset import Edge, SetLayouts
from mars_onnx.search.exact.ways.shapes import Shapes

Members = tuple[int, ...]


class Crossing:
    """Seconds at least from some layouts on a set to some on another, kept up to date."""

    def __init__(self, moves: Moves, sources: IntArray, targets: IntArray, closed: BoolArray | None) -> None:
        """Between layouts of a table, of which some may be there several times.

        Args:
            moves: The table.
            sources: Numbers of layouts.
            targets: Numbers of layouts.
            closed: Those of the targets to which nothing can come; by default none.
        """
        self._moves, self._sources, self._targets, self._closed = moves, sources, targets, closed
        rows, self._rows = np.unique(sources, return_inverse=True)
        columns, self._columns = np.unique(targets, return_inverse=True)
        self._edge = Edge(moves, rows, columns, self._bound)
        self._version = -1
        self._seconds: FloatArray = np.zeros((0, 0))

    def _bound(self) -> None:
        self._edge.seconds = bounds_of([self._edge.wanted])[0]

    def seconds(self) -> FloatArray:
        """``[sources, targets]``; nobody else may write into it."""
        # Nothing is worked out before somebody asks for it.
        known = self._edge.seconds
        version = self._edge.refresh()
        if version != self._version:
            self._version = version
            self._seconds = known.take(self._rows, axis=0).take(self._columns, axis=1)
            if self._closed is not None:
                self._seconds[:, self._closed] = np.inf
        return self._seconds

    def sharpen(self, source: int, target: int) -> bool:
        """Make the cost from a place among the sources to one among the targets exact; says whether it was not."""
        return self._moves.sharpen(int(self._sources[source]), int(self._targets[target]))


@dataclass(eq=False)
class Between:
    """Layouts on two sets at once; pairs of sets between which everything costs the same have the same ones."""

    pool: Pool
    shapes: Shapes
    _moves: dict[tuple[object, ...], tuple[Moves, Members, Members]] = field(default_factory=dict)

    def likeness(self, first: Members, second: Members) -> tuple[object, ...]:
        """Equal for pairs of sets between which everything costs the same; a set may be paired with itself."""
        if first == second:
            return (self.shapes.likeness(first),)
        return len(first), self.shapes.likeness((*first, *second))

    def crossing(
        self,
        kind: TensorType,
        first: SetLayouts,
        sources: IntArray,
        second: SetLayouts,
        targets: IntArray,
        members: tuple[Members, Members],
        closed: BoolArray | None = None,
    ) -> Crossing:
        """From some layouts on one set to some on another.

        Args:
            kind: Of the tensor.
            first: What is known of the one set, or of one that is like it.
            sources: Layouts on it.
            second: What is known of the other, or of one that is like it.
            targets: Layouts on it.
            members: Of both.
            closed: Those of the targets to which nothing can come; by default none.
        """
        key = (kind.shape, kind.dtype.bitwidth, self.likeness(*members))
        if key not in self._moves:
            ranks = members[0] if members[0] == members[1] else (*members[0], *members[1])
            self._moves[key] = Moves(self.pool, kind.shape, kind.dtype.bitwidth, ranks), *members
        moves, *of = self._moves[key]
        return Crossing(
            moves,
            moves.register(first.moves(kind).boxes(sources), of[0]),
            moves.register(second.moves(kind).boxes(targets), of[1]),
            closed,
        )
