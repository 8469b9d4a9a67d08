"""What all comparators promise: their cost is the evaluator's, limits are kept, and what they find runs."""

from __future__ import annotations

import time

import pytest

from mars_onnx.pool.loader import load_pool
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.method import Ending, Objective, Progress, SearchOptions
from mars_onnx.search.registry import METHODS, search_method
from tests.search.networks import BRANCHES, RESIDUAL, adaptive_pool, check_end_to_end, problem

#: Those of this package; the others have tests of their own.
NAMES = [name for name in METHODS if name not in ("exact", "ilp", "greedy")]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("pool_name", ["fpga_pool", "mixed_pool"])
def test_cost_is_the_evaluators(name: str, objective: Objective, pool_name: str) -> None:
    pool = load_pool(pool_name)
    posed = problem(BRANCHES, pool)
    seen: list[Progress] = []
    result = search_method(name).choose(posed, pool, SearchOptions(objective, report=seen.append))
    assert evaluate(posed, pool, result.mapping).cost_s(objective) == result.cost_s
    assert result.ending is Ending.HEURISTIC
    assert result.lower_bound_s is None
    assert result.gap is None
    assert result.space
    assert [choice.name for choice in result.mapping.layers] == [layer.name for layer in posed.layers]
    assert seen[-1].cost_s == result.cost_s
    others = [evaluate(posed, pool, other).cost_s(objective) for other in result.others]
    assert [result.cost_s, *others] == sorted([result.cost_s, *others])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", [RESIDUAL, BRANCHES], ids=["residual", "branches"])
def test_partitions_compute_the_original(name: str, text: str) -> None:
    check_end_to_end(text, adaptive_pool(2, 2), name)


@pytest.mark.parametrize("name", NAMES)
def test_same_answer_again(name: str) -> None:
    pool = adaptive_pool(2, 2)
    posed = problem(RESIDUAL, pool)
    answers = [search_method(name).choose(posed, pool, SearchOptions(seed=3)) for _ in range(2)]
    assert answers[0] == answers[1]


# The others are done after a mapping or two.
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("baseline", "h2h-fixed")])
def test_time_limit_gives_the_best_so_far(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    pool = adaptive_pool(2, 2)
    posed = problem(BRANCHES, pool)
    result = search_method(name).choose(posed, pool, SearchOptions(time_limit_s=2.5))
    assert result.ending is Ending.TIME_LIMIT
    assert evaluate(posed, pool, result.mapping).latency_s == result.cost_s
    full = search_method(name).choose(posed, pool, SearchOptions())
    assert full.cost_s <= result.cost_s


@pytest.mark.parametrize("name", [name for name in NAMES if name != "baseline"])
def test_interruption_gives_the_best_so_far(name: str) -> None:
    reports: list[Progress] = []

    def interrupt(progress: Progress) -> None:
        reports.append(progress)
        if len(reports) == 2:
            raise KeyboardInterrupt

    pool = adaptive_pool(2, 2)
    posed = problem(BRANCHES, pool)
    result = search_method(name).choose(posed, pool, SearchOptions(report=interrupt))
    assert result.ending is Ending.INTERRUPTED
    assert evaluate(posed, pool, result.mapping).latency_s == result.cost_s
