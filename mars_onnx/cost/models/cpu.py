"""A CPU that runs ONNX Runtime: times of its kernels, fitted to what was measured on it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from mars_onnx.cost.models.kernels import COEFFICIENTS, KINDS, counts, number
from mars_onnx.cost.performance import Estimate, FloatArray, OpClass, Workload
from mars_onnx.errors import InputError
from mars_onnx.pool import Accelerator, Design, Parameters
from mars_onnx.pool.cpu_parameters import CpuParameters


class CpuKernels:
    """Per kind of kernel a sum of ``coefficient * count``; see :mod:`mars_onnx.cost.models.kernels` for the counts.

    What was measured includes memory, so ``memory_s`` is only told, not added. The on-chip memory in
    use is not known and told as 0.
    """

    Parameters: ClassVar[type[Parameters]] = CpuParameters

    def __init__(self, design: Design, accelerator: Accelerator) -> None:
        """Prepare for a design on an accelerator."""
        if not isinstance(design.parameters, CpuParameters):
            raise TypeError("CpuKernels takes CpuParameters")
        self._name = design.name
        self._machine = design.parameters
        self._bandwidth = accelerator.memory_bandwidth_bytes_per_s
        self._table = np.zeros((len(KINDS) + 1, len(COEFFICIENTS)))
        self._known = {number("fused"), number("view"), -1}
        for kernel in design.parameters.kernels:
            for kind in kernel.kinds:
                self._table[number(kind)] = [getattr(kernel, name) for name in COEFFICIENTS]
                self._known.add(number(kind))

    def estimate(self, work: Workload) -> Estimate:
        """Price work; see the class."""
        found = counts(work, self._machine)
        for kind in np.unique(found.kind):
            if int(kind) not in self._known:
                raise InputError(
                    f"the design {self._name!r} has no times of kernels of the kind {KINDS[kind]!r}; "
                    "give it an entry in `kernels`, or calibrate again"
                )
        total: FloatArray = (self._table[found.kind] * found.values).sum(axis=-1)
        moved: FloatArray = np.where(
            (work.elements > 0) & (work.op_class != OpClass.VIEW), work.bytes.astype(np.float64), 0.0
        )
        nothing = np.zeros(work.shape)
        return Estimate(total, moved / self._bandwidth, moved, total, nothing, nothing)
