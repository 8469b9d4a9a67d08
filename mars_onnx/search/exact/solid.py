"""Mappings of ways on which something is only a bound.

The way of least bounds is made of moves that look cheap as long as nobody prices them. Here bounds count for several
times as much as they are, so that moves that are priced are preferred where they are good. Those of the way that are
not are priced then, and the way is found again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mars_onnx.search.exact.one_set.build import SegmentTables
from mars_onnx.search.exact.one_set.factors import Move
from mars_onnx.search.exact.ways.aims import LeastLatency
from mars_onnx.search.exact.ways.answer import mapping_of
from mars_onnx.search.exact.ways.forward import Forward, Step, Way
from mars_onnx.search.exact.ways.sets import Sets, State
from mars_onnx.sharding.mapping import Mapping

#: Moves cost about twice their bound, and rarely more than three times.
_DEAR = 3.0
#: Times that a way is looked for, at most.
_MOST_ROUNDS = 4


class Solid:
    """Good mappings onto one set."""

    def __init__(self, sets: Sets, state: State) -> None:
        """With all that the search knows of the set, and tables of its own."""
        known = sets.tables(state)
        self._state = state
        self._tables = SegmentTables(known.shapes, known.on, known.check)
        self._forward = Forward(sets.beside(state, self._tables))
        self._forward.sets.look(state, range(self._forward.count))

    def mappings(self) -> Iterator[Mapping]:
        """Mappings, mostly the better the later."""
        for _ in range(_MOST_ROUNDS):
            with self._dear():
                way = self._forward.way(LeastLatency(self._forward.sets, [self._state], float("inf")), [self._state])
                if way is None:
                    return
                mapping = mapping_of(self._forward, way)
                moves = [move for index, step in enumerate(way.steps) for move in self._moves(way, index, step)]
            yield mapping
            layouts, kinds = self._tables.on.layouts, self._tables.chain.kinds
            if not sum(layouts.moves(kinds[move.tensor]).sharpen(move.source, move.target) for move in moves):
                return

    def _moves(self, way: Way, index: int, step: Step) -> Iterator[Move]:
        """The redistributions of a segment, and the one at its gate."""
        yield from self._tables.decide(index, step.row, step.column).moves
        gate = self._tables.chain.segments[index].gate
        if gate is not None:
            made = int(self._tables.columns(index - 1)[way.steps[index - 1].column])
            yield Move(gate, made, int(self._tables.domain(index)[step.row]))

    @contextmanager
    def _dear(self) -> Iterator[None]:
        """What is a bound is dear in between."""
        saved = [(edge, edge.seconds) for edge in self._tables.on.layouts.edges]
        try:
            for edge, _ in saved:
                edge.seconds = edge.dear(_DEAR)
            yield
        finally:
            for edge, seconds in saved:
                edge.seconds = seconds


class Mappings:
    """Mappings of ways, exact or not."""

    def __init__(self) -> None:
        """None yet."""
        self._solid: dict[State, Solid] = {}

    def of(self, forward: Forward, way: Way, sharp: bool) -> Iterator[Mapping]:
        """The mapping of a way; and where there are only bounds of something on it, better ones onto the same set.

        Args:
            forward: Where the way was found.
            way: A way.
            sharp: Whether all costs on it are exact.
        """
        state, *others = dict.fromkeys(step.state for step in way.steps)
        bounded = forward.sets.tables(state).wide
        if sharp or others or bounded:
            yield mapping_of(forward, way)
        if not others and (bounded or not sharp):
            if state not in self._solid:
                self._solid[state] = Solid(forward.sets, state)
            yield from self._solid[state].mappings()
