"""Rules for operators that compute every output element from the input elements at its place, with broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from mars_onnx.rules.axes import Along, Axis
from mars_onnx.rules.base import Dims, LocalGraph, OpRule, Share, Signature, attributes_without
from mars_onnx.rules.common import SameNode, aligned_dims, dimension_names, empty, result_types, whole_dims
from mars_onnx.rules.registry import rule

_UNARY = {
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "Ceil", "Celu", "Cos", "Cosh"),
    *("Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu"),
    *("Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh"),
    *("Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"),
}

_BROADCASTING = {
    *("Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual"),
    *("Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor"),
}


def elementwise(signature: Signature, operands: Sequence[int]) -> OpRule | None:
    """A rule with one axis per output dimension.

    Args:
        signature: The node.
        operands: Which inputs follow the output's elements; the others are taken whole.
    """
    shape = signature.output().shape
    if empty(signature):
        return None
    names = dimension_names(len(shape))
    maps = tuple(Along(name) for name in names)
    inputs: list[Dims | None] = []
    for index, kind in enumerate(signature.inputs):
        dims = whole_dims(kind)
        if kind is not None and index in operands:
            dims = aligned_dims(kind.shape, shape, maps)
            if dims is None:
                return None
        inputs.append(dims)
    if any(kind is not None and kind.shape != shape for kind in signature.outputs):
        return None
    return SameNode(
        signature,
        axes=tuple(Axis(name, extent) for name, extent in zip(names, shape, strict=True)),
        inputs=tuple(inputs),
        outputs=tuple(None if kind is None else maps for kind in signature.outputs),
    )


@rule(*_UNARY)
def unary(signature: Signature) -> OpRule | None:
    """One input."""
    return elementwise(signature, (0,))


@rule(*_BROADCASTING)
def broadcasting(signature: Signature) -> OpRule | None:
    """Any number of inputs, each broadcast to the output."""
    return elementwise(signature, range(len(signature.inputs)))


@rule("Clip")
def clip(signature: Signature) -> OpRule | None:
    """Clip; its bounds are attributes before opset 11, then scalar inputs."""
    return elementwise(signature, (0,))


@rule("Dropout", parameters=(2,))
def dropout(signature: Signature) -> OpRule | None:
    """Dropout as it stands in inference models: a copy. In training it is random, so it is not sharded."""
    if signature.has_input(2) and signature.constant(2) != (0,):
        return None
    return elementwise(signature, (0,))


@dataclass(frozen=True)
class CastLikeRule(OpRule):
    """CastLike becomes Cast, so that the second operand, of which only the type counts, is not needed."""

    def local(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        attributes = attributes_without(self.signature) | {"to": self.signature.output().dtype.value}
        return graph.op("Cast", inputs[:1], attributes, result_types(self.signature, share))


@rule("CastLike")
def cast_like(signature: Signature) -> OpRule | None:
    """CastLike of opset 15 and later."""
    plain = elementwise(signature, (0,))
    if plain is None:
        return None
    return CastLikeRule(signature, axes=plain.axes, inputs=(plain.inputs[0], None), outputs=plain.outputs)
