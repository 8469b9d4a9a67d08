"""What is done differently where there are many accelerators, tried where there are few: the answers are the same."""

from __future__ import annotations

import pytest

from mars_onnx.pool.topology import Pool
from mars_onnx.search.exact import search
from mars_onnx.search.exact.chain.chain import Chain
from mars_onnx.search.exact.search import exact_search
from mars_onnx.search.exact.ways import rest
from mars_onnx.search.exact.ways.sets import Sets
from mars_onnx.search.exact.ways.shapes import Shapes
from mars_onnx.search.method import Ending, SearchOptions
from tests.search.exact.random_pools import random_pool
from tests.search.exact.test_against_brute_force import NETWORKS
from tests.search.networks import RESIDUAL, adaptive_pool, problem

_UNLIMITED = SearchOptions(work_limit=None)


def _pools() -> list[Pool]:
    return [adaptive_pool(2, 2), *(random_pool(seed, 4) for seed in range(3))]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("number", range(4))
def test_ways_are_looked_for_step_by_step(name: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = _pools()[number]
    network = problem(NETWORKS[name], pool)
    expected = exact_search(network, pool, _UNLIMITED)
    monkeypatch.setattr(search, "_FEW", 0)
    found = exact_search(network, pool, _UNLIMITED)
    assert found.ending is expected.ending
    assert found.cost_s == pytest.approx(expected.cost_s, rel=1e-9)


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("number", range(4))
def test_sets_that_cannot_be_told_apart(name: str, number: int, uniform: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """If any set can follow any, bounds are lower, and still lead to the best."""
    pool = _pools()[number]
    network = problem(NETWORKS[name], pool)
    expected = exact_search(network, pool, _UNLIMITED)
    monkeypatch.setattr(rest, "_MOST_STATES", -1)
    if not uniform:
        monkeypatch.setattr(Shapes, "uniform", False)
    found = exact_search(network, pool, _UNLIMITED)
    assert found.ending is expected.ending
    assert found.cost_s == pytest.approx(expected.cost_s, rel=1e-9)


@pytest.mark.parametrize("limit", [0.03, 0.06, 0.1])
def test_bounds_at_a_limit_hold(limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = adaptive_pool(2, 2)
    network = problem(RESIDUAL, pool)
    best = exact_search(network, pool, _UNLIMITED).cost_s
    monkeypatch.setattr(search, "_FEW", 0)
    found = exact_search(network, pool, SearchOptions(work_limit=limit))
    assert found.ending is Ending.WORK_LIMIT
    assert found.lower_bound_s is not None
    assert found.lower_bound_s <= best * (1 + 1e-9)
    assert found.cost_s >= best * (1 - 1e-9)


def test_steps_begin_where_the_bound_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three per cent of nothing would be nothing, again and again."""
    pool = adaptive_pool(2, 2)
    network = problem(NETWORKS["chain"], pool)
    expected = exact_search(network, pool, _UNLIMITED)
    monkeypatch.setattr(search, "_FEW", 0)
    monkeypatch.setattr(search.LeastLatency, "least_s", 0.0)
    found = exact_search(network, pool, SearchOptions(work_limit=5))
    assert found.ending is Ending.PROVEN
    assert found.cost_s == pytest.approx(expected.cost_s, rel=1e-9)


@pytest.mark.parametrize("number", range(4))
def test_kinds_are_all_that_can_come_up(number: int) -> None:
    pool = _pools()[number]
    sets = Sets(Chain.of(problem(NETWORKS["chain"], pool)), pool, Shapes(pool))
    known = {sets.key(state) for state in sets.kinds()}
    pending, seen = [(0,) * len(sets.shapes.cells)], set()
    while pending:
        used = pending.pop()
        if used not in seen:
            seen.add(used)
            following = sets.states(used)
            if sets.shapes.uniform:
                assert {sets.key(state) for state in following} <= known
            pending += [state.place.used for state in following]
    assert len(seen) > 1
