"""What a search method says of its answer is checked before anybody believes it."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from mars_onnx.errors import CapacityError, InvariantError, UsageError
from mars_onnx.pool.topology import Pool
from mars_onnx.search import names
from mars_onnx.search.compare import comparators, compare
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.find import check_options, find_mapping
from mars_onnx.search.method import Ending, Method, Objective, Progress, SearchOptions, SearchResult
from mars_onnx.search.problem import Problem, problem_of
from mars_onnx.search.registry import METHODS
from tests.pool_factory import pool_of
from tests.search.methods_for_tests import Change, few, patient, register, whole_on

TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[8,64] x, float[64,64] w, float[64,64] v) => (float[8,64] y) {
    [one] a = MatMul (x, w)
    [two] b = Relu (a)
    [three] c = MatMul (b, v)
    [four] y = Softmax (c)
}"""


@pytest.fixture(scope="module")
def problem() -> Problem:
    return problem_of(ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(TEXT))))


@pytest.fixture
def pool() -> Pool:
    return pool_of(2, 2)


def test_titles_are_those_of_the_registry() -> None:
    titles = {name: method.title for name, method in METHODS.items()}
    assert titles == names.TITLES, "mars_onnx/search/names.py lists the methods for --help"
    assert names.DEFAULT in METHODS
    assert names.ALL not in METHODS


def test_an_honest_answer(problem: Problem, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "few", few)
    for objective in Objective:
        found = find_mapping(problem, pool, "few", SearchOptions(objective))
        assert found.result.cost_s == evaluate(problem, pool, found.result.mapping).cost_s(objective)
        assert (found.method, found.objective, found.proven) == ("few", objective, True)
        assert found.seconds > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda own: replace(own, cost_s=own.cost_s * 0.999), "but it costs"),
        (lambda own: replace(own, mapping=own.others[-1]), "but it costs"),
        (lambda own: replace(own, lower_bound_s=own.cost_s * 1.001), "below its own lower bound"),
        (lambda own: replace(own, lower_bound_s=own.cost_s * 0.99), "claims a proof"),
        (lambda own: replace(own, lower_bound_s=None), "claims a proof"),
        (lambda own: replace(own, lower_bound_s=float("nan")), "below its own lower bound"),
    ],
)
def test_false_claims(
    change: Change, message: str, problem: Problem, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, "liar", lambda *asked: change(few(*asked)))
    with pytest.raises(InvariantError, match=message):
        find_mapping(problem, pool, "liar", SearchOptions())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SearchOptions(time_limit_s=0), "--time-limit 0"),
        (SearchOptions(time_limit_s=-1), "--time-limit -1"),
        (SearchOptions(time_limit_s=float("nan")), "--time-limit nan"),
        (SearchOptions(time_limit_s=float("inf")), "--time-limit inf"),
        (SearchOptions(seed=-1), "--seed -1"),
    ],
)
def test_options_without_sense(options: SearchOptions, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_options(options)


def test_a_method_without_the_objective(problem: Problem, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "narrow", Method(few, "", (Objective.LATENCY,)))
    with pytest.raises(UsageError, match="'narrow' has the objective latency, not throughput"):
        find_mapping(problem, pool, "narrow", SearchOptions(Objective.THROUGHPUT))
    # As a comparator it may look for what it knows; it is judged by the objective that was asked.
    (other,) = compare(problem, pool, ["narrow"], SearchOptions(Objective.THROUGHPUT))
    mapping = find_mapping(problem, pool, "narrow", SearchOptions()).result.mapping
    assert other.evaluation == evaluate(problem, pool, mapping)


def test_a_time_limit_is_kept_and_said(problem: Problem, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "patient", patient)
    found = find_mapping(problem, pool, "patient", SearchOptions(time_limit_s=0.05))
    assert found.result.ending is Ending.TIME_LIMIT
    assert found.result.gap == pytest.approx(0.5)
    assert not found.proven


def test_an_interrupt_without_a_watch_is_the_method_s(
    problem: Problem, pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(problem: Problem, pool: Pool, options: SearchOptions) -> SearchResult:
        def stop(_: Progress) -> None:
            signal.raise_signal(signal.SIGINT)

        return patient(problem, pool, replace(options, report=stop))

    # The method leaves a file where it works.
    monkeypatch.chdir(tmp_path)
    register(monkeypatch, "patient", interrupted)
    assert find_mapping(problem, pool, "patient", SearchOptions()).result.ending is Ending.INTERRUPTED


def test_names_of_comparators(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "few", few)
    others = tuple(name for name in METHODS if name not in ("few", "ilp"))  # one of them, and one for small problems
    assert comparators(["all"], "few") == others
    assert comparators(["few", "all"], "few") == ("few", *others)
    assert comparators(["greedy", "greedy"], "greedy") == ("greedy",)
    assert comparators([], "greedy") == ()
    with pytest.raises(UsageError, match="'magic'"):
        comparators(["greedy", "magic"], "greedy")


def test_comparisons(problem: Problem, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> SearchResult:
        raise CapacityError("a0: too small")

    register(monkeypatch, "few", few)
    register(monkeypatch, "nothing", nothing)
    first, second = compare(problem, pool, ["few", "nothing"], SearchOptions())
    assert first.evaluation is not None
    assert first.evaluation.latency_s <= evaluate(problem, pool, whole_on(problem, pool, 0)).latency_s
    assert (first.ending, first.failure) == (Ending.PROVEN, "")
    assert (second.mapping, second.evaluation, second.ending) == (None, None, None)
    assert second.failure == "a0: too small"
