"""Winograd convolution F(m x m, 3 x 3), with its rule of applicability and a direct fallback."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from mars_onnx.cost.models.engine import ArrayTime, Engine
from mars_onnx.cost.models.loops import BoolArray, Loops, ceil_div
from mars_onnx.cost.performance import FloatArray
from mars_onnx.pool import Accelerator, Design, Parameters
from mars_onnx.pool.model_parameters import WinogradParameters

#: Taps of the kernel, per dimension, after phase splitting.
KERNEL = 3


class Winograd(Engine):
    """n x n x Pn x Pm multipliers, n = m + 2: a tile of m x m outputs for Pn input and Pm output channels per cycle.

    A convolution with kernel K and stride S is cut into its S phases per dimension, each a convolution of stride 1 with
    ``ceil((K + S - 1) / S)`` taps; where that is 3 in both dimensions and dilations are 1, Winograd's algorithm applies
    (the rule of NVDLA's hardware manual), the phases being further input channels:

    ``cycles = B * groups * ceil(R / m) * ceil(C / m) * ceil(N * Sh * Sw / Pn) * ceil(M / Pm)``.

    Everything else, and what is quicker that way, runs direct, with the same multipliers on n x n pixels, one tap after
    another: ``cycles = B * groups * ceil(R / n) * ceil(C / n) * taps * ceil(N / Pn) * ceil(M / Pm)``. The rows of a
    matrix product are pixels, n * n at once.

    Traffic: outputs once; weights once per image, n * n words for 3 * 3 if they lie transformed; inputs once, or for
    every Pm output channels if an image does not fit its buffer. The transforms of inputs and outputs are pipelined in
    front of and behind the multipliers and take no time of their own.
    """

    Parameters: ClassVar[type[Parameters]] = WinogradParameters

    def __init__(self, design: Design, accelerator: Accelerator) -> None:
        """Prepare for a design on an accelerator."""
        super().__init__(design, accelerator)
        if not isinstance(design.parameters, WinogradParameters):
            raise TypeError("Winograd takes WinogradParameters")
        self._parameters = design.parameters
        self._side = design.parameters.tile_outputs + KERNEL - 1

    def applies(self, nest: Loops) -> BoolArray:
        """Whether the algorithm can be used; see the class."""
        phased_rows = ceil_div(nest.kernel_rows + nest.stride_rows - 1, nest.stride_rows)
        phased_cols = ceil_div(nest.kernel_cols + nest.stride_cols - 1, nest.stride_cols)
        found: BoolArray = (phased_rows == KERNEL) & (phased_cols == KERNEL) & nest.undilated & nest.image
        return found

    def array(self, nest: Loops, bytes_per_word: FloatArray) -> ArrayTime:
        """Cycles, traffic and buffers; see the class."""
        own, side = self._parameters, self._side
        channels_out = ceil_div(nest.out_channels, own.out_channel_parallel)
        repeats = nest.passes * nest.batch
        phases = nest.stride_rows * nest.stride_cols
        tiles = ceil_div(nest.rows, own.tile_outputs) * ceil_div(nest.cols, own.tile_outputs)
        fast = tiles * ceil_div(nest.in_channels * phases, own.in_channel_parallel) * channels_out
        squares = ceil_div(nest.rows, side) * ceil_div(nest.cols, side)
        squares = np.where(nest.matrix, ceil_div(nest.pixels, side * side), squares)
        direct = squares * nest.taps * ceil_div(nest.in_channels, own.in_channel_parallel) * channels_out
        chosen = self.applies(nest) & (fast <= direct)
        cycles = (repeats * np.where(chosen, fast, direct)).astype(np.float64)

        grown = side * side * phases / nest.taps if own.weights_transformed else 1.0
        weights = nest.weight_words * np.where(chosen, grown, 1.0) * np.where(nest.matrix, 1, nest.batch)
        image = nest.input_words / repeats * bytes_per_word
        fetches = np.where(image > own.input_buffer_bytes, channels_out, 1)
        dram = (weights + nest.input_words * fetches + nest.output_words) * bytes_per_word
        # Two blocks of rows of all input channels, of weights and of outputs.
        strip = own.tile_outputs * nest.stride_rows + nest.reach_rows - 1
        words = nest.in_channels * (strip * nest.in_cols + side * side * own.out_channel_parallel * phases)
        words = words + own.out_channel_parallel * own.tile_outputs * nest.cols
        return ArrayTime(cycles, cycles, dram, 2.0 * words * bytes_per_word)
