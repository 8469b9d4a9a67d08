"""Random element-wise operators, products, convolutions and poolings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tests.rules.cases import Case, Operand, Rng, extents, makes, maybe, opset_for, pick, shrunk

FLOAT_UNARY = (
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp"),
    *("Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg"),
    *("Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign"),
    *("Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"),
)


@makes(*FLOAT_UNARY, "Not", "BitwiseNot", "Cast")
def unary(op_type: str, rng: Rng) -> Case:
    kinds = {"Not": np.bool_, "BitwiseNot": np.int32}
    attributes: dict[str, object] = {}
    if op_type == "Cast":
        attributes["to"] = int(pick(rng, 6, 7, 11, 9, 10))  # type: ignore[call-overload]
    if op_type in ("LeakyRelu", "Elu", "ThresholdedRelu"):
        attributes["alpha"] = maybe(rng, 0.3)
    return Case(
        op_type, opset_for(op_type, rng), [Operand(extents(rng, 0, 6, 5), kinds.get(op_type, np.float32))], attributes
    )


@makes("CastLike")
def cast_like(op_type: str, rng: Rng) -> Case:
    target = Operand(extents(rng, 0, 2), np.dtype(str(pick(rng, "int32", "float64", "bool"))))
    return Case(op_type, opset_for(op_type, rng), [Operand(extents(rng, 0, 4)), target])


@makes("Clip")
def clip(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    data = Operand(extents(rng, 0, 4))
    if opset < 11:
        return Case(op_type, opset, [data], {"min": -0.5, "max": maybe(rng, 0.7)})
    bounds: list[Operand | None] = [Operand(values=np.asarray(bound, np.float32)) for bound in (-0.5, 0.7)]
    return Case(op_type, opset, [data, bounds[0] if rng.random() < 0.5 else None, bounds[1]])


@makes("Dropout")
def dropout(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    operands: list[Operand | None] = [Operand(extents(rng, 1, 4))]
    if opset >= 12 and rng.random() < 0.5:
        training = Operand(values=np.asarray(False), constant=True)
        operands += [Operand(values=np.asarray(0.4, np.float32)), training][: int(rng.integers(1, 3))]
    return Case(op_type, opset, operands, outputs=1 if opset < 12 else int(rng.integers(1, 3)))


LOGIC = ("And", "Or", "Xor")
INTEGER = ("BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor")
VARIADIC = ("Max", "Mean", "Min", "Sum")


@makes(*LOGIC, *INTEGER, *VARIADIC)
@makes("Add", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mod", "Mul", "PRelu", "Pow", "Sub")
def binary(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 0, 5, 5)
    dtype: npt.DTypeLike = np.float32
    attributes: dict[str, object] = {}
    if op_type in LOGIC:
        dtype = np.bool_
    elif op_type in INTEGER:
        dtype = np.uint32
    elif op_type not in VARIADIC and op_type not in ("Mod", "PRelu", "Div", "Pow") and rng.random() < 0.2:
        dtype = np.int64
    if op_type == "BitShift":
        attributes["direction"] = pick(rng, "LEFT", "RIGHT")
    if op_type == "Mod":
        attributes["fmod"] = 1
    first, second = (shape, shrunk(rng, shape)) if rng.random() < 0.6 else (shrunk(rng, shape), shape)
    if op_type == "PRelu":
        first, second = shape, shrunk(rng, shape)
    operands = [Operand(first, dtype), Operand(second, dtype)]
    if op_type in VARIADIC:
        operands = operands[: int(rng.integers(1, 3))] + [Operand(shrunk(rng, shape))] * int(rng.integers(0, 2))
        if op_type in VARIADIC and len(operands) == 1:
            operands = [Operand(shape)]
    lowest = 9 if op_type in ("Equal", "Greater", "Less") else 7
    return Case(op_type, opset_for(op_type, rng, lowest), operands, attributes)


@makes("Where")
def where(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 0, 4)
    shapes = [shape, shrunk(rng, shape), shrunk(rng, shape)]
    rng.shuffle(shapes)
    return Case(op_type, opset_for(op_type, rng), [Operand(shapes[0], np.bool_), *map(Operand, shapes[1:])])


@makes("MatMul")
def matmul(op_type: str, rng: Rng) -> Case:
    m, n, k = extents(rng, 3, most=7)
    batch = extents(rng, 0, 2, 3)
    left = (k,) if rng.random() < 0.15 else (*shrunk(rng, batch), m, k)
    right = (k,) if rng.random() < 0.15 else (*(batch if len(left) > 1 else shrunk(rng, batch)), k, n)
    return Case(op_type, opset_for(op_type, rng), [Operand(left), Operand(right)])


@makes("Gemm")
def gemm(op_type: str, rng: Rng) -> Case:
    m, n, k = extents(rng, 3, most=7)
    opset = opset_for(op_type, rng)
    flips = rng.integers(0, 2, 2)
    operands = [Operand((k, m) if flips[0] else (m, k)), Operand((n, k) if flips[1] else (k, n))]
    if opset < 11 or rng.random() < 0.7:
        operands.append(Operand(shrunk(rng, (m, n))))
    attributes = {
        "transA": int(flips[0]),
        "transB": int(flips[1]),
        "alpha": maybe(rng, 0.5),
        "beta": maybe(rng, 0.25),
    }
    return Case(op_type, opset, operands, attributes)


@makes("Einsum")
def einsum(op_type: str, rng: Rng) -> Case:
    sizes = dict(zip("abcde", extents(rng, 5, most=5), strict=True))
    terms = ["".join(rng.permutation(list(sizes))[: int(rng.integers(1, 4))]) for _ in range(int(rng.integers(1, 3)))]
    equation = ",".join(terms)
    if rng.random() < 0.8:
        letters = sorted(set("".join(terms)))
        equation += "->" + "".join(rng.permutation(letters)[: int(rng.integers(0, len(letters) + 1))])
    operands = [Operand(tuple(sizes[letter] for letter in term)) for term in terms]
    return Case(op_type, opset_for(op_type, rng), operands, {"equation": equation})


def window_attributes(rng: Rng, kernel: Sequence[int], *, dilated: bool) -> dict[str, object]:
    spatial = len(kernel)
    dilations = [int(d) for d in rng.integers(1, 4 if dilated and rng.random() < 0.4 else 2, spatial)]
    attributes: dict[str, object] = {
        "strides": [int(s) for s in rng.integers(1, 4, spatial)],
        "dilations": dilations if dilated else None,
    }
    mode = pick(rng, "pads", "pads", "VALID", "SAME_UPPER", "SAME_LOWER", None)
    if mode == "pads":
        attributes["pads"] = [int(rng.integers(0, extent)) for extent in (*kernel, *kernel)]
    elif mode is not None:
        attributes["auto_pad"] = mode
        if str(mode).startswith("SAME"):
            attributes["dilations"] = [1] * spatial if dilated else None
    return attributes


@makes("Conv")
def convolution(op_type: str, rng: Rng) -> Case:
    spatial = int(pick(rng, 1, 2, 2, 2, 3))  # type: ignore[call-overload]
    groups = int(pick(rng, 1, 1, 2, 3))  # type: ignore[call-overload]
    inputs, outputs = (int(v) for v in rng.integers(1, 5, 2))
    if rng.random() < 0.2:
        inputs = 1
    kernel = extents(rng, spatial, most=4)
    data = (
        int(rng.integers(1, 4)),
        groups * inputs,
        *(int(v) for v in rng.integers(5, 10 if spatial < 3 else 7, spatial)),
    )
    operands = [Operand(data), Operand((groups * outputs, inputs, *kernel))]
    if rng.random() < 0.6:
        operands.append(Operand((groups * outputs,)))
    attributes = {"group": groups, **window_attributes(rng, kernel, dilated=True)}
    if "pads" in attributes and rng.random() < 0.3:
        # More padding than kernel: some results see no data at all.
        attributes["pads"] = [int(p) for p in rng.integers(0, 8, 2 * spatial)]
    return Case(op_type, opset_for(op_type, rng), operands, attributes)


@makes("ConvTranspose")
def transposed_convolution(op_type: str, rng: Rng) -> Case:
    spatial = int(pick(rng, 1, 2, 2))  # type: ignore[call-overload]
    groups = int(pick(rng, 1, 1, 2, 3))  # type: ignore[call-overload]
    inputs, outputs = (int(v) for v in rng.integers(1, 4, 2))
    kernel = extents(rng, spatial, most=4)
    data = (int(rng.integers(1, 3)), groups * inputs, *(int(v) for v in rng.integers(3, 7, spatial)))
    strides = [int(s) for s in rng.integers(1, 5, spatial)]
    dilations = [int(d) for d in rng.integers(1, 3, spatial)]
    operands = [Operand(data), Operand((groups * inputs, outputs, *kernel))]
    if rng.random() < 0.6:
        operands.append(Operand((groups * outputs,)))
    attributes: dict[str, object] = {"group": groups, "strides": strides, "dilations": dilations}
    mode = pick(rng, "pads", "pads", "pads", None, "SAME_UPPER", "shape")
    if mode == "pads":
        attributes["pads"] = [int(rng.integers(0, max(1, extent))) for extent in (*kernel, *kernel)]
        attributes["output_padding"] = maybe(rng, [int(rng.integers(0, stride)) for stride in strides])
    elif mode == "SAME_UPPER":
        attributes["auto_pad"] = mode
    elif mode == "shape":
        attributes["output_shape"] = [extent * stride for extent, stride in zip(data[2:], strides, strict=True)]
    return Case(op_type, opset_for(op_type, rng), operands, attributes)


@makes("MaxPool", "AveragePool", "LpPool")
def pool(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    spatial = int(pick(rng, 1, 2, 2, 2, 3))  # type: ignore[call-overload]
    kernel = extents(rng, spatial, most=4)
    data = (*extents(rng, 2, most=4), *(int(v) for v in rng.integers(5, 9 if spatial < 3 else 7, spatial)))
    dilated = opset >= {"MaxPool": 10, "AveragePool": 19, "LpPool": 18}[op_type]
    attributes = {"kernel_shape": list(kernel), **window_attributes(rng, kernel, dilated=dilated)}
    if opset >= {"MaxPool": 10, "AveragePool": 10, "LpPool": 18}[op_type] and attributes.get("auto_pad") is None:
        attributes["ceil_mode"] = maybe(rng, 1)
    if op_type == "AveragePool":
        attributes["count_include_pad"] = maybe(rng, 1)
    if op_type == "LpPool":
        attributes["p"] = pick(rng, 1, 2, 3)
    return Case(op_type, opset, [Operand(data)], attributes)


@makes("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(op_type: str, rng: Rng) -> Case:
    return Case(op_type, opset_for(op_type, rng), [Operand(extents(rng, 3, 5))])
