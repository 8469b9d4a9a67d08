"""Shapes and types of all values, through onnx.shape_inference on a skeleton of the model."""

from collections.abc import Mapping

import onnx
import onnx_ir as ir

from mars_onnx.errors import InputError
from mars_onnx.skeleton import skeleton

# What can be known of a value: its type and its shape.
Known = tuple[ir.TypeProtocol | None, ir.Shape | None]


def infer_shapes(model: ir.Model) -> None:
    """Set type and shape of every value as far as they can be known, over what is known already.

    Raises:
        InputError: Two shapes contradict each other, for example because a bound dimension does not fit.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton(model), data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise InputError(f"the shapes in the model contradict each other: {error}") from error
    inferred_model = ir.from_proto(inferred)
    for graph, inferred_graph in zip(model.graphs(), inferred_model.graphs(), strict=True):
        found = ir.convenience.create_value_mapping(inferred_graph)
        for node in graph:
            for value in node.outputs:
                other = found.get(value.name or "")
                if other is not None:
                    value.type = other.type or value.type
                    value.shape = _merge(other.shape, value.shape)


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
