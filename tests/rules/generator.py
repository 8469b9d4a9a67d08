"""Random models of one operator, for every operator with a rule: shapes, attributes, opsets, forms of operands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
import onnx.defs
import onnx.helper
import onnx.numpy_helper
import onnx.shape_inference

from mars_onnx.rules.axes import Axis
from tests.rules.harness import IR_VERSION, Array, Cuts, cover

Rng = np.random.Generator
NEWEST = 28


@dataclass(frozen=True)
class Operand:
    """An input of the node: random of a type and shape, or given, and perhaps an initializer."""

    shape: tuple[int, ...] = ()
    dtype: npt.DTypeLike = np.float32
    values: Array | None = None
    constant: bool = False


@dataclass
class Case:
    """A node before it is a model."""

    op_type: str
    opset: int
    operands: Sequence[Operand | None]
    attributes: Mapping[str, object] = field(default_factory=dict)
    outputs: int = 1
    #: For an operator that shape inference does not know: its output is like its first input.
    keeps_shape: bool = False

    def model(self) -> tuple[onnx.ModelProto, dict[str, Array]]:
        """The model and the inputs that must not be arbitrary."""
        feeds: dict[str, Array] = {}
        inputs, initializers, names = [], [], []
        for index, operand in enumerate(self.operands):
            name = "" if operand is None else f"x{index}"
            names.append(name)
            if operand is None:
                continue
            if operand.values is not None and operand.constant:
                initializers.append(onnx.numpy_helper.from_array(operand.values, name))
                continue
            values = operand.values
            dtype = values.dtype if values is not None else np.dtype(operand.dtype)
            shape = values.shape if values is not None else operand.shape
            elem = onnx.helper.np_dtype_to_tensor_dtype(dtype)
            inputs.append(onnx.helper.make_tensor_value_info(name, elem, shape))
            if values is not None:
                feeds[name] = values
        given = {name: value for name, value in self.attributes.items() if value is not None}
        outputs = [f"y{index}" for index in range(self.outputs)]
        node = onnx.helper.make_node(self.op_type, names, outputs, **given)
        infos = [onnx.ValueInfoProto(name=name) for name in outputs]
        if self.keeps_shape:
            infos[0].type.CopyFrom(inputs[0].type)
        graph = onnx.helper.make_graph([node], "g", inputs, infos, initializers)
        imports = [onnx.helper.make_opsetid("", self.opset)]
        model = onnx.helper.make_model(graph, ir_version=IR_VERSION, opset_imports=imports)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True), feeds


GENERATORS: dict[str, Callable[[str, Rng], Case]] = {}


def makes(*op_types: str) -> Callable[[Callable[[str, Rng], Case]], Callable[[str, Rng], Case]]:
    def register(function: Callable[[str, Rng], Case]) -> Callable[[str, Rng], Case]:
        GENERATORS.update(dict.fromkeys(op_types, function))
        return function

    return register


def opset_for(op_type: str, rng: Rng, lowest: int = 7, highest: int = NEWEST) -> int:
    """A random opset that has the operator, often one in which it changed."""
    history = [s for s in onnx.defs.get_all_schemas_with_history() if s.name == op_type and not s.domain]
    changes = sorted(schema.since_version for schema in history)
    lowest = max(lowest, min(changes))
    if any(schema.deprecated and schema.since_version == max(changes) for schema in history):
        highest = min(highest, max(changes) - 1)
    steps = [version for version in changes if lowest <= version <= highest] + [
        lowest,
        highest,
        max(lowest, min(highest, 20)),
    ]
    if rng.random() < 0.6:
        return int(rng.choice(steps))
    return int(rng.integers(lowest, highest + 1))


def pick(rng: Rng, *options: object) -> object:
    return options[int(rng.integers(len(options)))]


def maybe(rng: Rng, value: object, chance: float = 0.5) -> object:
    return value if rng.random() < chance else None


def extents(rng: Rng, low: int, high: int | None = None, most: int = 6) -> tuple[int, ...]:
    rank = int(rng.integers(low, (high or low) + 1))
    return tuple(int(extent) for extent in rng.integers(1, most + 1, rank))


def shrunk(rng: Rng, shape: Sequence[int]) -> tuple[int, ...]:
    """A shape that broadcasts to ``shape``."""
    kept = tuple(1 if rng.random() < 0.3 else extent for extent in shape)
    return kept[int(rng.integers(0, len(kept) + 1)) :] if rng.random() < 0.4 else kept


def ints(values: Sequence[int]) -> Operand:
    return Operand(values=np.asarray(values, np.int64), constant=True)


def signed(rng: Rng, axis: int, rank: int) -> int:
    return axis - rank if rng.random() < 0.4 else axis


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


def regrouped(rng: Rng) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes with the same number of elements, often with common factors."""
    source: list[int] = []
    result: list[int] = []
    for _ in range(int(rng.integers(1, 4))):
        factors = [int(f) for f in rng.choice([1, 2, 2, 3, 4, 6], int(rng.integers(1, 4)))]
        for side in (source, result):
            groups = [1]
            for factor in factors if rng.random() < 0.7 else factors[::-1]:
                if rng.random() < 0.5:
                    groups.append(factor)
                else:
                    groups[-1] *= factor
            side += groups if rng.random() < 0.3 else [g for g in groups if g > 1] or [1]
    return tuple(source), tuple(result)


@makes("Reshape")
def reshape(op_type: str, rng: Rng) -> Case:
    source, result = regrouped(rng)
    target = list(result)
    if rng.random() < 0.4:
        target[int(rng.integers(len(target)))] = -1
    return Case(op_type, opset_for(op_type, rng), [Operand(source), ints(target)])


@makes("Flatten")
def flatten(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 1, 5, 5)
    return Case(op_type, opset_for(op_type, rng), [Operand(shape)], {"axis": int(rng.integers(0, len(shape) + 1))})


@makes("Squeeze", "Unsqueeze")
def squeeze(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    shape = list(extents(rng, 1, 4))
    axes = sorted(int(a) for a in rng.permutation(len(shape))[: int(rng.integers(1, len(shape) + 1))])
    if op_type == "Squeeze":
        for axis in axes:
            shape[axis] = 1
        if rng.random() < 0.3:
            return Case(op_type, opset, [Operand(tuple(shape))])
    if opset >= 13:
        return Case(op_type, opset, [Operand(tuple(shape)), ints(axes)])
    return Case(op_type, opset, [Operand(tuple(shape))], {"axes": axes})


@makes("Transpose")
def transpose(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 1, 5, 5)
    order = [int(a) for a in rng.permutation(len(shape))]
    return Case(op_type, opset_for(op_type, rng), [Operand(shape)], {"perm": maybe(rng, order, 0.8)})


@makes("Concat")
def concat(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    shape = list(extents(rng, 1, 4, 5))
    axis = int(rng.integers(len(shape)))
    operands = []
    for _ in range(int(rng.integers(1, 4))):
        shape[axis] = int(rng.integers(1, 5))
        operands.append(Operand(tuple(shape)))
    return Case(op_type, opset, operands, {"axis": signed(rng, axis, len(shape)) if opset >= 11 else axis})


@makes("Split")
def split(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    shape = list(extents(rng, 1, 4, 5))
    axis = int(rng.integers(len(shape)))
    count = int(rng.integers(1, 5))
    attributes: dict[str, object] = {"axis": signed(rng, axis, len(shape)) if opset >= 11 else axis}
    if rng.random() < 0.4:
        shape[axis] = count * int(rng.integers(1, 4))
        operands: list[Operand | None] = [Operand(tuple(shape))]
        if opset >= 18:
            attributes["num_outputs"] = count
    else:
        sizes = [int(v) for v in rng.integers(1, 4, count)]
        shape[axis] = sum(sizes)
        operands = [Operand(tuple(shape))]
        if opset >= 13:
            operands.append(ints(sizes))
        else:
            attributes["split"] = sizes
    return Case(op_type, opset, operands, attributes, outputs=count)


@makes("Expand")
def expand(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 1, 4, 5)
    target = [1 if rng.random() < 0.2 else extent for extent in shape]
    source = tuple(
        extent if small == 1 or rng.random() < 0.5 else 1 for extent, small in zip(shape, target, strict=True)
    )
    return Case(op_type, opset_for(op_type, rng), [Operand(source), ints(target)])


@makes("Tile")
def tile(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 1, 4, 4)
    repeats = [int(pick(rng, 1, 1, 2, 3)) for _ in shape]  # type: ignore[call-overload]
    return Case(op_type, opset_for(op_type, rng), [Operand(shape), ints(repeats)])


@makes("Slice")
def slice_(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    shape = tuple(int(v) for v in rng.integers(2, 8, int(rng.integers(1, 5))))
    axes, starts, ends, steps = [], [], [], []
    for axis, extent in enumerate(shape):
        if rng.random() < 0.3:
            continue
        low, high = sorted(int(v) for v in rng.choice(extent + 1, 2, replace=False))
        step = int(pick(rng, 1, 1, 2, 3, -1, -2)) if opset >= 10 else 1  # type: ignore[call-overload]
        start, end = (low, high) if step > 0 else (high - 1, low - 1 if low > 0 else -extent - 1)
        if step > 0 and rng.random() < 0.3:
            start, end = start - extent, (end if end < extent else 2**31)
        axes.append(axis if opset < 10 else signed(rng, axis, len(shape)))
        starts.append(start)
        ends.append(end)
        steps.append(step)
    if not axes:
        axes, starts, ends, steps = [0], [0], [1], [1]
    if opset < 10:
        return Case(op_type, opset, [Operand(shape)], {"axes": axes, "starts": starts, "ends": ends})
    return Case(op_type, opset, [Operand(shape), ints(starts), ints(ends), ints(axes), ints(steps)])


@makes("Pad")
def pad(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    mode = pick(rng, "constant", "constant", "reflect", "edge")
    shape = tuple(int(v) for v in rng.integers(3, 7, int(rng.integers(1, 5))))
    axes = list(range(len(shape)))
    if opset >= 18 and rng.random() < 0.4:
        axes = sorted(int(a) for a in rng.permutation(len(shape))[: int(rng.integers(1, len(shape) + 1))])
    low = -1 if mode == "constant" else 0
    most = 6 if mode == "constant" else 3
    pads = [0 if rng.random() < 0.3 else int(v) for v in rng.integers(low, most, 2 * len(axes))]
    if opset < 11:
        return Case(op_type, opset, [Operand(shape)], {"pads": pads, "mode": mode, "value": maybe(rng, 1.5)})
    value = Operand(values=np.asarray(2.5, np.float32)) if rng.random() < 0.5 else None
    operands: list[Operand | None] = [Operand(shape), ints(pads), value]
    if opset >= 18 and len(axes) < len(shape):
        operands.append(ints([signed(rng, a, len(shape)) for a in axes]))
    return Case(op_type, opset, operands, {"mode": mode})


@makes("Resize", "Upsample")
def resize(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng, 10 if op_type == "Resize" else 7)
    shape = (*extents(rng, 2, most=4), *(int(v) for v in rng.integers(2, 6, 2)))
    scales = [1.0, 1.0, float(pick(rng, 1.0, 2.0, 3.0)), float(pick(rng, 1.0, 2.0, 4.0, 1.5, 0.5))]  # type: ignore[arg-type]
    attributes: dict[str, object] = {"mode": pick(rng, "nearest", "linear")}
    factors = Operand(values=np.asarray(scales, np.float32), constant=True)
    if op_type == "Upsample":
        if opset < 9:
            return Case(op_type, opset, [Operand(shape)], attributes | {"scales": scales})
        return Case(op_type, opset, [Operand(shape), factors], attributes)
    if opset < 11:
        return Case(op_type, opset, [Operand(shape), factors], attributes)
    attributes["coordinate_transformation_mode"] = pick(rng, "half_pixel", "asymmetric", "align_corners", None)
    attributes["nearest_mode"] = pick(rng, None, "floor", "ceil", "round_prefer_ceil")
    nothing = Operand(values=np.zeros(0, np.float32), constant=True) if opset < 13 or rng.random() < 0.5 else None
    if rng.random() < 0.5:
        return Case(op_type, opset, [Operand(shape), nothing, factors], attributes)
    sizes = [int(extent * scale) for extent, scale in zip(shape, scales, strict=True)]
    absent = nothing
    if opset >= 18 and rng.random() < 0.5:
        return Case(op_type, opset, [Operand(shape), None, None, ints(sizes[2:])], attributes | {"axes": [2, 3]})
    return Case(op_type, opset, [Operand(shape), absent, absent, ints(sizes)], attributes)


@makes("DepthToSpace", "SpaceToDepth")
def blocks(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    n, c, h, w = extents(rng, 4, most=4)
    size = int(rng.integers(1, 4))
    shape = (n, c * size * size, h, w) if op_type == "DepthToSpace" else (n, c, h * size, w * size)
    mode = pick(rng, "DCR", "CRD") if op_type == "DepthToSpace" and opset >= 11 else None
    return Case(op_type, opset, [Operand(shape)], {"blocksize": size, "mode": mode})


def indices(rng: Rng, shape: Sequence[int], size: int, *, negative: bool) -> Operand:
    dtype = pick(rng, np.int32, np.int64)
    values = rng.integers(-size if negative else 0, size, tuple(shape)).astype(dtype)  # type: ignore[call-overload]
    return Operand(values=values, constant=bool(rng.random() < 0.3))


@makes("Gather")
def gather(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    shape = extents(rng, 1, 4)
    axis = int(rng.integers(len(shape)))
    chosen = indices(rng, extents(rng, 0, 3, 4), shape[axis], negative=opset >= 11)
    dtype = pick(rng, np.float32, np.float32, np.int64, np.bool_)
    return Case(op_type, opset, [Operand(shape, dtype), chosen], {"axis": signed(rng, axis, len(shape))})  # type: ignore[arg-type]


@makes("GatherElements")
def gather_elements(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 1, 4)
    axis = int(rng.integers(len(shape)))
    outer = [int(rng.integers(1, extent + 1)) for extent in shape]
    outer[axis] = int(rng.integers(1, 6))
    chosen = indices(rng, outer, shape[axis], negative=True)
    return Case(op_type, opset_for(op_type, rng), [Operand(shape), chosen], {"axis": signed(rng, axis, len(shape))})


@makes("GatherND")
def gather_nd(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    shape = extents(rng, 1, 4)
    batches = int(rng.integers(0, len(shape))) if opset >= 12 else 0
    depth = int(rng.integers(1, len(shape) - batches + 1))
    outer = (*shape[:batches], *extents(rng, 0 if batches else 1, 2, 4))
    tuples = np.stack([rng.integers(0, shape[batches + i], outer) for i in range(depth)], axis=-1)
    chosen = Operand(values=np.asarray(tuples, np.int64))
    return Case(op_type, opset, [Operand(shape), chosen], {"batch_dims": batches or None})


@makes("Scatter", "ScatterElements")
def scatter_elements(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 1, 4)
    axis = int(rng.integers(len(shape)))
    outer = [extent if rng.random() < 0.6 else int(rng.integers(1, extent + 1)) for extent in shape]
    outer[axis] = int(rng.integers(1, shape[axis] + 1))
    # No place is written twice: what happens then is up to the runtime.
    order = np.argsort(rng.random((*outer[:axis], shape[axis], *outer[axis + 1 :])), axis=axis)
    chosen = np.take(order, range(outer[axis]), axis=axis).astype(np.int64)
    operands = [Operand(shape), Operand(values=chosen), Operand(tuple(outer))]
    return Case(op_type, opset_for(op_type, rng), operands, {"axis": axis})


@makes("ScatterND")
def scatter_nd(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 1, 4)
    depth = int(rng.integers(1, len(shape) + 1))
    places = np.stack(np.unravel_index(rng.permutation(int(np.prod(shape[:depth]))), shape[:depth]), axis=-1)
    chosen = places[: int(rng.integers(1, len(places) + 1))].astype(np.int64)
    operands = [Operand(shape), Operand(values=chosen), Operand((len(chosen), *shape[depth:]))]
    return Case(op_type, opset_for(op_type, rng), operands)


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


def random_cuts(axes: Sequence[Axis], rng: Rng) -> dict[str, list[tuple[int, int]]]:
    """Cuts of one, two or sometimes three axes: even or uneven, also with more members than iterations."""
    count = min(len(axes), int(pick(rng, 1, 1, 2, 2, 3)))  # type: ignore[call-overload]
    chosen = [axes[int(i)] for i in rng.permutation(len(axes))[:count]]
    cuts: dict[str, list[tuple[int, int]]] = {}
    for axis in chosen:
        members = int(rng.integers(2, 5))
        step = axis.granularity if rng.random() < 0.7 else 1
        edges = [min(axis.size, int(edge) * step) for edge in rng.integers(0, axis.size // step + 1, members - 1)]
        cuts[axis.name] = cover(axis.size, edges)
    return cuts


__all__ = ["GENERATORS", "Case", "Cuts", "random_cuts"]
