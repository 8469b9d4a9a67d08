"""What most rules share: names of dimensions, operands aligned by broadcasting, and the node that stays the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from mars_onnx.geometry import box_shape
from mars_onnx.rules.axes import Along, Axis, DimMap, Whole
from mars_onnx.rules.base import AttributeValue, Dims, LocalGraph, OpRule, Share, Signature, TensorType

#: Axis names by rank of the tensor whose dimensions they are. Images and volumes are channels-first; in rank 3 stand
#: the sequences of transformers. Any other rank counts: D0, D1, ... These positional names are understood for every
#: rank (see OpRule.axis), so a strategy may always say D2 for the third dimension of the first output.
_NAMES = {2: ("N", "C"), 3: ("N", "S", "C"), 4: ("N", "C", "H", "W"), 5: ("N", "C", "D", "H", "W")}

_SUMMABLE = {
    ir.DataType.FLOAT16,
    ir.DataType.BFLOAT16,
    ir.DataType.FLOAT,
    ir.DataType.DOUBLE,
    ir.DataType.INT32,
    ir.DataType.INT64,
}


def dimension_names(rank: int) -> tuple[str, ...]:
    """Names of the axes along the dimensions of a tensor."""
    return _NAMES.get(rank) or tuple(f"D{i}" for i in range(rank))


def reducible(dtype: ir.DataType) -> bool:
    """Whether partial results of this type can be combined by communication."""
    return dtype in _SUMMABLE


def empty(signature: Signature) -> bool:
    """Whether any tensor of the node has no elements: there is nothing to share out then."""
    return any(kind is not None and 0 in kind.shape for kind in (*signature.inputs, *signature.outputs))


def whole_dims(kind: TensorType | None) -> Dims | None:
    """Maps of an operand that every member takes whole; ``None`` for an absent one."""
    return None if kind is None else tuple(Whole(extent) for extent in kind.shape)


def aligned_dims(shape: Sequence[int], result: Sequence[int], maps: Sequence[DimMap]) -> Dims | None:
    """Maps of an operand that is broadcast to a result.

    Args:
        shape: The operand's shape.
        result: Shape of the result.
        maps: The result's maps.

    Returns:
        The operand's maps: as the result's, except where a single element is repeated. ``None`` if the operand cannot
        be broadcast to the result.
    """
    skipped = len(result) - len(shape)
    if skipped < 0:
        return None
    dims: list[DimMap] = []
    for extent, full, along in zip(shape, result[skipped:], maps[skipped:], strict=True):
        if extent not in (1, full):
            return None
        dims.append(along if extent == full else Whole(1))
    return tuple(dims)


def along_except(shape: Sequence[int], names: Sequence[str], kept_whole: Sequence[int]) -> Dims:
    """Maps of a tensor with an axis along every dimension, except some that stay whole."""
    return tuple(
        Whole(extent) if dim in kept_whole else Along(name)
        for dim, (extent, name) in enumerate(zip(shape, names, strict=True))
    )


def axes_except(shape: Sequence[int], names: Sequence[str], kept_whole: Sequence[int]) -> tuple[Axis, ...]:
    """The axes of :func:`along_except`."""
    return tuple(
        Axis(name, extent) for dim, (extent, name) in enumerate(zip(shape, names, strict=True)) if dim not in kept_whole
    )


def whole_work(shape: Sequence[int], kept_whole: Sequence[int]) -> int:
    """Elements per iteration where some dimensions are no axes."""
    return prod(extent for dim, extent in enumerate(shape) if dim in kept_whole)


def normal_axes(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Axes counted from the front, in ascending order."""
    return tuple(sorted({axis % rank for axis in axes}))


@dataclass(frozen=True)
class SameNode(OpRule):
    """The local node is the node itself, on the local boxes. Also the base of rules that change only a little."""

    def attributes(self, share: Share) -> dict[str, AttributeValue]:
        """Attributes of the local node."""
        return dict(self.signature.attributes)

    def local(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        return graph.op(
            self.signature.op_type,
            inputs,
            self.attributes(share),
            result_types(self.signature, share),
            domain=self.signature.domain,
        )


def result_types(signature: Signature, share: Share) -> tuple[TensorType | None, ...]:
    """Types of the local outputs; ``None`` for those that are absent or that the share does not touch."""
    return tuple(
        None if kind is None or box is None else TensorType(kind.dtype, box_shape(box))
        for kind, box in zip(signature.outputs, share.outputs, strict=True)
    )
