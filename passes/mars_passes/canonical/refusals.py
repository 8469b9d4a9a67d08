"""What cannot be partitioned: operators that give other values on every run, that train, that communicate."""

import onnx_ir as ir

from mars_onnx.comm.domain import DOMAIN
from mars_onnx.errors import InputError
from mars_onnx.stages.canonical import NONDETERMINISTIC, describe

_TRAINING_MODE_ATTRIBUTE_SINCE = 14
_TRAINING_MODE_INPUT = 2


def refuse_unrepeatable(model: ir.Model) -> None:
    """Raise for operators whose partitions could never be shown to compute what the model computes.

    Raises:
        InputError: Naming the node, and what would be right.
    """
    for graph in [*model.graphs(), *(function.graph for function in model.functions.values())]:
        for node in graph:
            if node.domain == DOMAIN:
                raise InputError(
                    f"{describe(node)} is a communication operator, so this model is a partition or was sharded "
                    "already; give the original model"
                )
            if node.domain == "":
                _refuse(node, model.opset_imports.get("", 0))


def refuse_text(graph: ir.Graph) -> None:
    """Raise for constants of text: computed text stays where it is, but a weight is cut and sent.

    Raises:
        InputError: Naming the constant.
    """
    for value in graph.initializers.values():
        if value.dtype == ir.DataType.STRING:
            raise InputError(f"the constant {value.name!r} is text; only tensors of numbers are supported")


def _refuse(node: ir.Node, opset: int) -> None:
    if node.op_type in NONDETERMINISTIC:
        raise InputError(
            f"{describe(node)} gives other values on every run, so partitions could not be shown to be right; "
            "make what it draws an input of the model"
        )
    training = "export the model for inference (in PyTorch: model.eval())"
    if node.op_type == "Dropout" and len(node.inputs) > _TRAINING_MODE_INPUT:
        mode = node.inputs[_TRAINING_MODE_INPUT]
        if mode is None:
            return
        tensor = constant_of(mode)
        if tensor is None:
            raise InputError(f"{describe(node)} trains if {mode.name!r}, which is not a constant, says so; {training}")
        if bool(tensor.numpy()):
            raise InputError(f"{describe(node)} is in training mode; {training}")
    if node.op_type == "BatchNormalization":
        if opset >= _TRAINING_MODE_ATTRIBUTE_SINCE:
            trains = node.attributes.get_int("training_mode", 0) != 0
        else:
            trains = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
        if trains:
            raise InputError(f"{describe(node)} is in training mode; {training}")


def constant_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the tensor of an initializer or of a Constant node, else None."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value
    return ir.convenience.get_const_tensor(value)
