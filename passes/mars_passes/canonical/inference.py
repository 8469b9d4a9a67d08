"""Shapes and types of all values, through onnx.shape_inference on a skeleton of the model."""

import math
from collections.abc import Mapping

import onnx
import onnx_ir as ir

from mars_onnx.errors import InputError
from mars_onnx.skeleton import skeleton
from mars_onnx.stages.canonical import describe, static_shape
from mars_passes.canonical.bindings import BOUND

# What can be known of a value: its type and its shape.
Known = tuple[ir.TypeProtocol | None, ir.Shape | None]


def infer_shapes(model: ir.Model) -> None:
    """Set type and shape of every value as far as they can be known, over what is known already.

    Raises:
        InputError: Shapes contradict each other, usually because a bound dimension does not fit.
    """
    inferred_model = ir.from_proto(_inferred(model))
    for graph, inferred_graph in zip(model.graphs(), inferred_model.graphs(), strict=True):
        found = ir.convenience.create_value_mapping(inferred_graph)
        for node in graph:
            for value in node.outputs:
                other = found.get(value.name or "")
                if other is not None:
                    value.type = other.type or value.type
                    value.shape = _merge(other.shape, value.shape)
    for node in model.graph:
        _check_reshape(node)


def _inferred(model: ir.Model) -> onnx.ModelProto:
    proto = skeleton(model)
    try:
        return onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        if BOUND in model.metadata_props:
            sizes = model.metadata_props[BOUND]
            raise InputError(
                f"with the dimensions {sizes}, shapes in the model do not fit together: {error}"
            ) from error
    # Propagation of values may stumble where shapes alone do not. Who does not pass this is refused by runtimes too:
    # they call the same functions when they load a model.
    try:
        onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        raise InputError(f"shapes or types in the model do not fit together: {error}") from error
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


def _check_reshape(node: ir.Node) -> None:
    """Inference does not count elements; a shape written into the model may not fit the size that was bound."""
    if node.domain != "" or node.op_type != "Reshape" or node.inputs[0] is None:
        return
    before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if before is not None and after is not None and math.prod(before) != math.prod(after):
        raise InputError(
            f"{describe(node)} would make the shape {list(after)} of {list(before)}, which has another number of "
            "elements; the model was exported for fixed sizes: give these, or export it with dynamic ones"
        )


def forget_inferable(model: ir.Model) -> Mapping[ir.Value, Known]:
    """Forget the shapes of everything that nodes compute, and return them.

    Shapes in a file may be stale (people edit the batch size of the input alone); inference finds true ones.
    """
    declared: dict[ir.Value, Known] = {}
    for graph in model.graphs():
        for node in graph:
            for value in node.outputs:
                declared[value] = (value.type, value.shape)
                value.shape = None
    return declared


def recall(model: ir.Model, declared: Mapping[ir.Value, Known]) -> None:
    """Fill what inference did not find with what the file declared, where both agree."""
    for graph in model.graphs():
        for node in graph:
            for value in node.outputs:
                kind, shape = declared.get(value, (None, None))
                value.type = value.type or kind
                value.shape = _merge(value.shape, shape)


def _merge(found: ir.Shape | None, declared: ir.Shape | None) -> ir.Shape | None:
    """Return ``found`` with unknown dimensions taken from ``declared``, if they are of one rank."""
    if found is None or declared is None or len(found) != len(declared):
        return found if found is not None else declared
    if found.is_static():
        return found
    pairs = zip(found, declared, strict=True)
    return ir.Shape([mine if isinstance(mine, int) or not _says_more(other) else other for mine, other in pairs])


def _says_more(dim: object) -> bool:
    return isinstance(dim, int) or (isinstance(dim, ir.SymbolicDim) and dim.value is not None)
