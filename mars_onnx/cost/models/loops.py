"""Convolutions, transposed convolutions and matrix products as one loop nest, whose extents are arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mars_onnx.cost.performance import FloatArray, IntArray, OpClass, Workload

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Loops:
    """``passes`` times a convolution of one group over ``batch`` images. Arrays of the workload's shape, at least 1.

    - A group is a convolution of its own: a multiplier array cannot mix the channels of several.
    - A three-dimensional image is one of ``depth * height`` rows.
    - A matrix product of m x k by k x n is a 1x1 convolution from k to n channels over m pixels in one row.
    - A transposed convolution is ``prod(strides)`` convolutions with stride 1, one per phase of the output, each with
      every stride-th tap of the kernel (Shi et al., "Is the deconvolution layer the same as a convolutional layer?",
      2016): no multiplication by the zeros in between.

    Attributes:
        passes: Groups, times phases of a transposed convolution.
        batch: Images.
        out_channels: Of one group (M in the publications).
        in_channels: Of one group (N).
        rows: Output rows (R).
        cols: Output columns (C).
        kernel_rows: Taps along rows, those along depth included.
        kernel_cols: Taps along columns.
        stride_rows: Step between rows of the window.
        stride_cols: Step between columns.
        reach_rows: Input rows that a window spans, dilation included.
        reach_cols: Input columns.
        in_rows: Input rows that are there to be read, without padding.
        in_cols: Input columns.
        matrix: Whether it is a matrix product.
        undilated: Whether dilations are 1 (or have nothing to dilate).
        image: Whether it is an ordinary convolution of at most two dimensions: not three, not transposed, no product.
    """

    passes: IntArray
    batch: IntArray
    out_channels: IntArray
    in_channels: IntArray
    rows: IntArray
    cols: IntArray
    kernel_rows: IntArray
    kernel_cols: IntArray
    stride_rows: IntArray
    stride_cols: IntArray
    reach_rows: IntArray
    reach_cols: IntArray
    in_rows: IntArray
    in_cols: IntArray
    matrix: BoolArray
    undilated: BoolArray
    image: BoolArray

    @property
    def taps(self) -> IntArray:
        """K^2 in the publications."""
        return self.kernel_rows * self.kernel_cols

    @property
    def pixels(self) -> IntArray:
        """Output pixels of one image."""
        return self.rows * self.cols

    @property
    def input_words(self) -> FloatArray:
        """Elements of all inputs, each once per group and phase (phases run one after another)."""
        images: IntArray = self.passes * self.batch * self.in_channels * self.in_rows * self.in_cols
        return images.astype(np.float64)

    @property
    def weight_words(self) -> FloatArray:
        """Elements of all weights; every image of a batch of matrix products has its own."""
        words: IntArray = self.passes * self.out_channels * self.in_channels * self.taps
        return np.where(self.matrix, words * self.batch, words).astype(np.float64)

    @property
    def output_words(self) -> FloatArray:
        """Elements of the output."""
        words: IntArray = self.passes * self.batch * self.out_channels * self.pixels
        return words.astype(np.float64)


def ceil_div(value: IntArray, divisor: IntArray | int) -> IntArray:
    """Division rounded up."""
    result: IntArray = -(-value // divisor)
    return result


def loops(work: Workload) -> Loops:
    """The loop nests of a workload. Where it is none of these classes, all extents are 1."""
    conv, transposed = work.op_class == OpClass.CONV, work.op_class == OpClass.CONV_TRANSPOSE
    matrix = work.op_class == OpClass.MATMUL
    windowed = conv | transposed

    def pick(convolution: IntArray, product: IntArray | None = None) -> IntArray:
        others = 1 if product is None else np.where(matrix, product, 1)
        chosen: IntArray = np.maximum(1, np.where(windowed, convolution, others))
        return chosen

    kernel, strides, dilations = work.kernel, work.strides, np.where(work.kernel > 1, work.dilations, 1)
    out, given = work.out_spatial, work.in_spatial
    taps, extents, steps, phases = kernel, out, strides, np.asarray(1, np.int64)
    if transposed.any():
        phased = transposed[..., None]
        # A dilation that shares a factor with the stride leaves phases without taps; this counts them as if they had
        # some.
        taps = np.where(phased, ceil_div(kernel, strides), kernel)
        extents = np.where(phased, ceil_div(out, strides), out)
        steps = np.where(phased, 1, strides)
        phases = np.where(transposed, strides.prod(axis=-1), 1)
    reach = (taps - 1) * dilations + 1
    unpadded = (extents - 1) * steps + reach
    read = np.where(given > 0, given, unpadded)
    groups = pick(work.groups)

    def merged(values: IntArray) -> IntArray:
        return pick(values[..., 0] * values[..., 1])

    return Loops(
        passes=groups * phases,
        batch=pick(work.batch, work.batch),
        out_channels=pick(ceil_div(work.out_channels, np.maximum(1, work.groups)), work.n),
        in_channels=pick(work.in_channels, work.k),
        rows=merged(extents),
        cols=pick(extents[..., 2], work.m),
        kernel_rows=merged(taps),
        kernel_cols=pick(taps[..., 2]),
        stride_rows=pick(steps[..., 1]),
        stride_cols=pick(steps[..., 2]),
        reach_rows=merged(reach),
        reach_cols=pick(reach[..., 2]),
        in_rows=merged(read),
        in_cols=pick(read[..., 2], work.m),
        matrix=matrix | np.zeros(work.shape, bool),
        undilated=np.all(dilations == 1, axis=-1) | ~windowed,
        image=conv & (extents[..., 0] == 1) & (kernel[..., 0] == 1),
    )
