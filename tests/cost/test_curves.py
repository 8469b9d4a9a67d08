"""Piecewise linear functions, against the numbers they stand for."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from mars_onnx.cost import Interconnect
from mars_onnx.cost.curves import Curve
from mars_onnx.geometry import volume
from mars_onnx.pool.loader import load_pool
from mars_onnx.redistribution.plan import Collective, Pattern
from mars_onnx.redistribution.planner import redistribute
from tests.pool_factory import pool_of
from tests.redistribution.layouts import random_pair

SIZES = [10.0**power * step for power in range(-3, 8) for step in (1.0, 1.7, 3.1, 6.4)]


def lines(rng: random.Random, whole: bool) -> list[tuple[float, float]]:
    """Lines that cross where sizes are; with ``whole`` numbers, many in one place."""
    if whole:
        return [(float(rng.randint(0, 4)), float(rng.randint(0, 4))) for _ in range(rng.randint(1, 6))]
    return [(rng.uniform(0, 10), rng.uniform(0, 10) ** 2 / 10) for _ in range(rng.randint(1, 6))]


@pytest.mark.parametrize("seed", range(300))
def test_curves_are_the_sums_maxima_and_minima_they_stand_for(seed: int) -> None:
    rng = random.Random(seed)
    makers = [lines(rng, rng.random() < 0.5) for _ in range(rng.randint(1, 5))]
    curves = [Curve.highest(own) for own in makers]
    times = [rng.randint(1, 3) for _ in curves]
    terms = list(zip(times, curves, strict=True))
    nested = [Curve.sum(terms), Curve.least(curves), Curve.most(curves)]
    # On both sides of every corner, and wherever else.
    corners = [start for curve in (*curves, *nested) for start in curve.starts if start]
    for size in [*SIZES, *(corner * factor for corner in corners for factor in (1 - 1e-9, 1.0, 1 + 1e-9))]:
        values = [max(base + slope * size for base, slope in own) for own in makers]
        added = sum(count * value for count, value in zip(times, values, strict=True))
        assert Curve.sum(terms).at(size) == pytest.approx(added, rel=1e-12)
        assert Curve.least(curves).at(size) == pytest.approx(min(values), rel=1e-12)
        assert Curve.most(curves).at(size) == pytest.approx(max(values), rel=1e-12)
        assert Curve.least(nested).at(size) == pytest.approx(min(values), rel=1e-12)
        assert Curve.most(nested).at(size) == pytest.approx(added, rel=1e-12)


def test_straight_pieces_are_not_cut() -> None:
    assert Curve.highest([(0.0, 2.0), (1.0, 2.0), (1.0, 1.0)]) == Curve.straight(1.0, 2.0)
    assert Curve.highest([(0.0, 2.0), (1.0, 1.0)]) == Curve((0.0, 1.0), ((1.0, 1.0), (0.0, 2.0)))
    assert Curve.least([Curve.straight(1.0, 1.0)] * 3) == Curve.straight(1.0, 1.0)


def by_arrays(net: Interconnect, collective: Collective, width: float) -> float:
    """Seconds by the methods that take bytes, without curves and from whole boxes."""
    group, inputs = collective.group, collective.inputs
    given = [volume(one.box) * width if one else 0.0 for one in inputs]
    taken = [volume(one.box) * width if one else 0.0 for one in collective.outputs]
    if collective.pattern is Pattern.ALL_REDUCE:
        return float(net.all_reduce(group, given[0]))
    if collective.pattern is Pattern.ALL_GATHER:
        return float(net.all_gather(group, given))
    if collective.pattern is Pattern.REDUCE_SCATTER:
        return float(net.reduce_scatter(group, taken))
    if collective.pattern is Pattern.BROADCAST:
        return float(net.broadcast(group, given[0]))
    if collective.pattern is Pattern.SEND_RECV:
        return float(net.exchange([(group[0], group[1])], given[:1]))
    if collective.pattern is Pattern.SHIFT:
        return float(
            net.exchange([(rank, group[(i + collective.offset) % len(group)]) for i, rank in enumerate(group)], given)
        )
    matrix = np.array(
        [
            [
                np.prod([max(0, min(b, d) - max(a, c)) for (a, b), (c, d) in zip(one.box, other.box, strict=True)])
                if one and other
                else 0
                for other in collective.outputs
            ]
            for one in inputs
        ]
    )
    return float(net.all_to_all(group, matrix * width))


@pytest.mark.parametrize("name", ["fpga_pool", "large_pool", "fpga_tree_pool", "mixed_pool"])
def test_plans_cost_what_their_messages_do(name: str) -> None:
    """One interconnect for all, so that curves that were made for one size serve another."""
    pool = load_pool(name)
    net, seen = Interconnect(pool), set()
    rng = random.Random(name)
    for seed in range(400):
        for collective in redistribute(*random_pair(seed)).collectives:
            if max(collective.group) >= pool.size:
                continue
            width = rng.choice((0.5, 2, 4, 1000, 123456))
            seen.add(collective.pattern)
            assert net.collective(collective, width) == pytest.approx(by_arrays(net, collective, width), rel=1e-12)
    assert len(seen) >= 7


def test_rules_of_a_pool_count_in_curves_too() -> None:
    slow = pool_of(8)
    rules = replace(slow.collectives, chunks=3, endpoint_latency_s=1e-5, reduction_bytes_per_s=1e8)
    pool = replace(slow, collectives=rules, _trees={}, _routes={})
    for seed in range(200):
        for collective in redistribute(*random_pair(seed)).collectives:
            if max(collective.group) < pool.size:
                net = Interconnect(pool)
                assert net.collective(collective, 4) == pytest.approx(by_arrays(net, collective, 4), rel=1e-12)
