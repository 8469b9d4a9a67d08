"""Rows that are cut off only because nobody reads them: the cut is left out, and what was sent twice is sent once.

A strided convolution does not read the last rows of its input, so that a partition slices them off, and gathers the
slice beside the whole tensor, which another convolution wants. The convolution computes the same from the whole.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mars_onnx.comm import AllGather, communication_of, static_shape

Ranges = tuple[tuple[int, int], ...]
"""Start and stop along every dimension."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """An AllGather of a part of what an earlier one has gathered.

    Attributes:
        tag: Of the later one.
        before: Tag of the earlier one.
        box: Start and stop along every dimension, of the part.
    """

    tag: int
    before: int
    box: Ranges


def repeats(order: Sequence[ir.Node], tags: Collection[int]) -> list[Repeat]:
    """The repeats among communication nodes, as one rank sees them. They are some only if all members see them."""
    found: list[Repeat] = []
    earlier: dict[ir.Value, list[AllGather]] = {}
    for node in order:
        operator, x = communication_of(node), node.inputs[0]
        if not isinstance(operator, AllGather) or operator.tag not in tags or x is None:
            continue
        box = slice_box(x)
        earlier.setdefault(x, []).append(operator)
        producer = x.producer()
        whole = None if producer is None or not producer.inputs else producer.inputs[0]
        shape = None if whole is None else static_shape(whole)
        if box is None or whole is None or shape is None:
            continue
        for other in earlier.get(whole, []):
            same = (other.group, other.axis, other.sizes) == (operator.group, operator.axis, operator.sizes)
            if same and box[operator.axis] == (0, shape[operator.axis]):
                # Of the joined tensor, all of the joined dimension.
                joined = (*box[: operator.axis], (0, sum(operator.sizes)), *box[operator.axis + 1 :])
                found.append(Repeat(operator.tag, other.tag, joined))
                break
    return found


def slice_box(value: ir.Value) -> Ranges | None:
    """Start and stop along every dimension if the value is a part of a tensor, cut out by constants; else ``None``."""
    node = value.producer()
    if node is None or (node.op_type, node.domain) != ("Slice", "") or len(node.inputs) < 3 or node.inputs[0] is None:
        return None
    shape = static_shape(node.inputs[0])
    constants = [_constant(one) for one in node.inputs[1:]]
    if shape is None or any(one is None for one in constants):
        return None
    starts, stops, *rest = [[int(number) for number in one] for one in constants if one is not None]
    axes = rest[0] if rest else list(range(len(starts)))
    if any(step != 1 for step in (rest[1] if len(rest) > 1 else [])):
        return None
    box = [(0, extent) for extent in shape]
    for axis, start, stop in zip(axes, starts, stops, strict=True):
        low, high, _ = slice(start, stop).indices(shape[axis])
        box[axis] = (low, max(low, high))
    return tuple(box)


def untrimmed(node: ir.Node, wholes: Mapping[ir.Value, tuple[ir.Value, Ranges]]) -> ir.Value | None:
    """The tensor that a convolution may read instead of the part of it that it reads; ``None`` if there is none.

    Args:
        node: The convolution.
        wholes: Values that are parts of others: of which, and where.
    """
    if (node.op_type, node.domain) != ("Conv", ""):
        return None
    x, weight = node.inputs[0], node.inputs[1]
    if x is None or weight is None:
        return None
    if x in wholes:
        whole, box = wholes[x]
    else:
        found, producer = slice_box(x), x.producer()
        if found is None or producer is None or producer.inputs[0] is None:
            return None
        whole, box = producer.inputs[0], found
    outer, kernel = static_shape(whole), static_shape(weight)
    if outer is None or kernel is None or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    if any(start != 0 for start, _ in box) or (box[0][1], box[1][1]) != outer[:2]:
        return None
    count = len(outer) - 2
    strides = node.attributes.get_ints("strides", [1] * count) or [1] * count
    dilations = node.attributes.get_ints("dilations", [1] * count) or [1] * count
    pads = node.attributes.get_ints("pads", [0] * 2 * count) or [0] * 2 * count
    for axis in range(count):
        small, large = box[2 + axis][1], outer[2 + axis]
        # Where zeros follow the part, the rows that follow it in the whole would take their place.
        if small != large and pads[count + axis] != 0:
            return None
        span = dilations[axis] * (kernel[2 + axis] - 1) + 1
        if (
            small + pads[axis] < span
            or (small + pads[axis] - span) // strides[axis] != (large + pads[axis] - span) // strides[axis]
        ):
            return None
    return whole


def _constant(value: ir.Value | None) -> np.ndarray | None:
    if value is None or value.const_value is None:
        return None
    return np.ravel(value.const_value.numpy())
