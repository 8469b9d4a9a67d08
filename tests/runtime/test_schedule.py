"""The static check of communication: what fits passes, what does not is named."""

import onnx_ir as ir
import pytest

from mars_onnx.errors import InvariantError
from mars_onnx.runtime.schedule import check_schedule
from tests.runtime.hand_written import partition


def part(lines: str, shape: str = "2,3") -> ir.Model:
    """A partition that does the lines, whose token ends in ``token``."""
    return partition(f"g (float[{shape}] x) => () {{ {lines} }}")


def send(dst: int, tag: int, token: str = "start -> token") -> str:
    before, after = token.split(" -> ")
    return f"[send{tag}] {after} = @Send <dst = {dst}, tag = {tag}> (x, {before}) "


def recv(src: int, tag: int, token: str = "start -> token", shape: str = "2,3", dtype: int = 1) -> str:
    before, after = token.split(" -> ")
    return f"[recv{tag}] y{tag}, {after} = @Recv <src={src}, tag={tag}, shape=[{shape}], dtype={dtype}> ({before}) "


def group(op: str, attributes: str, tag: int = 0, ranks: str = "0, 1") -> str:
    return f"[node{tag}] y, token = @{op} <group = [{ranks}], tag = {tag}, {attributes}> (x, start)"


def test_pairs_and_groups_that_fit() -> None:
    first = part(send(1, 0, "start -> a") + recv(1, 1, "a -> b") + send(2, 2, "b -> token"))
    second = part(recv(0, 0, "start -> a") + send(0, 1, "a -> token"))
    third = part(recv(0, 2))
    assert check_schedule({0: first, 1: second, 2: third}) == 3
    assert check_schedule({3: partition("g (float[2] x) => (float[2] y) { y = Relu (x) }")}) == 0


def test_sends_before_receives_are_a_deadlock() -> None:
    first = part(send(1, 0, "start -> a") + recv(1, 1, "a -> token"))
    second = part(send(0, 1, "start -> a") + recv(0, 0, "a -> token"))
    with pytest.raises(InvariantError) as caught:
        check_schedule({0: first, 1: second})
    assert "Send send0 (tag 0) of rank 0 waits for rank 1, which is at Send send1 (tag 1)" in str(caught.value)
    assert "Send send1 (tag 1) of rank 1 waits for rank 0, which is at Send send0 (tag 0)" in str(caught.value)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (recv(0, 8), "Send send7 (tag 7) of rank 0 waits for rank 1, which is at Recv recv8 (tag 8)"),
        (recv(2, 7), "whose Recv recv7 (tag 7) of rank 1 has another group or partner"),
        (recv(0, 7, shape="3,2"), "FLOAT[2, 3] where Recv recv7 (tag 7) of rank 1 says FLOAT[3, 2]"),
        (recv(0, 7, dtype=10), "FLOAT[2, 3] where Recv recv7 (tag 7) of rank 1 says FLOAT16[2, 3]"),
        (send(0, 7), "another group or partner"),
    ],
)
def test_a_send_and_what_is_not_its_recv(other: str, message: str) -> None:
    with pytest.raises(InvariantError) as caught:
        check_schedule({0: part(send(1, 7)), 1: part(other), 2: part(send(1, 9))})
    assert message in str(caught.value)


def test_a_partner_that_is_missing_or_has_ended() -> None:
    with pytest.raises(InvariantError, match="waits for rank 5, which has no partition"):
        check_schedule({0: part(send(5, 0))})
    with pytest.raises(InvariantError, match="waits for rank 1, which has ended"):
        check_schedule({0: part(send(1, 0)), 1: partition("g (float[2] x) => (float[2] y) { y = Relu (x) }")})
    with pytest.raises(InvariantError, match="speaks to itself"):
        check_schedule({0: part(send(0, 0))})
    with pytest.raises(InvariantError, match=r"the rank is not in its group \[0, 1\]"):
        check_schedule({2: part(group("AllReduce", 'reduce_op = "sum"'))})


def test_a_tag_that_is_used_twice() -> None:
    first = part(send(1, 0, "start -> a") + send(1, 0, "a -> token").replace("[send0]", "[again]"))
    second = part(recv(0, 0, "start -> a") + recv(0, 0, "a -> token").replace("y0", "z"))
    with pytest.raises(InvariantError, match=r"Recv recv0 \(tag 0\) of rank 1 has the tag of|has the tag of"):
        check_schedule({0: first, 1: second})


GATHER = "axis = 1, sizes = [3, 1], shape = [2, 4], dtype = 1"
SCATTER = 'axis = 1, sizes = [2, 1], shape = [2, {}], dtype = 1, reduce_op = "sum"'
EXCHANGE = "split_axis = 0, concat_axis = 1, split_sizes = [2, 0], concat_sizes = [3, 1], shape = [{}, 4], dtype = 1"
HALO = "axis = 0, held = [0, 2, 2, 4], need = [0, 3, 1, 4], shape = [3, 3], dtype = 1"
SHIFT = "offset = 1, shape = [{},3], dtype = 1"


@pytest.mark.parametrize(
    ("op", "first", "second", "shapes"),
    [
        ("AllReduce", 'reduce_op = "max"', 'reduce_op = "max"', ("2,3", "2,3")),
        ("AllGather", GATHER, GATHER, ("2,3", "2,1")),
        ("ReduceScatter", SCATTER.format(2), SCATTER.format(1), ("2,3", "2,3")),
        ("AllToAll", EXCHANGE.format(2), EXCHANGE.format(0), ("2,3", "2,1")),
        ("Broadcast", "root = 1, shape = [2,3], dtype = 1", "root = 1, shape = [2,3], dtype = 1", ("0", "2,3")),
        ("HaloExchange", HALO, HALO, ("2,3", "2,3")),
        ("Shift", SHIFT.format(5), SHIFT.format(2), ("2,3", "5,3")),
    ],
)
def test_collectives_that_fit(op: str, first: str, second: str, shapes: tuple[str, str]) -> None:
    assert check_schedule({0: part(group(op, first), shapes[0]), 1: part(group(op, second), shapes[1])}) == 1


@pytest.mark.parametrize(
    ("op", "first", "second", "shapes", "message"),
    [
        ("AllReduce", 'reduce_op = "max"', 'reduce_op = "sum"', ("2,3", "2,3"), "disagree on reduce_op: max and sum"),
        ("AllReduce", 'reduce_op = "max"', 'reduce_op = "max"', ("2,3", "3,2"), "of rank 1 has FLOAT[3, 2] where"),
        ("AllGather", GATHER, GATHER, ("2,3", "2,2"), "of rank 1 has FLOAT[2, 2] where"),
        ("AllGather", GATHER, GATHER.replace("3, 1", "2, 2"), ("2,3", "2,2"), "disagree on sizes"),
        ("AllGather", GATHER.replace("4", "5"), GATHER.replace("4", "5"), ("2,3", "2,1"), "with what the others hold"),
        ("ReduceScatter", SCATTER.format(2), SCATTER.format(2), ("2,3", "2,3"), "has shape [2, 2]"),
        ("AllToAll", EXCHANGE.format(2), EXCHANGE.format(1), ("2,3", "2,1"), "has shape [1, 4]"),
        (
            "Broadcast",
            "root = 1, shape = [2,3], dtype = 1",
            "root = 1, shape = [3,2], dtype = 1",
            ("0", "2,3"),
            "shape",
        ),
        (
            "Broadcast",
            "root = 0, shape = [2,3], dtype = 1",
            "root = 0, shape = [2,3], dtype = 1",
            ("2,3", "1"),
            "empty",
        ),
        ("HaloExchange", HALO.replace("2, 4]", "3, 5]"), HALO.replace("2, 4]", "3, 5]"), ("2,3", "2,3"), "needs 2:3"),
        ("HaloExchange", HALO.replace("2, 4]", "1, 3]"), HALO.replace("2, 4]", "1, 3]"), ("2,3", "2,3"), "held twice"),
        ("Shift", SHIFT.format(2), SHIFT.format(2), ("2,3", "5,3"), "FLOAT[5, 3]"),
    ],
)
def test_collectives_that_do_not_fit(op, first, second, shapes, message) -> None:
    with pytest.raises(InvariantError) as caught:
        check_schedule({0: part(group(op, first), shapes[0]), 1: part(group(op, second), shapes[1])})
    assert message in str(caught.value)


def test_different_operators_of_one_tag() -> None:
    with pytest.raises(InvariantError, match="are different operators of one tag"):
        check_schedule({0: part(group("AllReduce", 'reduce_op = "max"')), 1: part(group("AllGather", GATHER), "2,1")})


def test_groups_in_different_order_on_different_ranks() -> None:
    def two(first: int, second: int) -> ir.Model:
        reduce = '[n{}] {} = @AllReduce <group = [0, 1], tag = {}, reduce_op = "sum"> (x, {}) '
        return part(reduce.format(first, "y, a", first, "start") + reduce.format(second, "z, token", second, "a"))

    assert check_schedule({0: two(0, 1), 1: two(0, 1)}) == 2
    with pytest.raises(InvariantError, match="cannot be completed"):
        check_schedule({0: two(0, 1), 1: two(1, 0)})
