"""The tables of all segments on one set, and what is best for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.chain.chain import Chain
from mars_onnx.search.exact.communication.moves import FloatArray
from mars_onnx.search.exact.one_set.factors import (
    Decision,
    Move,
    SegmentBuild,
    SegmentShapes,
    finer_build,
    segment_build,
)
from mars_onnx.search.exact.one_set.onset import OnSet
from mars_onnx.search.exact.one_set.passage import Passage, passage
from mars_onnx.search.exact.one_set.takers import domain
from mars_onnx.search.problem import Source

#: Bounds that grow by less, relatively, do so by rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Solved:
    """A segment on a set, as a table.

    Attributes:
        rows: Layout numbers of the tensor at the gate; a single row where there is none.
        columns: Layout numbers of the tensor at the next gate, some of them several times; one column at the end.
        seconds: ``[rows, columns]``.
        build: The variables.
        sharp: Rows and columns of decisions in which every cost is exact.
    """

    rows: IntArray
    columns: IntArray
    seconds: FloatArray
    build: SegmentBuild
    sharp: set[tuple[int, int]] = field(default_factory=set)


@dataclass(eq=False)
class SegmentTables:
    """All segments of a problem on one set."""

    shapes: SegmentShapes
    on: OnSet
    check: Callable[[], None]
    _solved: dict[int, tuple[int, int, Solved]] = field(default_factory=dict)
    _builds: dict[int, SegmentBuild] = field(default_factory=dict)
    #: Rows and columns of decisions that stay the best, however much dearer others become.
    _settled: dict[int, set[tuple[int, int]]] = field(default_factory=dict)
    _domains: dict[int, IntArray] = field(default_factory=dict)
    _passages: dict[tuple[int, int], Passage] = field(default_factory=dict)

    @property
    def chain(self) -> Chain:
        """The problem."""
        return self.shapes.chain

    def built(self, index: int) -> bool:
        """Whether somebody has looked at a segment."""
        return self.chain.alike[index] in self._builds

    @property
    def count(self) -> int:
        """How many segments somebody has looked at; grows with time."""
        return len(self._builds)

    def build(self, indices: Iterable[int]) -> None:
        """Look at segments, but do not work out their tables yet: what they are made of is found out together then."""
        for index in indices:
            own = self.chain.alike[index]
            if own not in self._builds:
                self.check()
                self._builds[own] = segment_build(self.shapes, self.on, own)

    def solve(self, index: int) -> Solved:
        """The table of a segment, as exact as costs are known by now."""
        index = self.chain.alike[index]
        known = self._solved.get(index)
        now = self.on.layouts.version
        if known is not None and known[0] == now:
            return known[2]
        self.build([index])
        build = self._builds[index]
        stamp = build.shape.stamp()
        if known is not None and known[1] == stamp:
            self._solved[index] = (now, stamp, known[2])
            return known[2]
        solved = Solved(build.shape.rows, build.shape.columns, build.least(), build)
        self._solved[index] = (now, stamp, solved)
        return solved

    def columns(self, index: int) -> IntArray:
        """Layouts in which a segment leaves the tensor at the next gate; these do not change."""
        index = self.chain.alike[index]
        if index not in self._builds:
            self.solve(index)
        return self._builds[index].shape.columns

    def choice(self, solved: Solved, row: int, column: int) -> Decision | None:
        """What is best for a segment from a layout to another, by a table as it is now; ``None`` if that is exact."""
        settled = self._settled.get(solved.build.shape.index, ())
        if (row, column) in settled:
            solved.sharp.add((row, column))
        return None if (row, column) in solved.sharp else self._decision(solved, row, column)

    def sharpen(self, solved: Solved, row: int, column: int, decision: Decision) -> bool:
        """Make every cost of a choice exact; says whether one was not."""
        layouts, changed = self.on.layouts, solved.build.wide and self._raised(solved, row, column)
        since = 0
        for move in decision.moves:
            moves = layouts.moves(self.chain.kinds[move.tensor])
            changed |= moves.sharpen(move.source, move.target)
            since = max(since, moves.since(move.source, move.target))
        for number, strategy in decision.strategies.items():
            signature = self.chain.problem.layers[number].signature
            changed |= layouts.price_resolution(signature, strategy)
            since = max(since, int(layouts.layer(signature).since[strategy]))
        if not changed and decision.loose:
            changed = self._finer(solved)
        if not changed:
            solved.sharp.add((row, column))
            if self._exact_in(solved, since):
                self._settled.setdefault(solved.build.shape.index, set()).add((row, column))
        return changed

    def _exact_in(self, solved: Solved, since: int) -> bool:
        """Whether what has been exact since then was so in a table, and nothing will be better than that."""
        known = self._solved.get(solved.build.shape.index)
        # Costs only grow, but for those of memory. Where there are only bounds, these may.
        grows = self.on.layouts.tariff is None and not solved.build.wide
        return grows and known is not None and known[2] is solved and since <= known[0]

    def _finer(self, solved: Solved) -> bool:
        """Have more hubs in a segment; says whether that is possible."""
        index = solved.build.shape.index
        build = finer_build(self.shapes, solved.build) if self._builds.get(index) is solved.build else None
        if build is None:
            return False
        self._builds[index] = build
        del self._solved[index]
        self._settled.pop(index, None)
        self.on.layouts.tick()
        return True

    def _raised(self, solved: Solved, row: int, column: int) -> bool:
        """Whether a bound is higher since somebody has asked for a decision; then it is in the tables from now on."""
        seconds = solved.build.least()
        for index, (now, stamp, own) in self._solved.items():
            if own is solved and seconds is not solved.seconds:
                self._solved[index] = now, stamp, replace(solved, seconds=seconds)
        return bool(seconds[row, column] > solved.seconds[row, column] * (1 + _ROUNDING))

    def _decision(self, solved: Solved, row: int, column: int) -> Decision:
        """The same, of the first segment that is like this one."""
        return solved.build.decision(row, column)

    def decide(self, index: int, row: int, column: int) -> Decision:
        """What is best for a segment from a layout at its gate to one at the next."""
        found = self._decision(self.solve(index), row, column)
        like = self.chain.segments[self.chain.alike[index]]
        own = self.chain.segments[index]
        return _shifted(found, own.layers[0] - like.layers[0], like.gate, own.gate)

    @property
    def wide(self) -> bool:
        """Whether some segment at which somebody has looked has only bounds."""
        return any(build.wide for build in self._builds.values())

    def passage(self, index: int) -> Passage:
        """From the end of the segment before to the end of a segment."""
        key = (self.chain.alike[index - 1], self.chain.alike[index])
        if key not in self._passages:
            self._passages[key] = passage(self.chain, self.on, index, self.columns(index - 1), self.domain(index))
        return self._passages[key].now(self.solve(index).seconds)

    def domain(self, index: int) -> IntArray:
        """Layouts in which the tensor at a segment's gate can be there for it."""
        index = self.chain.alike[index]
        if index not in self._domains:
            gate = self.chain.segments[index].gate
            self._domains[index] = np.zeros(1, np.int64) if gate is None else domain(self.chain, self.on.layouts, gate)
        return self._domains[index]


def _shifted(decision: Decision, offset: int, gate: Source | None, own: Source | None) -> Decision:
    """The decision for a segment that is like another one but for its place."""

    def moved(source: Source) -> Source:
        if source == gate and own is not None:
            return own
        return source if source.layer is None else Source(source.layer + offset, source.output)

    return Decision(
        {number + offset: strategy for number, strategy in decision.strategies.items()},
        {moved(source): layout for source, layout in decision.entries.items()},
        tuple(Move(moved(move.tensor), move.source, move.target) for move in decision.moves),
    )
