"""Boxes of initializers: read only when they are written to a file, and each distinct box once."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mars_onnx.geometry import Box, box_shape, box_text, whole_box

#: Below this many bytes a slice is made at once: a lazy tensor costs more than it saves.
_EAGER_BYTES = 1024


def sliced_name(value: ir.Value, box: Box) -> str:
    """What to call a box of an initializer: after both; the whole is called like the initializer."""
    shape = () if value.shape is None else value.shape.numpy()
    return f"{value.name}" if box == whole_box(shape) else f"{value.name}[{box_text(box)}]"


def slice_initializer(value: ir.Value, box: Box, name: str) -> ir.TensorProtocol:
    """A box of an initializer as a tensor with a name.

    The tensor is evaluated when it is written or used; one that lies in a memory-mapped file is not read before.
    """
    tensor = value.const_value
    if tensor is None:
        raise ValueError(f"{value.name!r} is no initializer")
    if isinstance(tensor, ir.ExternalTensor):
        # Maps the file, and reads nothing. Here, because partitions are run and written by several threads, and onnx_ir
        # maps a tensor of a file without a lock.
        tensor.numpy()
    if tensor.nbytes <= _EAGER_BYTES:
        return _slice(tensor, box, name)
    if name == tensor.name and box == whole_box(tensor.shape.numpy()):
        return tensor
    shape = ir.Shape(box_shape(box))
    return ir.LazyTensor(lambda: _slice(tensor, box, name), dtype=tensor.dtype, shape=shape, name=name)


def _slice(tensor: ir.TensorProtocol, box: Box, name: str) -> ir.TensorProtocol:
    part = tensor.numpy()[tuple(slice(start, stop) for start, stop in box)]
    # ascontiguousarray would turn a scalar into a vector.
    return ir.Tensor(np.ascontiguousarray(part).reshape(part.shape), dtype=tensor.dtype, name=name)
