"""What segments of a whole problem take at least on one set, by what is known of branches and of what follows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mars_onnx.search.exact.chain.chain import Chain
from mars_onnx.search.exact.joined.part import Part
from mars_onnx.search.exact.one_set.runs import Runs, runs_at_least
from mars_onnx.search.exact.ways.sets import Sets, State
from mars_onnx.search.problem import Source

#: Seconds at least on a set.
_Least = Callable[[State], float]


class Floors:
    """Of a problem that begins with branches, on one set that does them one after the other."""

    def __init__(self, chain: Chain, parts: Sequence[tuple[Part, Sequence[int]]], tail: Sets, join: int) -> None:
        """Of the segments of a problem.

        Args:
            chain: The problem.
            parts: Per branch what is known of it, and the numbers of its layers.
            tail: What follows, from the join on.
            join: Number of the layer that joins them.
        """
        self._count, self._parts, self._tail = len(chain.segments), parts, tail
        segment = {number: index for index, own in enumerate(chain.segments) for number in own.layers}
        at = {own.gate: index for index, own in enumerate(chain.segments) if own.gate is not None}
        #: Gates behind the join, by their numbers in the whole problem.
        self._gates: dict[int, int] = {}
        for index, own in enumerate(tail.chain.segments):
            if own.gate is not None and own.gate.layer is not None:
                gate = at.get(Source(own.gate.layer + join, own.gate.output))
                self._gates |= {} if gate is None else {gate: index}
        self._known: list[tuple[int, _Least]] = []
        for part, layers in parts:
            homes = {segment[number] for number in layers}
            if len(homes) == 1:
                self._known.append((homes.pop(), part.least))
            else:
                # Sets may change inside: what it takes from one segment to the next counts for nobody then.
                self._each(part.sets, part.count, layers, segment)
        self._each(tail, len(tail.chain.segments), range(join, len(chain.problem.layers)), segment)

    def _each(self, sets: Sets, count: int, layers: Sequence[int], segment: Mapping[int, int]) -> None:
        """Take in some segments of a part of the problem, by numbers of its layers in the whole."""
        for index, own in enumerate(sets.chain.segments[:count]):
            homes = {segment[layers[number]] for number in own.layers}
            if len(homes) == 1:
                self._known.append((homes.pop(), _segment(sets, index)))

    def __call__(self, state: State) -> Runs:
        """On a set."""
        own = np.zeros(self._count)
        for index, least in self._known:
            own[index] += least(state)
        known = runs_at_least(own)
        # All that is left on one set is known where whole parts of the problem are left.
        behind = self._tail.runs(state).end
        known.end[0] = sum(part.least(state) for part, _ in self._parts) + behind[0]
        for gate, own_gate in self._gates.items():
            known.end[gate] = behind[own_gate]
        return known


def _segment(sets: Sets, index: int) -> _Least:
    return lambda state: float(sets.least(state)[index])
