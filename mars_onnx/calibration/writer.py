"""Writes small ONNX models with random weights, and remembers the shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, ...]

OPSET = 20
IR_VERSION = 10


class ModelWriter:
    """A graph that grows node by node; methods return the name of what they make.

    Args:
        name: Of the graph.
        rng: Source of the weights.
    """

    def __init__(self, name: str, rng: np.random.Generator) -> None:
        self.rng = rng
        self.shapes: dict[str, Shape] = {}
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: dict[str, None] = {}

    def input(self, *shape: int) -> str:
        """A float32 graph input."""
        name = f"input{len(self._inputs)}"
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        self.shapes[name] = shape
        return name

    def weight(self, *shape: int) -> str:
        """Random weights, scaled so that values stay about as large as they are."""
        scale = 1.0 / np.sqrt(max(1, int(np.prod(shape[1:]))))
        return self.constant((self.rng.standard_normal(shape, dtype=np.float32) * scale).astype(np.float32))

    def constant(self, array: np.ndarray[Any, Any]) -> str:
        """An initializer."""
        name = f"weight{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(array, name))
        self.shapes[name] = array.shape
        return name

    def node(self, op_type: str, inputs: list[str], shape: Shape, **attributes: Any) -> str:
        """A node with one output of a shape."""
        name = f"{op_type.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, inputs, [f"{name}.out"], name=name, **attributes))
        self.shapes[f"{name}.out"] = shape
        return f"{name}.out"

    def output(self, value: str) -> None:
        """Make a value a graph output."""
        self._outputs[value] = None

    def model(self) -> onnx.ModelProto:
        """The model, with all shapes."""

        def info(name: str) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, self.shapes[name])

        made = [output for node in self._nodes for output in node.output]
        graph = helper.make_graph(
            self._nodes,
            self._name,
            self._inputs,
            [info(name) for name in self._outputs],
            self._weights,
            value_info=[info(name) for name in made if name not in self._outputs],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def conv(
        self,
        x: str,
        channels: int,
        kernel: tuple[int, int],
        *,
        stride: int = 1,
        groups: int = 1,
        pads: tuple[int, int, int, int] | None = None,
    ) -> str:
        """A convolution with bias; padded to keep the size, if ``pads`` (top, left, bottom, right) say nothing else."""
        batch, own, rows, cols = self.shapes[x]
        top, left, bottom, right = pads or (kernel[0] // 2, kernel[1] // 2) * 2
        shape = (
            batch,
            channels,
            (rows + top + bottom - kernel[0]) // stride + 1,
            (cols + left + right - kernel[1]) // stride + 1,
        )
        weight = self.weight(channels, own // groups, *kernel)
        return self.node(
            "Conv",
            [x, weight, self.weight(channels)],
            shape,
            kernel_shape=list(kernel),
            strides=[stride, stride],
            pads=[top, left, bottom, right],
            group=groups,
        )

    def same(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """A node whose output has the shape of its first input."""
        return self.node(op_type, list(inputs), self.shapes[inputs[0]], **attributes)

    def matmul(self, x: str, columns: int) -> str:
        """A product with weights, and a bias."""
        rows = self.shapes[x]
        product = self.node("MatMul", [x, self.weight(rows[-1], columns)], (*rows[:-1], columns))
        return self.same("Add", product, self.weight(columns))
