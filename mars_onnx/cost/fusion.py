"""Which operators a runtime computes in the same kernel as the operator before.

What ONNX Runtime's CPU provider does: a convolution takes up a batch normalisation (into its weights), then one
addition, then one activation; a matrix product takes up the addition of a bias, or a factor that is one number, and one
activation where it is a Gemm.
"""

from __future__ import annotations

from math import prod

from mars_onnx.rules.base import Signature

_ADDS = frozenset({"Add", "Sum"})
_ACTIVATIONS = frozenset({"Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "Tanh", "Clip"})


def is_fused(signature: Signature) -> bool:
    """Whether a node is computed together with the head of its chain."""
    chain = signature.chain
    if not chain:
        return False
    head, links = chain[0], (*chain[1:], signature.op_type)
    if head in ("MatMul", "Gemm"):
        return _matrix(signature, head, links)
    if head != "Conv":
        return False
    links = links[1:] if links[0] == "BatchNormalization" else links
    links = links[1:] if links and links[0] in _ADDS else links
    links = links[1:] if links and links[0] in _ACTIVATIONS else links
    return not links


def _matrix(signature: Signature, head: str, links: tuple[str, ...]) -> bool:
    """A bias (one dimension) or a factor (one number) on a MatMul; an activation on a Gemm."""
    if len(links) != 1:
        return False
    if head == "Gemm":
        return links[0] in _ACTIVATIONS
    shapes = [operand.shape for operand in signature.inputs if operand]
    if links[0] == "Add":
        return any(len(shape) == 1 for shape in shapes)
    return links[0] in ("Mul", "Div") and any(prod(shape) == 1 for shape in shapes)


def joins_sum(signature: Signature) -> bool:
    """Whether a normalisation also computes the residual sum that it normalises (SkipLayerNormalization)."""
    return signature.op_type == "LayerNormalization" and signature.chain == ("Add",)
