"""The parameters of the performance models that mars_onnx ships. Formulas and sources: docs/cost-model.md."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mars_onnx.pool.numbers import (
    Bandwidth,
    Bytes,
    Clock,
    Count,
    Flag,
    Latency,
    Parameters,
    Positive,
    Rate,
    Text,
)

#: Kinds of work that a design has to say where they run, as in ``mars_onnx.cost.OpClass``. Views are free everywhere,
#: and every design has a DMA engine that moves data.
VectorClass = Literal["pool", "elementwise", "normalization", "softmax", "reduction"]
AnyClass = Literal[
    "conv", "conv_transpose", "matmul", "pool", "elementwise", "normalization", "softmax", "reduction", "move", "other"
]


class KernelGain(Parameters):
    """Convolutions that a design computes with fewer multiplications than the direct way, as Winograd's do.

    Attributes:
        kernel: Extents of the kernel, per spatial dimension.
        strides: Its steps, per spatial dimension; dilations have to be 1.
        factor: Multiply-accumulates of the direct way per multiplication done.
        source: Where the factor is from.
    """

    kernel: Annotated[tuple[Count, ...], Field(min_length=1, max_length=3)]
    strides: Annotated[tuple[Count, ...], Field(min_length=1, max_length=3)]
    factor: Positive
    source: Text


class RooflineParameters(Parameters):
    """A peak rate of arithmetic, bounded by the memory's bandwidth (which the accelerator gives).

    Attributes:
        clock_hz: Clock of the arithmetic.
        macs_per_cycle: Multiply-accumulates per cycle with every unit busy.
        overhead_s: What every operator costs on top, however small.
        gains: Kernels that do better than ``macs_per_cycle``.
    """

    clock_hz: Clock
    macs_per_cycle: Positive
    overhead_s: Latency = 0.0
    gains: tuple[KernelGain, ...] = ()


class VectorUnit(Parameters):
    """What a design has beside its multiplier array for work without weights.

    Attributes:
        operations_per_cycle: Element operations per cycle of the design's clock.
        classes: What it can do.
        source: Where the numbers are from.
    """

    operations_per_cycle: Positive
    classes: Annotated[tuple[VectorClass, ...], Field(min_length=1)]
    source: Text


class Host(Parameters):
    """The processor that runs what the design cannot: data goes there and back.

    Attributes:
        macs_per_s: Multiply-accumulates, or element operations, per second at best.
        memory_bandwidth_bytes_per_s: Rate of its memory.
        route_bandwidth_bytes_per_s: Rate of the way there and back; by default that of the accelerator's memory.
        overhead_s: What every operator costs on top.
        source: Where the numbers are from.
    """

    macs_per_s: Rate
    memory_bandwidth_bytes_per_s: Bandwidth
    route_bandwidth_bytes_per_s: Bandwidth | None = None
    overhead_s: Latency = 0.0
    source: Text


class EngineParameters(Parameters):
    """What all designs with a multiplier array have.

    Attributes:
        clock_hz: Clock of the multipliers.
        overhead_s: What every operator costs on top, however small.
        vector: For work without weights.
        host: For what is left. Without one, the design refuses that by name.
    """

    clock_hz: Clock
    overhead_s: Latency = 0.0
    vector: VectorUnit | None = None
    host: Host | None = None


class TiledParameters(EngineParameters):
    """Tiled loops with double buffering (Zhang et al., FPGA 2015; Super-LIP: Jiang et al., TECS 2019).

    Attributes:
        tile_out_channels: Tm, unrolled.
        tile_in_channels: Tn, unrolled.
        tile_rows: Tr.
        tile_cols: Tc.
        input_words_per_cycle: Ip, of the port that inputs come through.
        weight_words_per_cycle: Wp.
        output_words_per_cycle: Op.
        halo: Whether an input tile includes the border that the kernel needs (hardware does; Super-LIP's formula leaves
            it out).
        edge_tiles: Tiles at the edge of an image: "ragged" runs their own rows and columns only, as Zhang's loops do;
            "whole" always runs Tr x Tc, as Super-LIP's formula counts. Tm and Tn are wires and always whole.
    """

    tile_out_channels: Count
    tile_in_channels: Count
    tile_rows: Count
    tile_cols: Count
    input_words_per_cycle: Positive
    weight_words_per_cycle: Positive
    output_words_per_cycle: Positive
    halo: Flag = True
    edge_tiles: Literal["ragged", "whole"] = "ragged"


class SystolicParameters(EngineParameters):
    """A systolic array, as SCALE-Sim counts it (Samajdar et al., ISPASS 2020).

    Attributes:
        rows: H. Pixels (output-stationary) or the reduction run along it.
        columns: W. Output channels run along it; pixels, if the inputs are stationary.
        cell_multipliers: Multipliers of a cell (its vector width), all on input channels.
        dataflow: What stays in the cells: "ws" weights, "os" outputs, "is" inputs.
        fold_overlap: Whether the array fills for the next fold while it drains. SCALE-Sim's does not.
        input_buffer_bytes: On-chip memory for inputs; what does not fit is read again for every fold that wants it.
        weight_buffer_bytes: For weights, likewise.
        output_buffer_bytes: For partial sums; what does not fit is written and read again.
    """

    rows: Count
    columns: Count
    cell_multipliers: Count = 1
    dataflow: Literal["ws", "os", "is"]
    fold_overlap: Flag = False
    input_buffer_bytes: Bytes
    weight_buffer_bytes: Bytes
    output_buffer_bytes: Bytes


class WinogradParameters(EngineParameters):
    """Winograd convolution F(m x m, 3 x 3) (Lavin and Gray, 2016; Lu et al., FCCM 2017).

    Attributes:
        tile_outputs: m; the multipliers form tiles of n x n with n = m + 2.
        in_channel_parallel: Pn.
        out_channel_parallel: Pm.
        input_buffer_bytes: On-chip memory for inputs; images that do not fit are read again for every Pm channels.
        weights_transformed: Whether weights lie in memory transformed, n * n for every 3 * 3.
    """

    tile_outputs: Annotated[Count, Field(le=14)]
    in_channel_parallel: Count
    out_channel_parallel: Count
    input_buffer_bytes: Bytes
    weights_transformed: Flag = True


class PacketFeed(Parameters):
    """Inputs come as packets of neighbouring pixels and channels out of on-chip memory, tile by tile.

    Attributes:
        clock_hz: Clock of the feed: one packet per cycle.
        pixels: Consecutive pixels of a packet, aligned to their number.
        channels: Channels of a packet; inputs are padded to a multiple of them.
        header_packets: Packets in front of every tile.
        outputs_per_cycle: Output channels of a tile that leave the array in a cycle of this clock.
        startup_cycles: Of this clock, once per operator: all pipelines filled and drained.
        source: Where the numbers are from.
    """

    clock_hz: Clock
    pixels: Count
    channels: Count
    header_packets: Annotated[int, Field(strict=True, ge=0, le=1024)] = 0
    outputs_per_cycle: Positive = 1.0
    startup_cycles: Annotated[float, Field(strict=True, ge=0, le=1e9, allow_inf_nan=False)] = 0.0
    source: Text


class ArrayParameters(EngineParameters):
    """A pixel- and channel-parallel array: AMD's DPU, cnn_accel.

    Attributes:
        pixel_parallel: Output pixels at once.
        in_channel_parallel: Input channels at once.
        out_channel_parallel: Output channels at once.
        feed: How inputs reach the array, if that can be what it waits for.
        weights_resident: Whether convolution weights stay on chip between inferences.
        activations_resident: Whether activations stay on chip between operators.
        matrix_bytes_per_s: If matrix products run beside the array, on one row after another while weights stream by:
            the rate of that stream.
        input_buffer_bytes: On-chip memory for inputs; images that do not fit are read again for every group of output
            channels.
    """

    pixel_parallel: Count
    in_channel_parallel: Count = 1
    out_channel_parallel: Count
    feed: PacketFeed | None = None
    weights_resident: Flag = False
    activations_resident: Flag = False
    matrix_bytes_per_s: Bandwidth | None = None
    input_buffer_bytes: Bytes


Seconds = Annotated[float, Field(strict=True, ge=0, le=1e6, allow_inf_nan=False)]


class MeasuredCurve(Parameters):
    """Measured times of one class of operators; price by fit, by interpolation, or both.

    ``fixed_s + s_per_mmac * 1e-6 * macs + s_per_weight_mb * 1e-6 * weight bytes + s_per_activation_mb * 1e-6 *
    (input + output bytes)``, and, if there are points, at least what is interpolated between them.

    Attributes:
        classes: What it is for.
        fixed_s: Of every operator.
        s_per_mmac: Per 10^6 multiply-accumulates.
        s_per_weight_mb: Per 10^6 bytes of weights.
        s_per_activation_mb: Per 10^6 bytes of inputs and outputs.
        points: Measured pairs of 10^6 multiply-accumulates and seconds, rising in both. Between them, a straight line
            in logarithms; below the first its time; beyond the last in proportion.
        source: What was measured, how.
    """

    classes: Annotated[tuple[AnyClass, ...], Field(min_length=1)]
    fixed_s: Seconds = 0.0
    s_per_mmac: Seconds = 0.0
    s_per_weight_mb: Seconds = 0.0
    s_per_activation_mb: Seconds = 0.0
    points: Annotated[tuple[tuple[Positive, Positive], ...], Field(max_length=4096)] = ()
    source: Text

    @model_validator(mode="after")
    def _priced(self) -> MeasuredCurve:
        if not self.points and not self.fixed_s + self.s_per_mmac + self.s_per_activation_mb > 0:
            raise ValueError("prices its classes at nothing; give a time per operator, multiply-accumulate or byte")
        for first, second in zip(self.points, self.points[1:], strict=False):
            if not (first[0] < second[0] and first[1] <= second[1]):
                raise ValueError("the points should rise in both numbers")
        return self


class MeasuredParameters(Parameters):
    """Times from profiles.

    Attributes:
        curves: One per class of operators, or for several.
        host: For classes without a curve. Without one, they are refused by name.
    """

    curves: Annotated[tuple[MeasuredCurve, ...], Field(min_length=1)]
    host: Host | None = None

    @model_validator(mode="after")
    def _once(self) -> MeasuredParameters:
        named = [name for curve in self.curves for name in curve.classes]
        if len(named) != len(set(named)):
            raise ValueError("a class has more than one curve")
        return self
