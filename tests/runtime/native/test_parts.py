"""The parts of native execution by themselves: the blocked layout, copies, places in shared memory, cut-off rows."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from mars_onnx.comm import AllGather, AllToAll, HaloExchange
from mars_onnx.geometry import Reduction
from mars_onnx.runtime.native.assembly import (
    Assembly,
    Piece,
    assembly,
    blocked_shape,
    on_blocks,
    splits_into_blocks,
    unblocked,
)
from mars_onnx.runtime.native.lowered import BLOCKED_DOMAIN, block_size
from mars_onnx.runtime.native.placement import Offer, Program, Wait, place
from mars_onnx.runtime.native.region import is_crowded
from mars_onnx.runtime.native.trimming import untrimmed
from mars_onnx.runtime.sessions import ExecutorOptions, make_session
from tests.runtime.hand_written import ramp

needs_blocks = pytest.mark.skipif(block_size() == 1, reason="ONNX Runtime has no blocked layout on this machine")


@needs_blocks
def test_blocks_lie_as_onnxruntime_lays_them() -> None:
    block = block_size()
    shape = (2, 3 * block, 5, 4)
    node = helper.make_node("ReorderInput", ["x"], ["y"], domain=BLOCKED_DOMAIN)
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "reorder", [info("x", TensorProto.FLOAT, shape)], [info("y", TensorProto.FLOAT, shape)]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(BLOCKED_DOMAIN, 1)]
    session = make_session(
        helper.make_model(graph, opset_imports=opsets, ir_version=10), options=ExecutorOptions(optimization="none")
    )
    x = ramp(*shape)
    (y,) = session.run(None, {"x": x})
    np.testing.assert_array_equal(unblocked(y.reshape(blocked_shape(shape, block))), x)


def blocks_of(x: np.ndarray, block: int) -> np.ndarray:
    n, c, h, w = x.shape
    return np.ascontiguousarray(np.moveaxis(x.reshape(n, c // block, block, h, w), 2, 4))


HALO = HaloExchange(0, (0, 1), (1, 16, 5, 6), ir.DataType.FLOAT, 2, (0, 4, 4, 8), (0, 5, 3, 8))
CHANNELS = AllGather(0, (0, 1), (1, 24, 4, 6), ir.DataType.FLOAT, 1, (16, 8))
ROWS_TO_CHANNELS = AllToAll(0, (0, 1), (1, 8, 8, 6), ir.DataType.FLOAT, 1, 2, (8, 8), (4, 4))


@pytest.mark.parametrize(
    ("operator", "xs"),
    [
        (HALO, [(1, 16, 4, 6), (1, 16, 4, 6)]),
        (CHANNELS, [(1, 16, 4, 6), (1, 8, 4, 6)]),
        (ROWS_TO_CHANNELS, [(1, 16, 4, 6), (1, 16, 4, 6)]),
    ],
    ids=lambda value: getattr(value, "op_type", ""),
)
@pytest.mark.parametrize("rank", [0, 1])
def test_operators_do_the_same_on_blocks(operator: HaloExchange, xs: list[tuple[int, ...]], rank: int) -> None:
    block = 8
    arrays = [ramp(*shape) + number for number, shape in enumerate(xs)]
    plain, scaled = assembly(operator, rank), assembly(on_blocks(operator, block), rank)
    assert splits_into_blocks(operator, block)
    assert plain is not None
    assert scaled is not None
    expected = np.zeros(operator.shape, np.float32)
    plain.compute([arrays[piece.rank] for piece in plain.pieces], expected)
    found = np.zeros(blocked_shape(operator.shape, block), np.float32)
    scaled.compute([blocks_of(arrays[piece.rank], block) for piece in scaled.pieces], found)
    assert np.ptp(expected) > 0
    np.testing.assert_array_equal(unblocked(found), expected)


def test_borders_inside_a_block_are_seen() -> None:
    assert splits_into_blocks(CHANNELS, 8)
    assert not splits_into_blocks(CHANNELS, 16)
    assert not splits_into_blocks(replace(CHANNELS, shape=(1, 24, 4)), 8)


def test_small_floats_are_reduced_in_a_wider_type() -> None:
    parts = [np.full(3, value, np.float16) for value in (2048, 1, 1)]
    y = np.zeros(3, np.float16)
    Assembly(tuple(Piece(rank) for rank in range(3)), Reduction.SUM).compute(parts, y)
    assert y.tolist() == [2050] * 3


def offer(tag: int, rank: int, **changes: object) -> Offer:
    """Step 3 * tag + 1 makes the tensor, + 2 offers it, + 3 reads what has been gathered."""
    first = 3 * tag + 1
    usual = Offer(
        tag,
        (0, 1),
        f"value{tag}",
        (1, 16),
        64,
        True,
        (64, 64),
        first + 1,
        (first, 2 * tag),
        (first + 2, 2 * tag + 1),
        (0, -1),
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def programs(*offers: list[Offer]) -> dict[int, Program]:
    return {rank: Program(100, tuple(own)) for rank, own in enumerate(offers)}


def test_pieces_lie_side_by_side_in_the_order_of_the_group() -> None:
    found = place(programs([offer(0, 0, group=(1, 0))], [offer(0, 1, group=(1, 0))]))
    assert found.whole == {0: 0}
    assert found.pieces == {(1, "value0"): 0, (0, "value0"): 64}
    assert found.before_writing[0, "value0"] == (Wait(1, 3, -1),)


def test_places_are_the_same_whoever_computes_them() -> None:
    ours = programs([offer(tag, 0) for tag in range(5)], [offer(tag, 1) for tag in range(5)])
    theirs = {rank: Program.load(ours[rank].dump()) for rank in (1, 0)}
    first, second = place(ours), place(theirs)
    assert (first.pieces, first.whole, first.before_writing) == (second.pieces, second.whole, second.before_writing)
    taken = sorted((start, start + 64) for start in first.pieces.values())
    assert all(stop <= start for (_, stop), (start, _) in itertools.pairwise(taken))


def test_a_tensor_takes_over_the_place_of_one_that_nobody_reads_any_more() -> None:
    both = [[offer(0, rank), offer(1, rank), offer(2, rank, replaces=0)] for rank in (0, 1)]
    found = place(programs(*both))
    assert found.taken_over == {2: 0}
    assert found.whole[2] == found.whole[0]
    # In this run it waits for the readers of the old tensor; the old one waits for its own readers of the run before.
    assert found.before_writing[0, "value2"] == (Wait(1, 3, 0),)
    assert found.before_writing[0, "value0"] == (Wait(1, 9, -1),)


@pytest.mark.parametrize(
    "changes",
    [
        {"replaces": -1},
        {"written": (5, 1)},
        {"gathers": (32, 96)},
    ],
    ids=str,
)
def test_a_tensor_takes_over_no_place_unless_all_agree_and_it_is_free(changes: dict[str, object]) -> None:
    one = [offer(0, 0), offer(2, 0, replaces=0)]
    other = [offer(0, 1), offer(2, 1, **{"replaces": 0, **changes})]
    assert place(programs(one, other)).taken_over == {}


def convolution(pads: list[int], stride: int, part: int) -> ir.Node:
    """A convolution of kernel 1 that reads the first ``part`` of 8 rows."""
    text = f"""<ir_version: 10, opset_import: ["": 17]>
    g (float[1, 4, 8, 8] x, float[4, 4, 1, 1] w) => (y)
    <int64[1] starts = {{0}}, int64[1] stops = {{{part}}}, int64[1] axes = {{2}}> {{
      cut = Slice(x, starts, stops, axes)
      y = Conv <kernel_shape=[1, 1], strides=[{stride}, 1], pads={pads}> (cut, w)
    }}"""
    model = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))
    return ir.from_proto(model).graph[1]


@pytest.mark.parametrize(
    ("pads", "stride", "part", "same"),
    [
        ([0, 0, 0, 0], 2, 7, True),
        ([1, 0, 0, 0], 2, 7, False),
        ([0, 0, 0, 0], 2, 6, False),
        ([0, 0, 0, 0], 1, 7, False),
        ([0, 0, 1, 0], 2, 7, False),
        ([0, 0, 0, 0], 4, 5, True),
    ],
    ids=str,
)
def test_a_convolution_reads_the_whole_where_it_computes_the_same(
    pads: list[int], stride: int, part: int, same: bool
) -> None:
    found = untrimmed(convolution(pads, stride, part), {})
    assert (found is not None and found.name == "x") == same


@pytest.mark.parametrize(
    ("cores", "crowded"),
    [
        ([{0, 1}, {0, 1}], False),
        ([{0}, {1}], False),
        ([{3}, {3}], True),
        ([{0, 1}, {0, 1}, {0, 1}], True),
        ([{0, 1, 2, 3}, {2}, {2}], True),
        ([{0, 1}, {1, 2}, {0, 2}], False),
        ([{0, 1}, {1, 2}, {0, 2}, {0, 1}], True),
    ],
)
def test_ranks_are_crowded_if_some_have_to_share_a_core(cores: list[set[int]], crowded: bool) -> None:
    assert is_crowded([frozenset(own) for own in cores]) == crowded
