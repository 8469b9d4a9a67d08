"""The price in lockstep: a sum of steps on one set, a makespan over several."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from mars_onnx.compiler import Compilation, compile
from mars_onnx.cost import Interconnect
from mars_onnx.cost.price import Price, price
from mars_onnx.cost.shares import phase_seconds
from mars_onnx.cost.steps import input_seconds, layer_seconds, move_seconds, output_seconds
from mars_onnx.geometry import volume
from mars_onnx.pool.topology import Pool
from mars_onnx.redistribution.planner import redistribute
from mars_onnx.rules.signature import signature_of, tensor_type
from mars_onnx.sharding.lowering import ring_shift
from mars_onnx.sharding.mapping import LayerChoice, Mapping
from mars_onnx.stages import attachments
from mars_onnx.stages.sharded import is_redistribute, sharding_of
from tests.end_to_end.checking import canonical, compile_with
from tests.end_to_end.random_graphs import random_model
from tests.mappings import random_strategy, with_designs
from tests.passes.onnx_text import model
from tests.pool_factory import pool_of
from tests.simulation.partitions import pool_with

LINK_S, LINK_BYTES_PER_S = 1e-6, 1e9
HOST_S, HOST_BYTES_PER_S = 2e-6, 5e8


@pytest.mark.parametrize("seed", range(40))
def test_on_one_set_steps_add_up(seed: int) -> None:
    rng = random.Random(seed)
    source = ir.from_proto(random_model(seed, rng.randint(2, 12)))
    pool = pool_of(rng.choice([2, 3, 4, 5, 8]))
    graph = canonical(source, pool)
    members = tuple(rng.sample(range(pool.size), rng.randint(1, pool.size)))
    choices = tuple(
        LayerChoice(node.name or "", 0, random_strategy(rng, signature_of(node), members)) for node in graph.graph
    )
    made = compile_with(source, graph, Mapping((with_designs(pool, members),), choices), pool)
    priced = price(made.sharded)
    assert priced.latency_s == pytest.approx(sum(by_hand(made.sharded, pool)), rel=1e-12)
    assert priced.latency_s == pytest.approx(sum(by_steps(made.sharded, pool)), rel=1e-12)
    spans = [span for step, span in zip(priced.steps, priced.timeline.steps, strict=True) if step.ranks]
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
    # A step in which nothing happens at all, such as cutting out what is there already, holds nobody up.
    assert all(step.ranks == members if step.events else not step.ranks for step in priced.steps)


def by_steps(graph: ir.Model, pool: Pool) -> list[float]:
    """The functions of ``mars_onnx.cost.steps``, as a search calls them."""
    (own,) = attachments.get_mapping(graph).sets
    found: list[float] = []
    for value in graph.graph.inputs:
        found.append(input_seconds(pool, attachments.get_layout(value), bits_of(value)))
    for node in graph.graph:
        if is_redistribute(node):
            layouts = [attachments.get_layout(value) for value in (node.inputs[0], node.outputs[0]) if value]
            found.append(move_seconds(pool, layouts[0], layouts[1], bits_of(node.outputs[0])))
        else:
            strategy = attachments.get_strategy(node)
            found.append(layer_seconds(pool, signature_of(node), strategy, own.members, own.designs))
    for value in graph.graph.outputs:
        found.append(output_seconds(pool, attachments.get_layout(value), bits_of(value)))
    return found


def by_hand(graph: ir.Model, pool: Pool) -> list[float]:
    """Every step from the interconnect and the seconds of the shares: per rank a clock, the latest counts."""
    mapping = attachments.get_mapping(graph)
    interconnect = Interconnect(pool)
    found: list[float] = []
    for value in graph.graph.inputs:
        layout = attachments.get_layout(value)
        sizes = [(pool.inputs_at, rank, volume(box)) for rank, box in zip(layout.members, layout.boxes, strict=True)]
        found.append(exchange(interconnect, sizes, bits_of(value)))
    for node in graph.graph:
        clock = dict.fromkeys(range(pool.size), 0.0)
        if is_redistribute(node):
            value = node.outputs[0]
            source, target = attachments.get_layout(node.inputs[0]), attachments.get_layout(value)
            for collective in redistribute(source, target, pool.distance).collectives:
                together(clock, collective.group, interconnect.collective(collective, bits_of(value) / 8))
        else:
            sharding = sharding_of(node, mapping)
            phases = phase_seconds(pool, signature_of(node), sharding, mapping.sets[0].designs)
            ring = sharding.ring
            for rank, seconds in zip(sharding.members, phases, strict=True):
                clock[rank] = seconds[0] if ring else sum(seconds)
            for group, pieces in zip(ring.groups, ring.pieces, strict=True) if ring else ():
                bits = bits_of(node.inputs[ring.operand])  # type: ignore[union-attr]
                for phase in range(1, len(group)):
                    for shift in ring_shift(group, pieces, phase - 1):
                        together(clock, shift.group, interconnect.collective(shift, bits / 8))
                    for rank in group:
                        clock[rank] += phases[sharding.members.index(rank)][phase]
        found.append(max(clock.values()))
    for value in graph.graph.outputs:
        layout = attachments.get_layout(value)
        first = {box: rank for rank, box in reversed(list(zip(layout.members, layout.boxes, strict=True)))}
        sizes = [(rank, pool.outputs_at, volume(box)) for box, rank in first.items()]
        found.append(exchange(interconnect, sizes, bits_of(value)))
    return found


def together(clock: dict[int, float], group: tuple[int, ...], seconds: float) -> None:
    end = max(clock[rank] for rank in group) + seconds
    clock.update(dict.fromkeys(group, end))


def exchange(interconnect: Interconnect, sizes: list[tuple[int, int, int]], bits: int) -> float:
    moving = [own for own in sizes if own[2]]
    if not moving:
        return 0.0
    return float(interconnect.exchange([own[:2] for own in moving], np.asarray([own[2] * bits / 8 for own in moving])))


def bits_of(value: ir.Value | None) -> int:
    kind = tensor_type(value)
    assert kind is not None
    return kind.dtype.bitwidth


TWO_BRANCHES = """(float[64,64] x, float[24,64] y) => (float[64,64] u, float[24,64] v) {
    [a] s = MatMul (x, w)
    [b] t = MatMul (y, w)
    [c] u = MatMul (s, w)
    [d] v = MatMul (t, w)
}"""


def compiled(text: str, pool: Pool, folder: Path, sets: list[dict[str, object]]) -> Compilation:
    path = folder / "mapping.json"
    path.write_text(json.dumps({"schema": "mars-onnx/mapping/1", "sets": sets}), encoding="utf-8")
    return compile(model(text, {"w": (64, 64)}), pool, mapping=path)


def step_of(priced: Price, label: str) -> tuple[float, float]:
    return next(span for step, span in zip(priced.steps, priced.timeline.steps, strict=True) if step.label == label)


def test_independent_branches_run_at_the_same_time(tmp_path: Path) -> None:
    sets: list[dict[str, object]] = [
        {"accelerators": ["a0", "a1"], "layers": {"a": "ES(M=2)", "c": "ES(M=2)"}},
        {"accelerators": ["a2"], "layers": {"b": "whole", "d": "whole"}},
    ]
    priced = compiled(TWO_BRANCHES, pool_with((3,)), tmp_path, sets).price
    # The second set has three quarters of the rows that each member of the first has.
    product_s, row_s = 64 * 64 / 1e9, 64 * 4 / HOST_BYTES_PER_S
    first_s, second_s = (2 * (HOST_S + rows * (row_s + product_s)) for rows in (32, 24))
    assert step_of(priced, "u")[1] == pytest.approx(first_s)
    assert step_of(priced, "v")[1] == pytest.approx(second_s)
    assert priced.latency_s == pytest.approx(first_s)


def test_a_step_of_two_sets_waits_for_both_and_holds_both(tmp_path: Path) -> None:
    text = """(float[64,64] x) => (float[64,64] u, float[64,64] v) {
        [a] s = MatMul (x, w)
        [b] v = MatMul (s, w)
        [c] u = MatMul (s, w)
    }"""
    sets: list[dict[str, object]] = [
        {"accelerators": ["a0", "a1"], "layers": {"a": "single", "c": "whole"}},
        {"accelerators": ["a2"], "layers": {"b": "whole"}},
    ]
    priced = compiled(text, pool_with((3,)), tmp_path, sets).price
    product_s = 64**3 / 1e9
    sent_s = HOST_S + 64 * 64 * 4 / HOST_BYTES_PER_S + product_s + LINK_S + 64 * 64 * 4 / LINK_BYTES_PER_S
    # Before a1 can have its copy for c, it waits with a0 until that has given b its own.
    (moved,) = [step for step in priced.steps if step.ranks == (0, 1, 2)]
    assert step_of(priced, moved.label)[1] == pytest.approx(sent_s)
    assert step_of(priced, "b") == pytest.approx((sent_s, sent_s + product_s))
    assert step_of(priced, "c")[0] == pytest.approx(sent_s + LINK_S + 64 * 64 * 4 / LINK_BYTES_PER_S)
