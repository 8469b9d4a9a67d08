"""Random small models: chains, residuals, branches, several inputs and outputs, operators with and without a rule.

Everything is float32 and of a moderate size, so that only a real difference shows in a comparison.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod, sqrt

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
_MOST_ELEMENTS = 4000

Shape = tuple[int, ...]


@dataclass
class RandomGraph:
    """A graph while nodes are added to it."""

    rng: random.Random
    shapes: dict[str, Shape] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, onnx.TensorProto] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def pick(self, *ranks: int) -> str | None:
        """A value, more often a late one, of one of the given ranks (any rank, if none is given)."""
        fitting = [name for name, shape in self.shapes.items() if not ranks or len(shape) in ranks]
        if not fitting:
            return None
        return self.rng.choice(fitting[-2:] if self.rng.random() < 0.6 else fitting)

    def weight(self, shape: Sequence[int], scale: float | None = None) -> str:
        """A new initializer, or now and then one that is there already."""
        shape = tuple(shape)
        equal = [name for name, tensor in self.weights.items() if tuple(tensor.dims) == shape and name[0] == "w"]
        if equal and self.rng.random() < 0.3:
            return self.rng.choice(equal)
        size = 1 / sqrt(max(1, prod(shape[1:]))) if scale is None else scale
        values = np.random.default_rng(self.rng.randrange(2**32)).uniform(-1, 1, shape) * 2 * size
        return self.constant(values.astype(np.float32), "w")

    def constant(self, array: np.ndarray, prefix: str = "c") -> str:
        name = f"{prefix}{len(self.weights)}"
        self.weights[name] = numpy_helper.from_array(array, name)
        return name

    def add(self, op_type: str, inputs: Sequence[str], *shapes: Shape, **attributes: object) -> list[str]:
        """Append a node, if what it makes is not too large."""
        if any(prod(shape) > _MOST_ELEMENTS or 0 in shape for shape in shapes):
            return []
        number = len(self.nodes)
        # Names as exporters give them: the same that the emission would like to give.
        outputs = [f"{op_type}_{number}" if len(shapes) == 1 else f"v{number}_{i}" for i in range(len(shapes))]
        self.nodes.append(helper.make_node(op_type, list(inputs), outputs, name=f"{op_type}{number}", **attributes))
        self.used.update(inputs)
        self.shapes.update(zip(outputs, shapes, strict=True))
        return outputs


Maker = Callable[[RandomGraph], object]
MAKERS: dict[str, tuple[Maker, int]] = {}


def makes(weight: int = 1) -> Callable[[Maker], Maker]:
    def register(maker: Maker) -> Maker:
        MAKERS[maker.__name__] = (maker, weight)
        return maker

    return register


@makes(6)
def conv(g: RandomGraph) -> None:
    x = g.pick(4)
    if x is None:
        return
    n, c, h, w = g.shapes[x]
    group = g.rng.choice([1, 1, *(d for d in range(2, c + 1) if c % d == 0), c])
    cout = group * g.rng.randint(1, 3) if group > 1 else g.rng.randint(1, 8)
    kernel, strides, pads, dilations, out = _window(g, (h, w))
    operands = [x, g.weight((cout, c // group, *kernel))]
    if g.rng.random() < 0.6:
        operands.append(g.weight((cout,), 0.5))
    attributes = {"strides": strides, "pads": pads, "dilations": dilations, "group": group, "kernel_shape": kernel}
    g.add("Conv", operands, (n, cout, *out), **attributes)


def _window(
    g: RandomGraph, sizes: Sequence[int], *, dilate: bool = True
) -> tuple[list[int], list[int], list[int], list[int], tuple[int, ...]]:
    kernel, strides, dilations, begins, ends, out = [], [], [], [], [], []
    for size in sizes:
        k, s, d = g.rng.randint(1, 3), g.rng.choice([1, 1, 2]), g.rng.choice([1, 1, 2]) if dilate else 1
        extent = (k - 1) * d + 1
        before, after = g.rng.randint(0, min(k - 1, 1)), g.rng.randint(0, min(k - 1, 1))
        if extent > size + before + after:
            k, d, extent, before, after = 1, 1, 1, 0, 0
        kernel.append(k)
        strides.append(s)
        dilations.append(d)
        begins.append(before)
        ends.append(after)
        out.append((size + before + after - extent) // s + 1)
    return kernel, strides, begins + ends, dilations, tuple(out)


@makes(2)
def pool(g: RandomGraph) -> None:
    x = g.pick(4)
    if x is None:
        return
    n, c, h, w = g.shapes[x]
    kernel, strides, pads, _, out = _window(g, (h, w), dilate=False)
    attributes: dict[str, object] = {"kernel_shape": kernel, "strides": strides, "pads": pads}
    if g.rng.random() < 0.5:
        g.add("MaxPool", [x], (n, c, *out), **attributes)
    else:
        g.add("AveragePool", [x], (n, c, *out), **attributes, count_include_pad=g.rng.randint(0, 1))


@makes()
def global_pool(g: RandomGraph) -> None:
    if x := g.pick(4):
        g.add(g.rng.choice(["GlobalAveragePool", "GlobalMaxPool"]), [x], (*g.shapes[x][:2], 1, 1))


@makes(3)
def gemm(g: RandomGraph) -> None:
    x = g.pick(2)
    if x is None:
        return
    m, k = g.shapes[x]
    n = g.rng.randint(1, 9)
    turned = g.rng.randint(0, 1)
    operands = [x, g.weight((n, k) if turned else (k, n), 1 / sqrt(k))]
    if g.rng.random() < 0.6:
        operands.append(g.weight((n,), 0.5))
    g.add("Gemm", operands, (m, n), transB=turned)


@makes(3)
def matmul(g: RandomGraph) -> None:
    x = g.pick(2, 3, 4)
    if x is None:
        return
    shape = g.shapes[x]
    partners = [name for name, own in g.shapes.items() if own[:-2] == shape[:-2] and own[-2:-1] == shape[-1:]]
    if partners and g.rng.random() < 0.5:
        y = g.rng.choice(partners)
        g.add("MatMul", [x, y], (*shape[:-1], g.shapes[y][-1]))
    else:
        n = g.rng.randint(1, 9)
        g.add("MatMul", [x, g.weight((shape[-1], n), 1 / sqrt(shape[-1]))], (*shape[:-1], n))


@makes(3)
def unary(g: RandomGraph) -> None:
    if x := g.pick():
        g.add(g.rng.choice(["Relu", "Sigmoid", "Neg", "Tanh", "Abs", "Identity"]), [x], g.shapes[x])


@makes(4)
def binary(g: RandomGraph) -> None:
    """Residuals, a value with itself, and weights that are broadcast."""
    x = g.pick()
    if x is None:
        return
    shape = g.shapes[x]
    op_type = g.rng.choice(["Add", "Sub", "Mul", "Max"])
    kind = g.rng.random()
    if kind < 0.15:
        g.add(op_type, [x, x], shape)
    elif kind < 0.6:
        g.add(op_type, [x, g.rng.choice([name for name, own in g.shapes.items() if own == shape])], shape)
    else:
        kept = tuple(extent if g.rng.random() < 0.6 else 1 for extent in shape)
        operand = g.weight(kept[g.rng.randint(0, len(kept)) :], 0.7)
        g.add(op_type, g.rng.sample([x, operand], 2), shape)


@makes(3)
def concat(g: RandomGraph) -> None:
    x = g.pick(2, 3, 4)
    if x is None:
        return
    shape = g.shapes[x]
    axis = g.rng.randrange(len(shape))

    def others(own: Shape) -> Shape:
        return own[:axis] + own[axis + 1 :]

    fitting = [n for n, own in g.shapes.items() if len(own) == len(shape) and others(own) == others(shape)]
    parts = g.rng.choices(fitting, k=g.rng.randint(2, 3))
    total = sum(g.shapes[name][axis] for name in parts)
    g.add("Concat", parts, (*shape[:axis], total, *shape[axis + 1 :]), axis=axis - g.rng.choice([0, len(shape)]))


@makes(2)
def split(g: RandomGraph) -> None:
    x = g.pick(2, 3, 4)
    if x is None:
        return
    shape = g.shapes[x]
    axis = max(range(len(shape)), key=lambda i: shape[i])
    if shape[axis] < 2:
        return
    first = g.rng.randint(1, shape[axis] - 1)
    sizes = g.constant(np.asarray([first, shape[axis] - first], np.int64))
    outs = [(*shape[:axis], size, *shape[axis + 1 :]) for size in (first, shape[axis] - first)]
    g.add("Split", [x, sizes], *outs, axis=axis)


@makes(2)
def reshape(g: RandomGraph) -> None:
    """Merge two neighbouring dimensions, or cut one in two."""
    x = g.pick(2, 3, 4)
    if x is None:
        return
    shape = g.shapes[x]
    i = g.rng.randrange(len(shape) - 1)
    new = (*shape[:i], shape[i] * shape[i + 1], *shape[i + 2 :])
    if g.rng.random() < 0.5 and len(shape) < 4:
        factor = g.rng.choice([d for d in range(1, shape[i] + 1) if shape[i] % d == 0])
        new = (*shape[:i], factor, shape[i] // factor, *shape[i + 1 :])
    if len(new) >= 2:
        g.add("Reshape", [x, g.constant(np.asarray(new, np.int64))], new)


@makes()
def flatten(g: RandomGraph) -> None:
    if x := g.pick(3, 4):
        g.add("Flatten", [x], (g.shapes[x][0], prod(g.shapes[x][1:])))


@makes(2)
def transpose(g: RandomGraph) -> None:
    x = g.pick(2, 3, 4)
    if x is None:
        return
    order = g.rng.sample(range(len(g.shapes[x])), len(g.shapes[x]))
    g.add("Transpose", [x], tuple(g.shapes[x][i] for i in order), perm=order)


@makes(2)
def normalise(g: RandomGraph) -> None:
    x = g.pick(2, 3, 4)
    if x is None:
        return
    shape = g.shapes[x]
    if g.rng.random() < 0.5:
        g.add("Softmax", [x], shape, axis=g.rng.randrange(len(shape)))
    elif shape[-1] > 1:
        # A variance over few, nearly equal elements magnifies rounding: a large epsilon keeps it in bounds.
        g.add("LayerNormalization", [x, g.weight(shape[-1:], 0.7), g.weight(shape[-1:], 0.5)], shape, epsilon=0.1)


@makes()
def batch_norm(g: RandomGraph) -> None:
    x = g.pick(4)
    if x is None:
        return
    c = g.shapes[x][1]
    variance = g.constant(np.linspace(0.5, 2, c, dtype=np.float32))
    g.add("BatchNormalization", [x, *(g.weight((c,), 0.7) for _ in range(3)), variance], g.shapes[x])


@makes()
def gather(g: RandomGraph) -> None:
    x = g.pick(2, 3, 4)
    if x is None:
        return
    shape = g.shapes[x]
    axis = g.rng.randrange(len(shape))
    rows = [g.rng.randrange(-shape[axis], shape[axis]) for _ in range(g.rng.randint(1, 5))]
    g.add(
        "Gather", [x, g.constant(np.asarray(rows, np.int64))], (*shape[:axis], len(rows), *shape[axis + 1 :]), axis=axis
    )


@makes(2)
def reduce(g: RandomGraph) -> None:
    x = g.pick(2, 3, 4)
    if x is None:
        return
    shape = g.shapes[x]
    axes = sorted(g.rng.sample(range(len(shape)), g.rng.randint(1, 2)))
    keep = g.rng.randint(0, 1)
    out = tuple(1 if i in axes else e for i, e in enumerate(shape) if keep or i not in axes)
    g.add(g.rng.choice(["ReduceMean", "ReduceMax", "ReduceMin"]), [x], out, axes=axes, keepdims=keep)


@makes()
def slice_(g: RandomGraph) -> None:
    x = g.pick(2, 3, 4)
    if x is None:
        return
    shape = g.shapes[x]
    axis = g.rng.randrange(len(shape))
    start = g.rng.randrange(shape[axis])
    stop = g.rng.randint(start + 1, shape[axis])
    step = g.rng.choice([1, 1, 2])
    cut = [g.constant(np.asarray([number], np.int64)) for number in (start, stop, axis, step)]
    g.add("Slice", [x, *cut], (*shape[:axis], -(-(stop - start) // step), *shape[axis + 1 :]))


@makes()
def pad(g: RandomGraph) -> None:
    x = g.pick(4)
    if x is None:
        return
    n, c, h, w = g.shapes[x]
    top, left, bottom, right = (g.rng.randint(0, 2) for _ in range(4))
    pads = g.constant(np.asarray([0, 0, top, left, 0, 0, bottom, right], np.int64))
    g.add("Pad", [x, pads], (n, c, h + top + bottom, w + left + right))


@makes()
def without_rule(g: RandomGraph) -> None:
    x = g.pick(2, 3, 4)
    if x is not None:
        time, batch = g.shapes[x][:2]
        lengths = g.constant(np.asarray([g.rng.randint(1, time) for _ in range(batch)], np.int64))
        g.add("ReverseSequence", [x, lengths], g.shapes[x], time_axis=0, batch_axis=1)


@makes()
def triangle(g: RandomGraph) -> None:
    if x := g.pick(2, 3, 4):
        g.add("Trilu", [x], g.shapes[x], upper=g.rng.randint(0, 1))


@makes()
def branch(g: RandomGraph) -> None:
    """An If whose bodies take values from outside."""
    x = g.pick()
    if x is None:
        return
    number = len(g.nodes)
    bodies = {}
    for name, op_type in (("then_branch", "Sigmoid"), ("else_branch", "Neg")):
        out = helper.make_tensor_value_info(f"{name}{number}", TensorProto.FLOAT, g.shapes[x])
        inner = helper.make_node(op_type, [x], [out.name], name=f"{op_type}_in{number}")
        bodies[name] = helper.make_graph([inner], f"{name}{number}", [], [out])
    # Not a constant condition, or it would be folded: a comparison of an input with itself.
    same = g.inputs[0]
    flat = g.constant(np.asarray([-1], np.int64))
    g.nodes += [
        helper.make_node("Reshape", [same, flat], [f"flat{number}"], name=f"Flat{number}"),
        helper.make_node("Gather", [f"flat{number}", g.constant(np.asarray(0, np.int64))], [f"one{number}"], axis=0),
        helper.make_node("LessOrEqual", [f"one{number}", f"one{number}"], [f"yes{number}"], name=f"Yes{number}"),
    ]
    g.used.update((x, same))
    g.add("If", [f"yes{number}"], g.shapes[x], **bodies)


def random_model(seed: int, size: int = 8) -> onnx.ModelProto:
    """A model with about ``size`` nodes; equal arguments give equal models."""
    rng = random.Random(seed)
    g = RandomGraph(rng)
    for number in range(rng.choice([1, 1, 2, 3])):
        rank = rng.choice([2, 3, 4, 4, 4])
        most = {2: (4, 9), 3: (3, 6, 9), 4: (3, 8, 9, 9)}[rank]
        g.inputs.append(f"x{number}")
        g.shapes[f"x{number}"] = tuple(rng.randint(1, extent) for extent in most)
    makers = [maker for maker, _ in MAKERS.values()]
    weights = [weight for _, weight in MAKERS.values()]
    for _ in range(20 * size):
        if len(g.nodes) >= size:
            break
        rng.choices(makers, weights)[0](g)
    while not g.nodes:
        unary(g)
    made = [name for name in g.shapes if name not in g.inputs]
    # What nobody uses is an output; now and then something that is used, too, or an input.
    outputs = [name for name in made if name not in g.used or rng.random() < 0.15]
    if rng.random() < 0.05:
        outputs.append(g.inputs[0])
    read = {name for node in g.nodes for name in node.input}
    graph = helper.make_graph(
        g.nodes,
        f"random{seed}",
        [_info(g, name) for name in g.inputs],
        [_info(g, name) for name in outputs],
        [tensor for name, tensor in g.weights.items() if name in read],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _info(g: RandomGraph, name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, g.shapes[name])
