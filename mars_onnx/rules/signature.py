"""The signature of a node of an ``onnx_ir`` graph."""

from __future__ import annotations

import onnx_ir as ir

from mars_onnx.rules.base import AttributeValue, Signature, TensorType
from mars_onnx.rules.chains import chain_of
from mars_onnx.rules.registry import parameter_inputs

#: A parameter operand (axes, shape, pads) longer than this is data, not a parameter.
_LONGEST_PARAMETER = 64

_SCALARS = {ir.AttributeType.INT, ir.AttributeType.FLOAT, ir.AttributeType.STRING}
_LISTS = {ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS}


def tensor_type(value: ir.Value | None) -> TensorType | None:
    """Element type and static shape of a value; ``None`` if it is no tensor of numbers, or its shape is not static."""
    if value is None or not isinstance(value.type, ir.TensorType) or value.shape is None:
        return None
    if value.type.dtype == ir.DataType.STRING:
        return None
    if not all(isinstance(extent, int) for extent in value.shape):
        return None
    return TensorType(value.type.dtype, tuple(int(extent) for extent in value.shape if isinstance(extent, int)))


def is_present(value: ir.Value | None) -> bool:
    """Whether an operand is given; ONNX marks an absent optional one by an empty name."""
    return value is not None and value.name != ""


def signature_of(node: ir.Node) -> Signature:
    """Everything about a node that its rule may depend on."""
    opaque = False
    attributes: list[tuple[str, AttributeValue]] = []
    for name, attribute in sorted(node.attributes.items()):
        if attribute.is_ref():
            opaque = True
        elif attribute.type in _SCALARS:
            attributes.append((name, attribute.value))
        elif attribute.type in _LISTS:
            attributes.append((name, tuple(attribute.value)))
        else:
            opaque = True
    inputs = tuple(tensor_type(value) if is_present(value) else None for value in node.inputs)
    outputs = tuple(tensor_type(value) if is_present(value) else None for value in node.outputs)
    opaque |= any(
        kind is None and is_present(value)
        for value, kind in [*zip(node.inputs, inputs, strict=True), *zip(node.outputs, outputs, strict=True)]
    )
    imports = node.graph.opset_imports if node.graph is not None else {}
    version = node.version or imports.get(node.domain, 0)
    read = parameter_inputs(node.domain, node.op_type)
    constants = tuple(_parameter(value) if index in read else None for index, value in enumerate(node.inputs))
    chain = () if opaque else chain_of(node)
    return Signature(node.domain, node.op_type, version, tuple(attributes), inputs, outputs, constants, opaque, chain)


def _parameter(value: ir.Value | None) -> tuple[int | float, ...] | None:
    """The content of a small constant of numbers or truth values."""
    tensor = value.const_value if value is not None else None
    if tensor is None or tensor.size > _LONGEST_PARAMETER:
        return None
    elements = tensor.numpy().reshape(-1)
    if tensor.dtype.is_integer() or tensor.dtype == ir.DataType.BOOL:
        return tuple(int(element) for element in elements)
    return tuple(float(element) for element in elements) if tensor.dtype.is_floating_point() else None
