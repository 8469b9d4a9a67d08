"""The quick prices of the comparators are those of the evaluator, on random mappings."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from mars_onnx.pool.loader import load_pool
from mars_onnx.pool.topology import Pool
from mars_onnx.search.comparators.alike import kind_of
from mars_onnx.search.comparators.options import options
from mars_onnx.search.comparators.pricer import Pricer
from mars_onnx.search.comparators.structure import Structure
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.method import Objective
from mars_onnx.sharding.mapping import AcceleratorSet
from tests.search.networks import BRANCHES, CHAIN, RESIDUAL, adaptive_pool, problem

#: Two trunks from one input, a tensor that three take, and one that is taken twice by the same layer.
SHARING = """
sharing (float[1,8,12,12] x) => (float[1,8,12,12] z, float[1,8,12,12] u) {
    [one] a = Conv <pads = [1,1,1,1]> (x, w8x8x3x3)
    [two] b = Conv <pads = [1,1,1,1]> (x, w8x8x3x3)
    [three] c = Relu (x)
    [square] d = Mul (a, a)
    [sum] e = Add (a, b)
    [more] f = Add (e, c)
    [join] z = Add (d, f)
    [again] u = Conv <pads = [1,1,1,1]> (a, w8x8x3x3)
}"""


def sets_of(pool: Pool, rng: np.random.Generator) -> list[AcceleratorSet]:
    """Some disjoint sets in order of rank, each in a random design where there is a choice."""
    cuts = sorted(
        rng.choice(np.arange(1, pool.size), size=int(rng.integers(0, min(3, pool.size - 1) + 1)), replace=False)
    )
    sets = []
    for start, stop in pairwise([0, *map(int, cuts), pool.size]):
        pick = int(rng.integers(0, 3))
        designs = tuple(own.designs[pick % len(own.designs)].name for own in pool.accelerators[start:stop])
        sets.append(AcceleratorSet(tuple(range(start, stop)), designs))
    return sets


TEXTS = {"chain": CHAIN, "residual": RESIDUAL, "branches": BRANCHES, "sharing": SHARING}
POOLS = {"fpga": load_pool("fpga_pool"), "mixed": load_pool("mixed_pool"), "uneven": adaptive_pool(3, 2)}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("pool_name", POOLS)
def test_prices_are_the_evaluators(name: str, objective: Objective, pool_name: str) -> None:
    text, pool = TEXTS[name], POOLS[pool_name]
    rng = np.random.default_rng(7)
    posed = problem(text, pool)
    pricer = Pricer(posed, pool, lambda signature, own: options(signature, len(own.members)))
    checked = 0
    for _ in range(4):
        sets = sets_of(pool, rng)
        structure = Structure(pricer, sets, rng.integers(0, len(sets), len(posed.layers)).tolist(), objective)
        genes = np.stack([rng.integers(0, structure.counts) for _ in range(3)])
        costs = structure.costs(genes)
        bounds = Structure(pricer, sets, structure.places, objective).costs(genes, 0.0)
        for row, cost in zip(genes, costs, strict=True):
            if np.isfinite(cost):
                exact = evaluate(posed, pool, structure.mapping(row)).cost_s(objective)
                assert cost == pytest.approx(exact, rel=1e-12)
                checked += 1
        assert (bounds == costs).all()  # what has been worked out stays known
        best = structure.cheapest(genes)
        assert best is not None
        assert best[1] == costs.min()
        assert costs[best[0]] == costs.min()
        assert structure.cheapest(genes, float(costs.min())) is None
    assert checked > 5


def test_terms_that_are_forgotten_are_worked_out_again() -> None:
    pool = adaptive_pool(2)
    posed = problem(CHAIN, pool)
    pricer = Pricer(posed, pool, lambda signature, own: options(signature, len(own.members)))
    sets = [AcceleratorSet((0, 1), ("systolic", "systolic"))]
    genes = np.array([[1, 1, 1], [2, 1, 3]])
    before = Structure(pricer, sets, [0, 0, 0]).costs(genes)
    pricer.forget()
    assert np.isnan(pricer.terms).all()
    assert (Structure(pricer, sets, [0, 0, 0]).costs(genes) == before).all()


def test_a_mapping_over_the_limit_is_not_worked_out() -> None:
    pool = adaptive_pool(2, 2)
    posed = problem(CHAIN, pool)
    pricer = Pricer(posed, pool, lambda signature, own: options(signature, len(own.members)))
    structure = Structure(pricer, [AcceleratorSet((0, 1, 2, 3), ("systolic",) * 4)], [0, 0, 0])
    scattered = [
        [str(s) for s in own].index(text)
        for own, text in zip(structure.options, ("ES(H=4)", "ES(W=4)", "ES(Cout=4)"), strict=True)
    ]
    genes = np.array([scattered])
    bound = structure.costs(genes, 1e-9)[0]
    assert np.isnan(pricer.terms).all() or bound > 1e-9
    exact = structure.costs(genes)[0]
    assert 1e-9 < bound < exact


def test_sets_that_are_alike() -> None:
    pool = load_pool("fpga_pool")
    assert kind_of(pool, (0, 1, 2, 3)) == kind_of(pool, (4, 5, 6, 7))
    assert kind_of(pool, (0, 1)) == kind_of(pool, (2, 3)) == kind_of(pool, (5, 7))
    assert kind_of(pool, (0, 1)) != kind_of(pool, (0, 4))
    assert kind_of(pool, (0, 1, 2, 4)) != kind_of(pool, (0, 4, 5, 6))
    assert kind_of(pool, (0, 1), (4, 5)) == kind_of(pool, (2, 3), (6, 7))
    assert kind_of(pool, (0, 1), (4, 5)) != kind_of(pool, (0, 1), (2, 3))
    mixed = load_pool("mixed_pool")
    kinds = {(own.kind, own.designs): own.rank for own in mixed.accelerators}
    first, second, *_ = kinds.values()
    assert kind_of(mixed, (first,)) != kind_of(mixed, (second,))
