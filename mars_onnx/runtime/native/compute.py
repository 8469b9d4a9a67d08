"""Sessions of the steps that compute, and the memory of the values that pass between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from mars_onnx.comm import DOMAIN, static_shape
from mars_onnx.errors import RunError
from mars_onnx.runtime.native.steps import Compute
from mars_onnx.runtime.segments import initializer_proto
from mars_onnx.runtime.sessions import RUNTIME_ERRORS, ExecutorOptions, Weights, make_session
from mars_onnx.runtime.transport import Array

ALIGNMENT_BYTES = 64


class UnsuitableError(Exception):
    """A partition cannot be run natively: it has to be run segment by segment, with messages."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Shape and element type of a value. In blocks too the shape is (N, C, H, W)."""

    shape: tuple[int, ...]
    dtype: ir.DataType

    @property
    def size(self) -> int:
        """In bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * int(self.dtype.itemsize)

    @staticmethod
    def of(value: ir.Value) -> Kind:
        """Of a value with a static shape.

        Raises:
            UnsuitableError: It has none, or its elements are no whole bytes.
        """
        shape, dtype = static_shape(value), value.dtype
        if shape is None or dtype is None or not isinstance(value.type, ir.TensorType):
            raise UnsuitableError(f"{value.name} has no static shape and element type")
        return Kind(shape, _whole_bytes(dtype, str(value.name)))


@dataclass(slots=True)
class Session:
    """A step with its session. The binding is filled once; what changes from run to run is bound again."""

    step: Compute
    session: ort.InferenceSession
    binding: ort.IOBinding = field(init=False)

    def __post_init__(self) -> None:
        self.binding = self.session.io_binding()

    def bind_input(self, name: str, kind: Kind, array: Array) -> None:
        """Read an input from the memory of an array."""
        self.binding.bind_input(name, "cpu", 0, int(kind.dtype), list(kind.shape), array.ctypes.data)

    def bind_output(self, name: str, kind: Kind, array: Array) -> None:
        """Write an output to the memory of an array."""
        self.binding.bind_output(name, "cpu", 0, int(kind.dtype), list(kind.shape), array.ctypes.data)

    def run(self) -> None:
        """Run once.

        Raises:
            RunError: A kernel failed.
        """
        try:
            self.session.run_with_iobinding(self.binding)
        except RUNTIME_ERRORS as error:
            raise RunError(f"{self.step.name}: {error}") from error


def make_sessions(
    model: ir.Model, steps: list[Compute], kinds: dict[ir.Value, Kind], options: ExecutorOptions
) -> list[Session]:
    """Build the sessions, and find the kinds of all values that pass between them.

    Args:
        model: The optimised partition.
        steps: In their order.
        kinds: Of all inputs of the model; those of values between the steps are added.
        options: How.

    Raises:
        UnsuitableError: A value between two steps has no shape before the run.
    """
    weights = Weights()
    unoptimised = options.again()
    sessions: list[Session] = []
    for step in steps:
        proto, large = _step_model(model, step, kinds)
        session = make_session(proto, large, weights, unoptimised)
        for value, found in zip(step.outputs, session.get_outputs(), strict=True):
            if not all(isinstance(extent, int) for extent in found.shape):
                raise UnsuitableError(f"{value.name} has shape {found.shape}")
            kinds[value] = Kind(tuple(found.shape), _type_named(found.type, value))
        sessions.append(Session(step, session))
    return sessions


def private_memory(kind: Kind) -> Array:
    """Memory for a value that no other rank sees."""
    raw = np.empty(kind.size + ALIGNMENT_BYTES, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT_BYTES
    return raw[start : start + kind.size].view(kind.dtype.numpy()).reshape(kind.shape)


def _step_model(
    model: ir.Model, step: Compute, kinds: Mapping[ir.Value, Kind]
) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    proto = onnx.ModelProto(ir_version=model.ir_version, producer_name="mars_onnx")
    for domain, version in model.opset_imports.items():
        if domain != DOMAIN:
            proto.opset_import.add(domain=domain, version=version)
    graph = proto.graph
    graph.name = step.name
    graph.node.extend(ir.serde.serialize_node(node) for node in step.nodes)
    for value in step.inputs:
        kind = kinds[value]
        graph.input.append(onnx.helper.make_tensor_value_info(str(value.name), int(kind.dtype), kind.shape))
    for value in step.outputs:
        # ONNX Runtime finds out type and shape; of a tensor in blocks nobody else can.
        graph.output.append(onnx.ValueInfoProto(name=str(value.name)))
    large: dict[str, ir.TensorProtocol] = {}
    for value in step.initializers:
        if value.const_value is None:
            raise UnsuitableError(f"initializer {value.name} has no data")
        graph.initializer.append(initializer_proto(str(value.name), value.const_value, large))
    proto.functions.extend(ir.serde.serialize_function(function) for function in model.functions.values())
    return proto, large


_TYPES = {
    "bfloat16": ir.DataType.BFLOAT16,
    "bool": ir.DataType.BOOL,
    "complex64": ir.DataType.COMPLEX64,
    "complex128": ir.DataType.COMPLEX128,
    "double": ir.DataType.DOUBLE,
    "float": ir.DataType.FLOAT,
    "float16": ir.DataType.FLOAT16,
    "float8e4m3fn": ir.DataType.FLOAT8E4M3FN,
    "float8e4m3fnuz": ir.DataType.FLOAT8E4M3FNUZ,
    "float8e5m2": ir.DataType.FLOAT8E5M2,
    "float8e5m2fnuz": ir.DataType.FLOAT8E5M2FNUZ,
    "int8": ir.DataType.INT8,
    "int16": ir.DataType.INT16,
    "int32": ir.DataType.INT32,
    "int64": ir.DataType.INT64,
    "uint8": ir.DataType.UINT8,
    "uint16": ir.DataType.UINT16,
    "uint32": ir.DataType.UINT32,
    "uint64": ir.DataType.UINT64,
}
"""Element types that are whole bytes, by the names that ONNX Runtime gives them."""


def _type_named(name: str, value: ir.Value) -> ir.DataType:
    dtype = _TYPES.get(name.removeprefix("tensor(").removesuffix(")"))
    if dtype is None:
        raise UnsuitableError(f"{value.name} is a {name}")
    return dtype


def _whole_bytes(dtype: ir.DataType, name: str) -> ir.DataType:
    if dtype == ir.DataType.STRING or dtype.itemsize < 1:
        raise UnsuitableError(f"{name} has elements of type {dtype.name}")
    return dtype
