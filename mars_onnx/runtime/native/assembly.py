"""What a communication is, as copies of boxes: which range of whose x lands where in y."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from mars_onnx.comm import (
    AllGather,
    AllReduce,
    AllToAll,
    Broadcast,
    Communication,
    HaloExchange,
    Recv,
    ReduceScatter,
    Send,
    Shift,
)
from mars_onnx.errors import RunError
from mars_onnx.geometry import Reduction
from mars_onnx.runtime.collectives import reduce_arrays
from mars_onnx.runtime.transport import Array

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A range along ``axis`` of the x of ``rank``, and where along ``y_axis`` it starts in y.

    ``axis`` is ``None`` where it is all of x; ``y_axis`` is ``None`` where it is all of y.
    """

    rank: int
    axis: int | None = None
    start: int = 0
    extent: int = 0
    y_axis: int | None = None
    y_start: int = 0

    def of_x(self, x: Array) -> Array:
        """The range, as a view of x."""
        if self.axis is None:
            return x
        if self.start + self.extent > x.shape[self.axis]:
            raise RunError(
                f"{self.start}:{self.start + self.extent} is not inside dimension {self.axis} of {list(x.shape)}"
            )
        return x[(slice(None),) * self.axis + (slice(self.start, self.start + self.extent),)]

    def in_y(self, y: Array, extent: int) -> Array:
        """Where it lands, as a view of y."""
        if self.y_axis is None:
            return y
        return y[(slice(None),) * self.y_axis + (slice(self.y_start, self.y_start + extent),)]


@dataclass(frozen=True, slots=True)
class Assembly:
    """y of one member: its pieces side by side, or, with a reduction, one over the other in this order."""

    pieces: tuple[Piece, ...]
    reduction: Reduction | None = None

    def compute(self, xs: list[Array], y: Array) -> None:
        """Write y; ``xs`` has the x of each piece."""
        parts = [piece.of_x(x) for piece, x in zip(self.pieces, xs, strict=True)]
        if self.reduction is not None:
            y[...] = reduce_arrays(parts, self.reduction)
            return
        for piece, part in zip(self.pieces, parts, strict=True):
            extent = 0 if piece.y_axis is None else part.shape[piece.y_axis]
            piece.in_y(y, extent)[...] = part


def assembly(operator: Communication, rank: int) -> Assembly | None:
    """How the y of ``rank`` is put together; ``None`` for Send.

    Raises:
        RunError: Parts of y are held by nobody, or by two.
    """
    match operator:
        case Send():
            return None
        case Recv():
            return Assembly((Piece(operator.src),))
        case AllReduce():
            return Assembly(tuple(Piece(member) for member in operator.group), operator.reduce_op)
        case AllGather():
            return Assembly(
                tuple(
                    Piece(member, y_axis=operator.axis, y_start=start)
                    for member, start in zip(operator.group, accumulate(operator.sizes, initial=0), strict=False)
                )
            )
        case Broadcast():
            return Assembly((Piece(operator.root),))
        case Shift():
            own, count = operator.group.index(rank), len(operator.group)
            return Assembly((Piece(operator.group[(own - operator.offset) % count]),))
        case ReduceScatter():
            start, extent = _range_of(operator.sizes, operator.group.index(rank))
            pieces = tuple(Piece(member, operator.axis, start, extent) for member in operator.group)
            return Assembly(pieces, operator.reduce_op)
        case AllToAll():
            start, extent = _range_of(operator.split_sizes, operator.group.index(rank))
            return Assembly(
                tuple(
                    Piece(member, operator.split_axis, start, extent, operator.concat_axis, y_start)
                    for member, y_start in zip(
                        operator.group, accumulate(operator.concat_sizes, initial=0), strict=False
                    )
                )
            )
        case HaloExchange():
            return _halo(operator, rank)
        case _:
            raise RunError(f"tag {operator.tag}: no implementation of {operator.op_type}")


def _range_of(sizes: Shape, member: int) -> tuple[int, int]:
    return sum(sizes[:member]), sizes[member]


def _halo(operator: HaloExchange, rank: int) -> Assembly:
    low, high = operator.needed_by(operator.group.index(rank))
    found: list[tuple[int, int, Piece]] = []
    for member, holder in enumerate(operator.group):
        first, last = operator.held_by(member)
        start, stop = max(first, low), min(last, high)
        if start < stop:
            piece = Piece(holder, operator.axis, start - first, stop - start, operator.axis, start - low)
            found.append((start, stop, piece))
    found.sort(key=lambda item: item[:2])
    position = low
    for start, stop, _ in found:
        if start != position:
            raise RunError(
                f"tag {operator.tag}: {min(start, position)}:{max(start, position)} is held by none or twice"
            )
        position = stop
    if position != high and low < high:
        raise RunError(f"tag {operator.tag}: {position}:{high} is held by no member")
    return Assembly(tuple(piece for *_, piece in found))


def blocked_shape(shape: Shape, block: int) -> Shape:
    """Dimensions of a tensor (N, C, H, W) in the blocked layout: (N, C / block, H, W, block)."""
    n, c, h, w = shape
    return (n, c // block, h, w, block)


def unblocked(array: Array) -> Array:
    """A tensor (N, C / block, H, W, block) as (N, C, H, W), contiguous."""
    n, blocks, h, w, block = array.shape
    return np.ascontiguousarray(np.moveaxis(array, 4, 2)).reshape(n, blocks * block, h, w)


def splits_into_blocks(operator: Communication, block: int) -> bool:
    """Whether all borders that the operator draws between channels fall on borders of blocks."""
    numbers: list[int] = []
    for sizes, axis in _CHANNEL_FIELDS:
        if getattr(operator, axis, None) == 1:
            numbers += getattr(operator, sizes, ())
    shape = getattr(operator, "shape", None)
    return all(number % block == 0 for number in numbers) and (shape is None or _is_blockable(shape, block))


def on_blocks(operator: Communication, block: int) -> Communication:
    """The same operator on tensors of five dimensions, as :func:`blocked_shape` says."""
    changes: dict[str, object] = {}
    for sizes, axis in _CHANNEL_FIELDS:
        numbers = getattr(operator, sizes, None)
        if numbers is not None and getattr(operator, axis, None) == 1:
            changes[sizes] = tuple(number // block for number in numbers)
    shape = getattr(operator, "shape", None)
    if shape is not None:
        changes["shape"] = blocked_shape(shape, block)
    return replace(operator, **changes)  # type: ignore[arg-type]


_CHANNEL_FIELDS = (
    ("sizes", "axis"),
    ("held", "axis"),
    ("need", "axis"),
    ("split_sizes", "split_axis"),
    ("concat_sizes", "concat_axis"),
)
"""Attributes that list extents, and the attribute that says along which dimension."""


def _is_blockable(shape: Shape, block: int) -> bool:
    return len(shape) == 4 and shape[1] % block == 0
