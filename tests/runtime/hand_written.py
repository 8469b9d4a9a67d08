"""Hand-written partitions for the tests of the runtime, as text."""

import re

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir

from mars_onnx import comm
from mars_onnx.geometry import parse_box, whole_box
from mars_onnx.runtime.plan_file import PartitionEntry, PlanFile, RankBox, TensorBoxes

OPSET = 17


def partition(text: str, claims: dict[str, str] | None = None, opset: int = OPSET) -> ir.Model:
    """A partition from the text of its graph; ``@Op`` is a communication operator, ``start`` and ``token`` the tokens.

    ``claims`` has, per value, ``source[box]`` or ``source[box] part/num_parts reduction``.
    """
    text = text.replace("@", f"{comm.DOMAIN}.")
    if comm.DOMAIN in text:
        name, inputs, outputs, initializers, body = re.fullmatch(
            r"(\w+) \((.*?)\) => \((.*?)\)\s*(?:<(.*?)>\s*)?(\{.*)", text, flags=re.DOTALL
        ).groups()
        inputs = ", ".join(filter(None, [inputs, "int64[1] start"]))
        outputs = ", ".join(filter(None, [outputs, "int64[1] token"]))
        initializers = ", ".join(filter(None, [initializers, "int64[1] start = {0}"]))
        text = f"{name} ({inputs}) => ({outputs}) <{initializers}> {body}"
    header = f'<ir_version: 10, opset_import: ["": {opset}, "{comm.DOMAIN}": 1]>'
    proto = onnx.parser.parse_model(header + text)
    model = ir.from_proto(proto)
    comm.add_functions(model)
    proto = onnx.shape_inference.infer_shapes(ir.to_proto(model), strict_mode=True, data_prop=True)
    model = ir.from_proto(proto)
    for value in [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]:
        if value.name == "start":
            value.name = comm.TOKEN_START
        elif value.name == "token":
            value.name = comm.TOKEN_NAME
    for name, claim in (claims or {}).items():
        source, box, part, reduce_op = re.fullmatch(r"(\S+?)\[(.*?)\](?: (\S+) (\S+))?", claim).groups()
        metadata = next(
            v for v in [*model.graph.inputs, *(v for n in model.graph for v in n.outputs)] if v.name == name
        ).metadata_props
        metadata |= {comm.METADATA_SOURCE: source, comm.METADATA_BOX: box}
        if part:
            metadata |= {comm.METADATA_PART: part, comm.METADATA_REDUCE: reduce_op}
    return model


def boxes(tensor: str, shape: tuple[int, ...], held: dict[int, str] | int, dtype: str = "float32") -> TensorBoxes:
    """Who has which box; a number is the rank that has everything."""
    if isinstance(held, int):
        return TensorBoxes(tensor, dtype, shape, (RankBox(held, whole_box(shape)),))
    return TensorBoxes(tensor, dtype, shape, tuple(RankBox(rank, parse_box(text)) for rank, text in held.items()))


def plan(count: int, inputs: list[TensorBoxes], outputs: list[TensorBoxes]) -> PlanFile:
    entries = tuple(
        PartitionEntry(rank, f"fpga{rank}", 0, "", f"fpga{rank}.onnx", None, "", None) for rank in range(count)
    )
    return PlanFile(entries, tuple(inputs), tuple(outputs))


def ramp(*shape: int, dtype: str = "float32") -> np.ndarray:
    return (np.arange(np.prod(shape), dtype=np.float64).reshape(shape) / 7 - 1).astype(dtype)
