"""Random inputs for any model.

Floats are standard normal. Integers are 0 or 1: they may be token ids, positions, segment numbers or masks, and 0 and 1
are inside even the smallest table. Booleans are true or false with equal chance.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from mars_onnx.comm import TOKEN_START, static_shape
from mars_onnx.errors import InputError
from mars_onnx.runtime.plan_file import PlanFile
from mars_onnx.runtime.transport import Array


def random_array(generator: np.random.Generator, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Array:
    """One array, as the module says."""
    if dtype.kind == "b":
        return np.asarray(generator.integers(0, 2, shape)).astype(dtype)
    if dtype.kind in "iu":
        return np.asarray(generator.integers(0, 2, shape)).astype(dtype)
    if dtype.kind in "OSU":
        raise InputError("there are no random strings; give the input")
    return np.asarray(generator.standard_normal(shape)).astype(dtype)


def random_inputs(model: ir.Model | PlanFile, seed: int) -> dict[str, Array]:
    """All inputs of a model, or of the model a plan is for; the same for the same seed.

    Raises:
        InputError: An input has no static shape and element type.
    """
    generator = np.random.default_rng(seed)
    return {name: random_array(generator, dtype, shape) for name, dtype, shape in _specifications(model)}


def _specifications(model: ir.Model | PlanFile) -> Iterable[tuple[str, np.dtype[np.generic], tuple[int, ...]]]:
    if isinstance(model, PlanFile):
        for tensor in model.inputs:
            yield tensor.tensor, tensor.numpy_dtype, tensor.shape
        return
    for value in model.graph.inputs:
        if value.name == TOKEN_START or value.name in model.graph.initializers:
            continue
        shape = static_shape(value)
        if shape is None or value.dtype is None:
            raise InputError(f"input {value.name} has shape {value.shape}; random inputs need a static shape")
        yield str(value.name), value.dtype.numpy(), shape
