"""Constant folding: nodes whose inputs are all constants become initializers.

Small ones run together, once per round, in ONNX Runtime: the very kernels that would compute them later. Large ones
become lazy tensors that are computed when somebody reads them, so that no weight is read here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mars_onnx.stages.canonical import static_shape, subgraphs
from mars_passes.canonical.cleaning import become_initializer

EAGER_BYTES = 64 * 1024
LARGEST_BYTES = 2 * 1024**3 - 1

# Quantised weights stay quantised, and what other rules read from their nodes stays there.
_KEPT = frozenset({"DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear", "If", "Loop", "Scan"})
# Small inputs may ask for large outputs here, so the output's size must be known before the node may run.
_GROWING = frozenset({"ConstantOfShape", "Expand", "OneHot", "Pad", "Range", "Resize", "Tile", "Upsample"})
_DTYPES = frozenset(
    {
        ir.DataType.BOOL,
        ir.DataType.DOUBLE,
        ir.DataType.FLOAT,
        ir.DataType.FLOAT16,
        ir.DataType.INT8,
        ir.DataType.INT16,
        ir.DataType.INT32,
        ir.DataType.INT64,
        ir.DataType.UINT8,
        ir.DataType.UINT16,
        ir.DataType.UINT32,
        ir.DataType.UINT64,
    }
)


def fold_constants(model: ir.Model) -> bool:
    """Fold what can be folded in the main graph now; say whether there was anything."""
    graph = model.graph
    eager: list[ir.Node] = []
    pending: set[ir.Value] = set()
    folded = False
    for node in list(graph):
        shape = _constant_shape(node)
        if shape is not None:
            become_initializer(node.outputs[0], ir.Tensor(shape, name=node.outputs[0].name))
            graph.remove(node, safe=True)
            folded = True
        elif _is_constant(node, pending):
            if _is_small(node):
                eager.append(node)
                pending.update(node.outputs)
            elif not any(value in pending for value in node.inputs) and _fits_lazily(node):
                _fold_lazily(graph, node, model)
                folded = True
    return _run_eagerly(graph, eager, model) or folded


def _constant_shape(node: ir.Node) -> np.ndarray | None:
    """Return what Shape or Size of a static shape computes."""
    if node.domain != "" or node.op_type not in ("Shape", "Size") or node.inputs[0] is None:
        return None
    shape = static_shape(node.inputs[0])
    if shape is None:
        return None
    if node.op_type == "Size":
        return np.array(int(np.prod(shape, dtype=np.int64)), np.int64)
    start = node.attributes.get_int("start", 0)
    end = node.attributes.get_int("end", len(shape))
    # The operator clamps to the rank; so does a slice, once negative positions are counted from the end.
    start, end = (max(at + len(shape), 0) if at < 0 else at for at in (start, end))
    return np.array(shape[start:end], np.int64)


def _is_constant(node: ir.Node, pending: set[ir.Value]) -> bool:
    if node.domain != "" or node.op_type in _KEPT or next(subgraphs(node), None) is not None:
        return False
    if not node.inputs:
        return False
    if node.op_type == "Identity" and node.outputs[0].is_graph_output():
        return False
    known = all(value is None or value in pending or value.const_value is not None for value in node.inputs)
    return known and all(value.dtype in _DTYPES for value in (*node.inputs, *node.outputs) if value is not None)


def _bytes(value: ir.Value | None) -> int | None:
    """Return the size of a value, None if it is not known."""
    if value is None:
        return 0
    shape = static_shape(value)
    if shape is None or value.dtype is None:
        return None
    return int(np.prod(shape, dtype=object)) * value.dtype.bitwidth // 8


def _is_small(node: ir.Node) -> bool:
    inputs = [_bytes(value) for value in node.inputs]
    outputs = [_bytes(value) for value in node.outputs]
    if any(size is not None and size > EAGER_BYTES for size in (*inputs, *outputs)):
        return False
    return None not in outputs or node.op_type not in _GROWING


def _fits_lazily(node: ir.Node) -> bool:
    sizes = [_bytes(value) for value in node.outputs]
    return all(size is not None and size <= LARGEST_BYTES for size in sizes)


def _fold_lazily(graph: ir.Graph, node: ir.Node, model: ir.Model) -> None:
    computation = _Computation(node, model)
    for index, value in enumerate(list(node.outputs)):
        shape = static_shape(value)
        if not value.uses() and not value.is_graph_output():
            continue
        assert shape is not None
        assert value.dtype is not None
        tensor = ir.LazyTensor(_Output(computation, index, shape), value.dtype, ir.Shape(shape), name=value.name)
        become_initializer(value, tensor)
    graph.remove(node, safe=True)


class _Computation:
    """A node with the tensors that it reads, to be run when its result is wanted."""

    def __init__(self, node: ir.Node, model: ir.Model) -> None:
        self.tensors = {
            f"i{index}": value.const_value
            for index, value in enumerate(node.inputs)
            if value is not None and value.const_value is not None
        }
        inputs = [
            None if value is None else ir.Value(name=f"i{index}", shape=value.shape, type=value.type)
            for index, value in enumerate(node.inputs)
        ]
        outputs = [ir.Value(name=f"o{index}", type=value.type) for index, value in enumerate(node.outputs)]
        copy = ir.Node("", node.op_type, inputs, list(node.attributes.values()), outputs=outputs)
        self.model = _model([copy], [value for value in inputs if value is not None], outputs, model)
        self.filler = _filler(node)

    def run(self, index: int, shape: tuple[int, ...]) -> np.ndarray:
        if self.filler is not None:
            # Without a session, so that a hundred megabytes of one number cost no more than their memory.
            return np.full(shape, self.filler)
        feeds = {name: np.asarray(tensor.numpy()) for name, tensor in self.tensors.items()}
        return _run(self.model, [f"o{index}"], feeds)[0]


def _filler(node: ir.Node) -> np.generic | None:
    """Return the one number that ConstantOfShape writes everywhere; None for other operators."""
    if node.op_type != "ConstantOfShape":
        return None
    value = node.attributes.get_tensor("value", None)
    return np.float32(0) if value is None else value.numpy().reshape(-1)[0]


@dataclass(frozen=True)
class _Output:
    """One output of a computation, as LazyTensor wants it."""

    computation: _Computation
    index: int
    shape: tuple[int, ...]

    def __call__(self) -> ir.TensorProtocol:
        return ir.Tensor(self.computation.run(self.index, self.shape))


def _run_eagerly(graph: ir.Graph, nodes: Sequence[ir.Node], model: ir.Model) -> bool:
    if not nodes:
        return False
    chosen = set(nodes)
    sources = dict.fromkeys(v for node in nodes for v in node.inputs if v is not None and v.producer() not in chosen)
    wanted = [
        value
        for node in nodes
        for value in node.outputs
        if value.is_graph_output() or any(use.node not in chosen for use in value.uses())
    ]
    copies: dict[ir.Value, ir.Value] = {
        value: ir.Value(name=f"i{index}", shape=value.shape, type=value.type) for index, value in enumerate(sources)
    }
    copied_nodes = []
    for number, node in enumerate(nodes):
        outputs = [
            ir.Value(name=f"n{number}o{index}", type=value.type) if value.name else ir.Value(name="")
            for index, value in enumerate(node.outputs)
        ]
        inputs = [None if value is None else copies[value] for value in node.inputs]
        copies.update(zip(node.outputs, outputs, strict=True))
        copied_nodes.append(ir.Node("", node.op_type, inputs, list(node.attributes.values()), outputs=outputs))
    feeds = {copies[value].name or "": np.asarray(value.const_value.numpy()) for value in sources}  # type: ignore[union-attr]
    outputs = [copies[value] for value in wanted]
    constants = _model(copied_nodes, [copies[value] for value in sources], outputs, model)
    results = _run(constants, [value.name or "" for value in outputs], feeds)
    for value, result in zip(wanted, results, strict=True):
        become_initializer(value, ir.Tensor(result, name=value.name))
    for node in reversed(nodes):
        graph.remove(node, safe=True)
    return True


def _model(nodes: list[ir.Node], inputs: list[ir.Value], outputs: list[ir.Value], model: ir.Model) -> bytes:
    graph = ir.Graph(inputs, outputs, nodes=nodes, opset_imports={"": model.opset_imports[""]}, name="constants")
    serialized: bytes = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    return serialized


def _run(model: bytes, outputs: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Compute ``outputs`` from ``feeds`` in a session without optimisations."""
    import onnxruntime as ort  # late: most models have nothing to fold

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return list(session.run(outputs, feeds))
