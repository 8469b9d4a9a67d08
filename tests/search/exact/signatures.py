"""Random signatures of operators that can be cut in many ways."""

from __future__ import annotations

import random

import onnx_ir as ir

from mars_onnx.rules.base import AttributeValue, Signature, TensorType

_OPSET = 17


def _type(*shape: int) -> TensorType:
    return TensorType(ir.DataType.FLOAT, shape)


def random_image(rng: random.Random) -> TensorType:
    """A tensor of four dimensions."""
    return _type(rng.choice([1, 1, 2]), rng.choice([2, 3, 6, 8, 16]), *rng.choices([1, 2, 5, 7, 8, 14, 16], k=2))


def random_signature(rng: random.Random, taken: TensorType | None = None) -> Signature:
    """An operator on a tensor, by default on an image."""
    given = random_image(rng) if taken is None else taken
    if len(given.shape) != 4:
        return Signature("", "Relu", _OPSET, (), (given,), (given,))
    n, channels, height, width = given.shape
    match rng.choice(["Conv", "Conv", "Conv", "Relu", "MaxPool", "Softmax", "Add", "ReduceMean", "GlobalAveragePool"]):
        case "Conv":
            kernel = rng.choice([1, 3, 3, 5])
            stride = rng.choice([1, 1, 2]) if min(height, width) > 1 else 1
            pad = kernel // 2
            groups = channels if rng.random() < 0.2 else 1
            out = channels if groups > 1 else rng.choice([1, 3, 4, 8, 16])
            size = [(extent + 2 * pad - kernel) // stride + 1 for extent in (height, width)]
            attributes: dict[str, AttributeValue] = {
                "group": groups,
                "kernel_shape": (kernel, kernel),
                "pads": (pad,) * 4,
                "strides": (stride, stride),
            }
            types = (given, _type(out, channels // groups, kernel, kernel))
            return Signature("", "Conv", _OPSET, tuple(sorted(attributes.items())), types, (_type(n, out, *size),))
        case "MaxPool" if min(height, width) >= 2:
            attributes = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1), "strides": (2, 2)}
            size = [(extent - 1) // 2 + 1 for extent in (height, width)]
            return Signature(
                "", "MaxPool", _OPSET, tuple(sorted(attributes.items())), (given,), (_type(n, channels, *size),)
            )
        case "Softmax":
            return Signature("", "Softmax", _OPSET, (("axis", rng.choice([1, 3])),), (given,), (given,))
        case "Add":
            return Signature("", "Add", _OPSET, (), (given, given), (given,))
        case "ReduceMean":
            axes = (("axes", (2, 3)), ("keepdims", 1))
            return Signature("", "ReduceMean", _OPSET, axes, (given,), (_type(n, channels, 1, 1),))
        case "GlobalAveragePool":
            return Signature("", "GlobalAveragePool", _OPSET, (), (given,), (_type(n, channels, 1, 1),))
        case _:
            return Signature("", "Relu", _OPSET, (), (given,), (given,))
