"""What a strategy means: shares, needs, layouts and rings of one node, side by side with the strategy."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from mars_onnx.errors import InputError
from mars_onnx.geometry import box_text
from mars_onnx.redistribution.planner import redistribute
from mars_onnx.rules.base import Signature
from mars_onnx.rules.signature import signature_of
from mars_onnx.sharding.lowering import Sharding, lower, ring_shift
from mars_onnx.sharding.strategy import parse_strategy
from tests.passes.onnx_text import model


def signature(text: str, **weights: tuple[int, ...]) -> Signature:
    graph = model(text, weights).graph
    return signature_of(graph[0])


CONV = signature(
    """(float[1,4,7,7] x) => (float[1,6,7,7] y) {
    y = Conv <pads = [1,1,1,1]> (x, w, b)
}""",
    w=(6, 4, 3, 3),
    b=(6,),
)
PRODUCT = signature("(float[8,6] x) => (float[8,4] y) {\n y = MatMul (x, w)\n}", w=(6, 4))


def lowered(node: Signature, strategy: str, count: int = 4) -> Sharding:
    return lower(node, parse_strategy(strategy), tuple(range(count)))


def texts(layout) -> list[str]:
    return [box_text(box) for box in layout.boxes]


def test_rows_with_their_halo() -> None:
    """Seven rows over four: the last member has one; every window reaches a row further, but not out of the image."""
    sharding = lowered(CONV, "ES(H=4)")
    assert texts(sharding.produced[0]) == ["0:1,0:6,0:2,0:7", "0:1,0:6,2:4,0:7", "0:1,0:6,4:6,0:7", "0:1,0:6,6:7,0:7"]
    assert texts(sharding.needs[0]) == ["0:1,0:4,0:3,0:7", "0:1,0:4,1:5,0:7", "0:1,0:4,3:7,0:7", "0:1,0:4,5:7,0:7"]
    assert texts(sharding.needs[1]) == ["0:6,0:4,0:3,0:3"] * 4


def test_more_members_than_rows() -> None:
    sharding = lowered(CONV, "ES(Kh=4)")
    assert [share is None for share in sharding.shares] == [False, False, False, True]
    assert sharding.produced[0].num_parts == 3
    assert sharding.produced[0].parts[:3] == (0, 1, 2)


def test_the_first_split_is_the_outermost_digit() -> None:
    boxes = texts(lowered(PRODUCT, "ES(M=2,N=2)").produced[0])
    assert boxes == ["0:4,0:2", "0:4,2:4", "4:8,0:2", "4:8,2:4"]
    assert texts(lowered(PRODUCT, "ES(M=2)").produced[0]) == ["0:4,0:4", "0:4,0:4", "4:8,0:4", "4:8,0:4"]


def test_unequal_shares() -> None:
    assert texts(lowered(PRODUCT, "ES(M=4:2:1:1)").produced[0]) == ["0:4,0:4", "4:6,0:4", "6:7,0:4", "7:8,0:4"]
    assert texts(lowered(PRODUCT, "ES(M=1:0:1:0)").produced[0]) == ["0:4,0:4", "-", "4:8,0:4", "-"]


def test_what_becomes_of_partial_sums() -> None:
    everywhere = lowered(PRODUCT, "ES(K=2)", 2)
    assert everywhere.produced[0].to_text() == "8,4|sum/2|0=0:8,0:4+0;1=0:8,0:4+1"
    assert everywhere.resolved[0].to_text() == "8,4|sum/1|0=0:8,0:4;1=0:8,0:4"
    scattered = lowered(PRODUCT, "ES(K=2) reduce-scatter(N)", 2)
    assert scattered.resolved[0].to_text() == "8,4|sum/1|0=0:8,0:2;1=0:8,2:4"
    deferred = lowered(PRODUCT, "ES(K=2) deferred", 2)
    assert deferred.resolved == deferred.produced


def test_replicas_at_an_outer_digit() -> None:
    assert texts(lowered(PRODUCT, "ES(*=2,M=2)").produced[0]) == ["0:4,0:4", "4:8,0:4"] * 2
    assert texts(lowered(PRODUCT, "ES(M=2)").produced[0]) == ["0:4,0:4"] * 2 + ["4:8,0:4"] * 2
    between = lowered(PRODUCT, "ES(M=2,*=2,N=2)", 8)
    assert texts(between.produced[0]) == ["0:4,0:2", "0:4,2:4"] * 2 + ["4:8,0:2", "4:8,2:4"] * 2
    both = lowered(PRODUCT, "ES(*=2,M=2)", 8)
    assert texts(both.produced[0]) == (["0:4,0:4"] * 2 + ["4:8,0:4"] * 2) * 2
    with pytest.raises(InputError, match=r"6 shares do not divide a set of 8"):
        lowered(PRODUCT, "ES(*=3,M=2)", 8)


def test_partial_sums_of_outer_replicas() -> None:
    sharding = lowered(PRODUCT, "ES(*=2,K=2)")
    assert sharding.produced[0].parts == (0, 1, 0, 1)
    assert sharding.produced[0].num_parts == 2
    plan = redistribute(sharding.produced[0], sharding.resolved[0])
    assert [(str(own.pattern), own.group) for own in plan.collectives] == [("AllReduce", (0, 1)), ("AllReduce", (2, 3))]
    scattered = lowered(PRODUCT, "ES(*=2,K=2) reduce-scatter(N)")
    assert texts(scattered.resolved[0]) == ["0:8,0:2", "0:8,2:4"] * 2
    plan = redistribute(scattered.produced[0], scattered.resolved[0])
    expected = [("ReduceScatter", (0, 1)), ("ReduceScatter", (2, 3))]
    assert [(str(own.pattern), own.group) for own in plan.collectives] == expected


def test_rings_of_outer_replicas() -> None:
    """Members that would hold the same weights are those of one range of N in both halves."""
    assert lowered(PRODUCT, "ES(*=2,N=2) SS(weight)").ring.groups == ((0, 2), (1, 3))
    assert lowered(PRODUCT, "ES(N=2) SS(weight)").ring.groups == ((0, 1), (2, 3))
    assert lowered(PRODUCT, "ES(*=2,M=2) SS(weight)").ring.groups == ((0, 1, 2, 3),)


def test_the_bias_counts_once() -> None:
    assert [share.first for share in lowered(CONV, "ES(Cin=2,Kh=2)").shares] == [True, False, False, False]
    assert [share.first for share in lowered(CONV, "ES(H=2,Cin=2)").shares] == [True, False, True, False]


def test_whole_and_single() -> None:
    assert texts(lowered(PRODUCT, "whole", 2).produced[0]) == ["0:8,0:4"] * 2
    assert texts(lowered(PRODUCT, "single", 2).produced[0]) == ["0:8,0:4", "-"]


def test_a_ring_of_weights() -> None:
    """Members that would all hold the same weights hold a piece each, and pass them round."""
    ring = lowered(PRODUCT, "ES(M=4) SS(weight)").ring
    assert ring.groups == ((0, 1, 2, 3),)
    assert [box_text(piece) for piece in ring.pieces[0]] == ["0:6,0:1", "0:6,1:2", "0:6,2:3", "0:6,3:4"]
    by_depth = lowered(PRODUCT, "ES(M=4) SS(weight@K)")
    assert by_depth.ring.axis.reduction
    assert not by_depth.produced[0].partial
    assert [box_text(piece) for piece in by_depth.ring.pieces[0]] == ["0:2,0:4", "2:4,0:4", "4:5,0:4", "5:6,0:4"]


def test_two_rings() -> None:
    ring = lowered(PRODUCT, "ES(M=2,N=2) SS(weight)").ring
    assert ring.groups == ((0, 2), (1, 3))
    assert [box_text(piece) for pieces in ring.pieces for piece in pieces] == [
        "0:6,0:1",
        "0:6,1:2",
        "0:6,2:3",
        "0:6,3:4",
    ]


def test_phases_of_a_ring() -> None:
    """In its first phase a member works on its own piece, then on that of the next member, and so on."""
    sharding = lowered(PRODUCT, "ES(M=4) SS(weight)")
    columns = [[share.ranges["N"][0] for share in own] for own in sharding.phases]
    assert columns == [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]]
    (shift,) = ring_shift((0, 1, 2, 3), sharding.ring.pieces[0], 0)
    assert shift.offset == -1
    assert [fragment.box[1] for fragment in shift.outputs] == [(1, 2), (2, 3), (3, 4), (0, 1)]


def test_a_ring_with_empty_pieces_sends_one_by_one() -> None:
    narrow = signature("(float[8,6] x) => (float[8,2] y) {\n y = MatMul (x, w)\n}", w=(6, 2))
    ring = lowered(narrow, "ES(M=4) SS(weight@N)").ring
    assert [piece is None for piece in ring.pieces[0]] == [False, False, True, True]
    messages = ring_shift(ring.groups[0], ring.pieces[0], 0)
    assert [message.group for message in messages] == [(1, 0), (0, 3)]


@pytest.mark.parametrize(
    ("strategy", "why"),
    [
        ("auto", "has not been chosen yet"),
        ("ES(Q=2)", "MatMul has no axis Q (its axes: M, N, K)"),
        ("ES(M=3)", "3 shares do not divide a set of 4"),
        ("SS(bias)", "MatMul has no operand bias"),
        ("SS(weight@M)", "the operand weight has no axis M"),
        ("ES(K=2) reduce-scatter(K)", "needs a parallel axis"),
        ("ES(M=2) reduce-scatter(Q)", "needs a parallel axis"),
    ],
)
def test_what_cannot_be_applied(strategy: str, why: str) -> None:
    with pytest.raises(InputError) as error:
        lowered(PRODUCT, strategy)
    assert why in str(error.value)


def test_every_layout_is_one() -> None:
    """Whatever is asked for, what a node leaves covers its output in each part."""
    for strategy in (
        "ES(M=4)",
        "ES(K=4)",
        "ES(K=2,N=2)",
        "ES(M=2,K=2) deferred",
        "ES(K=4) reduce-scatter(M)",
        "single",
    ):
        sharding = lowered(PRODUCT, strategy)
        assert [*sharding.produced[0].problems(), *sharding.resolved[0].problems()] == [], strategy


def test_shared_objects() -> None:
    """Lowering is a function of hashable arguments: asked again, it gives the same object."""
    assert lowered(CONV, "ES(H=4)") is lowered(CONV, "ES(H=4)")
    assert isinstance(signature_of(ir.Node("", "Relu", [ir.Value(name="x")])), Signature)
