"""Rules for operators that only regroup dimensions: Reshape, Flatten, Squeeze, Unsqueeze."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import lcm, prod

import numpy as np
import onnx_ir as ir

from mars_onnx.geometry import Range
from mars_onnx.rules.axes import Axis, AxisRange, DimMap, Ranges, Whole
from mars_onnx.rules.base import Dims, LocalGraph, OpRule, Share, Signature
from mars_onnx.rules.common import dimension_names, empty, result_types
from mars_onnx.rules.registry import rule


@dataclass(frozen=True, slots=True)
class Factor:
    """One dimension of a row-major block of dimensions, under a range of the block's flat index.

    Attributes:
        axis: Axis of the block.
        size: Extent of the dimension.
        inner: Number of elements under one index of the dimension.
    """

    axis: str
    size: int
    inner: int

    @property
    def axes(self) -> tuple[str, ...]:
        return (self.axis,)

    def __call__(self, ranges: Ranges) -> AxisRange:
        low, high = ranges[self.axis]
        first, last = low // self.inner, (np.maximum(high, 1) - 1) // self.inner
        inside_one = first // self.size == last // self.size
        start = np.where(inside_one, first % self.size, 0)
        stop = np.where(inside_one, last % self.size + 1, self.size)
        return np.asarray(start), np.asarray(stop)


@dataclass(frozen=True, slots=True)
class _Block:
    """Dimensions of the input and of the output that hold the same elements in the same order."""

    sources: tuple[int, ...]
    results: tuple[int, ...]


def common_blocks(source: Sequence[int], result: Sequence[int]) -> list[_Block]:
    """The finest blocks of two shapes with equal numbers of elements; dimensions of extent 1 are in none."""
    lefts = [dim for dim, extent in enumerate(source) if extent > 1]
    rights = [dim for dim, extent in enumerate(result) if extent > 1]
    blocks: list[_Block] = []
    while lefts:
        left, right = [lefts.pop(0)], [rights.pop(0)]
        left_size, right_size = source[left[0]], result[right[0]]
        while left_size != right_size:
            if left_size < right_size:
                left.append(lefts.pop(0))
                left_size *= source[left[-1]]
            else:
                right.append(rights.pop(0))
                right_size *= result[right[-1]]
        blocks.append(_Block(tuple(left), tuple(right)))
    return blocks


@dataclass(frozen=True)
class RegroupingRule(OpRule):
    """One axis per common block of the two shapes, counting its elements in row-major order."""

    #: Per axis the extents on either side.
    sides: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()

    def problem(self, ranges: Mapping[str, Range]) -> str | None:
        for axis, sides in zip(self.axes, self.sides, strict=True):
            low, high = ranges[axis.name]
            for extents in sides:
                if not _is_box(low, high, extents):
                    return f"elements {low}:{high} of {'x'.join(map(str, extents))} are no box"
        return None

    def local(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        signature = self.signature
        results = result_types(signature, share)
        if signature.op_type == "Flatten":
            return graph.op("Flatten", inputs[:1], dict(signature.attributes), results)
        axes = self._moved_axes()
        if axes is not None and signature.version >= 13:
            operand = graph.constant(np.asarray(axes, np.int64))
            return graph.op(signature.op_type, [inputs[0], operand], {}, results)
        if axes is not None:
            return graph.op(signature.op_type, inputs[:1], {"axes": axes}, results)
        # The operator's own shape is that of the whole tensor.
        shape = graph.constant(np.asarray(share.output_shape(), np.int64))
        return graph.op("Reshape", [inputs[0], shape], {}, results)

    def _moved_axes(self) -> tuple[int, ...] | None:
        """Axes of a Squeeze or Unsqueeze, if they are known."""
        if self.signature.op_type not in ("Squeeze", "Unsqueeze"):
            return None
        axes = self.signature.constant(1)
        if axes is None and not self.signature.has_input(1):
            given = self.signature.integers("axes", ())
            shape = self.signature.input(0).shape
            # Squeeze without axes takes all of extent 1; a local extent of 1 must not go with them.
            axes = given or tuple(dim for dim, extent in enumerate(shape) if extent == 1)
        return axes


def _is_box(low: int, high: int, extents: tuple[int, ...]) -> bool:
    """Whether a range of the flat index of a row-major array of these extents is a box of it."""
    inner = prod(extents)
    for extent in extents:
        inner //= extent
        first, last = low // inner, (high - 1) // inner
        if first != last:
            # This is the outermost dimension that varies: whatever is under it has to be whole.
            return low % inner == 0 and high % inner == 0
    return True


@rule("Reshape", "Flatten")
def reshape(signature: Signature) -> OpRule | None:
    """The static shapes decide; a shape operand is not read, so it may be computed."""
    source, result = signature.input(0).shape, signature.output().shape
    if empty(signature):
        return None
    names = dimension_names(len(result))
    blocks = common_blocks(source, result)
    source_maps: list[DimMap] = [Whole(1)] * len(source)
    result_maps: list[DimMap] = [Whole(1)] * len(result)
    axes: list[Axis] = []
    sides: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for block in blocks:
        name = names[block.results[0]]
        extents = (tuple(source[dim] for dim in block.sources), tuple(result[dim] for dim in block.results))
        granularity = lcm(*(prod(side[1:]) for side in extents))
        axes.append(Axis(name, prod(extents[0]), granularity=granularity, divisible=granularity > 1))
        sides.append(extents)
        for dims, side, maps in zip((block.sources, block.results), extents, (source_maps, result_maps), strict=True):
            for position, dim in enumerate(dims):
                maps[dim] = Factor(name, side[position], prod(side[position + 1 :]))
    absent: tuple[Dims | None, ...] = (None,) * (len(signature.inputs) - 1)
    return RegroupingRule(
        signature,
        axes=tuple(axes),
        inputs=(tuple(source_maps), *absent),
        outputs=(tuple(result_maps),),
        sides=tuple(sides),
    )


@rule("Squeeze", "Unsqueeze", parameters=(1,))
def squeeze(signature: Signature) -> OpRule | None:
    """A reshape, too; its axes are read only to keep the operator in the local graph."""
    return reshape(signature)
