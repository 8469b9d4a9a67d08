"""Rules for pooling over windows and over whole images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from mars_onnx.geometry import Range, Reduction
from mars_onnx.rules.axes import Along, Axis, Window
from mars_onnx.rules.base import LocalGraph, OpRule, Share, Signature, attributes_without
from mars_onnx.rules.common import (
    SameNode,
    along_except,
    axes_except,
    dimension_names,
    empty,
    reducible,
    result_types,
    whole_work,
)
from mars_onnx.rules.registry import rule
from mars_onnx.rules.windows import resolve_pads, window_count


@dataclass(frozen=True)
class PoolRule(OpRule):
    """Axes N, C and the spatial ones of the output; every share pads only where it lies at the border."""

    windows: tuple[Window, ...] = ()

    def _local_pads(self, ranges: Mapping[str, Range]) -> list[tuple[int, int]] | None:
        """Padding of a share in every dimension; ``None`` if the node's own attributes say it."""
        axes = [axis for axis in self.axes if axis.name in {window.axis for window in self.windows}]
        if all(ranges[axis.name] == (0, axis.size) for axis in axes):
            return None
        return [window.pads(*ranges[window.axis], 0, window.kernel) for window in self.windows]

    @property
    def choosy_axes(self) -> tuple[str, ...]:
        return tuple(window.axis for window in self.windows)

    def problem(self, ranges: Mapping[str, Range]) -> str | None:
        for window, pads in zip(self.windows, self._local_pads(ranges) or (), strict=False):
            low, high = ranges[window.axis]
            start, stop = window({window.axis: (np.asarray(low), np.asarray(high))})
            if start >= stop:
                return f"rows {low}:{high} of {window.axis} lie wholly in the padding"
            if max(pads) >= window.kernel:
                # Dilated windows over the border: the whole node may say so by ceil_mode, a local one cannot.
                return f"rows {low}:{high} of {window.axis} need padding of {max(pads)}, as much as the kernel"
        return None

    def local(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        attributes = dict(self.signature.attributes)
        pads = self._local_pads(share.ranges)
        if pads is not None:
            attributes = attributes_without(self.signature, "auto_pad", "ceil_mode")
            attributes["pads"] = (*(before for before, _ in pads), *(after for _, after in pads))
        return graph.op(self.signature.op_type, inputs, attributes, result_types(self.signature, share))


@rule("MaxPool", "AveragePool", "LpPool")
def pool(signature: Signature) -> OpRule | None:
    """Pooling over windows. MaxPool's Indices are positions in the whole tensor, so with them it is not sharded."""
    data, result = signature.input(0).shape, signature.output().shape
    kernel = signature.integers("kernel_shape", ())
    if empty(signature) or len(signature.outputs) > 1 or len(data) - 2 != len(kernel):
        return None
    spatial = len(kernel)
    names = dimension_names(len(data))
    if spatial == 1:
        names = ("N", "C", "W")
    strides = signature.integers("strides", (1,) * spatial)
    dilations = signature.integers("dilations", (1,) * spatial)
    pads = resolve_pads(signature, data[2:], result[2:], kernel, strides, dilations)
    averages_cut_short = signature.integer("count_include_pad", 0) or any(dilation > 1 for dilation in dilations)
    if signature.integer("ceil_mode", 0) and (
        signature.op_type == "LpPool" or (signature.op_type == "AveragePool" and averages_cut_short)
    ):
        # The last window reaches past the padding. What is there counts neither as data nor as padding, and ONNX
        # Runtime's power means, and means of dilated windows, are not those of the data alone.
        pads = None
    rounded_up = bool(signature.integer("ceil_mode", 0))
    windows: list[Window] = []
    for i in range(spatial if pads is not None else 0):
        begin, end = (pads[i], pads[spatial + i]) if pads is not None else (0, 0)
        window = Window(names[2 + i], None, kernel[i], strides[i], dilations[i], begin, data[2 + i])
        if result[2 + i] != window_count(window, end, rounded_up=rounded_up):
            # Versions of the standard differ about the last window of a ceil_mode; the rule must be sure.
            return None
        windows.append(window)
    whole: Sequence[int] = () if windows else range(2, 2 + spatial)
    return PoolRule(
        signature,
        axes=axes_except(result, names, whole),
        inputs=((*along_except(data[:2], names[:2], ()), *(windows or along_except(data, names, whole)[2:])),),
        outputs=(along_except(result, names, whole),),
        work=prod(kernel) * whole_work(result, whole),
        windows=tuple(windows),
    )


@dataclass(frozen=True)
class GlobalAverageRule(OpRule):
    """Axes N and C, and the spatial ones as reductions: partial averages count by their share of the elements."""

    def local(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        results = result_types(self.signature, share)
        average = graph.op(self.signature.op_type, inputs, dict(self.signature.attributes), results)
        weight = prod(share.extent(axis.name) / axis.size for axis in self.axes if axis.reduction)
        if weight == 1:
            return average
        scale = np.asarray(weight, self.signature.output().dtype.numpy())
        return graph.op("Mul", [*average, graph.constant(scale)], {}, results)


@rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(signature: Signature) -> OpRule | None:
    """Pooling over whole images; a power mean is no sum of partial ones, so there images stay whole."""
    kind = signature.input(0)
    rank = len(kind.shape)
    if empty(signature) or rank < 3:
        return None
    names = ("N", "C", "W") if rank == 3 else dimension_names(rank)
    splits = signature.op_type != "GlobalLpPool" and reducible(kind.dtype)
    whole = () if splits else range(2, rank)
    axes = (
        *axes_except(kind.shape[:2], names[:2], ()),
        *(Axis(axis.name, axis.size, reduction=True) for axis in axes_except(kind.shape, names, whole)[2:]),
    )
    build = GlobalAverageRule if signature.op_type == "GlobalAveragePool" else SameNode
    return build(
        signature,
        axes=axes,
        inputs=(along_except(kind.shape, names, whole),),
        outputs=((Along(names[0]), Along(names[1]), *along_except((1,) * (rank - 2), names[2:], range(rank - 2))),),
        reduction=Reduction.MAX if signature.op_type == "GlobalMaxPool" else Reduction.SUM,
        work=whole_work(kind.shape, whole),
    )
