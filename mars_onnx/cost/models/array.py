"""Pixel- and channel-parallel arrays: AMD's DPU family, and cnn_accel with the feed of its inputs."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from mars_onnx.cost.models.engine import ArrayTime, Engine
from mars_onnx.cost.models.feed import packets
from mars_onnx.cost.models.loops import BoolArray, Loops, ceil_div, loops
from mars_onnx.cost.performance import FloatArray, OpClass, Workload
from mars_onnx.pool import Accelerator, Design, Parameters
from mars_onnx.pool.model_parameters import ArrayParameters


class PixelChannelArray(Engine):
    """P pixels x I input channels x O output channels at once, one tap of the kernel after another.

    ``compute = B groups ceil(pixels / P) ceil(N / I) ceil(M / O) K^2`` cycles (AMD PG338, "hardware architecture";
    Chen and Wu, FPGA 2023), where N is padded to the channels of a packet if inputs come in packets.

    With a ``feed``, each of the ``ceil(M / O)`` sweeps over the image is as long as the longest of three, which FIFOs
    keep apart: the multipliers; the packets, ``ceil(N / channels) * packets + header * tiles`` cycles of the feed's
    clock (:func:`mars_onnx.cost.models.feed.packets`); and the way out, ``O / outputs_per_cycle`` cycles a tile. Once
    per operator comes ``startup_cycles``.

    With a ``feed``, pooling is fed the same way; its unit does P pixels of a packet's channels, one tap per cycle. With
    ``matrix_bytes_per_s``, a matrix product is a stream of its weights, once per row.
    """

    Parameters: ClassVar[type[Parameters]] = ArrayParameters

    def __init__(self, design: Design, accelerator: Accelerator) -> None:
        """Prepare for a design on an accelerator."""
        super().__init__(design, accelerator)
        if not isinstance(design.parameters, ArrayParameters):
            raise TypeError("PixelChannelArray takes ArrayParameters")
        self._parameters = design.parameters

    def array(self, nest: Loops, bytes_per_word: FloatArray) -> ArrayTime:
        """Cycles, traffic and buffers; see the class."""
        own, feed = self._parameters, self._parameters.feed
        sweeps = ceil_div(nest.out_channels, own.out_channel_parallel)
        tiles = ceil_div(nest.pixels, own.pixel_parallel)
        channels = nest.in_channels
        if feed:
            channels = ceil_div(channels, feed.channels) * feed.channels
        repeats = nest.passes * nest.batch
        sweep = (tiles * ceil_div(channels, own.in_channel_parallel) * nest.taps).astype(np.float64)
        compute = repeats * sweeps * sweep
        cycles = compute
        if feed:
            slices = channels // feed.channels
            fed = slices * packets(nest, own.pixel_parallel, feed.pixels) + feed.header_packets * tiles
            out = tiles * (own.out_channel_parallel / feed.outputs_per_cycle)
            slower = np.maximum(fed, out) * (own.clock_hz / feed.clock_hz)
            startup = feed.startup_cycles * (own.clock_hz / feed.clock_hz)
            cycles = repeats * sweeps * np.maximum(sweep, slower) + startup
        image = nest.input_words / repeats * bytes_per_word
        fetches = np.where(image > own.input_buffer_bytes, sweeps, 1)
        words = nest.output_words + nest.input_words * fetches
        if own.activations_resident:
            words = np.zeros_like(words)
        if not own.weights_resident:
            words = words + nest.weight_words
        window = nest.reach_rows * nest.in_cols * nest.in_channels
        block = nest.taps * nest.in_channels * own.out_channel_parallel
        held: FloatArray = 2.0 * (window + block + own.pixel_parallel * own.out_channel_parallel)
        return ArrayTime(compute, cycles, words * bytes_per_word, held * bytes_per_word)

    def traffic(self, time: ArrayTime, tensor_bytes: FloatArray) -> FloatArray:
        """Tensors that stay on chip do not pass through memory."""
        if self._parameters.activations_resident or self._parameters.weights_resident:
            return time.dram_bytes
        return super().traffic(time, tensor_bytes)

    def vector_traffic(self, tensor_bytes: FloatArray) -> FloatArray:
        """None, where activations stay on chip."""
        return np.zeros_like(tensor_bytes) if self._parameters.activations_resident else tensor_bytes

    def beside(self, work: Workload) -> tuple[BoolArray, FloatArray] | None:
        """Pooling behind the feed, and matrix products as a stream of weights."""
        own, feed = self._parameters, self._parameters.feed
        chosen, cycles = np.zeros(work.shape, bool), np.zeros(work.shape)
        startup = feed.startup_cycles / feed.clock_hz * own.clock_hz if feed else 0.0
        if feed and own.vector and "pool" in own.vector.classes:
            pooled = work.op_class == OpClass.POOL
            nest = loops(_as_convolution(work))
            tiles = ceil_div(nest.pixels, own.pixel_parallel)
            taps = work.macs / np.maximum(1, work.elements)
            fed = np.maximum(packets(nest, own.pixel_parallel, feed.pixels), tiles * taps)
            slices = ceil_div(nest.out_channels, feed.channels)
            per_image = (slices * fed + feed.header_packets * tiles) * (own.clock_hz / feed.clock_hz)
            chosen, cycles = chosen | pooled, np.where(pooled, nest.batch * per_image + startup, cycles)
        if own.matrix_bytes_per_s:
            product = work.op_class == OpClass.MATMUL
            streamed = (work.batch * work.m * work.n * work.k) * self._word_bytes(work) / own.matrix_bytes_per_s
            chosen, cycles = chosen | product, np.where(product, streamed * own.clock_hz + startup, cycles)
        return chosen, cycles

    def beside_traffic(self, work: Workload, tensor_bytes: FloatArray) -> FloatArray:
        """Weights of a matrix product stream by once per row; other data stays where convolutions leave it."""
        streamed = (work.batch * work.m * work.n * work.k) * self._word_bytes(work)
        resident = 0.0 if self._parameters.activations_resident else tensor_bytes
        traffic: FloatArray = np.where(work.op_class == OpClass.MATMUL, streamed + resident, resident)
        return traffic

    def _word_bytes(self, work: Workload) -> FloatArray:
        bits = work.dtype_bits if self._data_bits is None else self._data_bits
        return np.asarray(bits, np.float64) / 8


def _as_convolution(work: Workload) -> Workload:
    """The windows of poolings, as those of convolutions with one input channel."""
    extents = {name: getattr(work, name) for name in Workload.__slots__}
    whole = np.all(work.kernel == 1, axis=-1) & (work.macs > work.elements)
    # A global pooling has no kernel in its attributes: its window is the image.
    kernel = np.where(whole[..., None] & (work.in_spatial > 0), work.in_spatial, work.kernel)
    return Workload(**(extents | {"op_class": np.full_like(work.op_class, OpClass.CONV), "kernel": kernel}))
