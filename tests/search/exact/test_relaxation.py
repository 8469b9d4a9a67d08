"""Bounds where tables are too wide: they hold, they are tight where the relaxation is, and searches live with them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.exact.search import exact_search
from mars_onnx.search.exact.sums import elimination
from mars_onnx.search.exact.sums.elimination import Elimination
from mars_onnx.search.exact.sums.relaxation import Relaxation
from mars_onnx.search.method import Ending, Objective, SearchOptions
from tests.search.exact.random_pools import random_pool
from tests.search.exact.test_against_brute_force import NETWORKS
from tests.search.networks import adaptive_pool, check_end_to_end, problem

#: Every layer takes all that was made before it, as in DenseNet.
DENSE = """
dense (float[1,4,8,4] x) => (float[1,16,8,4] z) {
    [stem] a = Relu (x)
    [first] b = Conv <pads = [1,0,1,0]> (a, w4x4x3x1)
    [join2] c = Concat <axis = 1> (a, b)
    [second] d = Conv <pads = [1,0,1,0]> (c, w4x8x3x1)
    [join3] e = Concat <axis = 1> (a, b, d)
    [third] f = Conv <pads = [1,0,1,0]> (e, w4x12x3x1)
    [join4] g = Concat <axis = 1> (a, b, d, f)
    [last] z = Relu (g)
}"""


@pytest.fixture(autouse=True)
def _inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact search answers from its space alone; what is better outside has tests of its own."""
    monkeypatch.setattr("mars_onnx.search.exact.search._Run.beaten", lambda *_: False)


def _sum(arrays: list[np.ndarray], scopes: list[tuple[int, ...]], values: tuple[int, ...] | dict[int, int]) -> float:
    return sum(float(array[tuple(values[n] for n in scope)]) for scope, array in zip(scopes, arrays, strict=True))


@settings(deadline=None, max_examples=150, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_bounds_hold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 7))
    sizes = rng.integers(1, 5, count).tolist()
    number = int(rng.integers(3, 14))
    scopes = [tuple(rng.choice(count, int(rng.integers(1, 3)), replace=False).tolist()) for _ in range(number)]
    keep = tuple(rng.choice(count, 2, replace=False).tolist())
    relaxed = Relaxation(sizes, scopes, keep)
    arrays = [rng.random([sizes[name] for name in scope]) * 1e-3 for scope in scopes]
    arrays[0][rng.random(arrays[0].shape) < 0.2] = np.inf
    # Costs grow; then they shrink again.
    for change in (0.0, 1e-4, 1e-3, -5e-4):
        for place in rng.choice(number, 2, replace=False).tolist():
            arrays[place] = np.maximum(0.0, arrays[place] + change * rng.random(arrays[place].shape))
        for place, array in enumerate(arrays):
            relaxed.put(place, array)
        expected = np.full([sizes[name] for name in keep], np.inf)
        for values in product(*map(range, sizes)):
            at = tuple(values[name] for name in keep)
            expected[at] = min(expected[at], _sum(arrays, scopes, values))
        assert (relaxed.least() <= expected * (1 + 1e-9)).all()
        for at in np.ndindex(*expected.shape):
            found = relaxed.assignment(dict(zip(keep, at, strict=True)))
            assert relaxed.least()[at] <= expected[at] * (1 + 1e-9)
            assert tuple(found[name] for name in keep) == at
            if np.isfinite(expected[at]):
                assert _sum(arrays, scopes, found) >= expected[at] * (1 - 1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_on_a_tree_the_bounds_are_the_least_sums(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 8, 12).tolist()
    scopes: list[tuple[int, ...]] = [(int(rng.integers(0, later)), later) for later in range(1, 12)]
    scopes += [(name,) for name in range(12)]
    relaxed, eliminated = Relaxation(sizes, scopes, (0, 11)), Elimination(sizes, scopes, (0, 11))
    for number, scope in enumerate(scopes):
        array = rng.random([sizes[name] for name in scope])
        relaxed.put(number, array)
        eliminated.put(number, array)
    for row, column in product(range(sizes[0]), range(sizes[11])):
        relaxed.assignment({0: row, 11: column})
    assert relaxed.least() == pytest.approx(eliminated.least(), rel=1e-6)


def _narrow(monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    """Let tables of more entries be too wide."""
    monkeypatch.setattr(elimination, "MOST_ENTRIES", entries)


@pytest.mark.parametrize("text", [*NETWORKS.values(), DENSE], ids=[*NETWORKS, "dense"])
@pytest.mark.parametrize(("seed", "size"), [(1, 2), (4, 3)])
def test_claims_where_everything_is_too_wide(text: str, seed: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = random_pool(seed, size, fast=True)
    posed = problem(text, pool)
    best = exact_search(posed, pool, SearchOptions())
    assert best.ending is Ending.PROVEN
    _narrow(monkeypatch, 0)
    found = exact_search(posed, pool, SearchOptions())
    assert found.cost_s == evaluate(posed, pool, found.mapping).latency_s
    assert found.lower_bound_s is not None
    assert found.lower_bound_s <= best.cost_s * (1 + 1e-9)
    assert best.cost_s <= found.cost_s * (1 + 1e-9)
    assert found.gap is not None
    assert found.gap < 0.02


def test_dense_blocks_on_eight_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = adaptive_pool(4, 4)
    posed = problem(DENSE, pool)
    _narrow(monkeypatch, 2000)
    found = exact_search(posed, pool, SearchOptions())
    assert found.cost_s == evaluate(posed, pool, found.mapping).latency_s
    assert found.gap is not None
    assert found.gap < 0.02


def test_a_stream_of_inferences_through_a_dense_block(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = random_pool(4, 3, fast=True)
    posed = problem(DENSE, pool)
    options = SearchOptions(objective=Objective.THROUGHPUT, time_limit_s=60)
    best = exact_search(posed, pool, options)
    _narrow(monkeypatch, 0)
    found = exact_search(posed, pool, options)
    assert found.lower_bound_s is not None
    assert found.lower_bound_s <= best.cost_s * (1 + 1e-9)
    assert best.cost_s <= found.cost_s * (1 + 1e-9)


def test_partitions_compute_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    _narrow(monkeypatch, 0)
    check_end_to_end(DENSE, adaptive_pool(2, 1), "exact")
