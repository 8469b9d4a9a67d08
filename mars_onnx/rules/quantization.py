"""Rules for QuantizeLinear and DequantizeLinear: element by element, with one scale or one per slice of an axis."""

from __future__ import annotations

from mars_onnx.rules.axes import Along, Axis
from mars_onnx.rules.base import Dims, OpRule, Signature, TensorType
from mars_onnx.rules.common import SameNode, dimension_names, empty, whole_dims
from mars_onnx.rules.registry import rule


@rule("QuantizeLinear", "DequantizeLinear")
def quantization(signature: Signature) -> OpRule | None:
    """A scale per block of an axis ties neighbours together in a way of its own: computed whole."""
    shape = signature.input(0).shape
    if empty(signature) or signature.integer("block_size", 0) or not shape:
        return None
    axis = signature.integer("axis", 1)
    names = dimension_names(len(shape))
    maps = tuple(Along(name) for name in names)
    parameters: list[Dims | None] = []
    for kind in signature.inputs[1:]:
        dims = _parameter_dims(kind, shape, axis, maps)
        if kind is not None and dims is None:
            return None
        parameters.append(dims)
    return SameNode(
        signature,
        axes=tuple(Axis(name, extent) for name, extent in zip(names, shape, strict=True)),
        inputs=(maps, *parameters),
        outputs=(maps,),
    )


def _parameter_dims(kind: TensorType | None, shape: tuple[int, ...], axis: int, maps: Dims) -> Dims | None:
    """Maps of a scale or zero point: one for all, or one per index of ``axis``."""
    if kind is None or not kind.shape:
        return whole_dims(kind)
    if len(kind.shape) > 1 or not -len(shape) <= axis < len(shape):
        return None
    if kind.shape[0] == shape[axis]:
        return (maps[axis],)
    return whole_dims(kind) if kind.shape == (1,) else None
