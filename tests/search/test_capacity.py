"""Exact search where memory binds: bounds against all mappings of small networks, and what is said if nothing fits."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product

import onnx_ir as ir
import pytest

import mars_onnx
from mars_onnx.errors import CapacityError
from mars_onnx.models import load_builder
from mars_onnx.pool.loader import load_pool
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.exact.capacity import Fitting
from mars_onnx.search.exact.search import exact_search
from mars_onnx.search.exact.strategies.cuts import strategies
from mars_onnx.search.memory import memory_needs
from mars_onnx.search.method import Ending, SearchOptions
from mars_onnx.search.problem import Problem
from mars_onnx.sharding.mapping import AcceleratorSet, LayerChoice, Mapping
from mars_onnx.simulation import ADDITIVE
from tests.end_to_end.checking import canonical, check, compile_with
from tests.pool_factory import pool_of
from tests.search.exact.random_pools import random_pool
from tests.search.exact.test_against_brute_force import NETWORKS
from tests.search.networks import network, problem
from tests.simulation.partitions import simulated

#: Few rows and large weights: without a limit the rows are cut, and everybody has all weights.
PERCEPTRON = """
perceptron (float[64,48] x) => (float[64,16] z) {
    [first] a = Gemm (x, w48x64)
    [middle] b = Relu (a)
    [last] z = Gemm (b, w64x16)
}"""
#: Of which each accelerator of two holds half or all of the weights, 16 KiB.
CAPS = [24000, 28000, 32000, 36000, 48000]


@cache
def everything() -> tuple[tuple[float, int], ...]:
    """Cost and need of all mappings onto both accelerators, and onto one."""
    pool = pool_of(2)
    posed = problem(PERCEPTRON, pool)
    found: list[tuple[float, int]] = []
    for members, levels in (((0,), (1,)), ((0, 1), (2,))):
        own = (AcceleratorSet(members, (pool.accelerators[0].designs[0].name,) * len(members)),)
        for chosen in product(*(strategies(layer.signature, levels) for layer in posed.layers)):
            layers = tuple(LayerChoice(layer.name, 0, s) for layer, s in zip(posed.layers, chosen, strict=True))
            mapping = Mapping(own, layers, ())
            needs = memory_needs(posed, pool, mapping)
            cost_s = evaluate(posed, pool, mapping).latency_s
            found.append((cost_s, max(need.total_bytes for need in needs.values())))
    return tuple(found)


@pytest.mark.parametrize("cap", CAPS)
def test_nothing_that_fits_is_below_the_bound(cap: int) -> None:
    fitting = [cost_s for cost_s, needed in everything() if needed <= cap]
    pool = pool_of(2, memory_bytes=cap)
    posed = problem(PERCEPTRON, pool)
    if not fitting:
        with pytest.raises(CapacityError):
            exact_search(posed, pool, SearchOptions())
        return
    result = exact_search(posed, pool, SearchOptions())
    assert result.lower_bound_s is not None
    assert result.lower_bound_s <= min(fitting) * (1 + 1e-12)
    assert max(need.total_bytes for need in memory_needs(posed, pool, result.mapping).values()) <= cap
    if result.ending is Ending.PROVEN:
        assert result.cost_s <= min(fitting) * (1 + 1e-9)


def test_some_limits_change_the_mapping_and_one_leaves_nothing() -> None:
    best = min(everything())
    assert min(CAPS) < best[1]
    assert any(needed <= cap for cap in CAPS if cap < best[1] for _, needed in everything())


@pytest.mark.parametrize("cap", [32000, 36000])
def test_partitions_fit_and_compute_the_same(cap: int) -> None:
    source, pool = network(PERCEPTRON), pool_of(2, memory_bytes=cap)
    graph = canonical(source, pool)
    result = exact_search(problem(PERCEPTRON, pool), pool, SearchOptions())
    found = compile_with(source, graph, result.mapping, pool)
    check(found)
    assert all(use.peak_bytes <= cap for use in simulated(found, ADDITIVE).ranks.values())


def test_price_0_is_the_search_without_a_limit() -> None:
    pool = pool_of(2)
    posed: Problem = problem(PERCEPTRON, pool)
    fitting = Fitting(posed, pool)
    fitting.run()
    result = exact_search(posed, pool, SearchOptions())
    assert fitting.best[0][0] == pytest.approx(result.cost_s, rel=1e-9)
    assert fitting.bound_s == pytest.approx(result.cost_s, rel=1e-8)


@pytest.mark.parametrize("cap", [2000, 12000])
def test_what_is_missing_is_named(cap: int) -> None:
    pool = pool_of(2, memory_bytes=cap)
    posed = problem(PERCEPTRON, pool)
    with pytest.raises(CapacityError, match=r"a\d: \d+ bytes are missing: it has \d+.*(first|middle|last)"):
        exact_search(posed, pool, SearchOptions())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mib", "gap"), [("vgg16", 100, 0.0), ("vgg16", 72, 0.15), ("resnet101", 40, 0.05)])
def test_reference_networks_fit_small_memories(name: str, mib: int, gap: float) -> None:
    """Every partition runs within the limit in the simulator, and the answer is not far from the bound."""
    shipped = load_pool("fpga_pool")
    pool = replace(shipped, accelerators=tuple(replace(own, memory_bytes=mib * 2**20) for own in shipped.accelerators))
    done = mars_onnx.compile(ir.from_proto(load_builder().build(name)), pool, time_limit_s=300)
    assert max(use.peak_bytes for use in done.simulation.ranks.values()) <= mib * 2**20
    assert done.found.result.gap is not None
    assert done.found.result.gap <= gap


def test_what_fits_is_taken_though_what_is_better_at_that_price_does_not() -> None:
    """It was refused, with a number of missing bytes below zero."""
    pool = random_pool(2, 4, fast=True)
    pool = replace(pool, accelerators=tuple(replace(own, memory_bytes=241) for own in pool.accelerators))
    chain = problem(NETWORKS["chain"], pool)
    found = exact_search(chain, pool, SearchOptions())
    needs = memory_needs(chain, pool, found.mapping)
    assert all(need.total_bytes <= 241 for need in needs.values())
