"""Rules for Conv: plain, grouped, depthwise, strided, dilated, in any number of spatial dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from mars_onnx.rules.axes import Along, Axis, AxisRange, Ranges, Whole, Window
from mars_onnx.rules.base import Dims, LocalGraph, OpRule, Share, Signature, TensorType, attributes_without
from mars_onnx.rules.registry import rule
from mars_onnx.rules.windows import resolve_pads, window_count

#: Names of the spatial output axes, by number of spatial dimensions.
SPATIAL_NAMES = {1: ("W",), 2: ("H", "W"), 3: ("D", "H", "W")}


@dataclass(frozen=True, slots=True)
class GroupedChannels:
    """Input channels of a grouped convolution under ranges of Cout and of Cin (channels within a group).

    Attributes:
        outputs_per_group: Output channels of one group.
        inputs_per_group: Input channels of one group, the extent of the Cin axis.
    """

    outputs_per_group: int
    inputs_per_group: int

    @property
    def axes(self) -> tuple[str, ...]:
        return ("Cout", "Cin")

    def __call__(self, ranges: Ranges) -> AxisRange:
        low, high = ranges["Cout"]
        first, last = ranges["Cin"]
        first_group = low // self.outputs_per_group
        last_group = (np.maximum(high, 1) - 1) // self.outputs_per_group
        empty = low >= high
        start = first_group * self.inputs_per_group + first
        stop = last_group * self.inputs_per_group + last
        return np.where(empty, 0, start), np.where(empty, 0, stop)


@dataclass(frozen=True)
class ConvRule(OpRule):
    """Axes N, Cout, H, W (parallel), Cin, Kh, Kw (reductions); Cin counts channels within a group."""

    groups: int = 1
    windows: tuple[Window, ...] = ()

    @property
    def _outputs_per_group(self) -> int:
        return self.signature.input(1).shape[0] // self.groups

    @property
    def choosy_axes(self) -> tuple[str, ...]:
        return () if self.groups == 1 else ("Cout", "Cin")

    def problem(self, ranges: Mapping[str, tuple[int, int]]) -> str | None:
        if self.groups == 1:
            return None
        low, high = ranges["Cout"]
        per_group = self._outputs_per_group
        inside_one = low // per_group == (high - 1) // per_group
        if not inside_one and (low % per_group or high % per_group):
            return f"output channels {low}:{high} cut groups of {per_group} unevenly"
        first, last = ranges["Cin"]
        if not inside_one and last - first < self.signature.input(1).shape[1]:
            return "input channels can be split only within one group"
        return None

    def local(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        data, weight, bias = (*inputs, None)[:3]
        result = self.signature.output()
        shape = share.output_shape()
        if data is None or weight is None:
            # The share lies wholly inside the padding.
            return (bias_only(graph, TensorType(result.dtype, shape), bias if share.first else None),)
        attributes = attributes_without(self.signature)
        if self.windows:
            pads = [
                window.pads(*share.ranges[window.axis], *share.ranges[str(window.kernel_axis)])
                for window in self.windows
            ]
            attributes = attributes_without(self.signature, "auto_pad") | {
                "pads": (*(before for before, _ in pads), *(after for _, after in pads)),
                "kernel_shape": tuple(share.extent(str(window.kernel_axis)) for window in self.windows),
            }
        if self.groups > 1:
            attributes["group"] = max(1, share.extent("Cout") // self._outputs_per_group)
        operands = [data, weight] if bias is None or not share.first else [data, weight, bias]
        return graph.op("Conv", operands, attributes, [TensorType(result.dtype, shape)])


def bias_only(graph: LocalGraph, result: TensorType, bias: ir.Value | None) -> ir.Value:
    """What a convolution gives where it sees no data: its products are zero, and only the bias is left."""
    zeros = graph.zeros(result.dtype, result.shape)
    if bias is None:
        return zeros
    column = (1, result.shape[1]) + (1,) * (len(result.shape) - 2)
    shape = graph.constant(np.asarray(column, np.int64))
    grown = graph.op("Reshape", [bias, shape], {}, [TensorType(result.dtype, column)])
    return graph.op("Add", [zeros, *grown], {}, [result])[0]


@rule("Conv")
def convolution(signature: Signature) -> OpRule | None:
    """Conv of opset 1 and later."""
    data, weight = signature.input(0), signature.input(1)
    spatial = len(data.shape) - 2
    names = SPATIAL_NAMES.get(spatial)
    result = signature.output()
    if names is None or 0 in (*data.shape, *weight.shape, *result.shape):
        return None
    kernel = weight.shape[2:]
    strides = signature.integers("strides", (1,) * spatial)
    dilations = signature.integers("dilations", (1,) * spatial)
    pads = resolve_pads(signature, data.shape[2:], result.shape[2:], kernel, strides, dilations)
    windows: tuple[Window, ...] = ()
    if pads is not None:
        windows = tuple(
            Window(name, f"K{name.lower()}", kernel[i], strides[i], dilations[i], pads[i], data.shape[2 + i])
            for i, name in enumerate(names)
        )
        counts = tuple(window_count(window, pads[spatial + i]) for i, window in enumerate(windows))
        if counts != result.shape[2:]:
            return None
    # Where runtimes differ about the padding, images and kernels stay whole and the attributes as they are.
    spatial_names = names if windows else ()
    kernel_names = tuple(f"K{name.lower()}" for name in spatial_names)
    groups = signature.integer("group", 1)
    outputs_per_group = weight.shape[0] // groups
    granule = outputs_per_group if groups > 1 else 1
    parallel = (Axis("N", data.shape[0]), Axis("Cout", weight.shape[0], granularity=granule, divisible=granule > 1))
    spatial_axes = tuple(Axis(name, extent) for name, extent in zip(spatial_names, result.shape[2:], strict=False))
    reductions = (
        Axis("Cin", weight.shape[1], reduction=True),
        *(Axis(name, extent, reduction=True) for name, extent in zip(kernel_names, kernel, strict=False)),
    )

    def rows(along: Sequence[str], extents: Sequence[int]) -> Dims:
        return tuple(map(Along, along)) or tuple(map(Whole, extents))

    channels = Along("Cin") if groups == 1 else GroupedChannels(outputs_per_group, weight.shape[1])
    bias_dims: tuple[Dims | None, ...] = ((Along("Cout"),) if signature.has_input(2) else None,)
    return ConvRule(
        signature,
        axes=parallel + spatial_axes + reductions,
        inputs=(
            (Along("N"), channels, *(windows or rows((), data.shape[2:]))),
            (Along("Cout"), Along("Cin"), *rows(kernel_names, kernel)),
            *bias_dims,
        )[: len(signature.inputs)],
        outputs=((Along("N"), Along("Cout"), *rows(spatial_names, result.shape[2:])),),
        operands={0: "input", 1: "weight"},
        work=1 if windows else prod(kernel) * prod(result.shape[2:]),
        groups=groups,
        windows=windows,
    )
