"""Random normalisations, reductions and other operators along axes."""

from __future__ import annotations

import numpy as np

from tests.rules.cases import Case, Operand, Rng, extents, ints, makes, maybe, opset_for, pick, signed


@makes("BatchNormalization")
def batch_normalization(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 2, 5)
    channels = (shape[1],)
    variance = Operand(values=np.asarray(rng.random(channels) + 0.5, np.float32))
    operands = [Operand(shape), Operand(channels), Operand(channels), Operand(channels), variance]
    return Case(op_type, opset_for(op_type, rng), operands, {"epsilon": maybe(rng, 0.01)})


@makes("InstanceNormalization")
def instance_normalization(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 3, 5)
    return Case(op_type, opset_for(op_type, rng), [Operand(shape), Operand((shape[1],)), Operand((shape[1],))])


@makes("GroupNormalization")
def group_normalization(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng, 21)
    n, groups, each, h, w = extents(rng, 5, most=4)
    channels = (groups * each,)
    operands = [Operand((n, *channels, h, w)), Operand(channels), Operand(channels)]
    return Case(op_type, opset, operands, {"num_groups": groups}, keeps_shape=True)


@makes("LRN")
def local_response(op_type: str, rng: Rng) -> Case:
    n, c, h, w = extents(rng, 4, most=5)
    shape = (n, c + int(rng.integers(0, 6)), h, w)
    attributes = {"size": int(pick(rng, 1, 3, 5, 7)), "alpha": 0.3, "bias": maybe(rng, 2.0)}  # type: ignore[call-overload]
    return Case(op_type, opset_for(op_type, rng), [Operand(shape)], attributes)


@makes("LayerNormalization")
def layer_normalization(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 1, 4)
    axis = int(rng.integers(len(shape)))
    operands = [Operand(shape), Operand(shape[axis:])]
    if rng.random() < 0.6:
        operands.append(Operand(shape[axis:]))
    axis = signed(rng, axis, len(shape))
    return Case(op_type, opset_for(op_type, rng), operands, {"axis": axis}, outputs=int(pick(rng, 1, 1, 3)))  # type: ignore[call-overload]


@makes("RMSNormalization")
def rms_normalization(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 1, 4)
    axis = int(rng.integers(len(shape)))
    operands = [Operand(shape), Operand(shape[axis:])]
    return Case(op_type, opset_for(op_type, rng), operands, {"axis": signed(rng, axis, len(shape))})


@makes("Trilu")
def triangle(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 2, 4)
    operands: list[Operand | None] = [Operand(shape)]
    if rng.random() < 0.5:
        operands.append(Operand(values=np.asarray(rng.integers(-3, 4), np.int64)))
    return Case(op_type, opset_for(op_type, rng), operands, {"upper": maybe(rng, 0)})


@makes("Softmax", "LogSoftmax", "Hardmax", "LpNormalization")
def softmax(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    shape = extents(rng, 1 if opset >= 13 else 2, 4)
    axis = int(rng.integers(len(shape)))
    return Case(
        op_type, opset, [Operand(shape)], {"axis": maybe(rng, signed(rng, axis, len(shape)) if opset >= 11 else axis)}
    )


@makes("MeanVarianceNormalization")
def mean_variance_normalization(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    # The function body of later opsets is not accepted by shape inference without the attribute.
    axes = pick(rng, [0, 2, 3], [2, 3], None if opset < 13 else [1, 2, 3])
    return Case(op_type, opset, [Operand(extents(rng, 4))], {"axes": axes})


REDUCTIONS = (
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceSumSquare", "ReduceL1"),
    *("ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd"),
)


@makes(*REDUCTIONS)
def reduction(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    shape = extents(rng, 1, 5, 5)
    rank = len(shape)
    axes = [int(a) for a in rng.permutation(rank)[: int(rng.integers(1, rank + 1))]]
    if opset >= 11:
        axes = [signed(rng, axis, rank) for axis in axes]
    attributes: dict[str, object] = {"keepdims": maybe(rng, int(rng.integers(0, 2)))}
    values = np.asarray(rng.random(shape) + 0.1, np.float32) if op_type == "ReduceLogSum" else None
    if values is None and rng.random() < 0.2 and op_type in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceMean"):
        values = rng.integers(-9, 9, shape).astype(np.int32)
    data = Operand(shape, values=values)
    if rng.random() < 0.2:
        return Case(op_type, opset, [data], attributes)
    if opset >= (13 if op_type == "ReduceSum" else 18):
        return Case(op_type, opset, [data, ints(axes)], attributes)
    return Case(op_type, opset, [data], attributes | {"axes": axes})


@makes("ArgMax", "ArgMin")
def arg_extreme(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    shape = extents(rng, 1, 4)
    axis = int(rng.integers(len(shape)))
    attributes = {
        "axis": signed(rng, axis, len(shape)) if opset >= 11 else axis,
        "keepdims": maybe(rng, int(rng.integers(0, 2))),
    }
    return Case(op_type, opset, [Operand(shape)], attributes)


@makes("TopK")
def top_k(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    shape = extents(rng, 1, 4)
    axis = int(rng.integers(len(shape)))
    k = int(rng.integers(1, shape[axis] + 1))
    if opset < 10:
        return Case(op_type, opset, [Operand(shape)], {"axis": axis, "k": k}, outputs=2)
    return Case(op_type, opset, [Operand(shape), ints([k])], {"axis": axis}, outputs=2)


@makes("CumSum")
def cumulative_sum(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 1, 4)
    axis = signed(rng, int(rng.integers(len(shape))), len(shape))
    attributes = {"exclusive": maybe(rng, 1), "reverse": maybe(rng, 1)}
    at = Operand(values=np.asarray(axis, np.int64), constant=True)
    return Case(op_type, opset_for(op_type, rng), [Operand(shape), at], attributes)


@makes("QuantizeLinear", "DequantizeLinear")
def quantization(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 1, 4)
    opset = opset_for(op_type, rng, 10)
    axis = int(rng.integers(len(shape)))
    # Per axis came with opset 13; before that there is one scale for all.
    per_axis = opset >= 13 and rng.random() < 0.5
    parameters = (shape[axis],) if per_axis else ()
    scale = Operand(values=np.asarray(rng.random(parameters) * 0.1 + 0.05, np.float32))
    zero = Operand(values=np.asarray(rng.integers(-5, 6, parameters), np.int8))
    first = (
        Operand(shape)
        if op_type == "QuantizeLinear"
        else Operand(values=np.asarray(rng.integers(-9, 9, shape), np.int8))
    )
    attributes = {"axis": signed(rng, axis, len(shape))} if per_axis else {}
    return Case(op_type, opset, [first, scale, zero], attributes)
