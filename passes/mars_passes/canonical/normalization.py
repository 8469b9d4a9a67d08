"""Folding what follows a convolution channel by channel into its weights.

BatchNormalization for inference, and Mul and Add with a constant per channel (the form in which Caffe2 and scale layers
write the same), multiply and shift every output channel of the Conv, ConvTranspose or Gemm before them. So they do
after a BatchNormalization that has nothing to go into itself. The new weights are lazy tensors: no weight is read here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mars_onnx.stages.canonical import static_shape

# Weight and bias are inputs 1 and 2 of each.
_LINEAR = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "Gemm"})
_CACHED_BYTES = 64 * 1024
_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE})

Channels = Callable[[], np.ndarray]


@dataclass(frozen=True)
class _Affine:
    """``scale * x + shift`` per channel, computed when wanted, in float64; None is 1 or 0."""

    scale: Channels | None
    shift: Channels | None


def fold_normalizations(graph: ir.Graph) -> bool:
    """Fold into the linear operator before it whatever can be; say whether there was anything."""
    found = False
    for node in list(graph):
        linear = _linear_before(node)
        if linear is None:
            continue
        axis = _channel_axis(linear)
        channels = _channels(linear, axis)
        affine = _affine(node, linear.outputs[0], channels) if channels is not None else None
        if axis is None or channels is None or affine is None:
            continue
        _fold(graph, linear, axis, channels, affine)
        _remove(graph, node, linear)
        found = True
    return found


def _linear_before(node: ir.Node) -> ir.Node | None:
    """Return the operator with a weight per channel whose only user is ``node``."""
    if node.domain != "" or node.op_type not in ("BatchNormalization", "Mul", "Add"):
        return None
    for value in node.inputs:
        producer = value.producer() if value is not None else None
        if producer is None or producer.domain != "" or producer.op_type not in _LINEAR:
            continue
        if producer.graph is node.graph and len(value.uses()) == 1 and not value.is_graph_output():  # type: ignore[union-attr]
            return producer
    return None


def _channel_axis(linear: ir.Node) -> int | None:
    """Return the dimension of the weight that counts output channels."""
    if linear.op_type in ("Conv", "BatchNormalization"):
        return 0
    if linear.op_type == "ConvTranspose":
        return 1 if linear.attributes.get_int("group", 1) == 1 else None
    plain = linear.attributes.get_float("alpha", 1.0) == 1.0 and linear.attributes.get_float("beta", 1.0) == 1.0
    if not plain:
        return None
    return 0 if linear.attributes.get_int("transB", 0) else 1


def _channels(linear: ir.Node, axis: int | None) -> int | None:
    """Return the number of output channels, if weight and bias are constants that can be folded."""
    weight = linear.inputs[1]
    if axis is None or weight is None or weight.const_value is None or weight.dtype not in _FLOATS:
        return None
    shape = static_shape(weight)
    if shape is None or len(shape) <= axis:
        return None
    bias = linear.inputs[2] if len(linear.inputs) > 2 else None
    if bias is not None:
        size = shape[axis]
        if bias.const_value is None or bias.dtype != weight.dtype or static_shape(bias) not in ((size,), (1, size)):
            return None
    return shape[axis]


def _affine(node: ir.Node, value: ir.Value, channels: int) -> _Affine | None:
    if node.op_type == "BatchNormalization":
        return _affine_of_normalization(node, value, channels)
    first, second = node.inputs
    other = second if first is value else first
    factor = _per_channel(other, value, channels)
    if factor is None:
        return None
    return _Affine(factor, None) if node.op_type == "Mul" else _Affine(None, factor)


def _affine_of_normalization(node: ir.Node, value: ir.Value, channels: int) -> _Affine | None:
    if node.inputs[0] is not value or any(out.uses() or out.is_graph_output() for out in node.outputs[1:]):
        return None
    tensors = []
    for parameter in node.inputs[1:5]:
        if parameter is None or parameter.const_value is None or static_shape(parameter) != (channels,):
            return None
        tensors.append(parameter.const_value)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    gamma, beta, mean, variance = (_read(tensor) for tensor in tensors)

    def scale() -> np.ndarray:
        return gamma() / np.sqrt(variance() + epsilon)

    return _Affine(scale, lambda: beta() - mean() * scale())


def _per_channel(other: ir.Value | None, value: ir.Value, channels: int) -> Channels | None:
    """Return a constant operand as one number per channel, if it broadcasts so and leaves the shape as it is."""
    if other is None or other.const_value is None or other.dtype not in _FLOATS or value.shape is None:
        return None
    shape = static_shape(other)
    rank = len(value.shape)
    if shape is None or len(shape) > rank:
        return None
    padded = (1,) * (rank - len(shape)) + shape
    if any(size != 1 for axis, size in enumerate(padded) if axis != 1) or padded[1] not in (1, channels):
        return None
    read = _read(other.const_value)
    return lambda: np.broadcast_to(read().reshape(-1), (channels,))


def _read(tensor: ir.TensorProtocol) -> Channels:
    return lambda: tensor.numpy().astype(np.float64)


def _fold(graph: ir.Graph, linear: ir.Node, axis: int, channels: int, affine: _Affine) -> None:
    weight = linear.inputs[1]
    bias = linear.inputs[2] if len(linear.inputs) > 2 else None
    assert weight is not None
    assert weight.const_value is not None
    old_weight, old_bias, dtype = weight.const_value, bias.const_value if bias else None, weight.const_value.dtype

    def scaled() -> ir.TensorProtocol:
        array = old_weight.numpy()
        assert affine.scale is not None
        scale = affine.scale().reshape([-1 if dim == axis else 1 for dim in range(array.ndim)])
        # In float32 a factor rounded once is as good as a product rounded once, at half the memory.
        wide = np.float32 if array.dtype == np.float16 else array.dtype
        return ir.Tensor((array * scale.astype(wide)).astype(array.dtype))

    def shifted() -> ir.TensorProtocol:
        array = np.zeros(channels) if old_bias is None else old_bias.numpy().astype(np.float64).reshape(channels)
        array = array if affine.scale is None else array * affine.scale()
        array = array if affine.shift is None else array + affine.shift()
        return ir.Tensor(array.astype(dtype.numpy()))

    if affine.scale is not None:
        shape = tuple(old_weight.shape.numpy())
        linear.replace_input_with(1, _replacement(graph, weight, f"{weight.name}_scaled", scaled, shape))
    if bias is not None or affine.shift is not None:
        new_bias = _replacement(graph, bias, _bias_name(weight.name or ""), shifted, (channels,), dtype)
        if len(linear.inputs) < 3:
            linear.resize_inputs(3)
        linear.replace_input_with(2, new_bias)


def _bias_name(weight: str) -> str:
    """Return the name that PyTorch would give the bias beside this weight, or one like it."""
    return f"{weight.removesuffix('.weight')}.bias" if weight.endswith(".weight") else f"{weight}_bias"


def _replacement(
    graph: ir.Graph,
    old: ir.Value | None,
    base: str,
    compute: Callable[[], ir.TensorProtocol],
    shape: tuple[int, ...],
    dtype: ir.DataType | None = None,
) -> ir.Value:
    """Register a new initializer; it takes the name of the old one if nobody else uses that, else one like ``base``."""
    if old is not None and len(old.uses()) == 1 and old.graph is graph and not old.is_graph_output():
        name = old.name or ""
        graph.initializers.pop(name)
    else:
        name, number = base, 1
        while name in graph.initializers:
            number += 1
            name = f"{base}_{number}"
    dtype = dtype or (old.dtype if old is not None else None)
    assert dtype is not None
    small = int(np.prod(shape)) * dtype.bitwidth // 8 <= _CACHED_BYTES
    tensor = ir.LazyTensor(compute, dtype, ir.Shape(shape), cache=small, name=name)
    value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _remove(graph: ir.Graph, node: ir.Node, linear: ir.Node) -> None:
    """Let ``linear`` compute what ``node`` computed, under its name: that is the value that people know."""
    result, value = node.outputs[0], linear.outputs[0]
    name, result.name = result.name, f"{result.name}_removed"
    value.name = name
    result.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
