"""Rules for operators that change resolution: Resize, Upsample, DepthToSpace, SpaceToDepth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from mars_onnx.rules.axes import Along, Axis, AxisRange, DimMap, IntArray, Ranges, Whole, clipped
from mars_onnx.rules.base import Dims, LocalGraph, OpRule, Share, Signature, TensorType
from mars_onnx.rules.common import (
    SameNode,
    along_except,
    axes_except,
    dimension_names,
    empty,
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


@dataclass(frozen=True, slots=True)
class Magnified:
    """Input rows that output rows of an enlargement by a whole factor are made of.

    Attributes:
        axis: The output axis.
        factor: Output rows per input row.
        size: Extent of the input dimension.
        centred: Whether rows are aligned by their centres rather than by their beginnings.
        before: Rows needed before the one at or below an output row's place.
        after: Rows needed after it.
    """

    axis: str
    factor: int
    size: int
    centred: bool
    before: int
    after: int

    @property
    def axes(self) -> tuple[str, ...]:
        return (self.axis,)

    def _place(self, row: IntArray) -> IntArray:
        """The input row at or below the place of an output row: floor((row + 1/2) / factor - 1/2), if centred."""
        if self.centred:
            return np.asarray((2 * row + 1 - self.factor) // (2 * self.factor))
        return np.asarray(row // self.factor)

    def __call__(self, ranges: Ranges) -> AxisRange:
        low, high = ranges[self.axis]
        start, stop = self._place(low) - self.before, self._place(high - 1) + 1 + self.after
        return clipped(start, self.size), clipped(stop, self.size)


@dataclass(frozen=True)
class ResizeRule(OpRule):
    """One axis per dimension that keeps its size or is enlarged by a whole factor; the others stay whole.

    A share enlarges all of the input rows that it touches and cuts off what it does not want: at a border of the share
    the operator repeats the outermost row, but the results that this spoils are among those cut off.
    """

    #: Which dimensions the operands ``sizes`` and ``scales`` list.
    listed: tuple[int, ...] = ()

    def local(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        signature = self.signature
        source, target = share.inputs[0], share.outputs[0]
        if source is None or target is None:
            raise ValueError("a share of Resize without data")
        wide: list[int] = []
        cut: list[tuple[int, int]] = []
        for dim, ((start, stop), (low, high)) in enumerate(zip(source, target, strict=True)):
            row = (self.inputs[0] or ())[dim]
            factor = row.factor if isinstance(row, Magnified) else 0
            wide.append((stop - start) * factor if factor else high - low)
            cut.append((low - start * factor, high - start * factor) if factor else (0, high - low))
        operands: list[ir.Value | None] = [inputs[0]]
        # Opsets 11 and 12 demand an operand even where it has no elements.
        nothing = graph.constant(np.zeros(0, np.float32)) if signature.version in (11, 12) else None
        if signature.version >= 11:
            operands.append(nothing)
        scales = signature.numbers(2 if signature.version >= 11 else 1)
        if signature.op_type == "Upsample" and signature.version < 9:
            operands = operands[:1]
        elif scales:
            operands.append(graph.constant(np.asarray(scales, np.float32)))
        else:
            sizes = np.asarray([wide[dim] for dim in self.listed], np.int64)
            operands += [nothing, graph.constant(sizes)]
        kind = TensorType(signature.output().dtype, tuple(wide))
        (result,) = graph.op(signature.op_type, operands, dict(signature.attributes), [kind])
        return (graph.slice(result, tuple(cut)),)


def _margins(signature: Signature) -> tuple[bool, int, int] | None:
    """Alignment and neighbouring rows of an enlargement by whole factors; ``None`` if it looks further."""
    mode = signature.attribute("mode") or "nearest"
    transformed = signature.op_type == "Resize" and signature.version >= 11
    alignment = (signature.attribute("coordinate_transformation_mode") or "half_pixel") if transformed else "asymmetric"
    if signature.integer("antialias", 0) or alignment not in ("half_pixel", "asymmetric"):
        return None
    centred = alignment == "half_pixel"
    if mode == "nearest":
        # By centres, the nearest row is the one that holds the place, without a tie; by beginnings, only rounding down
        # gives that one.
        rounding = (signature.attribute("nearest_mode") or "round_prefer_floor") if transformed else "floor"
        usable = rounding in ("round_prefer_floor", "round_prefer_ceil") if centred else rounding == "floor"
        return (False, 0, 0) if usable else None
    if mode == "linear":
        return centred, 0, 1
    return None


@rule("Resize", "Upsample", parameters=(1, 2, 3))
def resize(signature: Signature) -> OpRule | None:
    """Resize of opset 10 and later, and its predecessor, with constant scales or static sizes."""
    source, result = signature.input(0).shape, signature.output().shape
    rank = len(source)
    # These modes move even what is not scaled, by a rounding or by the region of interest.
    moving = ("tf_half_pixel_for_nn", "tf_crop_and_resize")
    # An empty region of interest or list of scales stands for an absent one.
    if 0 in (*source, *result) or signature.attribute("coordinate_transformation_mode") in moving:
        return None
    if (signature.attribute("keep_aspect_ratio_policy") or "stretch") != "stretch":
        return None
    listed = tuple(axis % rank for axis in signature.integers("axes", range(rank)))
    given: tuple[int | float, ...] | None
    if signature.op_type == "Upsample" and signature.version < 9:
        attribute = signature.attribute("scales")
        given = tuple(float(scale) for scale in attribute) if isinstance(attribute, tuple) else None
    else:
        given = signature.numbers(2 if signature.version >= 11 else 1)
    scales = [1.0] * rank
    if given:
        for dim, scale in zip(listed, given, strict=True):
            scales[dim] = float(scale)
    elif signature.has_input(3) and (not signature.has_input(2) or given == ()):
        scales = [full / extent for extent, full in zip(source, result, strict=True)]
    else:
        return None
    names = dimension_names(rank)
    margins = _margins(signature)
    maps: list[DimMap] = []
    for dim, scale in enumerate(scales):
        if scale == 1:
            maps.append(Along(names[dim]))
        elif margins is not None and scale > 1 and scale == int(scale) and result[dim] == int(scale) * source[dim]:
            maps.append(Magnified(names[dim], int(scale), source[dim], *margins))
        else:
            maps.append(Whole(source[dim]))
    whole = [dim for dim in range(rank) if isinstance(maps[dim], Whole)]
    axes = tuple(
        replace(axis, granularity=int(scales[names.index(axis.name)])) for axis in axes_except(result, names, whole)
    )
    absent: tuple[Dims | None, ...] = (None,) * (len(signature.inputs) - 1)
    return ResizeRule(
        signature,
        axes=tuple(replace(axis, divisible=axis.granularity > 1) for axis in axes),
        inputs=(tuple(maps), *absent),
        outputs=(along_except(result, names, whole),),
        work=whole_work(result, whole),
        listed=listed,
    )
