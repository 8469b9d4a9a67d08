"""Partitions lowered for this machine and run in shared memory compute what the original computes."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from mars_onnx.errors import RunError
from mars_onnx.pool.topology import Pool
from mars_onnx.runtime.compare import compare
from mars_onnx.runtime.native.lowered import block_size
from mars_onnx.runtime.native.partition import NativePartition
from mars_onnx.runtime.random_inputs import random_inputs
from mars_onnx.runtime.reference import run_reference
from mars_onnx.runtime.runner import PartitionRunner
from mars_onnx.runtime.segments import Segment
from mars_onnx.runtime.sessions import FASTEST, ExecutorOptions
from mars_onnx.runtime.verify import _named_as_in_plan
from mars_onnx.sharding.mapping_file import parse_mapping
from tests.end_to_end.checking import Compiled, canonical, compile_with
from tests.end_to_end.random_graphs import random_model
from tests.mappings import random_mapping
from tests.pool_factory import pool_of
from tests.runtime.hand_written import boxes, partition, plan, ramp
from tests.runtime.native.convolutional_graphs import convolutional_model, residual_model

GROUPS = [(2,), (2,), (3,), (2, 1), (4,), (2, 2), (5,), (4, 3), (8,)]
needs_blocks = pytest.mark.skipif(block_size() == 1, reason="ONNX Runtime has no blocked layout on this machine")


def natives(runner: PartitionRunner) -> list[NativePartition]:
    """What every rank runs; fails if one of them runs segments."""
    found = []
    for executor in runner._executors.values():
        assert executor._native is not None, executor.unsuitable
        found.append(executor._native)
    return found


def run_and_compare(compiled: Compiled, runs: int = 3, options: ExecutorOptions = FASTEST) -> PartitionRunner:
    """Several runs with other inputs each: what the run before has left in memory must not be seen."""
    runner = PartitionRunner(list(compiled.models.values()), compiled.plan, options=options, timeout=100)
    for seed in range(runs):
        inputs = random_inputs(compiled.plan, seed)
        expected = run_reference(compiled.source, inputs)
        named = _named_as_in_plan(expected, compiled.plan, compiled.source)
        wrong = [one for one in compare(named, runner.run(inputs).outputs) if not one.passed]
        assert not wrong, (seed, wrong)
    return runner


def compiled_by_chance(seed: int) -> Compiled:
    rng = random.Random(seed)
    blocked = seed % 3 != 0
    model = convolutional_model(seed, rng.randint(1, 7)) if blocked else random_model(seed, rng.randint(1, 10))
    source, pool = ir.from_proto(model), pool_of(*rng.choice(GROUPS))
    graph = canonical(source, pool)
    return compile_with(source, graph, random_mapping(rng, graph, pool), pool)


@pytest.mark.parametrize("seed", range(16))
def test_random_models_and_mappings(seed: int) -> None:
    natives(run_and_compare(compiled_by_chance(seed)))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_many_random_models_and_mappings() -> None:
    for seed in range(16, 250):
        natives(run_and_compare(compiled_by_chance(seed)))


def compiled_as(source: ir.Model, pool: Pool, layers: dict[str, str]) -> Compiled:
    names = [accelerator.id for accelerator in pool.accelerators]
    document = {"schema": "mars-onnx/mapping/1", "sets": [{"accelerators": names, "layers": layers}]}
    graph = canonical(source, pool)
    mapping = parse_mapping(json.dumps(document), Path("mapping.json"), pool, [str(node.name) for node in graph.graph])
    return compile_with(source, graph, mapping, pool)


BY_CHANNELS = {"Conv*": "ES(Cout=2)", "*": "ES(C=2)"}


@needs_blocks
@pytest.mark.parametrize("threads_of_two_groups", [False, True])
def test_a_residual_network_cut_by_channels_copies_nothing(threads_of_two_groups: bool) -> None:
    pool = pool_of(2, 2) if threads_of_two_groups else pool_of(2)
    layers = (
        {key: text.replace("=2", "=4") for key, text in BY_CHANNELS.items()} if threads_of_two_groups else BY_CHANNELS
    )
    channels = block_size() * (8 if threads_of_two_groups else 4)
    compiled = compiled_as(ir.from_proto(residual_model(channels)), pool, layers)
    runner = run_and_compare(compiled)
    for native in natives(runner):
        assert all(link.blocked for link in native.links)
        # Every tensor is computed at its place in what all gather.
        assert native.placement.whole.keys() == {link.tag for link in native.links}
        # The second block's residual is the first block's result, and is overwritten by what it is added to.
        assert native.placement.taken_over
        kinds = [node.op_type for step in native.steps if isinstance(step, Segment) for node in step.nodes]
        # The strided convolution beside the third block reads the whole tensor, which is gathered once.
        assert set(kinds) <= {"Conv", "GlobalAveragePool", "ReorderOutput"}
    assert len({json.dumps(sorted(native.placement.whole.items())) for native in natives(runner)}) == 1


def test_what_is_sent_twice_is_gathered_once() -> None:
    compiled = compiled_as(ir.from_proto(residual_model(64)), pool_of(2), BY_CHANNELS)
    gathered = sum(node.op_type == "AllGather" for node in compiled.models[0].graph)
    for native in natives(run_and_compare(compiled)):
        assert len(native.links) == gathered - 1


@needs_blocks
def test_shares_that_are_no_whole_blocks_travel_plain() -> None:
    compiled = compiled_as(ir.from_proto(residual_model(3 * block_size())), pool_of(2), BY_CHANNELS)
    for native in natives(run_and_compare(compiled)):
        assert not any(link.blocked for link in native.links)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("layers", [BY_CHANNELS, {"*": "ES(H=2)"}, {"Conv*": "ES(Cin=2)", "*": "ES(C=2)"}], ids=str)
def test_a_residual_network_cut_in_other_ways(layers: dict[str, str], batch: int) -> None:
    layers = {"GlobalAveragePool*": "ES(C=2)", **layers}
    natives(run_and_compare(compiled_as(ir.from_proto(residual_model(64, batch)), pool_of(2), layers)))


def test_without_blocks() -> None:
    compiled = compiled_as(ir.from_proto(residual_model(64)), pool_of(2), BY_CHANNELS)
    for native in natives(run_and_compare(compiled, options=replace(FASTEST, blocked=False))):
        assert not any(link.blocked for link in native.links)


def two_ranks(middle: str, y: str) -> list[ir.Model]:
    """Rank 0 squares and sends, rank 1 receives and gives ``y``."""
    first = partition("a (float[2, 3] x) => () { s = Mul(x, x) token = @Send <dst=1, tag=0> (s, start) }")
    return [
        first,
        partition(f"b () => ({y} y) {{ r, token = @Recv <src=0, tag=0, shape=[2, 3], dtype=1> (start) {middle} }}"),
    ]


def test_one_rank_that_cannot_be_lowered_lets_all_run_segments() -> None:
    # The shape of what is not zero is known only in the run.
    models = two_ranks("n = NonZero(r) y = Cast <to=1> (n)", "float[2, nonzeros]")
    y = boxes("y", (2, 6), 1)
    runner = PartitionRunner(models, plan(2, [boxes("x", (2, 3), 0)], [y]), options=FASTEST)
    x = ramp(2, 3) + 2
    np.testing.assert_array_equal(runner.run({"x": x}).outputs["y"], np.argwhere(x).T)
    for executor in runner._executors.values():
        assert executor._native is None
        assert "rank 1" in executor.unsuitable


def test_a_failing_kernel_ends_all_and_the_next_run_is_fine() -> None:
    middle = "i = Cast <to=7> (r) c = Constant <value = float[4] {1, 2, 3, 4}> () y = Gather(c, i)"
    runner = PartitionRunner(
        two_ranks(middle, "float[2, 3]"), plan(2, [boxes("x", (2, 3), 0)], [boxes("y", (2, 3), 1)]), options=FASTEST
    )
    good = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(runner.run({"x": good}).outputs["y"], 2 * good)
    with pytest.raises(RunError, match="fpga1"):
        runner.run({"x": 5 * good})
    np.testing.assert_array_equal(runner.run({"x": good}).outputs["y"], 2 * good)
    natives(runner)


DTYPES = {
    1: "float",
    10: "float16",
    16: "bfloat16",
    11: "double",
    6: "int32",
    7: "int64",
    3: "int8",
    2: "uint8",
    9: "bool",
}


@pytest.mark.parametrize("number", DTYPES, ids=DTYPES.get)
def test_element_types(number: int) -> None:
    dtype = ir.DataType(number)
    kind = "max" if dtype == ir.DataType.BOOL else "sum"
    name = DTYPES[number]

    def part(rank: int) -> ir.Model:
        return partition(
            f"p ({name}[2, 3] x{rank}) => ({name}[3, 2] y{rank}, {name}[4, 3] z{rank}) <int64[2] s = {{3, 2}}> {{ "
            f"r = Reshape(x{rank}, s) "
            f"y{rank}, t = @AllReduce <reduce_op='{kind}', group=[0, 1], tag=3> (r, start) "
            f"z{rank}, token = @AllGather <axis=0, sizes=[2, 2], shape=[4, 3], dtype={number}, group=[0, 1], tag=7> "
            f"(x{rank}, t) }}".replace("'", '"')
        )

    text = dtype.numpy().name
    given = [boxes(f"x{rank}", (2, 3), rank, text) for rank in (0, 1)]
    wanted = [
        boxes(f"{what}{rank}", shape, rank, text) for rank in (0, 1) for what, shape in (("y", (3, 2)), ("z", (4, 3)))
    ]
    runner = PartitionRunner([part(0), part(1)], plan(2, given, wanted), options=FASTEST)
    x = [np.asarray([[rank, 1, 0], [0, rank, 2]]).astype(dtype.numpy()) for rank in (0, 1)]
    for _ in range(2):
        found = runner.run({"x0": x[0], "x1": x[1]}).outputs
        total = np.maximum(*x) if kind == "max" else x[0] + x[1]
        for rank in (0, 1):
            np.testing.assert_array_equal(found[f"y{rank}"], total.reshape(3, 2))
            np.testing.assert_array_equal(found[f"z{rank}"], np.concatenate(x))
    natives(runner)


def test_what_turns_out_to_be_constant_is_sent_all_the_same() -> None:
    first = partition(
        "a (float[2] x) => (float[2] z) <int64[1] s = {2}> { c = ConstantOfShape <value = float[1] {3}> (s) "
        'y, token = @AllReduce <reduce_op="sum", group=[0, 1], tag=0> (c, start) z = Add(y, x) }'
    )
    second = partition(
        "b (float[2] x) => (float[2] w, float[2] k) <int64[1] s = {2}> { "
        "k = ConstantOfShape <value = float[1] {4}> (s) "
        'w, token = @AllReduce <reduce_op="sum", group=[0, 1], tag=0> (x, start) }'
    )
    wanted = [boxes("z", (2,), 0), boxes("w", (2,), 1), boxes("k", (2,), 1)]
    runner = PartitionRunner(
        [first, second], plan(2, [boxes("x", (2,), {0: "0:2", 1: "0:2"})], wanted), options=FASTEST
    )
    found = runner.run({"x": ramp(2)}).outputs
    natives(runner)
    np.testing.assert_array_equal(found["w"], 3 + ramp(2))
    np.testing.assert_array_equal(found["z"], (3 + ramp(2)) + ramp(2))
    np.testing.assert_array_equal(found["k"], [4, 4])
