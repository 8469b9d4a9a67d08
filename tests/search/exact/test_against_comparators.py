"""No other method finds anything below what exact search calls proven, also on unequal accelerators."""

from __future__ import annotations

import pytest

from mars_onnx.pool.loader import load_pool
from mars_onnx.search.method import Ending, Objective, SearchOptions
from mars_onnx.search.names import TITLES
from mars_onnx.search.registry import METHODS
from tests.search.networks import BRANCHES, CHAIN, RESIDUAL, problem

#: Two layers that one accelerator does better than the other each, and back: sets of exact search come once.
THERE_AND_BACK = """
mixed (float[1,64,128] x) => (float[1,64,128] z) {
    [first] a = MatMul (x, w128x128)
    [act] b = Softmax (a)
    [middle] c = MatMul (b, w128x256)
    [norm] d = Softmax (c)
    [last] z = MatMul (d, w256x128)
}"""
NETWORKS = {"chain": CHAIN, "residual": RESIDUAL, "branches": BRANCHES, "back": THERE_AND_BACK}


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("pool_name", ["mixed_pool", "edge_pool", "h2h_pool", "fpga_pool"])
@pytest.mark.parametrize("name", NETWORKS)
def test_none_is_below_a_proof(name: str, pool_name: str, objective: Objective) -> None:
    pool = load_pool(pool_name)
    posed = problem(NETWORKS[name], pool)
    options = SearchOptions(objective=objective, time_limit_s=5)
    found = METHODS["exact"].choose(posed, pool, options)
    others = [own for own in TITLES if own not in ("exact", "genetic") and not METHODS[own].small]
    for other in others:
        if objective in METHODS[other].objectives:
            cost_s = METHODS[other].choose(posed, pool, options).cost_s
            if found.ending is Ending.PROVEN:
                assert cost_s >= found.cost_s * (1 - 1e-9), other
            assert found.lower_bound_s is not None
            assert cost_s >= found.lower_bound_s * (1 - 1e-9), other
