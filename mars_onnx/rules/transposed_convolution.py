"""Rule for ConvTranspose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mars_onnx.geometry import Range
from mars_onnx.rules.axes import Along, Axis, AxisRange, DimMap, Ranges, Whole, clipped
from mars_onnx.rules.base import Dims, LocalGraph, OpRule, Share, Signature, TensorType, attributes_without
from mars_onnx.rules.common import axes_except, empty, whole_work
from mars_onnx.rules.convolution import SPATIAL_NAMES, bias_only
from mars_onnx.rules.registry import rule


@dataclass(frozen=True, slots=True)
class TransposedWindow:
    """Input rows that reach a range of output rows of a transposed convolution.

    Attributes:
        axis: The output axis.
        reach: How many output rows one input row touches: the extent of the dilated kernel.
        stride: Output rows between the starts of neighbouring input rows.
        pad: Output rows cropped off before the first.
        size: Extent of the input dimension.
    """

    axis: str
    reach: int
    stride: int
    pad: int
    size: int

    @property
    def axes(self) -> tuple[str, ...]:
        return (self.axis,)

    def __call__(self, ranges: Ranges) -> AxisRange:
        low, high = ranges[self.axis]
        # Rounded down, so that the local output never starts after the wanted one.
        start = (low + self.pad - (self.reach - 1)) // self.stride
        stop = (high - 1 + self.pad) // self.stride + 1
        return clipped(start, self.size), clipped(stop, self.size)

    def pads(self, target: tuple[int, int], source: tuple[int, int]) -> tuple[int, int]:
        """Rows to crop before and after; negative after: rows that no input reaches."""
        begin = source[0] * self.stride - self.pad
        end = (source[1] - 1) * self.stride - self.pad + self.reach
        return target[0] - begin, end - target[1]


@dataclass(frozen=True, slots=True)
class WholeGroups:
    """Input channels of the groups whose output channels are in range."""

    outputs_per_group: int
    inputs_per_group: int

    @property
    def axes(self) -> tuple[str, ...]:
        return ("Cout",)

    def __call__(self, ranges: Ranges) -> AxisRange:
        low, high = ranges["Cout"]
        return (
            low // self.outputs_per_group * self.inputs_per_group,
            -(-high // self.outputs_per_group) * self.inputs_per_group,
        )


@dataclass(frozen=True)
class TransposedConvolutionRule(OpRule):
    """Axes N, Cout, H, W, and the reduction Cin where there is one group; groups stay together."""

    groups: int = 1
    windows: tuple[TransposedWindow, ...] = ()

    @property
    def choosy_axes(self) -> tuple[str, ...]:
        return () if self.groups == 1 else ("Cout",)

    def problem(self, ranges: Mapping[str, Range]) -> str | None:
        per_group = self.signature.input(1).shape[1]
        low, high = ranges["Cout"]
        if self.groups > 1 and (low % per_group or high % per_group):
            return f"output channels {low}:{high} cut groups of {per_group}"
        return None

    def local(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        signature = self.signature
        data, weight, bias = (*inputs, None)[:3]
        result = TensorType(signature.output().dtype, share.output_shape())
        bias = bias if share.first else None
        source, target = share.inputs[0], share.outputs[0]
        if data is None or weight is None or source is None or target is None:
            return (bias_only(graph, result, bias),)
        attributes = attributes_without(signature)
        if self.groups > 1:
            attributes["group"] = share.extent("Cout") // signature.input(1).shape[1]
        # Pads as wide as the kernel crop whole input rows off, which even a whole output then does not take.
        if any(
            target[2 + i] != (0, signature.output().shape[2 + i]) or source[2 + i] != (0, window.size)
            for i, window in enumerate(self.windows)
        ):
            pads = [window.pads(target[2 + i], source[2 + i]) for i, window in enumerate(self.windows)]
            attributes["pads"] = (*(before for before, _ in pads), *(max(0, after) for _, after in pads))
            attributes["output_padding"] = tuple(max(0, -after) for _, after in pads)
        operands = [data, weight] if bias is None else [data, weight, bias]
        return graph.op("ConvTranspose", operands, attributes, [result])


@rule("ConvTranspose")
def transposed_convolution(signature: Signature) -> OpRule | None:
    """ConvTranspose of opset 1 and later. Where the padding is computed, runtimes differ, so images stay whole."""
    data, weight, result = signature.input(0).shape, signature.input(1).shape, signature.output().shape
    spatial = len(data) - 2
    if empty(signature) or spatial not in SPATIAL_NAMES:
        return None
    names = ("N", "Cout", *SPATIAL_NAMES[spatial])
    groups = signature.integer("group", 1)
    strides = signature.integers("strides", (1,) * spatial)
    dilations = signature.integers("dilations", (1,) * spatial)
    pads = signature.integers("pads", (0,) * (2 * spatial))
    added = signature.integers("output_padding", (0,) * spatial)
    explicit = (signature.attribute("auto_pad") or "NOTSET") == "NOTSET" and not signature.attribute("output_shape")
    windows: list[TransposedWindow] = []
    for i in range(spatial):
        reach = (weight[2 + i] - 1) * dilations[i] + 1
        full = (data[2 + i] - 1) * strides[i] + reach + added[i] - pads[i] - pads[spatial + i]
        explicit = explicit and full == result[2 + i] and min(pads) >= 0
        windows.append(TransposedWindow(names[2 + i], reach, strides[i], pads[i], data[2 + i]))
    whole: Sequence[int] = () if explicit else range(2, 2 + spatial)
    per_group = weight[1]
    channels: DimMap = Along("Cin") if groups == 1 else WholeGroups(per_group, weight[0] // groups)
    rows = tuple(windows) if explicit else tuple(map(Whole, data[2:]))
    weight_rows = (channels, Along("Cout") if groups == 1 else Whole(per_group), *map(Whole, weight[2:]))
    bias: tuple[Dims | None, ...] = ((Along("Cout"),) if signature.has_input(2) else None,)
    parallel = list(axes_except(result, names, whole))
    parallel[1] = Axis("Cout", result[1], granularity=per_group if groups > 1 else 1)
    return TransposedConvolutionRule(
        signature,
        axes=(*parallel, *((Axis("Cin", weight[0], reduction=True),) if groups == 1 else ())),
        inputs=((Along("N"), channels, *rows), weight_rows, *bias)[: len(signature.inputs)],
        outputs=(
            (
                Along("N"),
                Along("Cout"),
                *(Whole(result[2 + i]) if whole else Along(names[2 + i]) for i in range(spatial)),
            ),
        ),
        operands={0: "input", 1: "weight"},
        work=whole_work(result, whole) * int(np.prod(weight[2:])) * (1 if groups == 1 else weight[0] // groups),
        groups=groups,
        windows=tuple(windows) if explicit else (),
    )
