"""The genetic algorithm: its two levels, its seed, and that it gets where it can be said what is best."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from mars_onnx.pool.loader import load_pool
from mars_onnx.pool.topology import Pool
from mars_onnx.search.comparators.genetic import genetic
from mars_onnx.search.comparators.genetic.forms import Form, forms_of, nearest
from mars_onnx.search.comparators.genetic.method import _offers
from mars_onnx.search.comparators.genetic.settings import Settings
from mars_onnx.search.comparators.genetic.strategies import Herd
from mars_onnx.search.comparators.genetic.structures import Breeder, Plan
from mars_onnx.search.comparators.pricer import Pricer
from mars_onnx.search.comparators.structure import Structure
from mars_onnx.search.comparators.uniform import uniform
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.method import SearchOptions
from mars_onnx.search.problem import Problem
from mars_onnx.sharding.mapping import AcceleratorSet
from mars_onnx.sharding.strategy import parse_strategy
from tests.search.networks import BRANCHES, CHAIN, RESIDUAL, adaptive_pool, problem


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def herd(posed: Problem, pool: Pool) -> Herd:
    """Of all accelerators as one set."""
    own = AcceleratorSet(tuple(range(pool.size)), ("systolic",) * pool.size)
    structure = Structure(Pricer(posed, pool, _offers(pool)), [own], [0] * len(posed.layers))
    return Herd(structure, Settings(), generator(0))


def test_finds_the_best_of_all_strategies_of_a_chain() -> None:
    """On one accelerator pair, all strategies of three layers are few enough to look at."""
    pool = adaptive_pool(2)
    posed = problem(CHAIN, pool)
    result = genetic(posed, pool, SearchOptions())
    best = float("inf")
    for designs in product(("superlip", "systolic", "winograd"), repeat=1):
        for members in ((0,), (0, 1)):
            own = AcceleratorSet(members, designs * len(members))
            structure = Structure(Pricer(posed, pool, _offers(pool)), [own], [0] * len(posed.layers))
            rows = np.array(list(product(*(range(count) for count in structure.counts))), np.intp)
            found = structure.cheapest(rows, best)
            best = best if found is None else found[1]
    assert result.cost_s <= best * (1 + 1e-9)


def test_seeds() -> None:
    pool = adaptive_pool(2, 2)
    posed = problem(BRANCHES, pool)
    few = Settings(structures=3, rounds=1, born=2, strategies=6, children=4, trial=1, final=2)
    answers = [genetic(posed, pool, SearchOptions(seed=5), few) for _ in range(2)]
    assert answers[0] == answers[1]
    draws = [Breeder(posed, pool, 3.0, generator(seed)).start(20) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("text", [CHAIN, RESIDUAL, BRANCHES], ids=["chain", "residual", "branches"])
def test_more_generations_are_no_worse(text: str) -> None:
    pool = adaptive_pool(2, 2)
    posed = problem(text, pool)
    few = Settings(structures=2, rounds=0, strategies=8, trial=0, final=0)
    assert genetic(posed, pool, SearchOptions()).cost_s <= genetic(posed, pool, SearchOptions(), few).cost_s


def test_evolution_keeps_the_best_and_only_improves() -> None:
    pool = load_pool("fpga_pool")
    own = herd(problem(RESIDUAL, pool), pool)
    population = own.begin(np.zeros((0, 8), np.intp))
    assert population.costs.tolist() == sorted(population.costs)
    assert len(np.unique(population.genes, axis=0)) == len(population.genes) <= Settings().strategies
    for _ in range(5):
        born = np.array([own.child(population) for _ in range(10)], np.intp)
        assert (born >= 0).all()
        assert (born < own.structure.counts).all()
        after = own.joined(population, np.unique(born, axis=0))
        assert after.costs[0] <= population.costs[0]
        population = after
    exact = evaluate(own.structure.pricer.problem, pool, own.structure.mapping(population.genes[0])).latency_s
    assert population.costs[0] == pytest.approx(exact, abs=1e-12)


def test_draws_prefer_what_computes_quickly() -> None:
    pool = load_pool("fpga_pool")
    posed = problem(CHAIN, pool)
    own = herd(posed, pool)
    seconds = np.array(own.structure.profile(2))
    drawn = np.array([seconds[own.draw(2)] for _ in range(500)])
    assert drawn.mean() < np.mean(seconds[np.isfinite(seconds)])
    assert own.least <= own.begin(np.zeros((0, 3), np.intp)).costs[0]


def test_plans_stay_sound() -> None:
    pool = load_pool("fpga_pool")
    posed = problem(BRANCHES, pool)
    breeder = Breeder(posed, pool, 3.0, generator(1))
    plans = breeder.start(12)
    assert plans[0].sets == (tuple(range(8)),)
    assert ((0, 1, 2, 3), (4, 5, 6, 7)) in [plan.sets for plan in plans]
    for _ in range(300):
        one, other = (plans[int(breeder.rng.integers(len(plans)))] for _ in range(2))
        plan = breeder.mutated(breeder.crossed(one, other))
        assert sorted(rank for members in plan.sets for rank in members) == list(range(8))
        assert len(plan.designs) == len(plan.sets) == len(plan.cuts) + 1
        assert list(plan.cuts) == sorted(plan.cuts)
        assert all(0 <= cut <= len(posed.layers) for cut in plan.cuts)
        places = plan.places(len(posed.layers))
        assert places == sorted(places)
        plans.append(plan)
    assert len({len(plan.sets) for plan in plans}) >= 4


def test_runs_of_a_plan() -> None:
    assert Plan(((0,), (1,), (2,)), ("a", "b", "c"), (2, 2)).places(4) == [0, 0, 2, 2]
    assert Plan(((0,), (1,)), ("a", "b"), (0,)).places(2) == [1, 1]


def test_forms_of_other_layers_and_sizes() -> None:
    pool = load_pool("fpga_pool")
    conv, relu, _ = (layer.signature for layer in problem(CHAIN, pool).layers)
    offered = _offers(pool)
    eight, four = (AcceleratorSet(tuple(range(n)), ("systolic",) * n) for n in (8, 4))

    def like(text: str, source: tuple[object, ...], target: tuple[object, ...]) -> str:
        strategies = offered(source[0], source[1])  # type: ignore[arg-type]
        form = forms_of(source[0], strategies)[strategies.index(parse_strategy(text))]  # type: ignore[arg-type]
        others = offered(target[0], target[1])  # type: ignore[arg-type]
        return str(others[nearest(form, forms_of(target[0], others))])  # type: ignore[arg-type]

    assert like("ES(Cout=8)", (conv, eight), (relu, eight)) == "ES(C=8)"
    assert like("ES(H=2,W=4)", (conv, eight), (relu, eight)) == "ES(H=2,W=4)"
    assert like("ES(Cin=8) reduce-scatter(Cout)", (conv, eight), (relu, eight)) == "ES(C=8)"
    assert like("ES(Cin=8)", (conv, eight), (relu, eight)) == "whole"
    assert like("ES(H=8) SS(weight)", (conv, eight), (relu, eight)) == "ES(H=8)"
    assert like("ES(C=8)", (relu, eight), (conv, four)) == "ES(Cout=4)"
    assert like("ES(H=4,W=2)", (conv, eight), (conv, four)) == "ES(H=2,W=2)"
    assert like("whole", (relu, eight), (conv, four)) == "whole"
    assert nearest(Form(("D7",)), (Form(), Form(("D1",)))) == 1


@pytest.mark.slow
def test_beats_the_best_uniform_strategy_of_a_large_network() -> None:
    import onnx_ir as ir

    from mars_onnx.models import load_builder
    from mars_onnx.search.problem import problem_of
    from tests.end_to_end.checking import canonical

    pool = load_pool("fpga_pool")
    posed = problem_of(canonical(ir.from_proto(load_builder().build("resnet34")), pool))
    assert genetic(posed, pool, SearchOptions()).cost_s < uniform(posed, pool, SearchOptions()).cost_s
