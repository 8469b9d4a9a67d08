"""Writes the graph of a network without its weights: nodes, small constants, and the shape of every weight.

The values come later (``random_weights.py``), so that architecture and weights stay apart and shapes,
parameter counts and multiply-accumulate counts are known without drawing a single random number.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

IR_VERSION = 10
DEFAULT_OPSET = 17

Shape = tuple[int, ...]


@dataclass
class Skeleton:
    """A model whose weights are known by shape only.

    Attributes:
        model: The graph; the tensors in ``weights`` are used by its nodes and defined nowhere.
        weights: Name and shape of each float32 weight, in order of first use.
    """

    model: onnx.ModelProto
    weights: dict[str, Shape]
    _shapes: dict[str, Shape] = field(default_factory=dict)

    def infer_shapes(self) -> dict[str, Shape]:
        """Infer all activation shapes, store them in the graph, return name to shape of all tensors.

        Raises:
            onnx.shape_inference.InferenceError: The graph is inconsistent.
        """
        if self._shapes:
            return self._shapes
        graph = self.model.graph
        inputs = list(graph.input)
        graph.input.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in self.weights.items()
        )
        inferred = onnx.shape_inference.infer_shapes(self.model, check_type=True, strict_mode=True, data_prop=True)
        del graph.input[:]
        graph.input.extend(inputs)
        del graph.value_info[:]
        graph.value_info.extend(inferred.graph.value_info)
        del graph.output[:]
        graph.output.extend(inferred.graph.output)
        self._shapes = {name: tuple(shape) for name, shape in self.weights.items()}
        for value in (*inputs, *inferred.graph.value_info, *inferred.graph.output):
            self._shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for tensor in graph.initializer:
            self._shapes[tensor.name] = tuple(tensor.dims)
        return self._shapes


class GraphWriter:
    """Adds layers one after the other; every layer method returns the name of its output tensor.

    The node of layer ``layer1.0.conv1`` bears that name, its weights are ``layer1.0.conv1.weight`` and so
    on, and its output tensor is ``layer1.0.conv1.output``.
    """

    def __init__(self, name: str, *, source: str, opset: int) -> None:
        """Start the graph ``name``; ``source`` becomes the doc string of model and graph."""
        self._name = name
        self._source = source
        self._opset = opset
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._weights: dict[str, Shape] = {}

    @property
    def opset(self) -> int:
        """The opset the graph is written for."""
        return self._opset

    def input(self, name: str, *shape: int) -> str:
        """Add a float32 graph input."""
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def output(self, tensor: str, name: str) -> None:
        """Make ``tensor`` a graph output called ``name``; its producer is renamed, no node is added."""
        for node in self._nodes:
            for names in (node.input, node.output):
                for position, used in enumerate(names):
                    if used == tensor:
                        names[position] = name
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))

    def weight(self, name: str, *shape: int) -> str:
        """Declare a float32 weight."""
        self._weights[name] = shape
        return name

    def constant(self, name: str, value: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """Add a constant that belongs to the architecture: a target shape, a scale."""
        self._constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def node(self, op_type: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""
        output = f"{name}.output"
        self._nodes.append(helper.make_node(op_type, list(inputs), [output], name=name, **attributes))
        return output

    def conv(
        self,
        x: str,
        name: str,
        channels: tuple[int, int],
        kernel: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        bias: bool = False,
    ) -> str:
        """Convolve, ``channels`` in and out; ``padding`` defaults to half the kernel."""
        padding = kernel // 2 if padding is None else padding
        fan_in = channels[0] // groups
        inputs = [x, self.weight(f"{name}.weight", channels[1], fan_in, kernel, kernel)]
        if bias:
            inputs.append(self.weight(f"{name}.bias", channels[1]))
        return self.node(
            "Conv",
            name,
            *inputs,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[padding] * 4,
            dilations=[1, 1],
            group=groups,
        )

    def batch_norm(self, x: str, name: str, channels: int) -> str:
        """Normalise with stored statistics (inference form)."""
        parts = ("weight", "bias", "running_mean", "running_var")
        weights = [self.weight(f"{name}.{part}", channels) for part in parts]
        return self.node("BatchNormalization", name, x, *weights, epsilon=1e-5)

    def conv_bn(
        self,
        x: str,
        names: tuple[str, str],
        channels: tuple[int, int],
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
    ) -> str:
        """Convolve without bias, then normalise; ``names`` are those of the two nodes."""
        x = self.conv(x, names[0], channels, kernel, stride=stride, groups=groups)
        return self.batch_norm(x, names[1], channels[1])

    def layer_norm(self, x: str, name: str, width: int) -> str:
        """Normalise over the last axis, of size ``width``."""
        weights = (self.weight(f"{name}.weight", width), self.weight(f"{name}.bias", width))
        return self.node("LayerNormalization", name, x, *weights, axis=-1, epsilon=1e-5)

    def relu(self, x: str, name: str) -> str:
        """Rectify."""
        return self.node("Relu", name, x)

    def add(self, a: str, b: str, name: str) -> str:
        """Add element by element."""
        return self.node("Add", name, a, b)

    def max_pool(self, x: str, name: str, kernel: int, stride: int, padding: int = 0) -> str:
        """Take the maximum of square windows."""
        window = {"kernel_shape": [kernel, kernel], "strides": [stride, stride], "pads": [padding] * 4}
        return self.node("MaxPool", name, x, **window)

    def global_average_pool(self, x: str, name: str) -> str:
        """Average each channel: (N, C, H, W) to (N, C, 1, 1)."""
        return self.node("GlobalAveragePool", name, x)

    def flatten(self, x: str, name: str) -> str:
        """Flatten all but the first axis."""
        return self.node("Flatten", name, x, axis=1)

    def linear(self, x: str, name: str, features: tuple[int, int]) -> str:
        """Fully connected layer as Gemm: (N, features[0]) to (N, features[1]), weight stored (out, in)."""
        weight = self.weight(f"{name}.weight", features[1], features[0])
        return self.node("Gemm", name, x, weight, self.weight(f"{name}.bias", features[1]), transB=1)

    def projection(self, x: str, name: str, features: tuple[int, int]) -> str:
        """Fully connected layer on the last axis as MatMul and Add, weight stored (in, out)."""
        x = self.node("MatMul", f"{name}.matmul", x, self.weight(f"{name}.weight", *features))
        return self.add(x, self.weight(f"{name}.bias", features[1]), f"{name}.add")

    def skeleton(self) -> Skeleton:
        """Finish: the model without weight values."""
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, self._constants, doc_string=self._source
        )
        opset_import = helper.make_opsetid("", self._opset)
        ir_version = max(IR_VERSION, helper.find_min_ir_version_for([opset_import]))
        model = helper.make_model(
            graph,
            opset_imports=[opset_import],
            ir_version=ir_version,
            producer_name="mars_onnx.models",
            doc_string=self._source,
        )
        return Skeleton(model, self._weights)
