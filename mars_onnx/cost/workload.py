"""From a rule and ranges of its axes to the work they are: the one place where costs look at operators."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from mars_onnx.cost.fusion import is_fused, joins_sum
from mars_onnx.cost.performance import SPATIAL_DIMENSIONS, IntArray, OpClass, Workload
from mars_onnx.rules.axes import Ranges
from mars_onnx.rules.base import Dims, OpRule, TensorType

_CLASSES = {
    OpClass.CONV: "Conv ConvInteger QLinearConv DeformConv",
    OpClass.CONV_TRANSPOSE: "ConvTranspose",
    OpClass.MATMUL: "MatMul Gemm MatMulInteger QLinearMatMul Einsum Attention",
    OpClass.POOL: "MaxPool AveragePool LpPool GlobalMaxPool GlobalAveragePool GlobalLpPool",
    OpClass.NORMALIZATION: "BatchNormalization InstanceNormalization LayerNormalization GroupNormalization "
    "RMSNormalization LpNormalization MeanVarianceNormalization LRN SkipLayerNormalization",
    OpClass.SOFTMAX: "Softmax LogSoftmax Hardmax",
    OpClass.REDUCTION: "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum "
    "ReduceLogSumExp ReduceSumSquare ArgMax ArgMin TopK CumSum",
    OpClass.MOVE: "Transpose Concat Slice Split Gather GatherND GatherElements Scatter ScatterND ScatterElements Pad "
    "Expand Tile DepthToSpace SpaceToDepth Resize Upsample Cast ReverseSequence",
    OpClass.VIEW: "Reshape Flatten Squeeze Unsqueeze Identity Shape Size Constant ConstantOfShape Dropout",
    OpClass.ELEMENTWISE: "Relu LeakyRelu PRelu Elu Selu Celu ThresholdedRelu Sigmoid HardSigmoid HardSwish Swish "
    "Tanh Gelu Mish Softplus Softsign Erf Exp Log Sqrt Reciprocal Neg Abs Sign Ceil Floor Round Clip Sin Cos Tan "
    "Add Sub Mul Div Mod Pow Sum Mean Max Min Where Equal Greater GreaterOrEqual Less LessOrEqual And Or Xor Not "
    "IsNaN IsInf BitShift QuantizeLinear DequantizeLinear",
}
#: Operators with more to do per element than others of their class; see ``Workload.effort``.
_EFFORT = {
    1: "Elu Selu Celu Sigmoid Swish HardSwish Tanh Softplus Erf Exp Log Sin Cos Tan Mod Pow Transpose DepthToSpace "
    "SpaceToDepth InstanceNormalization LayerNormalization GroupNormalization RMSNormalization LpNormalization "
    "MeanVarianceNormalization LRN SkipLayerNormalization",
    2: "Gelu Mish",
}
_EFFORT_OF = {name: effort for effort, names in _EFFORT.items() for name in names.split()}
_CLASS_OF = {name: op_class for op_class, names in _CLASSES.items() for name in names.split()}


def op_class(op_type: str) -> OpClass:
    """The class of an operator, whatever its domain; OTHER if it is not known."""
    return _CLASS_OF.get(op_type, OpClass.OTHER)


def workload(rule: OpRule, ranges: Ranges, weights: Collection[int] | None = None) -> Workload:
    """The work of shares of a node.

    Args:
        rule: Of the node.
        ranges: Per axis of the rule its range, as arrays that broadcast together (one entry per share).
        weights: Which inputs are weights. Default: the operand that the rule calls "weight", and what follows it.

    Returns:
        Arrays of the shape that the ranges broadcast to. Bytes are those of the boxes that the rule's maps give.
    """
    signature = rule.signature
    shape = np.broadcast_shapes(*(bound.shape for pair in ranges.values() for bound in pair))
    named_class = op_class(signature.op_type)
    # What has no rule has no loop extents that a multiplier array could be priced by.
    unknown = rule.is_fallback and named_class in (OpClass.CONV, OpClass.CONV_TRANSPOSE, OpClass.MATMUL)
    kind = OpClass.OTHER if unknown else named_class
    if weights is None:
        named = [index for index, name in rule.operands.items() if name == "weight"]
        weights = range(min(named), len(rule.inputs)) if named else ()
    read = [_box_extents(dims, ranges) for dims in rule.inputs]
    written = [_box_extents(dims, ranges) for dims in rule.outputs]
    input_bytes, weight_bytes, output_bytes, elements = (np.zeros(shape, np.int64) for _ in range(4))
    for index, (box, operand) in enumerate(zip(read, signature.inputs, strict=False)):
        size = _bytes(_volume(box), operand)
        if index in weights:
            weight_bytes = weight_bytes + size
        else:
            input_bytes = input_bytes + size
    for box, operand in zip(written, signature.outputs, strict=False):
        volume = _volume(box)
        elements = elements + volume
        output_bytes = output_bytes + _bytes(volume, operand)
    first = next((operand for operand in signature.outputs if operand), None)
    # A share that writes nothing does nothing, whatever its maps say it would read.
    active = elements > 0
    return Workload.of(
        shape,
        op_class=int(kind),
        elements=elements,
        macs=np.where(active, _macs(rule, ranges, named_class), 0),
        input_bytes=np.where(active, input_bytes, 0),
        weight_bytes=np.where(active, weight_bytes, 0),
        output_bytes=output_bytes,
        dtype_bits=_bits(first.dtype) if first else 32,
        fused=int(is_fused(signature)),
        effort=2 if joins_sum(signature) else _EFFORT_OF.get(signature.op_type, 0),
        **_extents(rule, ranges, kind, read, written),
    )


def _bits(dtype: ir.DataType) -> int:
    try:
        return dtype.bitwidth
    except TypeError:  # strings have no width; a pointer's stands in
        return 64


def _bytes(volume: IntArray, operand: TensorType | None) -> IntArray:
    bits = _bits(operand.dtype) if operand else 0
    size: IntArray = (volume * bits + 7) // 8
    return size


#: Of the box of an operand its extent in every dimension; ``None`` if there is no such operand.
_BoxExtents = list[IntArray] | None


def _box_extents(dims: Dims | None, ranges: Ranges) -> _BoxExtents:
    return None if dims is None else [_extent(*dim(ranges)) for dim in dims]


def _extent(low: IntArray, high: IntArray) -> IntArray:
    size: IntArray = np.maximum(high - low, 0)
    return size


def _volume(box: _BoxExtents) -> IntArray:
    return _product([] if box is None else box, np.asarray(0 if box is None else 1, np.int64))


def _macs(rule: OpRule, ranges: Ranges, kind: OpClass) -> IntArray:
    """The rule's count. Where there is no rule, the node runs whole, and its reduction counts all the same."""
    counted = rule.macs(ranges)
    if not rule.is_fallback:
        return counted
    shapes = [operand.shape if operand else () for operand in rule.signature.inputs]
    if kind == OpClass.CONV and len(shapes) > 1:
        return counted * prod(shapes[1][1:])
    if kind == OpClass.MATMUL and shapes and shapes[0]:
        return counted * shapes[0][-2 if rule.signature.integer("transA", 0) and len(shapes[0]) > 1 else -1]
    return np.maximum(counted, sum(map(prod, shapes)))


def _extents(
    rule: OpRule, ranges: Ranges, kind: OpClass, read: Sequence[_BoxExtents], written: Sequence[_BoxExtents]
) -> dict[str, IntArray | int]:
    """Loop extents, from the axes by name; what a rule has no axis for is in the signature, or 1."""

    def extent(name: str) -> IntArray:
        return _extent(*ranges[name]) if name in ranges else np.asarray(1, np.int64)

    match kind:
        case OpClass.CONV | OpClass.CONV_TRANSPOSE | OpClass.POOL:
            data, result = _operand(read, 0), _operand(written, 0)
            weight = [] if kind == OpClass.POOL else _operand(read, 1)
            groups = rule.signature.integer("group", 1)
            # A share within one group is a plain convolution.
            local_groups = np.maximum(1, result[1] * groups // max(1, rule.signature.output().shape[1]))
            if kind == OpClass.CONV:
                channels = weight[1]
            elif kind == OpClass.CONV_TRANSPOSE:
                channels = weight[0] if groups == 1 else data[1] // local_groups
            else:
                channels = np.asarray(1, np.int64)
            return {
                "batch": result[0],
                "out_channels": result[1],
                "in_channels": channels,
                "groups": local_groups if groups > 1 else 1,
                "out_spatial": _spatial(result[2:]),
                "in_spatial": _spatial(data[2:]),
                "kernel": _spatial(weight[2:]) if weight else _window(rule, "kernel_shape"),
                "strides": _window(rule, "strides"),
                "dilations": _window(rule, "dilations"),
            }
        case OpClass.MATMUL:
            rest = [extent(axis.name) for axis in rule.axes if axis.name not in ("M", "N", "K")]
            batch = np.asarray(1, np.int64)
            for other in rest:
                batch = batch * other
            if any(name in ranges for name in ("M", "N", "K")):
                return {"batch": batch, "m": extent("M"), "n": extent("N"), "k": extent("K")}
            # An Einsum has letters: reductions on one side, the last letter that stays on the other.
            reduced = [extent(axis.name) for axis in rule.axes if axis.reduction]
            kept = [extent(axis.name) for axis in rule.axes if not axis.reduction] or [np.asarray(1, np.int64)]
            one = np.asarray(1, np.int64)
            return {"m": _product(kept[:-1], one), "n": kept[-1], "k": _product(reduced, one)}
    return {}


def _product(extents: list[IntArray], start: IntArray) -> IntArray:
    for extent in extents:
        start = start * extent
    return start


def _operand(boxes: Sequence[_BoxExtents], index: int) -> list[IntArray]:
    """Extents of the box of an operand, per dimension; all 1 if there is no such operand."""
    return (boxes[index] if index < len(boxes) else None) or [np.asarray(1, np.int64)] * (2 + SPATIAL_DIMENSIONS)


def _spatial(extents: list[IntArray]) -> IntArray:
    """Extents of dimensions D, H, W, where absent ones are 1."""
    missing = [np.asarray(1, np.int64)] * (SPATIAL_DIMENSIONS - len(extents))
    return np.stack(np.broadcast_arrays(*missing, *extents), axis=-1)


def _window(rule: OpRule, attribute: str) -> IntArray:
    given = rule.signature.integers(attribute, ())[-SPATIAL_DIMENSIONS:]
    return np.asarray((1,) * (SPATIAL_DIMENSIONS - len(given)) + given, np.int64)
