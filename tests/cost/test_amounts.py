"""A redistribution is priced from the numbers of its steps: as if it were told as collectives first."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from mars_onnx.cost import Interconnect
from mars_onnx.cost.sizes import amounts_of
from mars_onnx.cost.steps import move_seconds
from mars_onnx.cost.timeline import Event, schedule
from mars_onnx.geometry import Layout
from mars_onnx.pool import Pool, load_pool
from mars_onnx.pool.collectives import Overhead
from mars_onnx.redistribution.patterns import Regular
from mars_onnx.redistribution.plan import Pattern
from mars_onnx.redistribution.planner import communication, planned
from tests.redistribution.layouts import mesh_layout, random_pair


def mesh_pair(seed: int) -> tuple[Layout, Layout]:
    """Two layouts of one mesh, the second one with halos or without."""
    chooser = random.Random(seed)
    shape = [chooser.choice((8, 9, 12)) for _ in range(3)]
    mesh = chooser.choice([(4,), (8,), (4, 2), (2, 2, 2)])
    source, target = ([chooser.choice([None, 0, 1, 2]) for _ in mesh] for _ in range(2))
    halo = [chooser.choice((0, 0, 1, 2)) for _ in shape]
    return mesh_layout(shape, mesh, source), mesh_layout(shape, mesh, target, halo=halo)


PAIRS = [pair(seed) for seed in range(400) for pair in (mesh_pair, random_pair)]


def told_seconds(pool: Pool, source: Layout, target: Layout, bits: int) -> float:
    """Collective by collective."""
    net = Interconnect(pool)
    told = communication(source, target, pool.distance)
    return schedule([Event.collective(own.group, net.collective(own, bits / 8)) for own in told]).latency_s


def test_a_step_moves_what_its_collectives_do() -> None:
    seen = set()
    for source, target in PAIRS:
        own = planned(source, target)
        told = communication(source, target)
        assert [*amounts_of(own)] == [*amounts_of(told)]
        seen |= {one.pattern for one in amounts_of(one for one in own if isinstance(one, Regular))}
    assert seen == {Pattern.ALL_GATHER, Pattern.ALL_TO_ALL, Pattern.HALO_EXCHANGE}


@pytest.mark.parametrize("overheads", [{}, {"AllGather": Overhead(1e-5, 2e9, 3e9), "AllToAll": Overhead(0.0, 1e9)}])
def test_a_move_takes_as_long_as_its_collectives(overheads: dict[str, Overhead]) -> None:
    given = load_pool("fpga_tree_pool")
    rules = replace(given.collectives, overheads=overheads)
    pool = replace(given, collectives=rules, sha256=f"of {len(overheads)}", _trees={}, _routes={})
    moved = 0
    for source, target in PAIRS:
        if max(*source.members, *target.members) < pool.size:
            seconds = move_seconds(pool, source, target, 16)
            assert seconds == told_seconds(pool, source, target, 16)
            moved += seconds > 0
    assert moved > 200
