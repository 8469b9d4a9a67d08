"""The baseline, the uniform strategy and the single accelerator: what they choose, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mars_onnx.pool.loader import load_pool
from mars_onnx.rules.base import Signature
from mars_onnx.search.comparators.baseline import baseline_mapping, longest_two, squarest
from mars_onnx.search.comparators.single import single
from mars_onnx.search.comparators.uniform import Way, strategy_of, uniform, ways
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.method import SearchOptions
from mars_onnx.search.problem import Problem
from mars_onnx.search.runs import balanced_runs, possible_cuts, relative_speeds
from mars_onnx.sharding.mapping import AcceleratorSet, LayerChoice, Mapping
from mars_onnx.sharding.strategy import WHOLE
from tests.search.networks import BRANCHES, CHAIN, RESIDUAL, adaptive_pool, problem


@pytest.fixture
def conv() -> Signature:
    """32 x 16 x 3 x 3 on 32 x 32."""
    return problem(CHAIN, adaptive_pool(2)).layers[0].signature


def tied(posed: Problem, layer: int, to: int) -> Problem:
    """The same problem, with a layer that has to be on the set of another."""
    layers = list(posed.layers)
    layers[layer] = replace(layers[layer], tied=(to,))
    return Problem(tuple(layers), posed.outputs)


def test_runs_are_balanced_and_keep_tied_layers_together() -> None:
    posed = problem(RESIDUAL, adaptive_pool(2))
    works = [4.0, 1.0, 4.0, 1.0, 1.0, 1.0, 0.0, 2.0]
    assert balanced_runs(posed, works, 1) == [0] * 8
    assert balanced_runs(posed, works, 2) == [0, 0, 1, 1, 1, 1, 1, 1]  # 5 and 9 is as near to 7 as 9 and 5, and first
    assert balanced_runs(tied(posed, 3, 0), works, 2) == [0, 0, 0, 0, 1, 1, 1, 1]
    assert possible_cuts(tied(posed, 5, 2)) == [1, 2, 6, 7]
    assert balanced_runs(tied(posed, 7, 0), works, 3) == [0] * 8


def test_speeds() -> None:
    assert relative_speeds([1.0, 1.0, 1.04]) == (1, 1, 1)
    assert relative_speeds([1.0, 2.0, 4.0]) == (16, 8, 4)
    assert relative_speeds([0.0, 1.0]) == (1, 1)


def test_longest_two_dimensions(conv: Signature) -> None:
    assert squarest(4) == (2, 2)
    assert squarest(8) == (4, 2)
    assert squarest(3) == (3, 1)
    # Cout, H and W are all 32: the first two that the rule names.
    assert str(longest_two(conv, (0, 1, 2, 3))) == "ES(Cout=2,H=2)"
    assert str(longest_two(conv, tuple(range(8)))) == "ES(Cout=4,H=2)"
    assert str(longest_two(conv, (0, 1, 2))) == "ES(Cout=3)"
    assert longest_two(conv, (0,)) == WHOLE
    relu, pool, fc = (problem(RESIDUAL, adaptive_pool(2)).layers[number].signature for number in (1, 5, 7))
    assert str(longest_two(relu, (0, 1, 2, 3))) == "ES(C=2,H=2)"
    assert str(longest_two(pool, (0, 1, 2, 3))) == "ES(C=4)"  # the image is one pixel: one dimension alone
    assert str(longest_two(fc, (0, 1, 2, 3))) == "ES(N=4)"


def test_baseline_has_a_set_per_group_with_the_design_that_computes_fastest() -> None:
    pool = adaptive_pool(4, 2)
    posed = problem(RESIDUAL, pool)
    mapping = baseline_mapping(posed, pool)
    assert [own.members for own in mapping.sets] == [(0, 1, 2, 3), (4, 5)]
    runs = [choice.set_index for choice in mapping.layers]
    assert runs == sorted(runs)
    assert set(runs) == {0, 1}
    for index, own in enumerate(mapping.sets):
        alone = {}
        for design in ("superlip", "systolic", "winograd"):
            layers = tuple(layer for layer, run in zip(posed.layers, runs, strict=True) if run == index)
            only = Mapping(
                (AcceleratorSet((0,), (design,)),), tuple(LayerChoice(layer.name, 0, WHOLE) for layer in layers)
            )
            # One accelerator moves nothing but inputs and outputs; those are the same in all designs.
            chained = Problem(tuple(replace(layer, sources=(None,) * len(layer.sources)) for layer in layers))
            alone[design] = evaluate(chained, pool, only).latency_s
        assert alone[own.designs[0]] == min(alone.values())
        assert len(set(own.designs)) == 1


def test_a_way_means_the_same_whatever_the_operator_calls_it(conv: Signature) -> None:
    relu, pool, fc = (problem(RESIDUAL, adaptive_pool(2)).layers[number].signature for number in (1, 5, 7))
    four = (0, 1, 2, 3)
    channels = Way((("D1", (1,) * 4),))
    assert [str(strategy_of(s, four, channels)) for s in (conv, relu, pool, fc)] == [
        "ES(Cout=4)",
        "ES(C=4)",
        "ES(C=4)",
        "ES(N=4)",
    ]
    rows = Way((("D2", (1,) * 4),))
    assert [str(strategy_of(s, four, rows)) for s in (conv, relu, pool, fc)] == ["ES(H=4)", "ES(H=4)", "whole", "whole"]
    other = replace(rows, fallback=channels)
    assert [str(strategy_of(s, four, other)) for s in (pool, fc)] == ["ES(C=4)", "ES(N=4)"]
    reduction = Way((("reduction", (1,) * 4),), scatter=True, fallback=channels)
    assert [str(strategy_of(s, four, reduction)) for s in (conv, relu, fc)] == [
        "ES(Cin=4) reduce-scatter(Cout)",
        "ES(C=4)",
        "ES(K=4) reduce-scatter(N)",
    ]
    uneven = Way((("D1", (2, 1, 1, 0)),))
    assert str(strategy_of(relu, four, uneven)) == "ES(C=2:1:1:0)"


def test_all_ways_of_a_size() -> None:
    assert ways(1, (1,)) == (Way(()),)
    found = ways(8, (1,) * 8)
    assert len(found) == len(set(found))
    pairs = {way.splits for way in found if len(way.splits) == 2}
    assert len(pairs) == 12 * 2  # ordered pairs of four dimensions, 2 x 4 and 4 x 2
    assert (("D2", (16, 8)),) in {way.splits for way in ways(2, (16, 8))}


@pytest.mark.parametrize("text", [CHAIN, RESIDUAL, BRANCHES], ids=["chain", "residual", "branches"])
def test_uniform_is_the_best_of_all_ways_on_all_accelerators(text: str) -> None:
    """Against the evaluator, one mapping at a time, without bounds."""
    pool = load_pool("fpga_pool")
    posed = problem(text, pool)
    everyone = tuple(range(8))
    costs = []
    for design in pool.designs:
        for way in ways(8, (1,) * 8):
            choices = tuple(
                LayerChoice(layer.name, 0, strategy_of(layer.signature, everyone, way)) for layer in posed.layers
            )
            mapping = Mapping((AcceleratorSet(everyone, (design,) * 8),), choices)
            costs.append(evaluate(posed, pool, mapping).latency_s)
    found = uniform(posed, pool, SearchOptions())
    assert found.cost_s <= min(costs)
    assert found.cost_s <= single(posed, pool, SearchOptions()).cost_s
    if len(found.mapping.sets) == 1 and len(found.mapping.sets[0].members) == 8:
        assert found.cost_s == min(costs)


def test_single_is_the_best_of_all_accelerators_and_designs() -> None:
    pool = load_pool("mixed_pool")
    posed = problem(RESIDUAL, pool)
    result = single(posed, pool, SearchOptions())
    costs = [
        evaluate(
            posed,
            pool,
            Mapping(
                (AcceleratorSet((own.rank,), (design.name,)),),
                tuple(LayerChoice(layer.name, 0, WHOLE) for layer in posed.layers),
            ),
        ).latency_s
        for own in pool.accelerators
        for design in own.designs
    ]
    assert result.cost_s == min(costs)
    assert len(set(costs)) > 1
