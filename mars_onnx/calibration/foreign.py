"""Kernels of a profile without its model: what their shapes say about the work."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import onnx_ir as ir

from mars_onnx.calibration.profiles import REORDERS, Kernel
from mars_onnx.calibration.samples import Sample, one_entry, steady
from mars_onnx.cost.performance import OpClass
from mars_onnx.cost.workload import op_class, workload
from mars_onnx.rules.base import AttributeValue, Signature, TensorType
from mars_onnx.rules.registry import rule_for

_OPSET = 20
#: Operators that ONNX Runtime makes of ONNX's.
_MADE_OF = {
    "FusedConv": "Conv",
    "FusedGemm": "Gemm",
    "FusedMatMul": "MatMul",
    "BiasGelu": "Gelu",
    "FastGelu": "Gelu",
    "QuickGelu": "Gelu",
    "SkipLayerNormalization": "LayerNormalization",
}
Shape = tuple[int, ...]


def samples_of_profile(kernels: Sequence[Kernel]) -> tuple[list[Sample], int]:
    """Samples of the kernels whose shapes say what they compute, and how many do not.

    A profile has no attributes: strides and padding of a convolution are the smallest that fit its shapes, tensors are
    taken as float32, and weights that ONNX Runtime keeps in a form of its own, and does not list, follow from what is
    read and written.
    """
    found: list[Sample] = []
    skipped = 0
    for kernel in kernels:
        if kernel.op_type in REORDERS:
            continue
        sample = _sample(kernel)
        if sample is None:
            skipped += 1
        else:
            found.append(sample)
    return found, skipped


def _sample(kernel: Kernel) -> Sample | None:
    op_type = _MADE_OF.get(kernel.op_type, kernel.op_type)
    if not kernel.inputs or len(kernel.outputs) == 0 or prod(kernel.outputs[0]) == 0:
        return None
    summand = 0
    inputs: tuple[Shape, ...] = kernel.inputs
    attributes: dict[str, AttributeValue] = {}
    kind = op_class(op_type)
    if kind == OpClass.CONV and op_type == "Conv":
        if len(inputs) < 2 or any(len(shape) != 4 for shape in (inputs[0], inputs[1], kernel.outputs[0])):
            return None
        summand = 4 * prod(inputs[3]) if len(inputs) > 3 else 0
        inputs = inputs[:3]
        attributes = _window(inputs[0], inputs[1], kernel.outputs[0])
        if not attributes:
            return None
    elif op_type in ("Gemm", "MatMul"):
        weight = (inputs[0][-1], kernel.outputs[0][-1]) if inputs[0] else None
        if weight is None:
            return None
        batched = len(inputs) > 1 and len(inputs[1]) > 2
        inputs = (inputs[0], (*kernel.outputs[0][:-2], *weight) if batched else weight)
    elif kind not in (OpClass.ELEMENTWISE, OpClass.NORMALIZATION, OpClass.SOFTMAX):
        return None
    types = tuple(TensorType(ir.DataType.FLOAT, shape) for shape in inputs)
    result = TensorType(ir.DataType.FLOAT, kernel.outputs[0])
    rule = rule_for(Signature("", op_type, _OPSET, tuple(sorted(attributes.items())), types, (result,)))
    if rule.is_fallback:
        return None
    work = one_entry(workload(rule, rule.whole_ranges()))
    return Sample(kernel.name, work, summand, steady(kernel.seconds))


def _window(data: Shape, weight: Shape, result: Shape) -> dict[str, AttributeValue]:
    """Attributes of a convolution with these shapes; empty if none has."""
    strides, before, after = [], [], []
    for extent, taps, made in zip(data[2:], weight[2:], result[2:], strict=True):
        for stride in range(1, extent + 1):
            missing = (made - 1) * stride + taps - extent
            # Between no padding and half a window on both sides; a last step may leave some input unread.
            if -stride < missing <= 2 * (taps // 2):
                break
        else:
            return {}
        strides.append(stride)
        before.append(max(0, missing) // 2)
        after.append(max(0, missing) - max(0, missing) // 2)
    groups = data[1] // weight[1] if weight[1] and data[1] % weight[1] == 0 else 0
    if groups < 1 or weight[0] % groups:
        return {}
    return {
        "group": groups,
        "kernel_shape": weight[2:],
        "pads": (*before, *after),
        "strides": tuple(strides),
    }
