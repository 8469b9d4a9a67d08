"""Runs of partitions: by hand, equal to the additive cost, against simpy, from files."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from itertools import product
from pathlib import Path

import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from mars_onnx.compiler import compile
from mars_onnx.cost.price import price
from mars_onnx.errors import InvariantError
from mars_onnx.hw import describe
from mars_onnx.models import load_builder
from mars_onnx.pool.loader import load_pool
from mars_onnx.simulation import ADDITIVE, Conditions, Simulation, declared, read_folder, simulate
from mars_onnx.simulation.pricing import Pricer
from mars_onnx.simulation.program import MOVING, program_of, rank_of
from tests.end_to_end.checking import Compiled, canonical, compile_with
from tests.end_to_end.test_random_mappings import GROUPS, compiled
from tests.mappings import random_mapping
from tests.passes.onnx_text import model
from tests.simulation.independent import Job, run_again
from tests.simulation.partitions import EVERYTHING, from_text, models_of, pool_with, simulated

PRODUCT = "(float[64,64] x) => (float[64,64] z) { [only] z = MatMul (x, w) }"
COMMON = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
graphs = given(
    size=st.integers(1, 10),
    groups=st.sampled_from(GROUPS),
    graph_seed=st.integers(0, 2**32 - 1),
    mapping_seed=st.integers(0, 2**32 - 1),
)

#: 32 x 64 floats from or to the host.
TRANSFER_S = 2e-6 + 32 * 64 * 4 / 5e8
PHASE_S = 32 * 64 * 32 / 1e9
SHIFT_S = 1e-6 + 64 * 32 * 4 / 1e9


def ring(folder: Path, **overlap: bool) -> Simulation:
    """A matrix product of which two accelerators share the weight in a ring."""
    pool = pool_with((2,), **overlap)
    return from_text(PRODUCT, {"w": (64, 64)}, pool, folder, {"only": "ES(M=2) SS(weight)"}).simulation


def test_a_ring_by_hand(tmp_path: Path) -> None:
    run = ring(tmp_path)
    assert run.conditions == ADDITIVE
    ends = [TRANSFER_S]
    for seconds in (PHASE_S, SHIFT_S, PHASE_S, TRANSFER_S):
        ends.append(ends[-1] + seconds)
    found = [task.end_s for task in run.tasks if task.kind != "local" and 0 in task.ranks]
    assert found == pytest.approx(ends)
    assert run.latency_s == pytest.approx(2 * TRANSFER_S + 2 * PHASE_S + SHIFT_S)
    for use in run.ranks.values():
        assert use.compute_s == pytest.approx(2 * PHASE_S)
        assert use.communication_s == pytest.approx(2 * TRANSFER_S + SHIFT_S)
        assert use.idle_s == pytest.approx(0)


def test_a_ring_with_overlap_by_hand(tmp_path: Path) -> None:
    # The pieces of the weight move on while the first phase runs.
    run = ring(tmp_path, communication_with_compute=True, contention=False, local_moves=False)
    assert run.conditions == Conditions(overlap=True)
    (shift,) = [task for task in run.tasks if task.op == "Shift"]
    assert (shift.start_s, shift.end_s) == pytest.approx((TRANSFER_S, TRANSFER_S + SHIFT_S))
    assert run.latency_s == pytest.approx(2 * TRANSFER_S + 2 * PHASE_S)
    path = [run.tasks[index] for index in run.critical_path]
    assert [task.kind for task in path if task.kind != "local"] == ["input", "compute", "compute", "output"]
    assert [task.phase for task in path if task.kind == "compute"] == [0, 1]
    assert run.utilisation["a0 compute"] == pytest.approx(2 * PHASE_S / run.latency_s)
    assert run.utilisation["host - a0"] == pytest.approx(2 * (32 * 64 * 4 / 5e8) / run.latency_s)
    assert run.utilisation["a1 -> a0"] == pytest.approx(64 * 32 * 4 / 1e9 / run.latency_s)


def test_local_moves_by_hand(tmp_path: Path) -> None:
    # The two halves of the result are joined: 32 x 64 elements, one per cycle.
    run = ring(tmp_path, contention=False)
    joined = [task for task in run.tasks if task.op == "Concat"]
    assert [task.seconds for task in joined] == pytest.approx([32 * 64 / 1e9] * 2)
    free = ring(tmp_path, contention=False, local_moves=False)
    assert run.latency_s == pytest.approx(free.latency_s + joined[0].seconds)


def test_double_buffering_by_hand(tmp_path: Path) -> None:
    # Two products of one row: nothing but the weights counts, 64 x 64 floats at 10 GB/s and 4096 operations at 1 GHz.
    text = "(float[1,64] x) => (float[1,64] z) { [first] y = MatMul (x, w) [second] z = MatMul (y, v) }"
    weights = {"w": (64, 64), "v": (64, 64)}
    pool = pool_with((1,), double_buffering=True)
    run = from_text(text, weights, pool, tmp_path, {"first": "auto", "second": "auto"}).simulation
    compute_s, memory_s = 64 * 64 / 1e9, (64 * 64 + 2 * 64) * 4 / 1e10
    products = [task for task in run.tasks if task.kind == "compute"]
    assert [task.seconds for task in products] == pytest.approx([max(compute_s, memory_s)] * 2)
    assert [task.end_s - task.start_s for task in products] == pytest.approx([compute_s] * 2)


@settings(COMMON, max_examples=60)
@graphs
def test_equal_to_the_additive_cost(size: int, groups: tuple[int, ...], graph_seed: int, mapping_seed: int) -> None:
    check_equal(compiled(size, groups, graph_seed, mapping_seed))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(COMMON, max_examples=600)
@graphs
def test_equal_to_the_additive_cost_often(
    size: int, groups: tuple[int, ...], graph_seed: int, mapping_seed: int
) -> None:
    check_equal(compiled(size, groups, graph_seed, mapping_seed))


@pytest.mark.parametrize("name", ["resnet18", "encoder"])
@pytest.mark.parametrize("pool", ["fpga_pool", "mixed_pool"])
@pytest.mark.parametrize("seed", [1, 2])
def test_networks_equal_the_additive_cost(name: str, pool: str, seed: int) -> None:
    source = ir.from_proto(load_builder().build(name))
    hardware = load_pool(pool)
    graph = canonical(source, hardware)
    mapping = random_mapping(random.Random(seed), graph, hardware)
    check_equal(compile_with(source, graph, mapping, hardware))


def check_equal(found: Compiled) -> None:
    """Rank by rank, layer by layer and in all."""
    priced = price(found.sharded)
    run = simulated(found, ADDITIVE)
    assert run.latency_s == pytest.approx(priced.latency_s, rel=1e-12)
    timeline = priced.timeline
    transfers = sorted((task.start_s, task.end_s) for task in run.tasks if task.kind in ("input", "output"))
    known = {entry.event for entry in priced.communication}
    moving = [i for i, event in enumerate(timeline.events) if event.communication and i not in known]
    for mine, theirs in zip(transfers, sorted((timeline.start_s[i], timeline.end_s[i]) for i in moving), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-12)
    for rank, use in run.ranks.items():
        assert use.compute_s == pytest.approx(timeline.compute_s[rank], rel=1e-12, abs=1e-18)
        assert use.communication_s == pytest.approx(timeline.communication_s[rank], rel=1e-12, abs=1e-18)
        assert use.idle_s == pytest.approx(timeline.idle_s[rank], rel=1e-9, abs=1e-12 * run.latency_s)
    for tag, entry in enumerate(priced.communication):
        own = run.by_tag[tag]
        assert (own.op, own.label, set(own.ranks)) == (entry.op, entry.tensor, set(entry.group))
        assert own.start_s == pytest.approx(timeline.start_s[entry.event], rel=1e-12)
        assert own.end_s == pytest.approx(timeline.end_s[entry.event], rel=1e-12)
    for layer in priced.layers:
        tasks = sorted((task.ranks[0], task.start_s, task.end_s) for task in run.by_layer.get(layer.name, ()))
        events = sorted((timeline.events[i].ranks[0], timeline.start_s[i], timeline.end_s[i]) for i in layer.events)
        assert len(tasks) == len(events), layer.name
        for task, event in zip(tasks, events, strict=True):
            assert task == pytest.approx(event, rel=1e-12), layer.name


@settings(COMMON, max_examples=40)
@graphs
def test_overlap_is_never_slower(size: int, groups: tuple[int, ...], graph_seed: int, mapping_seed: int) -> None:
    found = compiled(size, groups, graph_seed, mapping_seed)
    for base in (ADDITIVE, Conditions(local_moves=True)):
        without = simulated(found, base).latency_s
        with_overlap = simulated(found, replace(base, overlap=True)).latency_s
        buffered = simulated(found, replace(base, overlap=True, double_buffering=True)).latency_s
        little = simulated(found, replace(base, overlap=True, double_buffering=True, prefetch_bytes=64)).latency_s
        assert with_overlap <= without * (1 + 1e-12)
        assert simulated(found, replace(base, lockstep=False)).latency_s <= without * (1 + 1e-12)
        assert buffered <= little * (1 + 1e-12) <= with_overlap * (1 + 1e-11)
        assert simulated(found, replace(base, double_buffering=True)).latency_s <= without * (1 + 1e-12)


@settings(COMMON, max_examples=30)
@graphs
def test_partitions_against_simpy(size: int, groups: tuple[int, ...], graph_seed: int, mapping_seed: int) -> None:
    found = compiled(size, groups, graph_seed, mapping_seed)
    program = program_of(found.models)
    prices = Pricer(program, found.pool, found.canonical, local_moves=True).prices()
    jobs = [
        Job(p.seconds, task.ranks, task.kind in MOVING, tuple(task.after), dict(p.demand), task.step)
        for task, p in zip(program.tasks, prices, strict=True)
    ]
    for overlap, contention, lockstep in product((False, True), repeat=3):
        sets = program.sets if lockstep else None
        again = run_again(jobs, program.order, overlap=overlap, contention=contention, sets=sets)
        conditions = Conditions(overlap=overlap, contention=contention, local_moves=True, lockstep=lockstep)
        run = simulated(found, conditions)
        starts = sorted((task.start_s, task.end_s) for task in run.tasks)
        for mine, theirs in zip(starts, sorted(again), strict=True):
            assert mine == pytest.approx(theirs, rel=1e-9, abs=1e-15)


@settings(COMMON, max_examples=30)
@graphs
def test_what_always_holds(size: int, groups: tuple[int, ...], graph_seed: int, mapping_seed: int) -> None:
    found = compiled(size, groups, graph_seed, mapping_seed)
    run = simulated(found, EVERYTHING)
    assert run == simulated(found, EVERYTHING)
    assert all(0 <= part <= 1 + 1e-9 for part in run.utilisation.values())
    for use in run.ranks.values():
        assert max(use.compute_s, use.communication_s) + use.idle_s <= run.latency_s * (1 + 1e-9)
        assert use.compute_s + use.communication_s + use.idle_s >= run.latency_s * (1 - 1e-9)
    path = [run.tasks[index] for index in run.critical_path]
    check_path(path, run)


def check_path(path: Sequence[object], run: Simulation) -> None:
    """From the start to the end of the run, without a gap."""
    reached = 0.0
    for index in run.critical_path:
        task = run.tasks[index]
        assert task.start_s == reached
        reached = task.end_s
    assert reached == run.latency_s
    assert bool(path) == bool(run.tasks)


def test_from_files(tmp_path: Path) -> None:
    source = ir.from_proto(load_builder().build("encoder"))
    made = compile(source, "fpga_pool")
    made.save(tmp_path / "out")
    models, graph = read_folder(tmp_path / "out")
    assert simulate(models, made.pool, graph) == made.simulation
    assert made.simulation.latency_s == pytest.approx(made.price.latency_s, rel=1e-12)


def test_without_the_original_local_shapes_are_priced() -> None:
    made = compile(ir.from_proto(load_builder().build("resnet18")), "fpga_pool")
    alone = simulate(models_of(made), made.pool, conditions=ADDITIVE)
    assert alone.latency_s == pytest.approx(made.price.latency_s, rel=1e-12)


BRANCHES = """(float[64,64] x) => (float[64,64] u, float[64,64] v) {
    [start] a = MatMul (x, w)
    [left] b = MatMul (a, w)
    [right] c = MatMul (a, w)
    [uneven] e = MatMul (b, w)
    [late] u = MatMul (e, w)
    [one] d = MatMul (c, w)
    [other] v = MatMul (d, w)
}"""


def test_lockstep_by_hand(tmp_path: Path) -> None:
    # Set 0 is a0 and a1, set 1 is a2. In set 0 a1 waits in every step for a0, which has three quarters of the work or
    # all of it; set 1 computes at the same time.
    pool = pool_with((3,))
    content = {
        "schema": "mars-onnx/mapping/1",
        "sets": [
            {"accelerators": ["a0", "a1"], "layers": {"start": "whole", "left": "single", "*e*": "ES(M=3:1)"}},
            {"accelerators": ["a2"], "layers": {"right": "whole", "one": "whole", "other": "whole"}},
        ],
    }
    path = tmp_path / "mapping.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    made = compile(model(BRANCHES, {"w": (64, 64)}), pool, mapping=path)
    product_s, whole_bytes = 64**3 / 1e9, 64 * 64 * 4
    start_s = 2e-6 + whole_bytes / 5e8 + product_s
    left_s = start_s + product_s
    sent_s = left_s + 1e-6 + whole_bytes / 1e9  # a to a2: set 0 has to come, though a1 is free
    right_s = sent_s + 3 * product_s
    uneven_s = sent_s + 1e-6 + whole_bytes / 4 / 1e9 + product_s * 3 / 4  # a1 takes the rows of b that it needs
    run = made.simulation
    ends = {task.label: task.end_s for task in run.tasks if task.kind == "compute" and task.ranks[0] in (0, 2)}
    assert ends["start"] == pytest.approx(start_s)
    assert ends["left"] == pytest.approx(left_s)
    assert ends["right"] == pytest.approx(sent_s + product_s)
    assert ends["other"] == pytest.approx(right_s)
    assert ends["uneven"] == pytest.approx(uneven_s)
    late_s = uneven_s + product_s * 3 / 4
    assert [task.start_s for task in run.by_layer["late"]] == pytest.approx([uneven_s] * 2)
    assert ends["late"] == pytest.approx(late_s)
    leaving = {task.label: (task.start_s, task.end_s) for task in run.tasks if task.kind == "output"}
    assert leaving["u"] == pytest.approx((late_s, late_s + 2e-6 + whole_bytes * 3 / 4 / 5e8))
    assert leaving["v"] == pytest.approx((right_s, right_s + 2e-6 + whole_bytes / 5e8))
    assert run.latency_s == pytest.approx(leaving["v"][1]) == pytest.approx(made.price.latency_s)
    free = simulate(models_of(made), pool, made.canonical, Conditions())
    starts = {task.ranks[0]: task.start_s for task in free.by_layer["late"]}
    assert starts == pytest.approx({0: uneven_s, 1: uneven_s - product_s / 2})


def test_an_accelerator_without_work_holds_nobody_up(tmp_path: Path) -> None:
    # a1 does nothing at all, and its file an empty token only, which must not tie its set to a step of the other.
    text = """(float[64,64] x, float[64,64] y) => (float[64,64] u, float[64,64] v) {
        [a] u = MatMul (x, w)
        [b] v = Add (y, w)
    }"""
    sets = [
        {"accelerators": ["a0", "a1"], "layers": {"b": "single"}},
        {"accelerators": ["a2"], "layers": {"a": "whole"}},
    ]
    for own in (sets, sets[::-1]):
        path = tmp_path / "mapping.json"
        path.write_text(json.dumps({"schema": "mars-onnx/mapping/1", "sets": own}), encoding="utf-8")
        made = compile(model(text, {"w": (64, 64)}), pool_with((3,)), mapping=path)
        transfer_s = 2e-6 + 64 * 64 * 4 / 5e8
        leaving = {task.label: task.end_s for task in made.simulation.tasks if task.kind == "output"}
        added_s = 3 * 64 * 64 * 4 / 1e10
        assert leaving == pytest.approx({"u": 2 * transfer_s + 64**3 / 1e9, "v": 2 * transfer_s + added_s})
        assert made.price.latency_s == pytest.approx(leaving["u"])


def test_steps_that_contradict_the_files(tmp_path: Path) -> None:
    models, graph = product_in_two(tmp_path)
    (node,) = [node for node in models[1].graph if node.op_type == "MatMul"]
    node.metadata_props["mars.step"] = "-1"
    with pytest.raises(InvariantError, match=r"'mars.step' is the number of a step, not '-1'"):
        simulate(models, pool_with((2,)), graph)
    node.metadata_props["mars.step"] = "9"
    with pytest.raises(InvariantError, match="wait for each other in a circle"):
        simulate(models, pool_with((2,)), graph)
    models[1].graph.inputs[0].metadata_props["mars.step"] = "9"
    with pytest.raises(InvariantError, match="the model input 'x' belongs to step 0 in one file and to step 9"):
        simulate(models, pool_with((2,)), graph)


def product_in_two(tmp_path: Path) -> tuple[list[ir.Model], ir.Model]:
    pool = pool_with((2,))
    made = from_text(PRODUCT, {"w": (64, 64)}, pool, tmp_path, {"only": "ES(N=2)"})
    return [own.clone() for own in models_of(made)], made.canonical


def test_what_a_node_says_has_to_be_what_it_computes(tmp_path: Path) -> None:
    models, graph = product_in_two(tmp_path)
    (node,) = [node for node in models[1].graph if node.op_type == "MatMul"]
    node.metadata_props["mars.share"] = "M=0:64,N=0:64,K=0:64"
    with pytest.raises(InvariantError, match=r"'only' of rank 1 says that it computes .* of shape \[64, 64\]"):
        simulate(models, pool_with((2,)), graph)
    node.metadata_props["mars.share"] = "M=0:64"
    with pytest.raises(InvariantError, match=r"'only': the metadata 'mars.share' of a node cannot be read"):
        simulate(models, pool_with((2,)), graph)
    node.metadata_props["mars.source"] = "other"
    with pytest.raises(InvariantError, match="the original has no node 'other'"):
        simulate(models, pool_with((2,)), graph)


def test_partitions_that_do_not_belong_here(tmp_path: Path) -> None:
    models, graph = product_in_two(tmp_path)
    with pytest.raises(InvariantError, match="rank 1 is not in the pool"):
        simulate(models, pool_with((1,)), graph)
    models[0].metadata_props["mars.rank"] = "1"
    with pytest.raises(InvariantError, match="two partitions are for rank 1"):
        simulate(models, pool_with((2,)), graph)
    del models[0].metadata_props["mars.rank"]
    with pytest.raises(InvariantError, match="is no partition"):
        rank_of(models[0])
    models[0].metadata_props.update({"mars.rank": "0", "mars.design": "other"})
    with pytest.raises(InvariantError, match="for the design 'other'"):
        simulate(models, pool_with((2,)), graph)


def test_a_member_without_a_partition(tmp_path: Path) -> None:
    made = from_text(PRODUCT, {"w": (64, 64)}, pool_with((2,)), tmp_path, {"only": "ES(K=2)"})
    with pytest.raises(InvariantError, match=r"tag 0 is of the ranks \[0, 1\], but stands in the files of \[1\]"):
        simulate(models_of(made)[1:], made.pool, made.canonical)


def test_what_a_pool_declares() -> None:
    assert declared(pool_with((1,))) == ADDITIVE
    assert declared(pool_with((1,), double_buffering=True, prefetch_bytes=4096)) == Conditions(
        double_buffering=True, prefetch_bytes=4096, contention=True, local_moves=True
    )


def test_a_description_says_what_overlaps() -> None:
    console = Console(width=160, file=StringIO())
    describe(pool_with((1,), double_buffering=True, prefetch_bytes=4096), console)
    describe(pool_with((1,)), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "communication with compute: no, double buffering of at most 4 KiB: yes, contention: yes" in text
    assert "Nothing overlaps" in text


def test_what_a_pool_declares_is_part_of_its_hash() -> None:
    assert pool_with((1,)).sha256 != pool_with((1,), double_buffering=True).sha256
