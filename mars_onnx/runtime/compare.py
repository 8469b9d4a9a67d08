"""Compare arrays with a reference, with a tolerance that has a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mars_onnx.errors import VerificationError
from mars_onnx.runtime.transport import Array

RTOL = 1e-4
ATOL = 1e-5
SMALL_FLOAT_ULPS = 16
"""Roundings, in units of the last place, that a value of a 16-bit or smaller float may have gone through.

Every operator rounds its result to the small type, and a cut moves where the roundings are: partial sums are rounded
once each before they are added. Over a network that is a few units, of a part in a thousand (float16) or a hundred
(bfloat16), so that the tolerance for float32 would only measure the type.
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How one array agrees with its reference.

    Attributes:
        name: Of the tensor.
        status: ``ok``, or what is wrong.
        max_abs_error: Largest difference of finite elements.
        max_rel_error: That, relative to the largest finite magnitude in the reference.
        tolerance: What ``max_abs_error`` may be where the reference is zero.
        elements: How many were compared.
    """

    name: str
    status: str
    max_abs_error: float = 0.0
    max_rel_error: float = 0.0
    tolerance: float = 0.0
    elements: int = 0

    @property
    def passed(self) -> bool:
        """Whether they agree."""
        return self.status == "ok"


def tolerances(dtype: np.dtype[np.generic], rtol: float = RTOL, atol: float = ATOL) -> tuple[float, float]:
    """Relative and absolute tolerance for an element type: none for integers, booleans and strings."""
    if dtype.kind in "biuOSU":
        return 0.0, 0.0
    if dtype.itemsize < 4:
        # np.finfo does not know bfloat16 and float8, nextafter does.
        one = np.ones((), dtype)
        small = SMALL_FLOAT_ULPS * (float(np.nextafter(one, one + one)) - 1.0)
        return max(rtol, small), max(atol, small)
    return rtol, atol


def compare_array(
    name: str, reference: Array, actual: Array, rtol: float = RTOL, atol: float = ATOL, scale: float | None = None
) -> Comparison:
    """Compare one array.

    An element may differ by ``atol * max(1, max|reference|) + rtol * |reference|``. The first term scales with the
    largest element, because rounding in a reduction scales with its summands and not with its result: where large
    summands cancel, an element near zero is as inexact as they were.

    Args:
        name: Of the tensor.
        reference: What it should be.
        actual: What it is.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        scale: ``max|reference|`` of the tensor that the arrays are a box of; by default of ``reference``.
    """
    if reference.dtype != actual.dtype:
        return Comparison(name, f"element type {actual.dtype}, expected {reference.dtype}")
    if reference.shape != actual.shape:
        return Comparison(name, f"shape {list(actual.shape)}, expected {list(reference.shape)}")
    size = reference.size
    if size == 0:
        return Comparison(name, "ok")
    if reference.dtype.kind in "biuOSU":
        wrong = int(np.count_nonzero(reference != actual))
        worst = 0.0
        if wrong and reference.dtype.kind in "iu":
            worst = float(np.max(np.abs(reference.astype(np.float64) - actual.astype(np.float64))))
        return Comparison(name, f"{wrong} of {size} elements differ" if wrong else "ok", worst, elements=size)
    expected, got = _wide(reference), _wide(actual)
    finite = np.isfinite(expected)
    if not finite.all() or not np.isfinite(got).all():
        same = (expected == got) | (np.isnan(expected) & np.isnan(got)) | (finite & np.isfinite(got))
        if not same.all():
            return Comparison(name, f"NaN or infinity at {int(np.count_nonzero(~same))} other places", elements=size)
        expected, got = expected[finite], got[finite]
        if expected.size == 0:
            return Comparison(name, "ok", elements=size)
    rtol, atol = tolerances(reference.dtype, rtol, atol)
    magnitude = np.abs(expected)
    largest = float(magnitude.max())
    absolute = atol * max(1.0, largest if scale is None else scale)
    difference = np.abs(expected - got)
    worst = float(difference.max())
    wrong = int(np.count_nonzero(difference > absolute + rtol * magnitude))
    status = f"{wrong} of {size} elements differ by more than the tolerance" if wrong else "ok"
    return Comparison(name, status, worst, worst / largest if largest else worst, absolute, size)


def compare(
    reference: Mapping[str, Array], actual: Mapping[str, Array], rtol: float = RTOL, atol: float = ATOL
) -> tuple[Comparison, ...]:
    """Compare outputs by name; every output of the reference must be there, and no other.

    Raises:
        VerificationError: There is nothing to compare.
    """
    if not reference:
        raise VerificationError("there are no outputs to compare")
    results = [
        compare_array(name, expected, actual[name], rtol, atol) if name in actual else Comparison(name, "missing")
        for name, expected in reference.items()
    ]
    results += [Comparison(name, "not in the reference") for name in actual if name not in reference]
    return tuple(results)


def _wide(array: Array) -> Array:
    """In a type in which differences are exact enough: complex stays, float64 stays, the rest becomes float64."""
    return array if array.dtype.kind == "c" else array.astype(np.float64, copy=False)
