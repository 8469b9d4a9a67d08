"""Chains: an operator with weights, and what changes its result element by element with nobody else reading it."""

from __future__ import annotations

import onnx_ir as ir

#: Operators that a chain starts with.
HEADS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
#: Operators that can be a further link, by their number of inputs that are computed.
_UNARY = frozenset({"BatchNormalization", "Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "Tanh", "Clip", "Gelu"})
_BINARY = frozenset({"Add", "Sum", "Mul", "Div"})
#: Longer chains are not followed; runtimes do not either.
_LONGEST = 4
#: Domain of the operators that only move a tensor between layouts, which a chain passes through.
_MOVING = "org.mars_onnx.comm"


def chain_of(node: ir.Node) -> tuple[str, ...]:
    """The operators of the chain that ends right before ``node``, the head first; empty if it is no link of one.

    An addition has two chains to be a link of; it belongs to that of its first operand that ends one.
    """
    if node.op_type == "LayerNormalization" and not node.domain:
        return _residual(node)
    if node.op_type not in _UNARY | _BINARY or node.domain:
        return ()
    operands = node.inputs[:1] if node.op_type in _UNARY else node.inputs
    if len(operands) > 2:
        return ()
    for operand in operands:
        before = _producer(operand)
        if before is None or before.domain or len(node.outputs) != 1 or not _same_shape(operand, node.outputs[0]):
            continue
        if before.op_type in HEADS:
            return (before.op_type,)
        earlier = chain_of(before)
        if 0 < len(earlier) < _LONGEST:
            return (*earlier, before.op_type)
    return ()


def _residual(node: ir.Node) -> tuple[str, ...]:
    """A normalisation of a sum of two activations: runtimes compute both at once, whoever else reads the sum."""
    value = node.inputs[0]
    while value is not None and (before := value.producer()) is not None and before.domain == _MOVING:
        value = before.inputs[0] if before.inputs else None
    before = value.producer() if value is not None else None
    if before is None or before.op_type != "Add" or before.domain:
        return ()
    alike = all(_is_activation_like(operand, before.outputs[0]) for operand in before.inputs)
    return ("Add",) if alike else ()


def _producer(value: ir.Value | None) -> ir.Node | None:
    """Who computes a value that only one node reads; Redistributes in between do not count."""
    while value is not None:
        node = value.producer()
        if node is None or value.is_graph_output() or len(value.uses()) != 1:
            return None
        if node.domain != _MOVING:
            return node
        value = node.inputs[0] if node.inputs else None
    return None


def _is_activation_like(operand: ir.Value | None, result: ir.Value) -> bool:
    return operand is not None and operand.const_value is None and _same_shape(operand, result)


def _same_shape(first: ir.Value | None, second: ir.Value) -> bool:
    return first is not None and first.shape is not None and first.shape == second.shape
