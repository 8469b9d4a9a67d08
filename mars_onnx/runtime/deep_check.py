"""Compare every local value that is a box of a canonical tensor with that box.

Outputs alone hide faults: what is wrong before a saturated softmax, or is dropped later, does not reach them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mars_onnx.errors import VerificationError
from mars_onnx.geometry import Box, Reduction, box_shape, box_text
from mars_onnx.runtime.collectives import reduce_arrays
from mars_onnx.runtime.compare import ATOL, RTOL, Comparison, compare_array
from mars_onnx.runtime.runner import Observed
from mars_onnx.runtime.transport import Array


@dataclass(frozen=True, slots=True)
class DeepReport:
    """What the deep check saw.

    Attributes:
        boxes: How many boxes of whole tensors were compared.
        partial_boxes: How many boxes of partial tensors went into a compared reduction.
        tensors: How many tensors of the canonical graph they were boxes of.
        failures: Those that do not agree.
        worst: The comparison with the largest relative error, of those that agree.
    """

    boxes: int
    partial_boxes: int
    tensors: int
    failures: tuple[Comparison, ...]
    worst: Comparison | None


def sources(observed: Iterable[Observed]) -> set[str]:
    """The canonical tensors that the observed values claim to be boxes of."""
    return {item.claim.source for item in observed}


def check_observed(
    observed: Iterable[Observed], reference: Mapping[str, Array], rtol: float = RTOL, atol: float = ATOL
) -> DeepReport:
    """Compare.

    Args:
        observed: The local values of all partitions.
        reference: The canonical tensors by name.
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Raises:
        VerificationError: A value claims to be of a tensor that the reference does not have.
    """
    scales: dict[str, float] = {}
    comparisons: list[Comparison] = []
    partial: dict[tuple[str, int, Reduction], list[Observed]] = {}
    boxes = partial_boxes = 0
    tensors: set[str] = set()
    for item in observed:
        claim = item.claim
        if claim.source not in reference:
            raise VerificationError(f"{_where(item)}: the canonical graph has no tensor {claim.source!r}")
        whole = reference[claim.source]
        place = _where(item)
        if claim.box is None:
            if item.array.size:
                comparisons.append(Comparison(place, f"has {item.array.size} elements but claims to hold nothing"))
            continue
        if not _inside(claim.box, whole.shape):
            comparisons.append(Comparison(place, f"the box is not inside the tensor's shape {list(whole.shape)}"))
            continue
        tensors.add(claim.source)
        if claim.num_parts > 1:
            partial.setdefault((claim.source, claim.num_parts, claim.reduction), []).append(item)
            partial_boxes += 1
            continue
        boxes += 1
        scale = scales.setdefault(claim.source, _scale(whole))
        comparisons.append(compare_array(place, whole[_slices(claim.box)], item.array, rtol, atol, scale))
    for (source, num_parts, reduction), items in partial.items():
        comparisons += _check_parts(reference[source], num_parts, reduction, items, rtol, atol)
    agreeing = [comparison for comparison in comparisons if comparison.passed]
    return DeepReport(
        boxes,
        partial_boxes,
        len(tensors),
        tuple(comparison for comparison in comparisons if not comparison.passed),
        max(agreeing, key=lambda comparison: comparison.max_rel_error, default=None),
    )


def _check_parts(
    whole: Array, num_parts: int, reduction: Reduction, items: list[Observed], rtol: float, atol: float
) -> list[Comparison]:
    """Put every part together from its holders (replicas must agree), reduce, and compare where all parts are known."""
    results: list[Comparison] = []
    parts = [np.zeros(whole.shape, whole.dtype) for _ in range(num_parts)]
    known = [np.zeros(whole.shape, np.bool_) for _ in range(num_parts)]
    for item in items:
        box = item.claim.box
        if box is None or item.array.shape != box_shape(box) or item.array.dtype != whole.dtype:
            wanted = None if box is None else list(box_shape(box))
            found = f"{item.array.dtype}{list(item.array.shape)}"
            results.append(Comparison(_where(item), f"{found}, expected {whole.dtype}{wanted}"))
            continue
        at = _slices(box)
        part, seen = parts[item.claim.part][at], known[item.claim.part][at]
        if seen.any():
            peers = compare_array(f"{_where(item)}, against its replicas", part[seen], item.array[seen], rtol, atol)
            results += [] if peers.passed else [peers]
        part[...] = np.where(seen, part, item.array)
        seen[...] = True
    complete = np.asarray(np.logical_and.reduce(known))
    total = reduce_arrays(parts, reduction)
    scale = max(_scale(array) for array in (whole, *parts))
    for item in items:
        box = item.claim.box
        if box is None or item.array.shape != box_shape(box):
            continue
        at = _slices(box)
        if not complete[at].all():
            missing = [str(number) for number in range(num_parts) if not known[number][at].all()]
            results.append(Comparison(_where(item), f"nobody holds part {', '.join(missing)} of all of this box"))
            continue
        results.append(compare_array(f"{_where(item)}, reduced", whole[at], total[at], rtol, atol, scale))
    return results


def _where(item: Observed) -> str:
    claim = item.claim
    part = f" part {claim.part}/{claim.num_parts}" if claim.num_parts > 1 else ""
    return f"{claim.value} on {item.accelerator} (rank {item.rank}), {claim.source}[{box_text(claim.box)}]{part}"


def _inside(box: Box, shape: tuple[int, ...]) -> bool:
    return len(box) == len(shape) and all(
        0 <= start <= stop <= extent for (start, stop), extent in zip(box, shape, strict=True)
    )


def _slices(box: Box) -> tuple[Any, ...]:
    """Index of a box; the ellipsis makes the result a view even of a scalar."""
    return (*(slice(start, stop) for start, stop in box), ...)


def _scale(array: Array) -> float:
    """Largest finite magnitude."""
    if array.size == 0 or array.dtype.kind in "biuOSU":
        return 0.0
    magnitude = np.abs(array if array.dtype.kind == "c" else array.astype(np.float64, copy=False))
    return float(np.max(magnitude, where=np.isfinite(magnitude), initial=0.0))
