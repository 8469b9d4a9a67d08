"""Every operator over threads, with uneven and empty pieces and every element type, in both send semantics."""

import threading
from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from mars_onnx import comm
from mars_onnx.errors import RunError
from mars_onnx.geometry import Reduction
from mars_onnx.runtime.collectives import execute
from mars_onnx.runtime.transport import ThreadFabric

F = ir.DataType.FLOAT
DTYPES = [np.float32, np.float16, np.float64, np.int64, np.int8, np.uint8, np.bool_, ml_dtypes.bfloat16]
GROUP = (2, 0, 1)


@pytest.fixture(params=[False, True], ids=["buffered", "rendezvous"])
def together(request) -> Callable:
    def run(operators, inputs):
        """Run member ``i`` of GROUP (or of the ranks of a pair) with operator ``i``; outputs in that order."""
        ranks = GROUP[: len(operators)]
        fabric = ThreadFabric(3, rendezvous=request.param)
        for rank in set(range(3)) - set(ranks):
            fabric.endpoints[rank].close()
        results, errors = {}, []

        def work(rank, operator, x):
            try:
                results[rank] = execute(operator, x, fabric.endpoints[rank])
            except RunError as error:
                errors.append(error)
                fabric.endpoints[rank].abort(str(error))
            finally:
                fabric.endpoints[rank].close()

        threads = [threading.Thread(target=work, args=job) for job in zip(ranks, operators, inputs, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        if errors:
            raise errors[0]
        return [results[rank] for rank in ranks]

    return run


def data(*shape, dtype=np.float32):
    return (np.arange(np.prod(shape)).reshape(shape) % 5).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_send_and_recv(together, dtype) -> None:
    x = data(2, 3, dtype=dtype)
    recv = comm.Recv(tag=4, src=2, shape=(2, 3), dtype=ir.DataType.from_numpy(np.dtype(dtype)))
    sent, received = together([comm.Send(tag=4, dst=0), recv], [x, None])
    assert sent is None
    assert received.dtype == dtype
    np.testing.assert_array_equal(received, x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", Reduction)
def test_all_reduce(together, dtype, reduction) -> None:
    xs = [data(4, dtype=dtype), data(4, dtype=dtype)[::-1], data(4, dtype=dtype)]
    ys = together([comm.AllReduce(tag=0, group=GROUP, reduce_op=reduction)] * 3, xs)
    wide = np.stack([x.astype(np.float64) for x in xs])
    expected = {"sum": wide.sum(0), "max": wide.max(0), "min": wide.min(0)}[reduction].astype(dtype)
    for y in ys:
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("reduction", Reduction)
def test_scalars_stay_arrays(together, reduction) -> None:
    xs = [np.array(value, np.float32) for value in (1, 2, 3)]
    for y in together([comm.AllReduce(tag=0, group=GROUP, reduce_op=reduction)] * 3, xs):
        assert isinstance(y, np.ndarray)
        assert y.shape == ()
        assert float(y) == {"sum": 6, "max": 3, "min": 1}[reduction]


def test_small_floats_are_added_in_float32(together) -> None:
    xs = [np.array([value], np.float16) for value in (2048, 1, 1)]
    ys = together([comm.AllReduce(tag=0, group=GROUP, reduce_op=Reduction.SUM)] * 3, xs)
    assert [float(y[0]) for y in ys] == [2050.0] * 3


def test_reduction_is_in_group_order(together) -> None:
    xs = [np.array([value], np.float32) for value in (1e8, -1e8, 1)]
    ys = together([comm.AllReduce(tag=0, group=GROUP, reduce_op=Reduction.SUM)] * 3, xs)
    assert [float(y[0]) for y in ys] == [1.0] * 3


@pytest.mark.parametrize("sizes", [(1, 2, 3), (0, 5, 1), (2, 2, 2)])
def test_all_gather(together, sizes) -> None:
    whole = data(2, 6)
    xs = np.split(whole, np.cumsum(sizes)[:-1], axis=1)
    gather = comm.AllGather(tag=0, group=GROUP, shape=(2, 6), dtype=F, axis=1, sizes=sizes)
    for y in together([gather] * 3, xs):
        np.testing.assert_array_equal(y, whole)


@pytest.mark.parametrize("sizes", [(1, 2, 3), (0, 5, 1)])
def test_reduce_scatter(together, sizes) -> None:
    xs = [data(2, 6), data(2, 6) * 2, data(2, 6) * 3]
    operators = [
        comm.ReduceScatter(tag=0, group=GROUP, shape=(2, size), dtype=F, axis=1, sizes=sizes, reduce_op=Reduction.SUM)
        for size in sizes
    ]
    ys = together(operators, xs)
    np.testing.assert_array_equal(np.concatenate(ys, axis=1), data(2, 6) * 6)
    assert tuple(y.shape[1] for y in ys) == sizes


def test_all_to_all(together) -> None:
    whole, splits, concats = data(5, 4), (1, 0, 3), (2, 2, 1)
    operators = [
        comm.AllToAll(
            tag=0, group=GROUP, shape=(5, split), dtype=F, split_axis=1, concat_axis=0,
            split_sizes=splits, concat_sizes=concats,
        )
        for split in splits
    ]  # fmt: skip
    ys = together(operators, np.split(whole, np.cumsum(concats)[:-1], axis=0))
    np.testing.assert_array_equal(np.concatenate(ys, axis=1), whole)


def test_broadcast_reads_nothing_from_the_others(together) -> None:
    x, nothing = data(2, 3), np.zeros((0,), np.float32)
    broadcast = comm.Broadcast(tag=0, group=GROUP, shape=(2, 3), dtype=F, root=0)
    for y in together([broadcast] * 3, [nothing, x, nothing]):
        np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("need", [(0, 3, 1, 6, 4, 7), (4, 7, 0, 7, 0, 2), (0, 2, 3, 3, 2, 7)])
def test_halo_exchange(together, need) -> None:
    whole, held = data(2, 7), (0, 2, 2, 5, 5, 7)
    xs = [whole[:, held[2 * i] : held[2 * i + 1]] for i in range(3)]
    operators = [
        comm.HaloExchange(
            tag=0, group=GROUP, shape=(2, need[2 * i + 1] - need[2 * i]), dtype=F, axis=1, held=held, need=need
        )
        for i in range(3)
    ]
    for i, y in enumerate(together(operators, xs)):
        np.testing.assert_array_equal(y, whole[:, need[2 * i] : need[2 * i + 1]])


@pytest.mark.parametrize("offset", [0, 1, -1, 2, 4])
def test_shift_of_uneven_pieces(together, offset) -> None:
    xs = [data(1), data(2), data(3)]
    operators = [
        comm.Shift(tag=0, group=GROUP, shape=xs[(i - offset) % 3].shape, dtype=F, offset=offset) for i in range(3)
    ]
    for i, y in enumerate(together(operators, xs)):
        np.testing.assert_array_equal(y, xs[(i - offset) % 3])


def test_an_unexpected_shape_is_an_error(together) -> None:
    recv = comm.Recv(tag=4, src=2, shape=(3, 3), dtype=F)
    with pytest.raises(RunError, match=r"tag 4: the result has shape \[2, 3\], expected \[3, 3\]"):
        together([comm.Send(tag=4, dst=0), recv], [data(2, 3), None])


def test_a_range_that_nobody_holds_is_an_error(together) -> None:
    operators = [
        comm.HaloExchange(tag=0, group=GROUP, shape=(3,), dtype=F, axis=0, held=(0, 2, 3, 5, 5, 7), need=(0, 3) * 3)
    ] * 3
    with pytest.raises(RunError, match="tag 0: 2:3 is held by no member"):
        together(operators, [data(2), data(2), data(2)])


def test_waits_end_when_somebody_aborts() -> None:
    fabric = ThreadFabric(2)
    caught = []

    def wait() -> None:
        try:
            fabric.endpoints[0].recv(1, 7)
        except RunError as error:
            caught.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    fabric.endpoints[1].abort("fpga1 burns")
    fabric.endpoints[1].abort("second")
    thread.join(30)
    assert caught == ["fpga1 burns"]


def test_deadlock_is_found_without_a_timeout() -> None:
    fabric = ThreadFabric(2, names=("a", "b"))
    fabric.endpoints[1].close()
    with pytest.raises(RunError, match=r"deadlock: a waits for tag 7 from b \(b has ended\)"):
        fabric.endpoints[0].recv(1, 7)


def test_timeout() -> None:
    with pytest.raises(RunError, match=r"accelerator 0 waits for tag 7 from accelerator 1, in vain for 0.05 s"):
        ThreadFabric(2, timeout=0.05).endpoints[0].recv(1, 7)
