"""From samples to the parameters of the `cpu` model: least squares of relative errors, per kind of kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mars_onnx.calibration.samples import Sample
from mars_onnx.cost.models.kernels import COEFFICIENTS, KINDS, counts, number
from mars_onnx.cost.performance import FloatArray, Workload
from mars_onnx.errors import InputError
from mars_onnx.pool.cpu_parameters import CpuParameters, KernelTime

#: Fewer samples than this for every coefficient, and only the simple ones are fitted.
_PER_COEFFICIENT = 3
#: Relative errors below this count alike when outliers are weighed down.
_TOLERANCE = 0.02
#: Part of what an operator costs alone that is asked for it where it is fused. It is too little to be measured, but of
#: two mappings that are alike otherwise, the one that does it on a part of the tensor is to be the cheaper one: to
#: gather first and then to do it whole would end the kernel in between.
_TOKEN = 0.02
_ROUNDS = 12
_FOLDS = 8
#: Coefficients in the order in which they are given up where samples are few.
_SIMPLE = ("fixed_s", "s_per_mmac", "s_per_weight_mb", "s_per_input_mb", "s_per_output_mb")


@dataclass(frozen=True, slots=True)
class Fit:
    """Parameters, and how well they say what was measured.

    Attributes:
        parameters: Of the `cpu` model.
        errors: Per kind of kernel the relative errors on samples that were left out of the fit.
    """

    parameters: CpuParameters
    errors: dict[str, FloatArray]


def nonnegative(matrix: FloatArray, target: FloatArray) -> FloatArray:
    """Least squares with no negative coefficient (Lawson and Hanson, 1974, chapter 23)."""
    columns = matrix.shape[1]
    scale = np.linalg.norm(matrix, axis=0)
    scaled = matrix / np.where(scale > 0, scale, 1.0)
    free = np.zeros(columns, bool)
    found: FloatArray = np.zeros(columns)
    for _ in range(10 * columns):
        gradient = scaled.T @ (target - scaled @ found)
        if free.all() or gradient[~free].max() <= 1e-10 * max(1.0, float(np.abs(target).max())):
            break
        free[np.flatnonzero(~free)[np.argmax(gradient[~free])]] = True
        while True:
            trial: FloatArray = np.zeros(columns)
            trial[free] = np.linalg.lstsq(scaled[:, free], target, rcond=None)[0]
            if (trial[free] > 0).all():
                found = trial
                break
            falling = free & (trial <= 0)
            step = (found[falling] / np.maximum(found[falling] - trial[falling], 1e-300)).min()
            found = found + step * (trial - found)
            free &= found > 1e-14
            found[~free] = 0.0
    result: FloatArray = np.where(scale > 0, found / np.where(scale > 0, scale, 1.0), 0.0)
    return result


def robust(values: FloatArray, seconds: FloatArray) -> FloatArray:
    """Coefficients that make relative errors small, outliers weighed down (iterated towards absolute errors)."""
    rows = values / seconds[:, None]
    weights: FloatArray = np.ones(len(seconds))
    found: FloatArray = np.zeros(values.shape[1])
    for _ in range(_ROUNDS):
        found = nonnegative(rows * weights[:, None], weights)
        weights = 1.0 / np.sqrt(np.maximum(np.abs(rows @ found - 1.0), _TOLERANCE))
    return found


def left_out(values: FloatArray, seconds: FloatArray) -> FloatArray:
    """Relative errors on samples that the fit has not seen, in turn for all (cross-validation)."""
    place = np.random.default_rng(0).permutation(len(seconds)) % _FOLDS
    errors: FloatArray = np.zeros(len(seconds))
    for fold in range(_FOLDS):
        out = place == fold
        if out.any() and not out.all():
            errors[out] = values[out] @ robust(values[~out], seconds[~out]) / seconds[out] - 1.0
    return errors


def together(works: Sequence[Workload]) -> Workload:
    """Several workloads as one."""
    return Workload(**{name: np.concatenate([getattr(w, name) for w in works]) for name in Workload.__slots__})


def fit(samples: Sequence[Sample], source: str, machine: CpuParameters | None = None) -> Fit:
    """Fit all kinds of kernels that there are samples of.

    Args:
        samples: What was measured.
        source: Where, how; it goes into the pool file.
        machine: Which vectors and steps the kernels have; its times do not matter. Default: those of 512-bit vectors.

    Raises:
        InputError: There is nothing to fit.
    """
    if not samples:
        raise InputError("no kernel was measured that a performance model could be fitted to")
    machine = machine or CpuParameters(kernels=(KernelTime(kinds=("other",), source=source),))
    found = counts(together([sample.work for sample in samples]), machine)
    seconds = np.asarray([sample.seconds for sample in samples])
    # A second summand is one more column, with one coefficient for all kinds.
    summands = np.asarray([sample.summand_bytes for sample in samples]) / 1e6
    per_summand = _summand(found.kind, found.values, summands, seconds)
    rest = np.maximum(seconds - per_summand * summands, 0.2 * seconds)
    kernels: list[KernelTime] = []
    errors: dict[str, FloatArray] = {}
    for index, name in enumerate(KINDS):
        own = found.kind == index
        if not own.any() or name == "fused":
            continue
        values = _reduced(found.values[own])
        errors[name] = left_out(values, rest[own]) if own.sum() >= _FOLDS else np.zeros(0)
        kernels.append(_kernel(name, robust(values, rest[own]), errors[name], int(own.sum()), source))
    kernels.append(_fused(per_summand, kernels, source))
    return Fit(machine.model_copy(update={"kernels": tuple(kernels)}), errors)


def _kernel(name: str, found: FloatArray, errors: FloatArray, samples: int, source: str) -> KernelTime:
    times = {key: float(f"{value:.6g}") for key, value in zip(COEFFICIENTS, found, strict=True)}
    error = float(f"{np.median(np.abs(errors)):.3g}") if len(errors) else None
    facts = {"kinds": (name,), "samples": samples, "median_error": error, "source": source}
    return KernelTime.model_validate({**times, **facts})


def _fused(per_summand: float, kernels: Sequence[KernelTime], source: str) -> KernelTime:
    """What an operator adds to the kernel that takes it up: its second summand, and next to nothing per result."""
    alone = next((kernel for kernel in kernels if kernel.kinds == ("elementwise",)), None)
    token = 0.0 if alone is None else _TOKEN * (alone.s_per_mmac / 4 + alone.s_per_output_mb + alone.s_per_input_mb)
    return KernelTime(
        kinds=("fused",), s_per_input_mb=per_summand, s_per_output_mb=float(f"{token:.6g}"), source=source
    )


def _reduced(values: FloatArray) -> FloatArray:
    """Only as many columns as the samples can tell apart."""
    if len(values) >= _PER_COEFFICIENT * len(COEFFICIENTS):
        return values
    kept = _SIMPLE[: max(1, len(values) // _PER_COEFFICIENT + 1)]
    return np.where(np.isin(COEFFICIENTS, kept), values, 0.0)


def _summand(kind: np.ndarray, values: FloatArray, summands: FloatArray, seconds: FloatArray) -> float:
    """Seconds per 10^6 bytes of a second summand, from the convolutions."""
    both = np.isin(kind, [number("conv_direct"), number("conv_pointwise")])
    if not (summands[both] > 0).any():
        return 0.0
    blocks = [np.where((kind == number(name))[:, None], values, 0.0) for name in ("conv_direct", "conv_pointwise")]
    columns = np.concatenate([*blocks, summands[:, None]], axis=1)[both]
    return float(f"{robust(columns, seconds[both])[-1]:.6g}")
