"""Random convolutional models whose channels come in whole blocks: most of their tensors can travel in blocks."""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


class _Writer:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.generator = np.random.default_rng(rng.randrange(2**32))
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.shapes: dict[str, tuple[int, int, int, int]] = {}

    def node(self, op_type: str, inputs: list[str], shape: tuple[int, int, int, int], **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        label = f"{op_type}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=label, **attributes))
        self.shapes[name] = shape
        return name

    def weight(self, *shape: int) -> str:
        values = self.generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:], initial=1))
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), f"w{len(self.weights)}"))
        return self.weights[-1].name

    def conv(self, x: str, channels: int, kernel: int, stride: int, grouped: bool = False) -> str:
        n, c, h, w = self.shapes[x]
        pad = kernel // 2
        group = c if grouped and c == channels and self.rng.random() < 0.15 else 1
        out = [(extent + 2 * pad - kernel) // stride + 1 for extent in (h, w)]
        inputs = [x, self.weight(channels, c // group, kernel, kernel)]
        if self.rng.random() < 0.7:
            inputs.append(self.weight(channels))
        return self.node(
            "Conv",
            inputs,
            (n, channels, *out),
            strides=[stride] * 2,
            pads=[pad] * 4,
            kernel_shape=[kernel] * 2,
            group=group,
        )

    def relu(self, x: str) -> str:
        return self.node("Relu", [x], self.shapes[x])

    def model(self, name: str, outputs: Iterable[str]) -> onnx.ModelProto:
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            name,
            [info("x", TensorProto.FLOAT, self.shapes["x"])],
            [info(output, TensorProto.FLOAT, self.shapes[output]) for output in outputs],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def convolutional_model(seed: int, size: int) -> onnx.ModelProto:
    """A model of about ``size`` layers: convolutions, residuals, pools, joins, strides, now and then a plain end."""
    rng = random.Random(seed)
    writer = _Writer(rng)
    block = rng.choice([16, 32, 32, 48])
    batch = rng.choice([1, 1, 1, 2])
    extent = rng.choice([7, 8, 13, 14])
    channels = rng.choice([3, block, 2 * block])
    writer.shapes["x"] = (batch, channels, extent, extent)
    x = writer.relu(writer.conv("x", 2 * block, 3, 1))
    for _ in range(size):
        n, c, h, w = writer.shapes[x]
        kind = rng.random()
        if kind < 0.25:
            x = writer.conv(x, rng.choice([block, 2 * block]), rng.choice([1, 3]), rng.choice([1, 1, 2]), grouped=True)
            x = writer.relu(x) if rng.random() < 0.7 else x
        elif kind < 0.6:
            stride = rng.choice([1, 1, 2])
            y = writer.relu(writer.conv(x, block, 1, 1))
            y = writer.relu(writer.conv(y, block, 3, stride))
            y = writer.conv(y, c, 1, 1)
            shortcut = writer.conv(x, c, 1, stride) if stride > 1 or rng.random() < 0.3 else x
            x = writer.node("Add", [y, shortcut], writer.shapes[y])
            x = writer.relu(x) if rng.random() < 0.8 else x
        elif kind < 0.7 and h > 2:
            op_type = rng.choice(["MaxPool", "AveragePool"])
            shape = (n, c, (h - 1) // 2 + 1, (w - 1) // 2 + 1)
            x = writer.node(op_type, [x], shape, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        elif kind < 0.85 and c < 6 * block:
            other = writer.relu(writer.conv(x, block, rng.choice([1, 3]), 1))
            x = writer.node("Concat", [x, other], (n, c + block, h, w), axis=1)
        else:
            x = writer.node(rng.choice(["Sigmoid", "Tanh", "Relu"]), [x], (n, c, h, w))
    outputs = [x]
    if rng.random() < 0.3:
        outputs.append(rng.choice(sorted(writer.shapes.keys() - {"x", x})))
    if rng.random() < 0.5:
        n, c, _, _ = writer.shapes[x]
        outputs[0] = writer.node("GlobalAveragePool", [x], (n, c, 1, 1))
    return writer.model(f"convolutional{seed}", dict.fromkeys(outputs))


def residual_model(channels: int, batch: int = 1) -> onnx.ModelProto:
    """Three bottlenecks, the third with a stride: what a residual network consists of."""
    writer = _Writer(random.Random(channels))
    writer.shapes["x"] = (batch, 3, 14, 14)
    x = writer.relu(writer.conv("x", channels, 3, 1))
    for stride in (1, 1, 2):
        y = writer.relu(writer.conv(x, channels // 2, 1, 1))
        y = writer.relu(writer.conv(y, channels // 2, 3, stride))
        y = writer.conv(y, channels, 1, 1)
        shortcut = writer.conv(x, channels, 1, stride) if stride > 1 else x
        x = writer.relu(writer.node("Add", [y, shortcut], writer.shapes[y]))
    x = writer.node("GlobalAveragePool", [x], (batch, channels, 1, 1))
    return writer.model("residual", [x])
