"""The nine "light" models of the onnx package, with random weights in place of constant ones.

The onnx package ships these networks for its backend tests with every large weight written as a
ConstantOfShape node, so that all its elements are equal. Here each such node, and each float initializer
that was left, becomes a weight. Names and opset (9) stay; initializers are no longer graph inputs, and what
nothing uses any more is dropped.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from mars_onnx.errors import InputError, UsageError

from .graph_writer import IR_VERSION, Shape, Skeleton

PREFIX = "light_"
OPSET = 9
NETWORKS = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)


def source(name: str) -> str:
    """Where the architecture of ``name`` ("light_resnet50") comes from."""
    return f"{name}.onnx of the backend tests of the onnx package"


def light_network(name: str, *, batch: int, opset: int | None) -> Skeleton:
    """Read the light model ``name``: input (batch, 3, 224, 224), output 1000 class probabilities or logits.

    Raises:
        InputError: The installed onnx package does not ship the model.
        UsageError: ``opset`` is another than the model's.
    """
    if opset not in (None, OPSET):
        raise UsageError(f"{name}: exists at opset {OPSET} only, got {opset}")
    path = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"{name}.onnx"
    if not path.is_file():
        raise InputError(f"{name}: the installed onnx package {onnx.__version__} does not ship {path}")
    model = onnx.load(path)
    model.ir_version = IR_VERSION
    model.producer_name = "mars_onnx.models"
    model.doc_string = model.graph.doc_string = source(name)
    model.graph.name = name
    weights = _take_weights(model.graph)
    _set_batch(model.graph, weights, batch)
    return Skeleton(model, weights)


def _take_weights(graph: onnx.GraphProto) -> dict[str, Shape]:
    """Remove all weights from ``graph``, and what is unused without them; return their shapes."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    shapes: dict[str, Shape] = {
        name: tuple(tensor.dims) for name, tensor in tensors.items() if tensor.data_type == TensorProto.FLOAT
    }
    nodes = []
    for node in graph.node:
        if node.op_type == "ConstantOfShape":
            shapes[node.output[0]] = tuple(int(size) for size in numpy_helper.to_array(tensors[node.input[0]]))
        else:
            nodes.append(node)
    used = list(dict.fromkeys(name for node in nodes for name in node.input))
    inputs = [value for value in graph.input if value.name in used and value.name not in tensors]
    constants = [tensors[name] for name in used if name in tensors and name not in shapes]
    for items, kept in ((graph.node, nodes), (graph.input, inputs), (graph.initializer, constants)):
        del items[:]
        items.extend(kept)
    return {name: shapes[name] for name in used if name in shapes}


def _set_batch(graph: onnx.GraphProto, weights: dict[str, Shape], batch: int) -> None:
    """Write ``batch`` for the leading 1 of inputs, outputs and target shapes of activations."""
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    targets = {node.input[1] for node in graph.node if node.op_type == "Reshape" and node.input[0] not in weights}
    for tensor in graph.initializer:
        if tensor.name in targets:
            target = numpy_helper.to_array(tensor).copy()
            target[0] = batch
            tensor.CopyFrom(numpy_helper.from_array(target.astype(np.int64), tensor.name))
