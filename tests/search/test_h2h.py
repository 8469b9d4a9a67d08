"""H2H: what goes where, by hand; and its quick costs against the evaluator's."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from mars_onnx.pool.loader import load_pool
from mars_onnx.search.comparators.h2h import (
    _least_last_finish,
    design_choices,
    designs_in_turn,
    first_step,
    h2h,
    h2h_fixed,
    remap,
)
from mars_onnx.search.comparators.single import single
from mars_onnx.search.comparators.trials import Stopwatch
from mars_onnx.search.comparators.whole_layers import WholeLayers, takes_of, units_of
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.method import Objective, SearchOptions
from mars_onnx.search.problem import Problem
from tests.search.networks import BRANCHES, CHAIN, RESIDUAL, adaptive_pool, problem
from tests.search.test_pricer import SHARING

#: Like BRANCHES, but there is so much to compute that three accelerators pay.
BUSY_BRANCHES = """
busy (float[1,64,16,16] x, float[1,64,16,16] y, float[1,64,16,16] v) => (float[1,4,16,16] z) {
    [conv_x] a = Conv <pads = [1,1,1,1]> (x, w512x64x3x3)
    [relu_x] b = Relu (a)
    [next_x] c = Conv (b, w4x512x1x1)
    [conv_y] d = Conv <pads = [1,1,1,1]> (y, w512x64x3x3)
    [relu_y] e = Relu (d)
    [next_y] f = Conv (e, w4x512x1x1)
    [conv_v] g = Conv <pads = [1,1,1,1]> (v, w512x64x3x3)
    [relu_v] h = Relu (g)
    [next_v] i = Conv (h, w4x512x1x1)
    [join] j = Concat <axis = 1> (c, f, i)
    [tail] z = Conv (j, w4x12x1x1)
}"""


def units_by_name(posed: Problem) -> list[list[str]]:
    return [[posed.layers[layer].name for layer in unit] for unit in units_of(posed, takes_of(posed))]


def test_light_layers_stay_with_what_they_follow() -> None:
    pool = adaptive_pool(2)
    assert units_by_name(problem(RESIDUAL, pool)) == [
        ["stem", "act"],
        ["left"],
        ["sum", "out", "pool", "flat"],
        ["fc"],
    ]
    assert units_by_name(problem(BRANCHES, pool)) == [
        ["conv_x", "relu_x"],
        ["conv_y", "relu_y"],
        ["conv_v", "relu_v"],
        ["join"],
        ["tail"],
    ]


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("text", [CHAIN, RESIDUAL, BRANCHES, SHARING], ids=["chain", "residual", "branches", "sharing"])
def test_costs_are_the_evaluators(text: str, objective: Objective) -> None:
    rng = random.Random(5)
    for pool in (load_pool("fpga_pool"), load_pool("mixed_pool")):
        posed = problem(text, pool)
        for designs in design_choices(pool):
            costs = WholeLayers(posed, pool, designs, objective)
            ranks = [rng.randrange(pool.size) for _ in posed.layers]
            exact = evaluate(posed, pool, costs.mapping(ranks)).cost_s(objective)
            assert costs.cost(ranks) == pytest.approx(exact, rel=1e-12)


def test_designs_are_all_the_same_or_in_turn() -> None:
    assert design_choices(adaptive_pool(2, 2)) == [
        ("superlip",) * 4,
        ("systolic",) * 4,
        ("winograd",) * 4,
        ("superlip", "systolic") * 2,
    ]
    mixed = load_pool("mixed_pool")
    assert all(
        own.design(name)
        for designs in design_choices(mixed)
        for own, name in zip(mixed.accelerators, designs, strict=True)
    )


@pytest.mark.parametrize("text", [CHAIN, RESIDUAL, BUSY_BRANCHES], ids=["chain", "residual", "branches"])
def test_given_designs_are_kept_and_no_start_is_added(text: str) -> None:
    pool = adaptive_pool(4)
    posed = problem(text, pool)
    result = h2h_fixed(posed, pool, SearchOptions())
    given = designs_in_turn(pool)
    assert given == ("superlip", "systolic", "winograd", "superlip")
    for own in result.mapping.sets:
        assert len(own.members) == 1
        assert own.designs == (given[own.members[0]],)
    # The first step, and moves of the fourth for as long as one helps: by hand.
    costs = WholeLayers(posed, pool, given, Objective.LATENCY)
    units = units_of(posed, costs.takes)
    ranks = first_step(posed, costs, units)
    while remap(posed, costs, units, ranks, Stopwatch(SearchOptions())):
        pass
    assert result.cost_s == pytest.approx(costs.cost(ranks), rel=1e-12)
    assert result.mapping == costs.mapping(ranks)
    # What chooses among designs and starts has these among them.
    assert h2h(posed, pool, SearchOptions()).cost_s <= result.cost_s


def test_ready_layers_go_where_the_last_finishes_soonest() -> None:
    # The second accelerator is twice as fast. Both long layers there end at 2 and 4, the short one on the first at 2;
    # the only other way to end at 4 has one long layer on the first (4), and 2 and 3 on the second: a larger sum.
    seconds = [[4.0, 2.0], [4.0, 2.0], [2.0, 1.0]]
    either = [[0, 1]] * 3
    picks = _least_last_finish(seconds, [0.0] * 3, either, [0.0, 0.0])
    ends = {0: 0.0, 1: 0.0}
    total = 0.0
    for own, rank in zip(seconds, picks, strict=True):
        ends[rank] += own[rank]
        total += ends[rank]
    assert max(ends.values()) == 4.0
    assert total == 8.0  # the second: 2 and 4; the first: 2
    assert picks == [1, 1, 0]
    # A layer that may only run on the first does so.
    assert _least_last_finish(seconds, [0.0] * 3, [[0], [0, 1], [0, 1]], [0.0, 0.0])[0] == 0
    # What is not ready before 10 ends at 11 at the earliest.
    assert _least_last_finish([[1.0, 1.0]], [10.0], [[0, 1]], [0.0, 10.5]) == [0]


def test_branches_run_side_by_side() -> None:
    pool = adaptive_pool(4)
    posed = problem(BUSY_BRANCHES, pool)
    result = h2h(posed, pool, SearchOptions())
    homes = {name: result.mapping.choice(name).set_index for name in ("conv_x", "conv_y", "conv_v")}
    assert len(set(homes.values())) == 3
    for trunk in "xyv":
        assert result.mapping.choice(f"relu_{trunk}").set_index == homes[f"conv_{trunk}"]
    assert result.cost_s < single(posed, pool, SearchOptions()).cost_s


@pytest.mark.parametrize("text", [CHAIN, RESIDUAL, BRANCHES], ids=["chain", "residual", "branches"])
def test_never_worse_than_one_accelerator(text: str) -> None:
    pool = adaptive_pool(2, 2)
    posed = problem(text, pool)
    assert h2h(posed, pool, SearchOptions()).cost_s <= single(posed, pool, SearchOptions()).cost_s


def test_remapping_only_helps_and_ends() -> None:
    pool = adaptive_pool(2, 2)
    posed = problem(BUSY_BRANCHES, pool)
    costs = WholeLayers(posed, pool, ("systolic",) * 4, Objective.LATENCY)
    units = units_of(posed, costs.takes)
    scattered = [number % 4 for number in range(len(posed.layers))]
    before = costs.cost(scattered)
    rounds = 0
    while remap(posed, costs, units, scattered, Stopwatch(SearchOptions())):
        after = costs.cost(scattered)
        assert after < before
        before = after
        rounds += 1
    assert 0 < rounds < 20
    for unit in units:  # no single unit can go to a neighbour's accelerator and gain
        for rank in range(4):
            tried = list(scattered)
            for layer in unit:
                tried[layer] = rank
            neighbours = {
                scattered[take.source.layer]
                for layer in unit
                for take in costs.takes[layer]
                if take.source.layer is not None
            }
            if rank in neighbours:
                assert costs.cost(tried) >= before


def test_tied_layers_stay_together() -> None:
    pool = adaptive_pool(4)
    posed = problem(BUSY_BRANCHES, pool)
    names = [layer.name for layer in posed.layers]
    tied = replace(posed.layers[names.index("conv_y")], tied=(names.index("conv_x"),))
    layers = (*posed.layers[: names.index("conv_y")], tied, *posed.layers[names.index("conv_y") + 1 :])
    together = Problem(layers, posed.outputs)
    mapping = h2h(together, pool, SearchOptions()).mapping
    assert mapping.choice("conv_x").set_index == mapping.choice("conv_y").set_index
    costs = WholeLayers(together, pool, ("systolic",) * 4, Objective.LATENCY)
    ranks = first_step(together, costs, units_of(together, costs.takes))
    assert ranks[names.index("conv_x")] == ranks[names.index("conv_y")]
