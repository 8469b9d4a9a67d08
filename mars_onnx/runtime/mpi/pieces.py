"""Pieces of an array along one axis: how they lie in memory, and what MPI is told about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from mpi4py import MPI

from mars_onnx.comm import Communication, Grouped
from mars_onnx.errors import RunError
from mars_onnx.runtime.mpi.transport import MpiTransport, as_bytes
from mars_onnx.runtime.transport import Array, ArrayKind

Counts = tuple[tuple[list[int], list[int]], MPI.Datatype]


def byte_counts(elements: Sequence[int], width: int) -> Counts:
    """Counts and displacements in bytes, as mpi4py wants them beside a buffer."""
    counts = [count * width for count in elements]
    return (counts, list(accumulate(counts, initial=0))[:-1]), MPI.BYTE


def sender(x: ArrayKind, axis: int, sizes: Sequence[int]) -> tuple[Counts, Callable[[Array], Array]]:
    """Pieces of x along an axis, one after the other in memory: what goes to whom, and how to bring them there."""
    outer, inner = around(x.shape, axis)
    counts = byte_counts([outer * size * inner for size in sizes], x.dtype.itemsize)
    if outer == 1:
        return counts, as_bytes
    packed = np.empty(int(np.prod(x.shape)), x.dtype)
    flat, parts = as_bytes(packed), list(_parts(packed, x.shape, axis, sizes))

    def pack(array: Array) -> Array:
        for part, index in parts:
            np.copyto(part, array[index])
        return flat

    return counts, pack


def receiver(y: Array, axis: int, sizes: Sequence[int]) -> tuple[list[Any], Callable[[], None]]:
    """Where pieces of y along an axis arrive, and how to bring them to their places."""
    _check_sizes(y, axis, sizes)
    outer, inner = around(y.shape, axis)
    counts = byte_counts([outer * size * inner for size in sizes], y.dtype.itemsize)
    if outer == 1:
        return [as_bytes(y), *counts], lambda: None
    packed = np.empty(y.size, y.dtype)
    parts = list(_parts(packed, y.shape, axis, sizes))

    def unpack() -> None:
        for part, index in parts:
            np.copyto(y[index], part)

    return [as_bytes(packed), *counts], unpack


def _parts(
    packed: Array, shape: tuple[int, ...], axis: int, sizes: Sequence[int]
) -> Sequence[tuple[Array, tuple[slice, ...]]]:
    outer, inner = around(shape, axis)
    found: list[tuple[Array, tuple[slice, ...]]] = []
    start = 0
    for size in sizes:
        here = start * outer * inner
        piece = packed[here : here + size * outer * inner].reshape(resized(shape, axis, size))
        found.append((piece, along(axis, (start, start + size), 0)))
        start += size
    return found


def around(shape: tuple[int, ...], axis: int) -> tuple[int, int]:
    """How many elements there are before and after an axis."""
    return int(np.prod(shape[:axis], dtype=np.int64)), int(np.prod(shape[axis + 1 :], dtype=np.int64))


def resized(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    """The shape with another extent along an axis."""
    return (*shape[:axis], size, *shape[axis + 1 :])


def along(axis: int, interval: tuple[int, int], origin: int) -> tuple[slice, ...]:
    """Index of an interval along an axis, in coordinates that begin at ``origin``."""
    return (*(slice(None),) * axis, slice(interval[0] - origin, interval[1] - origin))


def overlap(first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int] | None:
    """What two intervals have in common, if anything."""
    start, stop = max(first[0], second[0]), min(first[1], second[1])
    return (start, stop) if start < stop else None


def contiguous(x: Array | None) -> Array:
    """The data, copied if they do not lie in one piece."""
    if x is None:
        raise RunError("there are no data to send")
    # np.ascontiguousarray would make a scalar one-dimensional.
    return x if x.flags.c_contiguous else x.copy()


def member_of(operator: Grouped, transport: MpiTransport) -> int:
    """The own number in the group."""
    if transport.rank not in operator.group:
        raise RunError(f"tag {operator.tag}: accelerator {transport.rank} is not in the group {list(operator.group)}")
    return operator.group.index(transport.rank)


def _check_sizes(y: Array, axis: int, sizes: Sequence[int]) -> None:
    if y.shape[axis] != sum(sizes):
        raise RunError(f"pieces of {list(sizes)} along dimension {axis} do not make up shape {list(y.shape)}")


def check(right: bool, operator: Communication, text: str) -> None:
    """Raise RunError with the tag and this text unless ``right``."""
    if not right:
        raise RunError(f"tag {operator.tag}: {text}")
