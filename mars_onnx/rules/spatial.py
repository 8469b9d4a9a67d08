"""Rules for operators that change resolution: Resize, Upsample, DepthToSpace, SpaceToDepth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mars_onnx.rules.axes import Along, Axis, AxisRange, Ranges, Whole
from mars_onnx.rules.base import Dims, LocalGraph, OpRule, Share, Signature
from mars_onnx.rules.common import (
    SameNode,
    along_except,
    axes_except,
    dimension_names,
    empty,
    result_types,
    whole_work,
)
from mars_onnx.rules.registry import rule


@dataclass(frozen=True, slots=True)
class Scaled:
    """``factor`` rows for every iteration of the axis."""

    axis: str
    factor: int

    @property
    def axes(self) -> tuple[str, ...]:
        return (self.axis,)

    def __call__(self, ranges: Ranges) -> AxisRange:
        low, high = ranges[self.axis]
        return low * self.factor, high * self.factor


@rule("DepthToSpace", "SpaceToDepth")
def blocks(signature: Signature) -> OpRule | None:
    """Axes N, H, W, the latter two counting rows of the coarse image; the channels of a block are not contiguous."""
    source, result = signature.input(0).shape, signature.output().shape
    if empty(signature) or len(source) != 4:
        return None
    size = signature.integer("blocksize", 1)
    coarse, fine = (source, result) if signature.op_type == "DepthToSpace" else (result, source)
    low = (Along("N"), Whole(coarse[1]), Along("H"), Along("W"))
    high = (Along("N"), Whole(fine[1]), Scaled("H", size), Scaled("W", size))
    forward = signature.op_type == "DepthToSpace"
    return SameNode(
        signature,
        axes=(Axis("N", coarse[0]), Axis("H", coarse[2]), Axis("W", coarse[3])),
        inputs=(low if forward else high,),
        outputs=(high if forward else low,),
        work=coarse[1],
    )


@dataclass(frozen=True)
class ResizeRule(OpRule):
    """One axis per dimension that is not scaled."""

    #: Which dimensions the operand ``sizes`` lists.
    listed: tuple[int, ...] = ()

    def local(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        signature = self.signature
        operands: list[ir.Value | None] = [inputs[0]]
        # Opsets 11 and 12 demand an operand even where it has no elements.
        nothing = graph.constant(np.zeros(0, np.float32)) if signature.version in (11, 12) else None
        scales_index = 2 if signature.version >= 11 else 1
        if signature.version >= 11:
            operands.append(nothing)
        scales = signature.numbers(scales_index)
        if signature.op_type == "Upsample" and signature.version < 9:
            operands = operands[:1]
        elif scales:
            operands.append(graph.constant(np.asarray(scales, np.float32)))
        else:
            shape = share.output_shape()
            sizes = np.asarray([shape[dim] for dim in self.listed], np.int64)
            operands += [nothing, graph.constant(sizes)]
        return graph.op(signature.op_type, operands, dict(signature.attributes), result_types(signature, share))


@rule("Resize", "Upsample", parameters=(1, 2, 3))
def resize(signature: Signature) -> OpRule | None:
    """Resize of opset 10 and later, and its predecessor, with constant scales or static sizes."""
    source, result = signature.input(0).shape, signature.output().shape
    rank = len(source)
    # These modes move even what is not scaled, by a rounding or by the region of interest.
    moving = ("tf_half_pixel_for_nn", "tf_crop_and_resize")
    if empty(signature) or signature.attribute("coordinate_transformation_mode") in moving:
        return None
    if (signature.attribute("keep_aspect_ratio_policy") or "stretch") != "stretch":
        return None
    listed = tuple(axis % rank for axis in signature.integers("axes", range(rank)))
    scales: tuple[int | float, ...] | None
    if signature.op_type == "Upsample" and signature.version < 9:
        given = signature.attribute("scales")
        scales = tuple(float(scale) for scale in given) if isinstance(given, tuple) else None
    else:
        scales = signature.numbers(2 if signature.version >= 11 else 1)
    if scales:
        kept = [dim for dim in range(rank) if dim not in listed or scales[listed.index(dim)] == 1]
    elif signature.has_input(3) and (not signature.has_input(2) or scales == ()):
        kept = [dim for dim in range(rank) if source[dim] == result[dim]]
    else:
        return None
    names = dimension_names(rank)
    scaled = [dim for dim in range(rank) if dim not in kept]
    absent: tuple[Dims | None, ...] = (None,) * (len(signature.inputs) - 1)
    return ResizeRule(
        signature,
        axes=axes_except(result, names, scaled),
        inputs=(along_except(source, names, scaled), *absent),
        outputs=(along_except(result, names, scaled),),
        work=whole_work(result, scaled),
        listed=listed,
    )
