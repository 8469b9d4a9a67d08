"""Elimination gives the least sum of tables, and an assignment that has it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_onnx.search.exact.tables import Elimination, TooWideError


@settings(deadline=None, max_examples=200, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_as_all_assignments_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 7))
    sizes = rng.integers(1, 4, count).tolist()
    scopes = [
        tuple(rng.choice(count, int(rng.integers(1, min(3, count) + 1)), replace=False).tolist()) for _ in range(8)
    ]
    keep = tuple(rng.choice(count, 2, replace=False).tolist())
    elimination = Elimination(sizes, scopes, keep)
    arrays = [np.empty(0)] * len(scopes)
    changed = range(len(scopes))
    # Then some tables change, and only what depends on them is worked out again.
    for _ in range(3):
        for number in changed:
            arrays[number] = rng.integers(0, 3, [sizes[name] for name in scopes[number]]).astype(float)
            elimination.put(number, arrays[number])
        least = elimination.least()
        expected = np.full([sizes[name] for name in keep], np.inf)
        for values in product(*map(range, sizes)):
            total = sum(array[tuple(values[n] for n in scope)] for scope, array in zip(scopes, arrays, strict=True))
            place = tuple(values[name] for name in keep)
            expected[place] = min(expected[place], total)
        assert least == pytest.approx(expected)
        for place in np.ndindex(*least.shape):
            found = elimination.assignment(dict(zip(keep, place, strict=True)))
            assert sum(
                array[tuple(found[n] for n in scope)] for scope, array in zip(scopes, arrays, strict=True)
            ) == pytest.approx(least[place])
        changed = rng.choice(len(scopes), 2, replace=False).tolist()


def test_too_wide_is_said_before_anything_is_made() -> None:
    pairs = [(first, second) for first in range(8) for second in range(first)]
    with pytest.raises(TooWideError):
        Elimination([1000] * 8, pairs, (0, 1))
