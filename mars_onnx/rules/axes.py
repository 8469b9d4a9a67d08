"""Iteration axes and the maps from ranges of axes to ranges of tensor dimensions.

Everything here accepts numpy arrays: a range of an axis is a pair ``(low, high)`` of integer arrays of one shape (one
entry per member, or per strategy and member), and a map returns such a pair. So one call gives the boxes of all
members, and later of all strategies. An empty range is any with ``low >= high``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
AxisRange = tuple[IntArray, IntArray]
Ranges = Mapping[str, AxisRange]

#: An end of a range, or those of many.
_Bound = TypeVar("_Bound", int, IntArray)


@dataclass(frozen=True, slots=True)
class Axis:
    """One loop of an operator.

    Attributes:
        name: As a person writes it in a strategy: ``Cout``, ``H``, ``M``.
        size: Number of iterations.
        reduction: Whether splitting it leaves partial results.
        granularity: Cuts fall on multiples of this many iterations (a granule: a head, a group of channels).
        divisible: Whether a granule may be shared out among members too, where there are more members than granules.
    """

    name: str
    size: int
    reduction: bool = False
    granularity: int = 1
    divisible: bool = False


class DimMap(Protocol):
    """Which range of one tensor dimension some ranges of the axes touch."""

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes that the range depends on."""
        ...

    def __call__(self, ranges: Ranges) -> AxisRange:
        """The touched range, clipped to the dimension."""
        ...


def constant(value: int) -> IntArray:
    """A 0-d array that broadcasts against any range."""
    return np.asarray(value, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Whole:
    """Always the whole dimension."""

    size: int

    @property
    def axes(self) -> tuple[str, ...]:
        return ()

    def __call__(self, ranges: Ranges) -> AxisRange:
        return constant(0), constant(self.size)


@dataclass(frozen=True, slots=True)
class Along:
    """The axis itself, moved by ``offset`` and clipped to ``0..size`` (``None``: no clipping is needed).

    With an offset it says which part of an operand of Concat, or of a Slice with step 1, a range touches.
    """

    axis: str
    offset: int = 0
    size: int | None = None

    @property
    def axes(self) -> tuple[str, ...]:
        return (self.axis,)

    def __call__(self, ranges: Ranges) -> AxisRange:
        low, high = ranges[self.axis]
        if self.size is None:
            return (low + self.offset, high + self.offset) if self.offset else (low, high)
        return clipped(low + self.offset, self.size), clipped(high + self.offset, self.size)


@dataclass(frozen=True, slots=True)
class Window:
    """Input rows under a range of output rows of a sliding window, and under a range of the kernel's rows.

    Attributes:
        axis: The output axis.
        kernel_axis: The reduction axis over the kernel's rows, or ``None`` if the kernel is never split.
        kernel: Extent of the kernel.
        stride: Step of the window.
        dilation: Step inside the window.
        pad: Padding before the first input row.
        size: Extent of the input dimension.
    """

    axis: str
    kernel_axis: str | None
    kernel: int
    stride: int
    dilation: int
    pad: int
    size: int

    @property
    def axes(self) -> tuple[str, ...]:
        return (self.axis,) if self.kernel_axis is None else (self.axis, self.kernel_axis)

    def unclipped(self, ranges: Ranges) -> AxisRange:
        """The touched rows in input coordinates, padding included: below 0 and from ``size`` on lies padding."""
        low, high = ranges[self.axis]
        first, last = (constant(0), constant(self.kernel)) if self.kernel_axis is None else ranges[self.kernel_axis]
        return self._touched(low, high, first, last)

    def _touched(self, low: _Bound, high: _Bound, first: _Bound, last: _Bound) -> tuple[_Bound, _Bound]:
        """The same of output rows ``low:high`` and kernel rows ``first:last``."""
        start = low * self.stride - self.pad + first * self.dilation
        stop = (high - 1) * self.stride - self.pad + (last - 1) * self.dilation + 1
        return start, stop

    def __call__(self, ranges: Ranges) -> AxisRange:
        start, stop = self.unclipped(ranges)
        return clipped(start, self.size), clipped(stop, self.size)

    def pads(self, low: int, high: int, first: int, last: int) -> tuple[int, int]:
        """Padding before and after that a local window over output ``low:high``, kernel ``first:last`` needs."""
        start, stop = self._touched(low, high, first, last)
        return max(0, -start), max(0, stop - self.size)


def clipped(bound: IntArray, size: int) -> IntArray:
    """Bounds, clipped to a dimension; ``np.clip`` takes twice as long."""
    inside: IntArray = np.minimum(np.maximum(bound, 0), size)
    return inside
