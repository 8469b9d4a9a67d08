"""Systolic arrays: weight-, output- and input-stationary, in the cycles of SCALE-Sim."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from mars_onnx.cost.models.engine import ArrayTime, Engine
from mars_onnx.cost.models.loops import Loops, ceil_div
from mars_onnx.cost.performance import FloatArray, IntArray
from mars_onnx.pool import Accelerator, Design, Parameters
from mars_onnx.pool.model_parameters import SystolicParameters


class Systolic(Engine):
    """H x W cells with V multipliers each.

    With M output pixels (of all images), N filters and a reduction of K = taps * ceil(channels / V) steps, a
    *fold* is what fits the array at once, and takes, in cycles:

    ======  ==========================  =====================  ======================
    flow    folds                       fill and drain         stream
    ======  ==========================  =====================  ======================
    ws      ceil(K / H) * ceil(N / W)   2 H + W - 2            M
    os      ceil(M / H) * ceil(N / W)   H + W - 2              K
    is      ceil(K / H) * ceil(M / W)   2 H + W - 2            N
    ======  ==========================  =====================  ======================

    ``cycles = folds * (fill and drain + stream) - 1``: exactly the compute cycles of SCALE-Sim 3.0.0 (its total less
    its stalls; Samajdar et al., ISPASS 2020). With ``fold_overlap`` fill and drain count once: the next fold enters
    while the last one leaves, as in arrays whose cells hold two sets of operands (Wei et al., DAC 2017). Groups, and
    products of a batch, follow one another.

    Traffic: the stationary operand once. What streams past it is read again for each fold across it unless it fits its
    buffer (os: inputs or weights, whichever is less); partial sums (ws, is) that do not fit theirs are written and read
    for every fold of the reduction after the first.
    """

    Parameters: ClassVar[type[Parameters]] = SystolicParameters

    def __init__(self, design: Design, accelerator: Accelerator) -> None:
        """Prepare for a design on an accelerator."""
        super().__init__(design, accelerator)
        if not isinstance(design.parameters, SystolicParameters):
            raise TypeError("Systolic takes SystolicParameters")
        self._parameters = design.parameters

    def array(self, nest: Loops, bytes_per_word: FloatArray) -> ArrayTime:
        """Cycles, traffic and buffers; see the class."""
        own = self._parameters
        high, wide = own.rows, own.columns
        # Every product of a batch has weights of its own; images of a convolution share them.
        repeats = np.where(nest.matrix, nest.passes * nest.batch, nest.passes)
        pixels = np.where(nest.matrix, nest.pixels, nest.pixels * nest.batch)
        filters, depth = nest.out_channels, nest.taps * ceil_div(nest.in_channels, own.cell_multipliers)
        deep, across = ceil_div(depth, high), ceil_div(filters, wide)
        match own.dataflow:
            case "ws":
                folds, fill, stream = deep * across, 2 * high + wide - 2, pixels
            case "os":
                folds, fill, stream = ceil_div(pixels, high) * across, high + wide - 2, depth
            case _:
                across = ceil_div(pixels, wide)
                folds, fill, stream = deep * across, 2 * high + wide - 2, filters
        per_pass = folds * stream + fill if own.fold_overlap else folds * (stream + fill) - 1
        cycles = (repeats * per_pass).astype(np.float64)
        inputs, weights, outputs = (
            words / repeats * bytes_per_word for words in (nest.input_words, nest.weight_words, nest.output_words)
        )
        spills = np.where(outputs > own.output_buffer_bytes, 2 * (deep - 1), 0)
        again_inputs = inputs * np.where(inputs > own.input_buffer_bytes, across, 1)
        match own.dataflow:
            case "ws":
                traffic = again_inputs + weights + outputs * (1.0 + spills)
            case "os":
                again_weights = weights * np.where(weights > own.weight_buffer_bytes, ceil_div(pixels, high), 1)
                traffic = np.minimum(again_inputs + weights, inputs + again_weights) + outputs
            case _:
                again_weights = weights * np.where(weights > own.weight_buffer_bytes, across, 1)
                traffic = inputs + again_weights + outputs * (1.0 + spills)
        return ArrayTime(cycles, cycles, repeats * traffic, self._buffers(pixels, filters, depth) * bytes_per_word)

    def _buffers(self, pixels: IntArray, filters: IntArray, depth: IntArray) -> FloatArray:
        """Words of two folds: what stays, what streams past, and what comes out."""
        own = self._parameters
        high, wide, lanes = own.rows, own.columns, own.cell_multipliers
        match own.dataflow:
            case "ws":
                one = high * wide * lanes + pixels * high * lanes + pixels * wide
            case "os":
                one = high * wide + depth * (high + wide) * lanes
            case _:
                one = high * wide * lanes + filters * high * lanes + filters * wide
        return (2 * one).astype(np.float64)
