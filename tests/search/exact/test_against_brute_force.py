"""The search finds what a look at every mapping finds, and proves it."""

from __future__ import annotations

import pytest

from mars_onnx.pool.topology import Pool
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.exact.search import exact_search
from mars_onnx.search.method import Ending, Objective, SearchOptions
from tests.search.exact.brute_force import BruteForce
from tests.search.exact.random_pools import random_pool
from tests.search.networks import problem

CHAIN = """
chain (float[1,4,8,1] x) => (float[1,4,8,1] z) {
    [first] a = Conv <pads = [1,0,1,0]> (x, w4x4x3x1)
    [middle] b = Relu (a)
    [last] z = Conv <pads = [1,0,1,0]> (b, w4x4x3x1)
}"""
RESIDUAL = """
residual (float[1,4,8,1] x) => (float[1,4,8,1] z) {
    [stem] a = Relu (x)
    [left] b = Conv <pads = [1,0,1,0]> (a, w4x4x3x1)
    [sum] z = Add (a, b)
}"""
PROJECTION = """
projection (float[1,4,8,1] x) => (float[1,4,4,1] z) {
    [left] a = Conv <pads = [1,0,1,0], strides = [2,1]> (x, w4x4x3x1)
    [right] b = Conv <strides = [2,1]> (x, w4x4x1x1)
    [sum] z = Add (a, b)
}"""
BRANCHES = """
branches (float[1,4,6,1] x) => (float[1,8,6,1] z) {
    [stem] a = Relu (x)
    [left] b = Conv (a, w4x4x1x1)
    [right] c = Conv (a, w4x4x1x1)
    [join] z = Concat <axis = 1> (b, c)
}"""
TWO_INPUTS = """
inputs (float[1,4,6,1] x, float[1,4,6,1] y) => (float[1,4,6,1] z) {
    [left] a = Conv (x, w4x4x1x1)
    [right] b = Conv (y, w4x4x1x1)
    [sum] z = Add (a, b)
}"""
TWO_OUTPUTS = """
outputs (float[1,4,6,1] x) => (float[1,4,6,1] b, float[1,4,6,1] z) {
    [first] a = Conv (x, w4x4x1x1)
    [side] b = Relu (a)
    [last] z = Conv (a, w4x4x1x1)
}"""
NETWORKS = {
    "chain": CHAIN,
    "residual": RESIDUAL,
    "branches": BRANCHES,
}


SHARED = """
shared (float[1,4,8,1] x) => (float[1,2,8,1] z) {
    [stem] a = Relu (x)
    [left] b = Conv <pads = [1,0,1,0]> (a, w2x4x3x1)
    [right] c = Conv <pads = [1,0,1,0]> (a, w2x4x3x1)
    [sum] z = Add (b, c)
}"""
THREE = """
three (float[1,16,256,1] x) => (float[1,48,256,1] z) {
    [stem] a = Relu (x)
    [left] b = Conv (a, w16x16x1x1)
    [middle] c = Conv (a, w16x16x1x1)
    [right] d = Conv (a, w16x16x1x1)
    [join] z = Concat <axis = 1> (b, c, d)
}"""
FOUR = """
four (float[1,16,256,1] x) => (float[1,64,256,1] z) {
    [stem] a = Conv (x, w16x16x1x1)
    [one] b = Conv <pads = [1,0,1,0]> (a, w16x16x3x1)
    [two] c = Conv <pads = [1,0,1,0]> (a, w16x16x3x1)
    [three] d = Conv (a, w16x16x1x1)
    [join] z = Concat <axis = 1> (a, b, c, d)
}"""
FIVE = """
five (float[1,16,256,1] x) => (float[1,80,256,1] z) {
    [stem] a = Conv (x, w16x16x1x1)
    [one] b = Conv <pads = [1,0,1,0]> (a, w16x16x3x1)
    [two] c = Conv <pads = [1,0,1,0]> (a, w16x16x3x1)
    [three] d = Conv (a, w16x16x1x1)
    [four] e = Conv (a, w16x16x1x1)
    [join] z = Concat <axis = 1> (a, b, c, d, e)
}"""
ATTENTION = """
attention (float[64,64] x) => (float[64,64] z) {
    [stem] a = Relu (x)
    [query] q = MatMul (a, w64x64)
    [key] k = MatMul (a, w64x64)
    [value] v = MatMul (a, w64x64)
    [turned] t = Transpose <perm = [1,0]> (k)
    [scores] s = MatMul (q, t)
    [mixed] m = MatMul (s, v)
    [sum] z = Add (m, a)
}"""
#: Networks in which two layers may share a move.
SHARING = {"shared": SHARED, "projection": PROJECTION}
#: Networks in which more layers may.
MORE_SHARING = {"three": THREE, "four": FOUR, "five": FIVE, "attention": ATTENTION}
#: Networks in which sets may overlap.
OPEN = {"two inputs": TWO_INPUTS, "two outputs": TWO_OUTPUTS}


@pytest.fixture(autouse=True)
def _space_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact search answers from its space alone; what is better outside has tests of its own."""
    monkeypatch.setattr("mars_onnx.search.exact.search._Run.beaten", lambda *_: False)


def _check(text: str, pool: Pool, objective: Objective = Objective.LATENCY) -> None:
    posed = problem(text, pool)
    found = exact_search(posed, pool, SearchOptions(objective))
    assert found.cost_s == evaluate(posed, pool, found.mapping).cost_s(objective)
    assert found.ending is Ending.PROVEN
    assert found.lower_bound_s == found.cost_s
    brute = BruteForce(posed, pool, found.cost_s * (1 - 1e-9), objective)
    brute.run()
    assert brute.best is None, f"{brute.limit} is less than {found.cost_s}: {brute.best}"


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(2))
def test_two_accelerators(name: str, seed: int) -> None:
    _check(NETWORKS[name], random_pool(seed, 2, fast=True))


def test_three_accelerators() -> None:
    _check(CHAIN, random_pool(7, 3, fast=True))


@pytest.mark.parametrize("name", [*NETWORKS, *SHARING, *OPEN])
@pytest.mark.parametrize("seed", [0, 1, 3])
def test_streams_over_two_accelerators(name: str, seed: int) -> None:
    """On pools of which no accelerator is like another: of those that are, the space has the first ones first."""
    text = {**NETWORKS, **SHARING, **OPEN}[name]
    _check(text, random_pool(seed, 2, fast=True), Objective.THROUGHPUT)


@pytest.mark.parametrize("seed", [0, 1])
def test_streams_over_three_accelerators(seed: int) -> None:
    _check(CHAIN, random_pool(seed, 3, fast=True), Objective.THROUGHPUT)


@pytest.mark.parametrize("name", SHARING)
@pytest.mark.parametrize("seed", range(2))
def test_layers_that_share_a_move(name: str, seed: int) -> None:
    pool = random_pool(seed, 2, fast=True)
    posed = problem(SHARING[name], pool)
    found = exact_search(posed, pool, SearchOptions())
    least = BruteForce(posed, pool, found.cost_s * (1 + 1e-9)).run()
    assert found.lower_bound_s is not None
    assert found.lower_bound_s <= least * (1 + 1e-9)
    # Of the other network both layers wait for nothing but the model input, so that sets may overlap.
    assert found.ending is (Ending.PROVEN if name == "shared" else Ending.GAP)
    if found.ending is Ending.PROVEN:
        assert found.cost_s == pytest.approx(least, rel=1e-9)


@pytest.mark.parametrize(("name", "seed"), [("three", 3), ("four", 3)])
def test_more_layers_that_share_moves(name: str, seed: int) -> None:
    _check(MORE_SHARING[name], random_pool(seed, 2, fast=True))


@pytest.mark.parametrize("seed", range(4))
def test_branches_from_several_inputs(seed: int) -> None:
    _check(TWO_INPUTS, random_pool(seed, 2, fast=True))


@pytest.mark.parametrize("seed", range(2))
def test_no_proof_where_the_tables_count_too_much(seed: int) -> None:
    pool = random_pool(seed, 2, fast=True)
    posed = problem(TWO_OUTPUTS, pool)
    found = exact_search(posed, pool, SearchOptions())
    assert found.cost_s == evaluate(posed, pool, found.mapping).latency_s
    assert found.ending is Ending.GAP
    assert found.lower_bound_s is not None
    assert 0 < found.lower_bound_s <= BruteForce(posed, pool, found.cost_s * (1 + 1e-9)).run()
