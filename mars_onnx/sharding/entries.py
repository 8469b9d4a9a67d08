"""Tensors that come to a set from another one in a stated layout."""

from __future__ import annotations

from mars_onnx.errors import InvariantError
from mars_onnx.geometry import Layout
from mars_onnx.rules.base import Signature, TensorType
from mars_onnx.sharding.lowering import lower
from mars_onnx.sharding.strategy import Strategy

#: Identity is the same in all opsets; this one has it for all element types that a rule can cut.
_OPSET = 13


def identity_signature(kind: TensorType) -> Signature:
    """The operator that does nothing to a tensor."""
    return Signature("", "Identity", _OPSET, inputs=(kind,), outputs=(kind,))


def entry_layout(kind: TensorType, strategy: Strategy, members: tuple[int, ...]) -> Layout:
    """The layout in which a tensor enters a set: that of what an Identity with this strategy gives.

    Args:
        kind: Type of the tensor.
        strategy: How it is cut; the axes are the dimensions of the tensor, ``D0``, ``D1``, ...
        members: The set.

    Raises:
        InputError: The strategy cannot be applied.
    """
    layout = lower(identity_signature(kind), strategy, members).produced[0]
    if layout is None:
        raise InvariantError("an Identity has no output")
    return layout
