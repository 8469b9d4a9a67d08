"""The roofline: arithmetic at its peak rate, or memory at its bandwidth, whichever takes longer.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model", CACM 52(4), 2009. A lower bound:
real hardware loses to ragged tiles, to feeding its inputs and to refetching what does not fit its buffers.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from mars_onnx.cost.performance import SPATIAL_DIMENSIONS, Estimate, FloatArray, OpClass, Workload
from mars_onnx.pool import Accelerator, Design, Parameters, RooflineParameters


class Roofline:
    """``total_s = max(macs / peak, bytes / memory bandwidth) + overhead_s``.

    - ``peak`` is ``clock_hz * macs_per_cycle`` (multiply-accumulates per second), times the ``factor`` of a gain whose
      kernel and strides are the convolution's (dilation 1).
    - ``bytes`` counts every input, weight and output once, scaled to the design's ``data_bits`` if it has them.
    - A view (Reshape, Flatten) moves nothing and costs the overhead only.
    """

    Parameters: ClassVar[type[Parameters]] = RooflineParameters

    def __init__(self, design: Design, accelerator: Accelerator) -> None:
        """Prepare for a design on an accelerator."""
        if not isinstance(design.parameters, RooflineParameters):
            raise TypeError("the roofline takes RooflineParameters")
        self._parameters = design.parameters
        self._data_bits = design.data_bits
        self._bandwidth = accelerator.memory_bandwidth_bytes_per_s

    def estimate(self, work: Workload) -> Estimate:
        """Price work; see the class."""
        parameters = self._parameters
        active = work.elements > 0
        touches = active & (work.op_class != OpClass.VIEW)
        peak = parameters.clock_hz * parameters.macs_per_cycle
        compute_s: FloatArray = np.where(touches, work.macs / peak / self._gain(work), 0.0)
        scale = 1.0 if self._data_bits is None else self._data_bits / work.dtype_bits
        dram_bytes: FloatArray = np.where(touches, work.bytes * scale, 0.0)
        memory_s = dram_bytes / self._bandwidth
        total_s = np.maximum(compute_s, memory_s) + np.where(active, parameters.overhead_s, 0.0)
        nothing = np.zeros(work.shape)
        return Estimate(compute_s, memory_s, dram_bytes, total_s, compute_s * parameters.clock_hz, nothing)

    def _gain(self, work: Workload) -> FloatArray:
        gain: FloatArray = np.ones(work.shape)
        undilated = np.all((work.dilations == 1) | (work.kernel == 1), axis=-1) & (work.op_class == OpClass.CONV)
        for known in self._parameters.gains:
            kernel = np.asarray(_padded(known.kernel), np.int64)
            strides = np.asarray(_padded(known.strides), np.int64)
            same = np.all(work.kernel == kernel, axis=-1) & np.all(work.strides == strides, axis=-1)
            gain = np.where(same & undilated, known.factor, gain)
        return gain


def _padded(extents: tuple[int, ...]) -> tuple[int, ...]:
    return (1,) * (SPATIAL_DIMENSIONS - len(extents)) + extents
