"""Elimination gives the least sum of tables, and an assignment that has it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_onnx.search.exact.sums.elimination import Bond, Elimination, TooWideError


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


@settings(deadline=None, max_examples=200, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_variables_that_are_bound_to_two_others(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(3, 6))
    sizes = rng.integers(1, 4, count + 2).tolist()
    bound = [count, count + 1]
    # Tables between a bound variable and others may have those that it is bound to.
    scopes: list[tuple[int, ...]] = [
        tuple(rng.choice(count, int(rng.integers(1, 3)), replace=False).tolist()) for _ in range(4)
    ]
    scopes += [(int(rng.integers(0, count)), name) for name in bound]
    keep = tuple(rng.choice(count, 2, replace=False).tolist())
    bonds = {}
    for name in bound:
        first, second = rng.choice(count, 2, replace=False).tolist()
        values = rng.integers(0, sizes[name], (sizes[first], sizes[second], 2))
        bonds[name] = Bond((first, second), values)
    elimination = Elimination(sizes, scopes, keep, bonds)
    arrays = [rng.integers(0, 9, [sizes[name] for name in scope]).astype(float) for scope in scopes]
    for number, array in enumerate(arrays):
        elimination.put(number, array)

    def total(values: Sequence[int]) -> float:
        return float(sum(array[tuple(values[n] for n in own)] for own, array in zip(scopes, arrays, strict=True)))

    def possible(values: Sequence[int]) -> bool:
        return all(
            values[name] in bond.values[values[bond.others[0]], values[bond.others[1]]] for name, bond in bonds.items()
        )

    expected = np.full([sizes[name] for name in keep], np.inf)
    for values in product(*map(range, sizes)):
        if possible(values):
            place = tuple(values[name] for name in keep)
            expected[place] = min(expected[place], total(values))
    assert elimination.least() == pytest.approx(expected)
    for place in np.ndindex(*expected.shape):
        found = elimination.assignment(dict(zip(keep, place, strict=True)))
        values = tuple(found[name] for name in range(len(sizes)))
        assert possible(values)
        assert total(values) == pytest.approx(expected[place])


def test_too_wide_is_said_before_anything_is_made() -> None:
    pairs = [(first, second) for first in range(8) for second in range(first)]
    with pytest.raises(TooWideError):
        Elimination([1000] * 8, pairs, (0, 1))
