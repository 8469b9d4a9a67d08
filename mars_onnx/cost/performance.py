"""What a performance model is: from the local work of a node to the time it takes, for many shapes at once.

A design names its model (``Design.model``); :func:`performance_model` finds it, among the ones that mars_onnx ships or
among the entry points of the group ``mars_onnx.performance_models``. Callers see this interface only, so a finer model
replaces a coarser one by a change in a design file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from mars_onnx.errors import InputError
from mars_onnx.pool import Accelerator, Design, Parameters
from mars_onnx.pool.parameters import ENTRY_POINTS

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

#: Most spatial dimensions that loop extents are kept of, in the order D, H, W; absent ones have extent 1.
SPATIAL_DIMENSIONS = 3

_OWN = {
    "array": "mars_onnx.cost.models.array:PixelChannelArray",
    "cpu": "mars_onnx.cost.models.cpu:CpuKernels",
    "measured": "mars_onnx.cost.models.measured:Measured",
    "roofline": "mars_onnx.cost.models.roofline:Roofline",
    "systolic": "mars_onnx.cost.models.systolic:Systolic",
    "tiled": "mars_onnx.cost.models.tiled:TiledLoops",
    "winograd": "mars_onnx.cost.models.winograd:Winograd",
}

#: Attributes of a workload that have an entry per spatial dimension.
_SPATIAL = ("out_spatial", "in_spatial", "kernel", "strides", "dilations")


class OpClass(IntEnum):
    """What kind of work an operator is, as far as hardware cares."""

    OTHER = 0
    CONV = 1
    CONV_TRANSPOSE = 2
    MATMUL = 3
    POOL = 4
    ELEMENTWISE = 5
    NORMALIZATION = 6
    SOFTMAX = 7
    REDUCTION = 8
    MOVE = 9  #: Copies elements: Transpose, Concat, Slice.
    VIEW = 10  #: Gives a tensor another shape and touches no element.


@dataclass(frozen=True, slots=True)
class Workload:
    """The local work of nodes. All arrays have one common shape, ``shape``, of any rank (members, strategies, ...).

    ``out_spatial``, ``in_spatial``, ``kernel``, ``strides`` and ``dilations`` have one more dimension at the end, of
    ``SPATIAL_DIMENSIONS``. An extent that a class has no use for is 1. A share without work has ``elements`` 0.

    Attributes:
        op_class: Values of :class:`OpClass`.
        elements: Elements of the outputs.
        macs: Multiply-accumulates, or element operations of what has none.
        input_bytes: Activations read, in the width of their types.
        weight_bytes: Weights read.
        output_bytes: Written.
        dtype_bits: Width of an element of the first output.
        batch: Batch of a convolution, pooling or matrix product.
        out_channels: Of a convolution or pooling, all groups together.
        in_channels: Of a convolution, within one group.
        groups: Of a convolution.
        out_spatial: Output extents of a convolution or pooling.
        in_spatial: Extents of what it reads of its input, without padding; 0 if not known.
        kernel: Extents of its kernel.
        strides: Steps of its window.
        dilations: Steps inside its window.
        m: Rows of a matrix product.
        n: Its columns.
        k: Its reduction.
        fused: 1 where a runtime that fuses operators computes this together with the operator before: see
            ``mars_onnx.cost.fusion``. A model of hardware that does not may ignore it.
        effort: How much an element asks for within its class: 0 what is simple (sums, products, comparisons, copies in
            order), 1 a function (exp, erf, tanh), a copy in another order, statistics; 2 what is made of several,
            or a normalisation together with the sum before it.
    """

    op_class: IntArray
    elements: IntArray
    macs: IntArray
    input_bytes: IntArray
    weight_bytes: IntArray
    output_bytes: IntArray
    dtype_bits: IntArray
    batch: IntArray
    out_channels: IntArray
    in_channels: IntArray
    groups: IntArray
    out_spatial: IntArray
    in_spatial: IntArray
    kernel: IntArray
    strides: IntArray
    dilations: IntArray
    m: IntArray
    n: IntArray
    k: IntArray
    fused: IntArray
    effort: IntArray

    @property
    def shape(self) -> tuple[int, ...]:
        """The common shape."""
        return self.elements.shape

    @property
    def bytes(self) -> IntArray:
        """Read and written together, each tensor once."""
        return self.input_bytes + self.weight_bytes + self.output_bytes

    @staticmethod
    def of(shape: tuple[int, ...] = (), **extents: npt.ArrayLike) -> Workload:
        """A workload from what matters for its class; ``op_class``, counts and bytes are 0 and extents 1 if not given.

        Args:
            shape: The common shape; values are broadcast to it.
            extents: Attributes of this class by name.
        """
        nothing = ("op_class", "elements", "macs", "input_bytes", "weight_bytes", "output_bytes", "fused", "effort")
        defaults = dict.fromkeys(nothing, 0)
        defaults |= {"dtype_bits": 32, "in_spatial": 0}
        arrays: dict[str, IntArray] = {}
        for name in Workload.__slots__:
            value = np.asarray(extents.pop(name, defaults.get(name, 1)), np.int64)
            full = (*shape, SPATIAL_DIMENSIONS) if name in _SPATIAL else shape
            if value.shape != full:
                # Quicker than a view by np.broadcast_to, which took as long as all else here.
                given, value = value, np.empty(full, np.int64)
                value[...] = given
            arrays[name] = value
        if extents:
            raise TypeError(f"a workload has no {', '.join(sorted(extents))}")
        return Workload(**arrays)

    @staticmethod
    def joined(works: Sequence[Workload]) -> Workload:
        """Several workloads, one after the other, in one dimension."""
        arrays: dict[str, IntArray] = {}
        for name in Workload.__slots__:
            tail = (SPATIAL_DIMENSIONS,) if name in _SPATIAL else ()
            arrays[name] = np.concatenate([getattr(work, name).reshape(-1, *tail) for work in works])
        return Workload(**arrays)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a model says of a workload; arrays of the workload's shape.

    Attributes:
        compute_s: Seconds of arithmetic, if data were always there.
        memory_s: Seconds of traffic between memory and arithmetic.
        dram_bytes: That traffic.
        total_s: Seconds in all; what of the two overlaps is the model's to say.
        cycles: Of the design's clock, until the accelerator is done if its memory kept up with its ports; 0 for what
            runs on the host or is a matter of memory alone.
        buffer_bytes: On-chip memory that this takes.
    """

    compute_s: FloatArray
    memory_s: FloatArray
    dram_bytes: FloatArray
    total_s: FloatArray
    cycles: FloatArray
    buffer_bytes: FloatArray


class PerformanceModel(Protocol):
    """The time that one accelerator, configured as one design, takes for work."""

    #: Type of the design's ``parameters``.
    Parameters: ClassVar[type[Parameters]]

    def __init__(self, design: Design, accelerator: Accelerator) -> None:
        """Prepare for a design on an accelerator."""
        ...

    def estimate(self, work: Workload) -> Estimate:
        """Price work. Finite and not negative for every legal shape; 0 where there is no work.

        Raises:
            InputError: The design cannot run some of it, and has no host to do so.
        """
        ...


@cache
def performance_model(design: Design, accelerator: Accelerator) -> PerformanceModel:
    """The performance model of a design on an accelerator.

    Raises:
        InputError: The design's model is not installed, or refuses its parameters.
    """
    kind = _model_class(design.model)
    if not isinstance(design.parameters, kind.Parameters):
        raise InputError(
            f"the design {design.name!r} has {type(design.parameters).__name__}; "
            f"its performance model {design.model!r} takes {kind.Parameters.__name__}"
        )
    return kind(design, accelerator)


def _model_class(name: str) -> type[PerformanceModel]:
    if name in _OWN:
        module, _, attribute = _OWN[name].partition(":")
        own: type[PerformanceModel] = getattr(import_module(module), attribute)
        return own
    for point in entry_points(group=ENTRY_POINTS, name=name):
        found: Any = point.load()
        plugin: type[PerformanceModel] = found
        return plugin
    raise InputError(f"no performance model is called {name!r}; is the package that brings it installed?")
