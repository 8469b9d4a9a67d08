"""The integer program of the whole problem and the exact search say the same, without a line of search in common."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir
import pytest

from mars_onnx.errors import UsageError
from mars_onnx.pool.topology import Pool
from mars_onnx.search.compare import comparators
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.exact.search import exact_search
from mars_onnx.search.method import Ending, Progress, SearchOptions, SearchResult
from mars_onnx.search.milp.model import Model
from mars_onnx.search.milp.offers import Prices
from mars_onnx.search.milp.runs import Runs
from mars_onnx.search.milp.search import ilp
from mars_onnx.search.milp.symmetry import Family, subsets, symmetries
from mars_onnx.search.names import ALL
from mars_onnx.search.problem import Problem, Source, problem_of
from models.build import build
from tests.end_to_end.checking import canonical
from tests.pool_factory import pool_of
from tests.search.exact.brute_force import BruteForce
from tests.search.exact.random_pools import random_pool
from tests.search.exact.test_against_brute_force import MORE_SHARING, NETWORKS, OPEN, PROJECTION, SHARED
from tests.search.milp.four_accelerators import some_of_fpga_pool
from tests.search.milp.specialists import SPECIALS, specialists
from tests.search.networks import CHAIN, RESIDUAL, adaptive_pool, check_end_to_end, problem


@pytest.fixture(autouse=True)
def _inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact search answers from its space alone; what is better outside has tests of its own."""
    monkeypatch.setattr("mars_onnx.search.exact.search._Run.beaten", lambda *_: False)


def _solved(posed: Problem, pool: Pool, merge: bool = True) -> float:
    model = Model(posed, Prices(posed, pool, Family.of(pool, merge)), Runs.of_problem(posed), lambda: None)
    solution = model.program.solve(None, 0, lambda: None)
    assert solution.optimal
    assert solution.values is not None
    cost_s = evaluate(posed, pool, model.mapping(solution.values)).latency_s
    # The judge's price of the mapping is the program's own.
    assert solution.bound == pytest.approx(cost_s, rel=1e-9)
    return cost_s


def _agree(posed: Problem, pool: Pool) -> SearchResult:
    exact = exact_search(posed, pool, SearchOptions())
    assert exact.ending is Ending.PROVEN
    found = ilp(posed, pool, SearchOptions())
    assert found.ending is Ending.PROVEN
    assert found.cost_s == evaluate(posed, pool, found.mapping).latency_s
    assert found.cost_s == pytest.approx(exact.cost_s, rel=1e-9)
    assert found.lower_bound_s == pytest.approx(exact.cost_s, rel=1e-9)
    return found


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("seed", "size"), [(0, 2), (1, 2), (7, 3), (8, 3)])
def test_agrees_with_exact_on_random_pools(name: str, seed: int, size: int) -> None:
    pool = random_pool(seed, size, fast=True)
    _agree(problem(NETWORKS[name], pool), pool)


@pytest.mark.parametrize("text", [CHAIN, RESIDUAL], ids=["chain", "residual"])
@pytest.mark.parametrize("groups", [(2,), (2, 1), (3,)])
def test_agrees_with_exact_where_designs_differ(text: str, groups: tuple[int, ...]) -> None:
    pool = adaptive_pool(*groups)
    _agree(problem(text, pool), pool)


@pytest.mark.parametrize(
    "designs",
    [("dpu_b4096", "winograd", "dpu_b4096"), ("winograd", "winograd", "dpu_b4096", "dpu_b4096")],
    ids=["three", "four"],
)
@pytest.mark.parametrize("latency_s", [1e-6, 1e-5])
def test_agrees_with_exact_where_sets_take_turns(designs: tuple[str, ...], latency_s: float) -> None:
    pool = specialists(*designs, latency_s=latency_s)
    posed = problem(SPECIALS, pool)
    assert len(_agree(posed, pool).mapping.sets) == 3


@pytest.mark.parametrize("text", [SHARED, PROJECTION], ids=["shared", "projection"])
@pytest.mark.parametrize("seed", range(2))
def test_layers_that_share_a_move_are_no_gap(text: str, seed: int) -> None:
    pool = random_pool(seed, 2, fast=True)
    posed = problem(text, pool)
    found = ilp(posed, pool, SearchOptions())
    assert found.ending is Ending.PROVEN
    brute = BruteForce(posed, pool, found.cost_s * (1 - 1e-9))
    brute.run()
    assert brute.best is None, f"{brute.limit} is less than {found.cost_s}: {brute.best}"
    exact = exact_search(posed, pool, SearchOptions())
    assert exact.lower_bound_s is not None
    assert exact.lower_bound_s <= found.cost_s * (1 + 1e-9)
    if text is SHARED:
        # The branches of the other one may run side by side in the space of exact search alone.
        assert found.cost_s <= exact.cost_s * (1 + 1e-9)


@pytest.mark.parametrize("name", MORE_SHARING)
@pytest.mark.parametrize("numbers", [(0, 1, 2, 3), (0, 1, 4, 5)], ids=["one group", "two groups"])
def test_agrees_with_exact_where_many_layers_share_moves(name: str, numbers: tuple[int, ...]) -> None:
    pool = some_of_fpga_pool(*numbers)
    _agree(problem(MORE_SHARING[name], pool), pool)


@pytest.mark.parametrize("name", MORE_SHARING)
@pytest.mark.parametrize(("seed", "size"), [(1, 2), (3, 2), (0, 3), (1, 3)])
def test_agrees_with_exact_on_random_pools_where_many_share(name: str, seed: int, size: int) -> None:
    pool = random_pool(seed, size, fast=True)
    _agree(problem(MORE_SHARING[name], pool), pool)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alexnet", "resnet34"])
@pytest.mark.parametrize("numbers", [(0, 1, 2, 3), (0, 1, 4, 5)], ids=["one group", "two groups"])
def test_agrees_with_exact_on_networks_and_four_accelerators(name: str, numbers: tuple[int, ...]) -> None:
    pool = some_of_fpga_pool(*numbers)
    _agree(problem_of(canonical(ir.from_proto(build(name)), pool)), pool)


@pytest.mark.parametrize("groups", [(3,), (2, 1), (2, 2)])
def test_merging_sets_loses_nothing(groups: tuple[int, ...]) -> None:
    pool = adaptive_pool(*groups)
    posed = problem(NETWORKS["residual"], pool)
    assert _solved(posed, pool) == pytest.approx(_solved(posed, pool, merge=False), rel=1e-12)


def test_sets_that_are_left() -> None:
    pool = some_of_fpga_pool(0, 1, 2, 3)
    assert len(symmetries(pool)) == 24
    assert sorted(map(len, Family.of(pool).sets)) == [1, 1, 1, 1, 2, 2, 3, 4]
    halves = some_of_fpga_pool(0, 1, 4, 5)
    assert len(symmetries(halves)) == 8
    # Within a group and across it are different sets of two.
    assert {(0, 1), (0, 2)} <= set(Family.of(halves).sets)
    assert Family.of(halves, merge=False).sets == tuple(subsets(4))


def test_unequal_accelerators_are_not_merged() -> None:
    pool = random_pool(3, 3)
    identity = tuple(range(3))
    for symmetry in symmetries(pool):
        for first in range(3):
            for second in range(3):
                own, other = pool.route(first, second), pool.route(symmetry[first], symmetry[second])
                assert (own.latency_s, own.bandwidth_bytes_per_s) == (other.latency_s, other.bandwidth_bytes_per_s)
    assert symmetries(pool)[0] == identity


def test_partitions_compute_the_original() -> None:
    check_end_to_end(RESIDUAL, adaptive_pool(2, 1), "ilp")


@pytest.mark.parametrize(("name", "layer"), [("two inputs", "right"), ("two outputs", "last")])
def test_sets_that_could_overlap_are_refused(name: str, layer: str) -> None:
    pool = random_pool(0, 2, fast=True)
    with pytest.raises(UsageError, match=f"layer '{layer}' does not wait for all.*use --search exact"):
        ilp(problem(OPEN[name], pool), pool, SearchOptions())
    # Of a single accelerator there is one set, and nothing to overlap.
    alone = pool_of(1)
    _agree(problem(OPEN[name], alone), alone)


def test_an_output_that_leaves_early_is_refused() -> None:
    pool = random_pool(0, 2, fast=True)
    posed = problem(CHAIN, pool)
    early = replace(posed, outputs=(*posed.outputs, Source(0, 0)))
    with pytest.raises(UsageError, match="layer 'first' makes an output of the model before the end"):
        ilp(early, pool, SearchOptions())


def test_large_pools_are_refused() -> None:
    pool = pool_of(4, 4)
    with pytest.raises(UsageError, match=r"has 8 accelerators.*use --search exact"):
        ilp(problem(CHAIN, pool), pool, SearchOptions())


def test_large_networks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mars_onnx.search.milp.search._MOST_STRATEGIES", 100)
    pool = some_of_fpga_pool(0, 1, 2, 3)
    with pytest.raises(UsageError, match=r"strategies on all sets.*too large above 100; use --search exact"):
        ilp(problem(CHAIN, pool), pool, SearchOptions())


def test_too_little_memory_is_refused() -> None:
    pool = pool_of(2, memory_bytes=12_000)
    with pytest.raises(UsageError, match="more memory than the pool"):
        ilp(problem(RESIDUAL, pool), pool, SearchOptions())


def test_no_time_gives_the_greedy_mapping_and_a_bound() -> None:
    pool = adaptive_pool(2, 1)
    posed = problem(RESIDUAL, pool)
    found = ilp(posed, pool, SearchOptions(time_limit_s=1e-9))
    assert found.ending is Ending.TIME_LIMIT
    assert found.lower_bound_s is not None
    assert found.lower_bound_s <= _solved(posed, pool) <= found.cost_s


def test_an_interrupt_ends_it() -> None:
    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    pool = adaptive_pool(2, 2)
    posed = problem(RESIDUAL, pool)
    found = ilp(posed, pool, SearchOptions(report=stop))
    assert found.ending is Ending.INTERRUPTED
    assert found.cost_s == evaluate(posed, pool, found.mapping).latency_s


def test_all_methods_are_those_for_problems_of_any_size() -> None:
    assert "ilp" not in comparators([ALL], "greedy")
    assert comparators(["ilp"], "greedy") == ("ilp",)
