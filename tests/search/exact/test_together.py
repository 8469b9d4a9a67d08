"""The ends of branches that are best together are those that all combinations say."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from mars_onnx.search.exact.together import ends_together, until_joined
from mars_onnx.search.exact.ways.sets import State
from mars_onnx.search.exact.ways.shapes import Place

ONE, OTHER = (State(Place((1,), (1,), (rank,)), ("plain",)) for rank in range(2))


@pytest.mark.parametrize("states", [(ONE, ONE, ONE), (ONE, OTHER, ONE), (OTHER, ONE, ONE), (ONE, OTHER, OTHER)])
def test_as_all_combinations_say(states: tuple[State, ...]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        arrivals = [(rng.integers(0, 9, 5) * 1.0, rng.integers(0, 9, 5) * 1.0) for _ in states]

        def seconds(ends: tuple[int, ...], given: list[tuple[np.ndarray, np.ndarray]] = arrivals) -> float:
            alone = [float(ended[end]) for (ended, _), end in zip(given, ends, strict=True)]
            moved = [float(arrival[end]) for (_, arrival), end in zip(given, ends, strict=True)]
            return float(until_joined(states, states[0], alone, moved))

        found, ends = ends_together(states, 0, arrivals)
        assert found == min(map(seconds, product(range(5), repeat=3))) == seconds(tuple(ends))
