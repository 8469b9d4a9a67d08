"""The parameters of the performance model of a CPU that runs ONNX Runtime. Formulas: docs/cost-model.md, `cpu`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mars_onnx.pool.numbers import Bytes, Count, Parameters, Text

#: Kinds of kernels that differ in how their time follows from the shape.
KernelKind = Literal[
    "conv_pointwise",
    "conv_direct",
    "conv_planar",
    "conv_depthwise",
    "conv_columns",
    "gemm",
    "gemm_batched",
    "gemv",
    "pool",
    "pool_global",
    "elementwise",
    "function",
    "normalization",
    "normalization_of_sum",
    "softmax",
    "reduction",
    "move",
    "transpose",
    "view",
    "fused",
    "other",
]
Coefficient = Annotated[float, Field(strict=True, ge=0, le=1e6, allow_inf_nan=False)]


class KernelTime(Parameters):
    """What a kind of kernel takes: a sum of products of these and of counts of the work, none of them negative.

    Attributes:
        kinds: Which kernels; "fused" is what an operator adds to the kernel before that takes it up.
        fixed_s: Of every call.
        s_per_mmac: Per 10^6 multiply-accumulates, with channels padded to whole vectors; per 10^6 element operations
            of what has none.
        s_per_mstep: Per 10^6 steps of the innermost loop, which does ``pixels_per_step`` pixels, or fewer at the end
            of a row.
        s_per_edge_mstep: Per 10^6 steps at the padded ends of rows, which do one pixel.
        s_per_weight_mb: Per 10^6 bytes of weights.
        s_per_input_mb: Per 10^6 bytes of inputs, as often as they are read.
        s_per_output_mb: Per 10^6 bytes of outputs, as often as they are written.
        s_per_far_mb: Per 10^6 bytes of inputs and outputs, each once, beyond what the near cache holds.
        samples: How many measured kernels the figures are from.
        median_error: Median of the relative error on kernels that were left out of the fit; ``None``: too few.
        source: What was measured, how.
    """

    kinds: Annotated[tuple[KernelKind, ...], Field(min_length=1)]
    fixed_s: Coefficient = 0.0
    s_per_mmac: Coefficient = 0.0
    s_per_mstep: Coefficient = 0.0
    s_per_edge_mstep: Coefficient = 0.0
    s_per_weight_mb: Coefficient = 0.0
    s_per_input_mb: Coefficient = 0.0
    s_per_output_mb: Coefficient = 0.0
    s_per_far_mb: Coefficient = 0.0
    samples: Annotated[int, Field(strict=True, ge=0, le=10**7)] = 0
    median_error: Coefficient | None = None
    source: Text


class CpuParameters(Parameters):
    """ONNX Runtime's kernels on some cores.

    Attributes:
        vector_words: Channels of a block: of the blocked layout, 16 with 512-bit vectors, 8 with 256-bit ones.
        blocks_per_step: Blocks of output channels that a step computes.
        pixels_per_step: Pixels of a row that a step computes.
        near_cache_bytes: Of a core's own cache.
        kernels: One per kind of kernel, or for several. A kind without one is refused by name; "fused" and
            "view" are then free.
    """

    vector_words: Count = 16
    blocks_per_step: Count = 4
    pixels_per_step: Count = 6
    near_cache_bytes: Bytes = 2**20
    kernels: Annotated[tuple[KernelTime, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _once(self) -> CpuParameters:
        named = [kind for kernel in self.kernels for kind in kernel.kinds]
        if len(named) != len(set(named)):
            raise ValueError("a kind of kernel is priced more than once")
        return self
