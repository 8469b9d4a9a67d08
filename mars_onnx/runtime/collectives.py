"""What the communication operators do, over any transport.

Reductions are done once, by the first member of the group (of a scatter: by the owner of the piece), in group order:
all members get the same bits, and a second run gives them again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np

from mars_onnx.comm import (
    AllGather,
    AllReduce,
    AllToAll,
    Broadcast,
    Communication,
    Grouped,
    HaloExchange,
    Recv,
    ReduceScatter,
    Send,
    Shaped,
    Shift,
)
from mars_onnx.errors import RunError
from mars_onnx.geometry import Reduction
from mars_onnx.runtime.transport import Array, Transport


def execute(operator: Communication, x: Array | None, transport: Transport) -> Array | None:
    """Take part in one communication.

    Args:
        operator: Which one.
        x: The data input; ``None`` for Recv.
        transport: The own end.

    Returns:
        The data output; ``None`` for Send. It may share memory with ``x`` or with another rank: do not write to it.

    Raises:
        RunError: The other side failed, or what arrives is not what the attributes say.
    """
    result = _dispatch(operator, x, transport)
    expected = operator.shape if isinstance(operator, Shaped | Recv) else None
    if result is not None and expected is not None and result.shape != expected:
        raise RunError(f"tag {operator.tag}: the result has shape {list(result.shape)}, expected {list(expected)}")
    return result


def _dispatch(operator: Communication, x: Array | None, transport: Transport) -> Array | None:
    match operator:
        case Recv():
            return transport.recv(operator.src, operator.tag)
        case _ if x is None:
            raise RunError(f"tag {operator.tag}: {operator.op_type} without data")
        case Send():
            transport.isend(operator.dst, operator.tag, x).wait()
            return None
        case AllReduce():
            return _all_reduce(operator, x, transport)
        case AllGather():
            pieces = _exchange(operator, transport, lambda _: x)
            return _join([piece for piece in pieces if piece is not None], operator.axis)
        case ReduceScatter():
            return _reduce_scatter(operator, x, transport)
        case AllToAll():
            starts = _starts(operator.split_sizes)
            pieces = _exchange(
                operator,
                transport,
                lambda member: _range(x, operator.split_axis, starts[member], operator.split_sizes[member]),
            )
            return _join([piece for piece in pieces if piece is not None], operator.concat_axis)
        case Broadcast():
            return _broadcast(operator, x, transport)
        case HaloExchange():
            return _halo_exchange(operator, x, transport)
        case Shift():
            return _shift(operator, x, transport)
        case _:
            raise RunError(f"tag {operator.tag}: no implementation of {operator.op_type}")


def reduce_arrays(arrays: Sequence[Array], reduction: Reduction) -> Array:
    """Reduce in the order given; 16-bit and smaller floats are added up in float32, as accelerators do."""
    first = arrays[0]
    if reduction is Reduction.SUM:
        # numpy does not know the kinds of bfloat16 and float8 ("V"), which all are small floats.
        small = first.dtype.kind not in "biuc" and first.dtype.itemsize < 4
        total = first.astype(np.float32 if small else first.dtype, copy=True)
        for array in arrays[1:]:
            total += array.astype(total.dtype, copy=False)
        return total.astype(first.dtype, copy=False)
    combine = np.maximum if reduction is Reduction.MAX else np.minimum
    result = first
    for array in arrays[1:]:
        # Of scalars numpy makes no array.
        result = np.asarray(combine(result, array))
    return result


def reduce_into(out: Array, arrays: Sequence[Array], reduction: Reduction) -> None:
    """:func:`reduce_arrays` into memory that is none of the arrays', without more memory where that can be done."""
    if reduction is Reduction.SUM and out.dtype.kind in "fc" and out.dtype.itemsize >= 4 and len(arrays) > 1:
        np.add(arrays[0], arrays[1], out=out)
        for array in arrays[2:]:
            np.add(out, array, out=out)
        return
    np.copyto(out, reduce_arrays(arrays, reduction))


def _exchange(operator: Grouped, transport: Transport, piece_for: Callable[[int], Array | None]) -> list[Array | None]:
    """Give every member its piece (``None``: nothing), and return what they gave; the own piece goes no detour.

    All sends begin before the first receive, so no order of members can deadlock. Whether a member expects a piece of
    another is for both to know: here, all members send to all, or :func:`_halo_exchange` decides by ranges.
    """
    own = _member(operator, transport)
    handles = []
    pieces: list[Array | None] = [None] * len(operator.group)
    for member, rank in enumerate(operator.group):
        piece = piece_for(member)
        if member == own:
            pieces[member] = piece
        elif piece is not None:
            handles.append(transport.isend(rank, operator.tag, piece))
    for member, rank in enumerate(operator.group):
        if member != own:
            pieces[member] = transport.recv(rank, operator.tag)
    for handle in handles:
        handle.wait()
    return pieces


def _all_reduce(operator: AllReduce, x: Array, transport: Transport) -> Array:
    own = _member(operator, transport)
    first, others = operator.group[0], operator.group[1:]
    if own != 0:
        transport.isend(first, operator.tag, x).wait()
        return transport.recv(first, operator.tag)
    arrays = [x, *(transport.recv(rank, operator.tag) for rank in others)]
    for rank, array in zip(operator.group, arrays, strict=True):
        if (array.shape, array.dtype) != (x.shape, x.dtype):
            raise RunError(
                f"tag {operator.tag}: accelerator {rank} gives {array.dtype}{list(array.shape)} to a reduction of "
                f"{x.dtype}{list(x.shape)}"
            )
    result = reduce_arrays(arrays, operator.reduce_op)
    for handle in [transport.isend(rank, operator.tag, result) for rank in others]:
        handle.wait()
    return result


def _reduce_scatter(operator: ReduceScatter, x: Array, transport: Transport) -> Array:
    starts = _starts(operator.sizes)
    pieces = _exchange(
        operator, transport, lambda member: _range(x, operator.axis, starts[member], operator.sizes[member])
    )
    arrays = [piece for piece in pieces if piece is not None]
    if any(array.shape != arrays[0].shape for array in arrays):
        raise RunError(f"tag {operator.tag}: the pieces to reduce have shapes {[list(a.shape) for a in arrays]}")
    return reduce_arrays(arrays, operator.reduce_op)


def _broadcast(operator: Broadcast, x: Array, transport: Transport) -> Array:
    if transport.rank != operator.root:
        return transport.recv(operator.root, operator.tag)
    handles = [transport.isend(rank, operator.tag, x) for rank in operator.group if rank != operator.root]
    for handle in handles:
        handle.wait()
    return x


def _shift(operator: Shift, x: Array, transport: Transport) -> Array:
    own, n = _member(operator, transport), len(operator.group)
    if operator.offset % n == 0:
        return x
    handle = transport.isend(operator.group[(own + operator.offset) % n], operator.tag, x)
    y = transport.recv(operator.group[(own - operator.offset) % n], operator.tag)
    handle.wait()
    return y


def _halo_exchange(operator: HaloExchange, x: Array, transport: Transport) -> Array:
    own = _member(operator, transport)
    low, high = operator.held_by(own)
    if x.shape[operator.axis] != high - low:
        raise RunError(f"tag {operator.tag}: holds {x.shape[operator.axis]} along the axis, not {low}:{high}")

    def common(holder: int, taker: int) -> tuple[int, int] | None:
        start = max(operator.held_by(holder)[0], operator.needed_by(taker)[0])
        stop = min(operator.held_by(holder)[1], operator.needed_by(taker)[1])
        return (start, stop) if start < stop else None

    handles = []
    for member, rank in enumerate(operator.group):
        piece = common(own, member)
        if member != own and piece is not None:
            handles.append(
                transport.isend(rank, operator.tag, _range(x, operator.axis, piece[0] - low, piece[1] - piece[0]))
            )
    received: list[tuple[int, int, Array]] = []
    for member, rank in enumerate(operator.group):
        piece = common(member, own)
        if piece is None:
            continue
        part = (
            _range(x, operator.axis, piece[0] - low, piece[1] - piece[0])
            if member == own
            else transport.recv(rank, operator.tag)
        )
        received.append((*piece, part))
    for handle in handles:
        handle.wait()
    received.sort(key=lambda item: item[:2])
    position = operator.needed_by(own)[0]
    for start, stop, _ in received:
        if start != position:
            raise RunError(
                f"tag {operator.tag}: {min(start, position)}:{max(start, position)} is held by none or twice"
            )
        position = stop
    if position != operator.needed_by(own)[1]:
        raise RunError(f"tag {operator.tag}: {position}:{operator.needed_by(own)[1]} is held by no member")
    return _join([part for *_, part in received], operator.axis) if received else _range(x, operator.axis, 0, 0)


def _member(operator: Grouped, transport: Transport) -> int:
    if transport.rank not in operator.group:
        raise RunError(f"tag {operator.tag}: accelerator {transport.rank} is not in the group {list(operator.group)}")
    return operator.group.index(transport.rank)


def _starts(sizes: Sequence[int]) -> list[int]:
    return list(accumulate(sizes, initial=0))


def _range(x: Array, axis: int, start: int, extent: int) -> Array:
    """A contiguous copy, or ``x`` itself where it is all of it: what is sent must not keep the whole alive."""
    if start == 0 and extent == x.shape[axis]:
        return x
    if start + extent > x.shape[axis]:
        raise RunError(f"{start}:{start + extent} is not inside dimension {axis} of shape {list(x.shape)}")
    return x[(slice(None),) * axis + (slice(start, start + extent),)].copy()


def _join(pieces: Sequence[Array], axis: int) -> Array:
    if len(pieces) == 1:
        return pieces[0]
    if len({piece.dtype for piece in pieces}) > 1:
        raise RunError(f"the pieces have different element types: {sorted({str(piece.dtype) for piece in pieces})}")
    try:
        return np.concatenate(pieces, axis=axis)
    except ValueError as error:
        shapes = [list(piece.shape) for piece in pieces]
        raise RunError(f"pieces of shapes {shapes} do not join along dimension {axis}: {error}") from None
