"""Random communications over MPI, each compared bit by bit with the same over threads; argument: seed."""

import itertools
import sys
import threading

import ml_dtypes
import numpy as np
import onnx_ir as ir

from mars_onnx import comm
from mars_onnx.geometry import Reduction
from mars_onnx.runtime.collectives import execute
from mars_onnx.runtime.mpi.library import load_mpi
from mars_onnx.runtime.transport import ArrayKind, ThreadFabric

DTYPES = [np.float32, np.float16, np.float64, np.int64, np.int8, np.uint8, np.bool_, ml_dtypes.bfloat16]
SPECIAL = (np.nan, np.inf, -np.inf, -0.0, 0.0)


def values(random, shape, dtype):
    """Any bits of integers; floats of many magnitudes, so that the order of a sum shows, and special ones."""
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        return random.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(dtype)
    x = random.standard_normal(shape) * 10.0 ** random.integers(-4, 5, shape)
    return np.where(random.random(shape) < 0.01, random.choice(SPECIAL, shape), x).astype(dtype)


def sizes(random, members, total):
    cuts = np.sort(random.integers(0, total + 1, members - 1))
    return tuple(int(b - a) for a, b in itertools.pairwise([0, *cuts, total]))


def case(random, kind, group, tag, dtype):
    """Operators and data of all members."""
    n = len(group)
    code = ir.DataType.from_numpy(np.dtype(dtype))
    rank = int(random.integers(1, 4))
    axis, other = (int(random.integers(0, rank)) for _ in range(2))
    shape = [int(random.integers(1, 6)) for _ in range(rank)]
    if random.random() < 0.15:
        shape = [extent * 24 for extent in shape]  # beyond what is sent eagerly, or reduced in one exchange
    shape[axis] = int(random.integers(0, 12))
    reduction = list(Reduction)[random.integers(3)]

    def along(where, pieces):
        return [(*shape[:where], piece, *shape[where + 1 :]) for piece in pieces]

    common = {"tag": tag, "group": group}
    pieces = sizes(random, n, shape[axis])
    match kind:
        case "AllReduce":
            scalar = random.random() < 0.1
            made = [comm.AllReduce(**common, reduce_op=reduction)] * n
            xs = [() if scalar else tuple(shape)] * n
        case "AllGather":
            made = [comm.AllGather(**common, shape=tuple(shape), dtype=code, axis=axis, sizes=pieces)] * n
            xs = along(axis, pieces)
        case "ReduceScatter":
            made = [
                comm.ReduceScatter(**common, shape=y, dtype=code, axis=axis, sizes=pieces, reduce_op=reduction)
                for y in along(axis, pieces)
            ]
            xs = [tuple(shape)] * n
        case "AllToAll":
            splits = sizes(random, n, shape[other]) if other != axis else pieces
            made = [
                comm.AllToAll(
                    **common, shape=y, dtype=code, split_axis=other, concat_axis=axis, split_sizes=splits,
                    concat_sizes=pieces,
                )
                for y in along(other, splits)
            ]  # fmt: skip
            xs = along(axis, pieces)
            if other == axis:  # every member gives all of its x along the axis: nothing else would fit
                made = [
                    comm.AllGather(**common, shape=tuple(shape), dtype=code, axis=axis, sizes=pieces) for _ in group
                ]
        case "Broadcast":
            root = int(random.integers(0, n))
            made = [comm.Broadcast(**common, shape=tuple(shape), dtype=code, root=group[root])] * n
            xs = [tuple(shape) if member == root else (0,) for member in range(n)]
        case "HaloExchange":
            starts = [0, *itertools.accumulate(pieces)]
            held = tuple(bound for pair in itertools.pairwise(starts) for bound in pair)
            need = [tuple(sorted(map(int, random.integers(0, shape[axis] + 1, 2)))) for _ in group]
            flat = tuple(itertools.chain(*need))
            made = [
                comm.HaloExchange(**common, shape=y, dtype=code, axis=axis, held=held, need=flat)
                for y in along(axis, [stop - start for start, stop in need])
            ]
            xs = along(axis, pieces)
        case "Shift":
            offset = int(random.integers(-n, n + 1))
            xs = along(axis, pieces)
            made = [
                comm.Shift(**common, shape=xs[(member - offset) % n], dtype=code, offset=offset) for member in range(n)
            ]
        case "SendRecv":
            made = [comm.Send(tag=tag, dst=group[1]), comm.Recv(tag=tag, src=group[0], shape=tuple(shape), dtype=code)]
            xs = [tuple(shape), None]
    return made, [None if x is None else [values(random, x, dtype) for _ in range(2)] for x in xs]


def over_threads(ranks, group, operators, data):
    fabric = ThreadFabric(max(ranks) + 1)
    results = {}

    def work(rank, operator, x):
        results[rank] = execute(operator, x, fabric.endpoints[rank])

    threads = [threading.Thread(target=work, args=job) for job in zip(group, operators, data, strict=False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def abort_on(show):
    """An error that ends one process ends all."""

    def hook(*error):
        show(*error)
        load_mpi().COMM_WORLD.Abort(1)

    return hook


def main():
    mpi = load_mpi()
    from mars_onnx.runtime.mpi.transport import MpiTransport

    world = mpi.COMM_WORLD
    n = world.Get_size()
    random = np.random.default_rng(int(sys.argv[1]))
    ranks = tuple(map(int, random.permutation(n + 2)[:n]))
    transport = MpiTransport(world.Dup(), ranks)
    kinds = ["AllReduce", "AllGather", "ReduceScatter", "AllToAll", "Broadcast", "HaloExchange", "Shift", "SendRecv"]
    bound = []
    for tag, (kind, dtype) in enumerate(itertools.product(kinds, DTYPES)):
        members = 2 if kind == "SendRecv" else int(random.integers(1, n + 1))
        group = tuple(map(int, random.permutation(ranks)[:members]))
        operators, data = case(random, kind, group, tag, dtype)
        if transport.rank not in group:
            continue
        own = group.index(transport.rank)
        x = None if data[own] is None else data[own][0]
        known = None if x is None else ArrayKind(x.shape, x.dtype)
        bound.append((kind, group, operators, data, own, transport.bind(operators[own], known)))
    for run in range(2):
        for *_, communication in bound:
            communication.post()
        for kind, group, operators, data, own, communication in bound:
            given = [None if x is None else x[run] for x in data]
            communication.start(given[own])
            y = communication.finish()
            expected = over_threads(ranks, group, operators, given)[transport.rank]
            if expected is None:
                assert y is None
                continue
            assert (y.shape, y.dtype) == (expected.shape, expected.dtype), (kind, y.shape, expected.shape)
            assert y.tobytes() == expected.tobytes(), (kind, y.dtype, operators[own])
    for *_, communication in bound:
        communication.settle()
    done = world.reduce(len(bound))
    world.Barrier()
    transport.close()
    if world.Get_rank() == 0:
        print(done)


if __name__ == "__main__":
    sys.excepthook = abort_on(sys.excepthook)
    main()
