"""Times from profiles: a linear fit and measured points per class of operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from mars_onnx.cost.models.engine import host_seconds, refuse
from mars_onnx.cost.performance import Estimate, FloatArray, OpClass, Workload
from mars_onnx.pool import Accelerator, Design, Parameters
from mars_onnx.pool.model_parameters import MeasuredCurve, MeasuredParameters

_MEGA = 1e6


class Measured:
    """``fixed_s + a * macs + b * weight bytes + c * activation bytes``, and at least what measured points say.

    Between points time is a straight line in logarithms of work and time; below the first it is that of the first
    (launching dominates); beyond the last it grows in proportion. Classes without a curve go to the host, or are
    refused by name; views are free. What a profile measured includes memory, so ``memory_s`` is only told, not added;
    the on-chip memory in use is not known and told as 0.
    """

    Parameters: ClassVar[type[Parameters]] = MeasuredParameters

    def __init__(self, design: Design, accelerator: Accelerator) -> None:
        """Prepare for a design on an accelerator."""
        if not isinstance(design.parameters, MeasuredParameters):
            raise TypeError("Measured takes MeasuredParameters")
        self._name = design.name
        self._parameters = design.parameters
        self._data_bits = design.data_bits
        self._bandwidth = accelerator.memory_bandwidth_bytes_per_s

    def estimate(self, work: Workload) -> Estimate:
        """Price work; see the class."""
        active = work.elements > 0
        left = active & (work.op_class != OpClass.VIEW)
        scale = 1.0 if self._data_bits is None else self._data_bits / work.dtype_bits
        weight_bytes = np.asarray(work.weight_bytes * scale, np.float64)
        activation_bytes = np.asarray((work.input_bytes + work.output_bytes) * scale, np.float64)
        mmacs: FloatArray = work.macs / _MEGA
        total: FloatArray = np.zeros(work.shape)
        for curve in self._parameters.curves:
            chosen = left & np.isin(work.op_class, [int(OpClass[name.upper()]) for name in curve.classes])
            total = np.where(chosen, _seconds(curve, mmacs, weight_bytes, activation_bytes), total)
            left = left & ~chosen
        tensor_bytes = weight_bytes + activation_bytes
        if self._parameters.host is None:
            refuse(self._name, work, left)
        else:
            total = np.where(left, host_seconds(self._parameters.host, self._bandwidth, work, tensor_bytes), total)
        moved = np.where(active & (work.op_class != OpClass.VIEW), tensor_bytes, 0.0)
        nothing = np.zeros(work.shape)
        return Estimate(total, moved / self._bandwidth, moved, total, nothing, nothing)


def _seconds(
    curve: MeasuredCurve, mmacs: FloatArray, weight_bytes: FloatArray, activation_bytes: FloatArray
) -> FloatArray:
    fitted: FloatArray = (
        curve.fixed_s
        + curve.s_per_mmac * mmacs
        + curve.s_per_weight_mb * weight_bytes / _MEGA
        + curve.s_per_activation_mb * activation_bytes / _MEGA
    )
    if not curve.points:
        return fitted
    measured, seconds = np.asarray(curve.points, np.float64).T
    inside = np.exp(np.interp(np.log(np.maximum(mmacs, measured[0])), np.log(measured), np.log(seconds)))
    longest: FloatArray = np.maximum(fitted, inside * np.maximum(1.0, mmacs / measured[-1]))
    return longest


def fit(features: npt.ArrayLike, seconds: npt.ArrayLike) -> FloatArray:
    """Coefficients of a curve from profiles, none of them negative, least squares of the relative error.

    Lawson and Hanson's active sets would be exact; this drops the most negative coefficient until none is left, which
    is the same for the few columns here unless columns nearly repeat each other.

    Args:
        features: One row per profile: 1, 10^6 multiply-accumulates, 10^6 weight bytes, 10^6 activation bytes, in this
            order; fewer columns are fine.
        seconds: Measured times.
    """
    matrix, times = np.asarray(features, np.float64), np.asarray(seconds, np.float64)
    rows = matrix / times[:, None]
    kept: Sequence[int] = range(matrix.shape[1])
    while len(kept):
        found = np.linalg.lstsq(rows[:, list(kept)], np.ones(len(times)), rcond=None)[0]
        if np.all(found >= 0):
            result = np.zeros(matrix.shape[1])
            result[list(kept)] = found
            return result
        kept = [column for place, column in enumerate(kept) if place != int(np.argmin(found))]
    return np.zeros(matrix.shape[1])
