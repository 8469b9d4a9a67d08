"""A model as a protobuf without its large weights: for printing, shape inference, comparison."""

import onnx
import onnx_ir as ir

NOT_LOADED = "weights are not part of this skeleton"
SMALL_BYTES = 1024


def skeleton(model: ir.Model, small_bytes: int = SMALL_BYTES) -> onnx.ModelProto:
    """Return ``model`` as a protobuf in which initializers above ``small_bytes`` keep only type and shape.

    No weight is read from its file. The stubs are external tensors whose location, ``NOT_LOADED``, does not exist.
    """
    large = [
        value
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None and value.const_value.nbytes > small_bytes
    ]
    tensors = [value.const_value for value in large]
    try:
        for value, tensor in zip(large, tensors, strict=True):
            assert tensor is not None
            shape = ir.Shape(tuple(tensor.shape.numpy()))
            value.const_value = ir.ExternalTensor(
                NOT_LOADED, None, None, tensor.dtype, shape=shape, name=value.name or ""
            )
        return ir.to_proto(model)
    finally:
        for value, tensor in zip(large, tensors, strict=True):
            value.const_value = tensor


def is_stub(tensor: onnx.TensorProto) -> bool:
    """Whether ``tensor`` stands in a skeleton for a weight that was left out."""
    return any(entry.key == "location" and entry.value == NOT_LOADED for entry in tensor.external_data)
