"""Elimination gives the least sum of tables, and an assignment that has it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_onnx.search.exact.tables import Factor, Tables


@settings(deadline=None, max_examples=200, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_as_all_assignments_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tables = Tables()
    # Twice in one store, so that the second problem meets what is cached of the first.
    for _ in range(2):
        count = int(rng.integers(2, 7))
        sizes = rng.integers(1, 4, count)
        scopes = [(variable,) for variable in range(count)]
        scopes += [
            tuple(rng.choice(count, int(rng.integers(1, min(3, count) + 1)), replace=False).tolist()) for _ in range(6)
        ]
        # Few different values, so that tables are often equal.
        arrays = [rng.integers(0, 3, [sizes[name] for name in scope]).astype(float) for scope in scopes]
        factors = [Factor(scope, tables.number(array)) for scope, array in zip(scopes, arrays, strict=True)]
        keep = tuple(rng.choice(count, 2, replace=False).tolist())
        least, steps = tables.eliminate(factors, keep)
        expected = np.full(least.shape, np.inf)
        for values in product(*map(range, sizes.tolist())):
            total = sum(array[tuple(values[n] for n in scope)] for scope, array in zip(scopes, arrays, strict=True))
            place = tuple(values[name] for name in keep)
            expected[place] = min(expected[place], total)
        assert least == pytest.approx(expected)
        for place in np.ndindex(*least.shape):
            values_ = tables.assignment(steps, dict(zip(keep, place, strict=True)))
            assert sum(
                array[tuple(values_[n] for n in scope)] for scope, array in zip(scopes, arrays, strict=True)
            ) == pytest.approx(least[place])
