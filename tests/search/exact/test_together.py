"""The ends of branches that are best together are those that all combinations say."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from mars_onnx.search.exact.joined.together import ends_together, until_joined


@pytest.mark.parametrize("groups", [(0, 0, 0), (0, 1, 0), (1, 0, 0), (0, 1, 1)])
def test_as_all_combinations_say(groups: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        arrivals = [(rng.integers(0, 9, 5) * 1.0, rng.integers(0, 9, 5) * 1.0) for _ in groups]

        def seconds(ends: tuple[int, ...], given: list[tuple[np.ndarray, np.ndarray]] = arrivals) -> float:
            alone = [float(ended[end]) for (ended, _), end in zip(given, ends, strict=True)]
            moved = [float(arrival[end]) for (_, arrival), end in zip(given, ends, strict=True)]
            return float(until_joined(groups, groups[0], alone, moved))

        found, ends = ends_together(groups, groups[0], arrivals)
        assert found == min(map(seconds, product(range(5), repeat=3))) == seconds(tuple(ends))
