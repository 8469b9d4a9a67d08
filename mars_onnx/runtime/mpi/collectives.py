"""Collectives as calls of MPI on the communicator of their group, with buffers and counts made once.

Data move as bytes, whatever the element type. Sums of floats are formed here, in group order, with numpy, so that the
result has the same bits on any transport and in any MPI: pieces are exchanged, summed by their owners, and gathered.
The library's reductions serve wide integers, whose sums do not depend on the order, and float sums of two members,
which do not either. 16-bit floats are summed in float32, which no MPI offers.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from mpi4py import MPI

from mars_onnx.comm import AllGather, AllReduce, AllToAll, Broadcast, Grouped, ReduceScatter, Shaped
from mars_onnx.errors import RunError
from mars_onnx.geometry import Reduction
from mars_onnx.runtime.collectives import reduce_arrays, reduce_into
from mars_onnx.runtime.mpi.pieces import Counts, byte_counts, check, contiguous, member_of, receiver, resized, sender
from mars_onnx.runtime.mpi.transport import MpiTransport, as_bytes
from mars_onnx.runtime.transport import Array, ArrayKind

SMALL_BYTES = 16 * 1024
"""Up to this size everybody gets all arrays of a reduction and sums them: one exchange in place of two."""

_OPS = {Reduction.SUM: MPI.SUM, Reduction.MAX: MPI.MAX, Reduction.MIN: MPI.MIN}
_FLOATS = frozenset({np.dtype(np.float32), np.dtype(np.float64)})


class BoundCollective:
    """An operator that is one call, or two, over the communicator of its group."""

    def __init__(self, operator: Grouped, x: ArrayKind, transport: MpiTransport) -> None:
        self._x = x
        self._operator = operator
        own = member_of(operator, transport)
        comm = transport.communicator(operator.group)
        _agree(operator, x, comm)
        self._call = _call(operator, x, comm, own, transport.ordered)
        self._y: Array | None = None

    def post(self) -> None:
        pass

    def start(self, x: Array | None) -> None:
        array = contiguous(x)
        # What does not fit would make MPI read or write beside the memory.
        if (array.shape, array.dtype) != (self._x.shape, self._x.dtype):
            raise RunError(
                f"tag {self._operator.tag}: got {array.dtype}{list(array.shape)}, not "
                f"{self._x.dtype}{list(self._x.shape)}"
            )
        try:
            self._y = self._call(array)
        except MPI.Exception as error:
            raise RunError(f"MPI: {error.Get_error_string()}") from error

    def finish(self) -> Array | None:
        return self._y

    def settle(self) -> None:
        pass


_Call = Callable[[Array], Array]


def _call(operator: Grouped, x: ArrayKind, comm: MPI.Intracomm, own: int, ordered: bool) -> _Call:
    """The work of a collective, its buffers and counts made once."""
    y = np.empty(operator.shape if isinstance(operator, Shaped) else x.shape, x.dtype)
    n = len(operator.group)
    match operator:
        case _ if n == 1:
            check(y.shape == x.shape, operator, "alone, the result has another shape than the data")
            return lambda array: array
        case AllReduce():
            return _all_reduce(operator, x, comm, y, ordered)
        case ReduceScatter():
            return _reduce_scatter(operator, x, comm, y, ordered)
        case Broadcast():
            return _broadcast(operator, x, comm, y, own)
        case AllGather():
            check(
                x.shape == resized(y.shape, operator.axis, operator.sizes[own]), operator, "the data do not fit sizes"
            )
            received, unpack = receiver(y, operator.axis, operator.sizes)

            def gather(array: Array) -> Array:
                comm.Allgatherv([as_bytes(array), MPI.BYTE], received)
                unpack()
                return y

            return gather
        case AllToAll():
            fits = x.shape[operator.split_axis] == sum(operator.split_sizes)
            check(fits, operator, "the data do not fit split_sizes")
            sent, pack = sender(x, operator.split_axis, operator.split_sizes)
            received, unpack = receiver(y, operator.concat_axis, operator.concat_sizes)

            def exchange(array: Array) -> Array:
                comm.Alltoallv([pack(array), *sent], received)
                unpack()
                return y

            return exchange
        case _:
            raise RunError(f"tag {operator.tag}: no implementation of {operator.op_type}")


def _all_reduce(operator: AllReduce, x: ArrayKind, comm: MPI.Intracomm, y: Array, ordered: bool) -> _Call:
    op, n = _OPS[operator.reduce_op], comm.Get_size()
    if _native(x.dtype, operator.reduce_op, n, ordered):

        def reduce(array: Array) -> Array:
            comm.Allreduce(array, y, op)
            return y

        return reduce
    if y.nbytes <= SMALL_BYTES:
        parts = np.empty((n, *x.shape), x.dtype)
        flat, each = as_bytes(parts), [parts[number, ...] for number in range(n)]

        def gather_and_sum(array: Array) -> Array:
            comm.Allgather([as_bytes(array), MPI.BYTE], [flat, y.nbytes, MPI.BYTE])
            return reduce_arrays(each, operator.reduce_op)

        return gather_and_sum
    own, width = comm.Get_rank(), x.dtype.itemsize
    cuts = [y.size * member // n for member in range(n + 1)]
    sizes = [stop - start for start, stop in pairwise(cuts)]
    mine = slice(cuts[own], cuts[own + 1])
    pieces = np.empty((n, sizes[own]), x.dtype)
    each = list(pieces)
    sent, received = _but_own(byte_counts(sizes, width), own), _but_own(byte_counts([sizes[own]] * n, width), own)
    into, gathered = [as_bytes(pieces), *received], [as_bytes(y), *byte_counts(sizes, width)]
    total = y.reshape(-1)[mine]

    def scatter_sum_gather(array: Array) -> Array:
        comm.Alltoallv([as_bytes(array), *sent], into)
        each[own] = array.reshape(-1)[mine]
        reduce_into(total, each, operator.reduce_op)
        comm.Allgatherv(MPI.IN_PLACE, gathered)
        return y

    return scatter_sum_gather


def _reduce_scatter(operator: ReduceScatter, x: ArrayKind, comm: MPI.Intracomm, y: Array, ordered: bool) -> _Call:
    op, n, own = _OPS[operator.reduce_op], comm.Get_size(), comm.Get_rank()
    check(x.shape[operator.axis] == sum(operator.sizes), operator, "the data do not fit sizes")
    check(y.shape == resized(x.shape, operator.axis, operator.sizes[own]), operator, "the result does not fit sizes")
    sent, pack = sender(x, operator.axis, operator.sizes)
    if _native(x.dtype, operator.reduce_op, n, ordered):
        elements = [count // x.dtype.itemsize for count in sent[0][0]]

        def reduce(array: Array) -> Array:
            comm.Reduce_scatter(pack(array).view(x.dtype), y, elements, op)
            return y

        return reduce
    pieces = np.empty((n, *y.shape), x.dtype)
    each = [pieces[number, ...] for number in range(n)]
    (counts, starts), _ = sent
    mine = slice(starts[own], starts[own] + counts[own])
    others = _but_own(sent, own)
    received = [as_bytes(pieces), *_but_own(byte_counts([y.size] * n, x.dtype.itemsize), own)]

    def exchange_and_sum(array: Array) -> Array:
        packed = pack(array)
        comm.Alltoallv([packed, *others], received)
        each[own] = packed[mine].view(x.dtype).reshape(y.shape)
        reduce_into(y, each, operator.reduce_op)
        return y

    return exchange_and_sum


def _but_own(counts: Counts, own: int) -> Counts:
    """The counts of an exchange in which nobody sends anything to himself: that would be a copy."""
    (sizes, starts), unit = counts
    return ([0 if member == own else size for member, size in enumerate(sizes)], starts), unit


def _broadcast(operator: Broadcast, x: ArrayKind, comm: MPI.Intracomm, y: Array, own: int) -> _Call:
    root = operator.group.index(operator.root)
    check(own != root or x.shape == y.shape, operator, "the root's data have another shape than the result")

    def broadcast(array: Array) -> Array:
        result = array if own == root else y
        comm.Bcast([as_bytes(result), MPI.BYTE], root)
        return result

    return broadcast


def _native(dtype: np.dtype[Any], reduction: Reduction, members: int, ordered: bool) -> bool:
    """Whether the library reduces these to the bits that :func:`reduce_arrays` gives (or need not, if not ordered).

    MPI leaves open what the maximum of a NaN is, so that maxima of floats are formed here; and Open MPI 4.1 saturates
    sums of 8- and 16-bit integers, which have to wrap.
    """
    if dtype.kind in "iu":
        return dtype.itemsize >= 4
    return dtype in _FLOATS and reduction is Reduction.SUM and (members == 2 or not ordered)


def _agree(operator: Grouped, x: ArrayKind, comm: MPI.Intracomm) -> None:
    """Members that disagree about sizes would write beside their memory."""
    common = {name: getattr(operator, name) for name in operator.kinds() if name != "shape"}
    shape = x.shape if isinstance(operator, AllReduce) else None
    told = comm.allgather((operator.op_type, repr(common), str(x.dtype), shape))
    for rank, other in zip(operator.group, told, strict=True):
        if other != told[0]:
            raise RunError(
                f"tag {operator.tag}: accelerator {rank} says {other}, accelerator {operator.group[0]} {told[0]}"
            )
