"""Which kernel of ONNX Runtime's CPU provider computes a piece of work, and the counts that its time depends on.

The kernels are those of its library MLAS: convolutions run in a blocked layout (NCHWc) of ``vector_words`` channels;
a step of the innermost loop multiplies one input value of up to ``pixels_per_step`` pixels with the weights of up to
``blocks_per_step`` blocks of output channels. Weights of these blocks stay in a near cache while a row is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from mars_onnx.cost.models.loops import ceil_div
from mars_onnx.cost.performance import FloatArray, IntArray, OpClass, Workload
from mars_onnx.pool.cpu_parameters import CpuParameters, KernelKind

#: Kinds by number.
KINDS: tuple[str, ...] = get_args(KernelKind)
#: Counts of work, in the order of the columns of :func:`counts`; the coefficients are fields of ``KernelTime``.
COEFFICIENTS = (
    "fixed_s",
    "s_per_mmac",
    "s_per_mstep",
    "s_per_edge_mstep",
    "s_per_weight_mb",
    "s_per_input_mb",
    "s_per_output_mb",
    "s_per_far_mb",
)
#: Input channels that a pointwise convolution adds up before it writes its sums back.
_POINTWISE_CHANNELS = 128
#: Channels have to come in fours for the blocked layout.
_ALIGNMENT = 4
#: Rows that a step of a matrix product computes.
_GEMM_ROWS = 12
_MEGA = 1e6

_BY_CLASS = {
    OpClass.CONV_TRANSPOSE: "conv_columns",
    OpClass.POOL: "pool",
    OpClass.ELEMENTWISE: "elementwise",
    OpClass.NORMALIZATION: "normalization",
    OpClass.SOFTMAX: "softmax",
    OpClass.REDUCTION: "reduction",
    OpClass.MOVE: "move",
}


@dataclass(frozen=True, slots=True)
class Counts:
    """What kernels work on.

    Attributes:
        kind: Numbers of kinds, of the work's shape; -1 for no work.
        values: One column per coefficient, ``[..., len(COEFFICIENTS)]``.
    """

    kind: npt.NDArray[np.int64]
    values: FloatArray


def number(kind: str) -> int:
    """Number of a kind."""
    return KINDS.index(kind)


def counts(work: Workload, machine: CpuParameters) -> Counts:
    """The kernels of some work, and their counts."""
    kind = _kinds(work, machine)
    values = _plain(work)
    far = np.maximum(0, work.input_bytes + work.output_bytes - machine.near_cache_bytes) / _MEGA
    for kinds, found in (
        (("conv_pointwise",), _pointwise(work, machine)),
        (("conv_direct", "conv_planar", "conv_depthwise"), _direct(work, machine)),
        (("conv_columns",), _columns(work)),
        (("gemm", "gemm_batched", "gemv"), _matrix(work, machine)),
        (("pool", "pool_global"), _pool(work)),
        (("fused",), _fused(work)),
        (("view",), _stack(work, 0, 0, 0, 0, 0, 0)),
    ):
        chosen = np.isin(kind, [number(name) for name in kinds])
        values = np.where(chosen[..., None], found, values)
    far = np.where(np.isin(kind, (number("fused"), number("view"))), 0.0, far)
    return Counts(kind, np.concatenate([values, far[..., None]], axis=-1))


def _kinds(work: Workload, machine: CpuParameters) -> npt.NDArray[np.int64]:
    block = machine.vector_words
    kind = np.full(work.shape, number("other"), np.int64)
    for op_class, name in _BY_CLASS.items():
        kind = np.where(work.op_class == op_class, number(name), kind)
    for op_class, name in ((OpClass.ELEMENTWISE, "function"), (OpClass.MOVE, "transpose")):
        kind = np.where((work.op_class == op_class) & (work.effort > 0), number(name), kind)
    # Without statistics a normalisation is a product and a sum per element.
    normalizing = work.op_class == OpClass.NORMALIZATION
    kind = np.where(normalizing & (work.effort == 0), number("elementwise"), kind)
    kind = np.where(normalizing & (work.effort > 1), number("normalization_of_sum"), kind)
    # A pooling without a kernel is over the whole image.
    whole = (work.op_class == OpClass.POOL) & np.all(work.kernel == 1, axis=-1)
    kind = np.where(whole, number("pool_global"), kind)

    grouped = work.groups > 1
    per_group = work.out_channels // np.maximum(work.groups, 1)
    blocked_groups = (work.in_channels % block == 0) & (per_group % block == 0)
    aligned = np.where(grouped, blocked_groups, work.in_channels % _ALIGNMENT == 0) & (work.kernel[..., 0] == 1)
    conv = np.where(np.all(work.kernel == 1, axis=-1), number("conv_pointwise"), number("conv_direct"))
    conv = np.where(aligned, conv, number("conv_columns"))
    depthwise = grouped & (work.in_channels == 1) & (per_group == 1)
    conv = np.where(depthwise, number("conv_depthwise"), conv)
    conv = np.where(~grouped & (work.in_channels < block), number("conv_planar"), conv)
    kind = np.where(work.op_class == OpClass.CONV, conv, kind)

    # A product of activations with activations: as many right-hand sides as products.
    batched = (work.batch > 1) & (work.weight_bytes * 8 >= work.batch * work.k * work.n * work.dtype_bits)
    gemm = np.where(batched, number("gemm_batched"), number("gemm"))
    gemm = np.where((work.m * work.batch == 1) & ~batched, number("gemv"), gemm)
    kind = np.where(work.op_class == OpClass.MATMUL, gemm, kind)
    kind = np.where(work.fused > 0, number("fused"), kind)
    kind = np.where(work.op_class == OpClass.VIEW, number("view"), kind)
    found: npt.NDArray[np.int64] = np.where(work.elements > 0, kind, -1)
    return found


def _stack(work: Workload, *columns: npt.ArrayLike) -> FloatArray:
    ones = np.ones(work.shape)
    return np.stack([ones, *(ones * np.asarray(column, np.float64) / _MEGA for column in columns)], axis=-1)


def _plain(work: Workload) -> FloatArray:
    """One operation per element, and all bytes once."""
    operations = work.macs * np.maximum(work.effort, 1)
    return _stack(work, operations, 0, 0, work.weight_bytes, work.input_bytes, work.output_bytes)


def _fused(work: Workload) -> FloatArray:
    """The result of the kernel before is at hand; what is read besides is a second summand."""
    return _stack(work, 0, 0, 0, 0, np.maximum(0, work.input_bytes - work.output_bytes), work.output_bytes)


def _pool(work: Workload) -> FloatArray:
    taps = np.prod(work.kernel, axis=-1)
    return _stack(work, work.elements * taps, 0, 0, 0, work.input_bytes, work.output_bytes)


def _columns(work: Workload) -> FloatArray:
    """Every window is written out as a column of a matrix first, which a matrix product then reads."""
    pixels = work.batch * np.prod(work.out_spatial, axis=-1)
    taps = work.in_channels * np.prod(work.kernel, axis=-1)
    groups = np.maximum(work.groups, 1)
    columns = pixels * taps * groups * work.dtype_bits // 8
    steps = ceil_div(work.out_channels // groups, _GEMM_ROWS) * groups * pixels * taps
    return _stack(work, pixels * taps * work.out_channels, steps, 0, work.weight_bytes, columns, work.output_bytes)


def _padded(extent: IntArray, block: int) -> IntArray:
    return ceil_div(extent, block) * block


def _sets(work: Workload, machine: CpuParameters) -> IntArray:
    """Output channels, in as many blocks as a step computes; all groups together."""
    groups = np.maximum(work.groups, 1)
    per_group = _padded(ceil_div(work.out_channels, groups), machine.vector_words)
    return groups * ceil_div(per_group, machine.vector_words * machine.blocks_per_step)


def _pointwise(work: Workload, machine: CpuParameters) -> FloatArray:
    """Sums are written back after every 128 input channels; inputs are read for every set of output channels."""
    channels = _padded(work.in_channels, machine.vector_words)
    pixels = work.batch * np.prod(work.out_spatial, axis=-1)
    sets = _sets(work, machine)
    outputs = _padded(work.out_channels, machine.vector_words)
    steps = ceil_div(pixels, machine.pixels_per_step) * sets * channels
    rewritten = work.output_bytes * ceil_div(channels, _POINTWISE_CHANNELS)
    groups = np.maximum(work.groups, 1)
    return _stack(
        work,
        pixels * outputs * channels,
        steps,
        0,
        work.weight_bytes,
        work.input_bytes * (sets // groups),
        rewritten,
    )


def _direct(work: Workload, machine: CpuParameters) -> FloatArray:
    """Row by row; taps that fall into the padding above and below cost nothing, those beside it a step of their own."""
    depthwise = (work.groups > 1) & (work.in_channels == 1)
    block = machine.vector_words
    few = work.in_channels < block
    channels = np.where(few, work.in_channels, _padded(work.in_channels, block))
    rows = _taps_down(work) * work.kernel[..., 0] * work.out_spatial[..., 0] * work.batch
    left, right = _sides(work, 2)
    cols, step = work.out_spatial[..., 2], np.maximum(work.strides[..., 2], 1)
    edges = np.minimum(cols, ceil_div(left, step) + ceil_div(right, step))
    steps = ceil_div(cols - edges, machine.pixels_per_step) + edges
    across = work.kernel[..., 2] * rows
    outputs = _padded(work.out_channels, block)
    sets = np.where(depthwise, ceil_div(outputs, block), _sets(work, machine))
    inner = across * channels
    return _stack(
        work,
        inner * cols * outputs,
        inner * steps * sets,
        inner * edges * sets,
        work.weight_bytes,
        work.input_bytes,
        work.output_bytes,
    )


def _sides(work: Workload, dimension: int) -> tuple[IntArray, IntArray]:
    """Padding before and after that the windows reach into: what they span beyond what they read."""
    kernel, step = work.kernel[..., dimension], work.strides[..., dimension]
    reach = (kernel - 1) * work.dilations[..., dimension] + 1
    spanned = (work.out_spatial[..., dimension] - 1) * step + reach
    missing = np.where(work.in_spatial[..., dimension] > 0, np.maximum(0, spanned - work.in_spatial[..., dimension]), 0)
    # At most half a window on one side; the rest is on the other.
    first = np.minimum(missing, reach // 2)
    return first, np.minimum(missing - first, reach // 2)


def _taps_down(work: Workload) -> IntArray:
    """Rows of the kernel that meet rows of the input, over all output rows."""
    kernel, step = work.kernel[..., 1], np.maximum(work.strides[..., 1], 1)
    rows = work.out_spatial[..., 1]
    taps: IntArray = rows * kernel
    for side in _sides(work, 1):
        cut = ceil_div(side, step)
        taps = taps - (cut * side - step * cut * (cut - 1) // 2)
    left: IntArray = np.maximum(taps, rows)
    return left


def _matrix(work: Workload, machine: CpuParameters) -> FloatArray:
    """Rows in groups of a step, columns in whole vectors."""
    columns = _padded(work.n, machine.vector_words)
    sets = ceil_div(columns, machine.vector_words * machine.blocks_per_step)
    rows = ceil_div(work.m, _GEMM_ROWS)
    return _stack(
        work,
        work.batch * work.m * work.k * columns,
        work.batch * rows * work.k * sets,
        0,
        work.weight_bytes,
        work.input_bytes,
        work.output_bytes,
    )
