"""Rules for operators that cut out of, or pad around, a tensor: Slice and Pad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mars_onnx.rules.axes import Along, AxisRange, DimMap, Ranges, Whole
from mars_onnx.rules.base import Dims, LocalGraph, OpRule, Share, Signature, TensorType, attributes_without
from mars_onnx.rules.common import axes_except, dimension_names, empty, result_types, whole_dims, whole_work
from mars_onnx.rules.registry import rule


@dataclass(frozen=True, slots=True)
class Strided:
    """Every ``step``-th row from ``start`` on: from the first to the last that a range of the axis takes."""

    axis: str
    start: int
    step: int

    @property
    def axes(self) -> tuple[str, ...]:
        return (self.axis,)

    def __call__(self, ranges: Ranges) -> AxisRange:
        low, high = ranges[self.axis]
        return self.start + low * self.step, self.start + (high - 1) * self.step + 1


@dataclass(frozen=True)
class SliceRule(OpRule):
    """One axis per output dimension, except those taken backwards.

    Attributes:
        slices: Start and step of every dimension; the extent of the output says where it ends.
    """

    slices: tuple[tuple[int, int], ...] = ()

    def local(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        data, box = inputs[0], share.inputs[0]
        if data is None or box is None:
            raise ValueError("a share of Slice without data")
        shape = share.output_shape()
        # The box of the input begins and ends with rows that are taken, so only steps are left to do.
        stepped = [dim for dim, (_, step) in enumerate(self.slices) if step != 1]
        if not stepped:
            return (data,)
        starts = [self.slices[dim][0] if self.slices[dim][1] < 0 else 0 for dim in stepped]
        ends = [box[dim][1] - box[dim][0] for dim in stepped]
        for position, dim in enumerate(stepped):
            step = self.slices[dim][1]
            if step < 0:
                # An end before the first row counts from the back, unless it is further than that.
                last = starts[position] + shape[dim] * step
                ends[position] = last if last >= 0 else -self.signature.input(0).shape[dim] - 1
        steps = [self.slices[dim][1] for dim in stepped]
        operands = [graph.constant(np.asarray(column, np.int64)) for column in (starts, ends, stepped, steps)]
        return graph.op("Slice", [data, *operands], {}, result_types(self.signature, share))


@rule("Slice", parameters=(1, 2, 3, 4))
def slice_(signature: Signature) -> OpRule | None:
    """Slice with constant bounds, given as attributes before opset 10 and as inputs since."""
    source, result = signature.input(0).shape, signature.output().shape
    if signature.version < 10:
        starts, ends = signature.integers("starts", ()), signature.integers("ends", ())
        axes = signature.integers("axes", range(len(starts)))
        steps: tuple[int, ...] = (1,) * len(starts)
    else:
        parameters = [signature.constant(index) for index in range(1, 5)]
        if parameters[0] is None or parameters[1] is None:
            return None
        if any(parameters[index - 1] is None and signature.has_input(index) for index in (3, 4)):
            return None
        starts, ends = parameters[0], parameters[1]
        axes = tuple(range(len(starts))) if parameters[2] is None else parameters[2]
        steps = (1,) * len(starts) if parameters[3] is None else parameters[3]
    if empty(signature):
        return None
    slices = [(0, 1)] * len(source)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        first, last, _ = slice(start, end, step).indices(source[axis])
        if len(range(first, last, step)) != result[axis]:
            return None
        slices[axis] = (first, step)
    names = dimension_names(len(result))
    backwards = [dim for dim, (_, step) in enumerate(slices) if step < 0]
    source_maps: list[DimMap] = []
    for dim, (start, step) in enumerate(slices):
        source_maps.append(Whole(source[dim]) if dim in backwards else Strided(names[dim], start, step))
    absent: tuple[Dims | None, ...] = (None,) * (len(signature.inputs) - 1)
    return SliceRule(
        signature,
        axes=axes_except(result, names, backwards),
        inputs=(tuple(source_maps), *absent),
        outputs=(tuple(Whole(result[d]) if d in backwards else Along(names[d]) for d in range(len(result))),),
        work=whole_work(result, backwards),
        slices=tuple(slices),
    )


@dataclass(frozen=True)
class PadRule(OpRule):
    """One axis per output dimension. What is not constant comes from elsewhere in the row, so it keeps the row whole.

    Attributes:
        pads: Padding before and after every dimension; negative ones crop.
    """

    pads: tuple[tuple[int, int], ...] = ()

    def local(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        data, box, target = inputs[0], share.inputs[0], share.outputs[0]
        results = result_types(self.signature, share)
        if data is None or box is None or target is None:
            return (self._padding(graph, share, inputs),)
        before: list[int] = []
        after: list[int] = []
        for (low, high), (start, stop), (pad, _), dim in zip(target, box, self.pads, self.inputs[0] or (), strict=True):
            if isinstance(dim, Whole):
                before.append(pad)
                after.append(high - low - (stop - start) - pad)
            else:
                before.append(start + pad - low)
                after.append(high - pad - stop)
        pads = (*before, *after)
        if not any(pads):
            return (data,)
        attributes = attributes_without(self.signature, "pads")
        if self.signature.version < 11:
            return graph.op("Pad", [data], attributes | {"pads": pads}, results)
        value = inputs[2] if len(inputs) > 2 else None
        return graph.op("Pad", [data, graph.constant(np.asarray(pads, np.int64)), value], attributes, results)

    def _padding(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> ir.Value:
        """A share that lies wholly in the padding."""
        kind = TensorType(self.signature.output().dtype, share.output_shape())
        value = inputs[2] if len(inputs) > 2 else None
        if value is not None:
            # Opset 11 and later. An operand of rank 1 broadcasts to rank 0, too, so the target needs a rank.
            shape = np.asarray(kind.shape, np.int64)
            return graph.op("Expand", [value, graph.constant(shape)], {}, [kind])[0]
        fill = self.signature.attribute("value") or 0.0
        if fill == 0.0:
            return graph.zeros(kind.dtype, kind.shape)
        return graph.constant(np.full(kind.shape, fill, kind.dtype.numpy()))


@rule("Pad", parameters=(1, 3))
def pad(signature: Signature) -> OpRule | None:
    """Pad with constant widths, given as attribute before opset 11 and as input since."""
    source, result = signature.input(0).shape, signature.output().shape
    rank = len(source)
    widths: tuple[int, ...] | None = signature.integers("pads", ())
    padded: tuple[int, ...] | None = tuple(range(rank))
    if signature.version >= 11:
        widths = signature.constant(1)
        if signature.has_input(3):
            padded = signature.constant(3)
    if widths is None or padded is None or empty(signature) or len(widths) != 2 * len(padded) or rank == 0:
        return None
    pads = [(0, 0)] * rank
    for position, axis in enumerate(padded):
        pads[axis] = (widths[position], widths[position + len(padded)])
    if any(extent + sum(widths) != full for extent, widths, full in zip(source, pads, result, strict=True)):
        return None
    constant_mode = (signature.attribute("mode") or "constant") == "constant"
    names = dimension_names(rank)
    whole = [dim for dim, widths in enumerate(pads) if any(widths) and not constant_mode]
    source_maps: list[DimMap] = []
    for dim, (before, _) in enumerate(pads):
        source_maps.append(Whole(source[dim]) if dim in whole else Along(names[dim], -before, source[dim]))
    value = whole_dims(signature.input(2)) if signature.has_input(2) and constant_mode else None
    inputs: tuple[Dims | None, ...] = (tuple(source_maps), None, value, None)
    return PadRule(
        signature,
        axes=axes_except(result, names, whole),
        inputs=inputs[: len(signature.inputs)],
        outputs=(tuple(Whole(result[dim]) if dim in whole else Along(names[dim]) for dim in range(rank)),),
        work=whole_work(result, whole),
        pads=tuple(pads),
    )
