"""Models as short text, for tests that show input and expected output side by side."""

import textwrap
from collections.abc import Iterable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

Shapes = dict[str, tuple[int, ...]]


def model(text: str, weights: Shapes | None = None, opset: int = 20, functions: str = "") -> ir.Model:
    """Read ``inputs => outputs { nodes }`` and add random weights."""
    header = f'<ir_version: 8, opset_import: ["": {opset}, "com.microsoft": 1, "local": 1]>'
    found = ir.from_onnx_text(f"{header}\ngraph {textwrap.dedent(text).strip()}\n{functions}")
    random = np.random.default_rng(0)
    for name, shape in (weights or {}).items():
        # Positive, so that they can be variances too.
        tensor = ir.tensor(random.uniform(0.5, 2, shape).astype(np.float32), name=name)
        wanted = [value for graph in found.graphs() for node in graph for value in node.inputs if value is not None]
        given = next((value for value in wanted if value.name == name and value.producer() is None), None)
        value = given or ir.Value(name=name)
        value.shape, value.type, value.const_value = ir.Shape(shape), ir.TensorType(tensor.dtype), tensor
        found.graph.register_initializer(value)
    return found


def text(found: ir.Model) -> str:
    """Return the graph the same way, initializers as comments by name and shape."""
    graph = ir.to_proto(found.graph)

    def declared(values: Iterable[ir.Value]) -> str:
        return ", ".join(f"{str(value.dtype).lower()}{_dims(value)} {value.name}" for value in values)

    lines = [f"({declared(found.graph.inputs)}) => ({declared(found.graph.outputs)}) {{"]
    for name, value in found.graph.initializers.items():
        lines.append(f"    # {name} {list(value.shape.numpy())}")  # type: ignore[union-attr]
    lines += ["    " + onnx.printer.to_text(node).strip() for node in graph.node]
    return "\n".join([*lines, "}"])


def run(found: ir.Model, feeds: dict[str, np.ndarray] | None = None) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Run on ONNX Runtime without optimisations, by default on random inputs; return these and the outputs."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(ir.to_proto(found).SerializeToString(), options)
    if feeds is None:
        random = np.random.default_rng(1)
        feeds = {
            value.name: random.standard_normal(value.shape).astype(_NUMPY[value.type]) for value in session.get_inputs()
        }
    return feeds, session.run(None, feeds)


def _dims(value: ir.Value) -> str:
    dims = value.shape or ()
    return "[" + ",".join(str(dim) if isinstance(dim, int) else dim.value or "?" for dim in dims) + "]"


_NUMPY = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}
