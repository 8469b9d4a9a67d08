from functools import cache
from itertools import combinations

import numpy as np
import onnx_ir as ir
import pytest

from mars_onnx.calibration.fitting import fit, nonnegative, together
from mars_onnx.calibration.networks import networks
from mars_onnx.calibration.samples import Sample, work_of
from mars_onnx.cost.models.kernels import COEFFICIENTS, KINDS, counts
from mars_onnx.cost.performance import Workload, performance_model
from mars_onnx.errors import InputError
from mars_onnx.pool import Accelerator, Design
from mars_onnx.pool.cpu_parameters import CpuParameters, KernelTime


@pytest.mark.parametrize("seed", range(8))
def test_nonnegative_least_squares_is_the_best_of_all_active_sets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns = int(rng.integers(1, 6))
    matrix = rng.standard_normal((12, columns)) * 10.0 ** rng.integers(-3, 3, columns)
    target = rng.standard_normal(12)
    best = float(target @ target)
    for size in range(1, columns + 1):
        for chosen in combinations(range(columns), size):
            found = np.linalg.lstsq(matrix[:, chosen], target, rcond=None)[0]
            if (found >= 0).all():
                best = min(best, float(((matrix[:, chosen] @ found - target) ** 2).sum()))
    ours = nonnegative(matrix, target)
    assert (ours >= 0).all()
    assert float(((matrix @ ours - target) ** 2).sum()) == pytest.approx(best, rel=1e-9)


def made_up(rng: np.random.Generator) -> CpuParameters:
    """A machine with other figures for every kind of kernel, none of them zero where they count."""
    kernels = []
    for kind in KINDS:
        times = dict(zip(COEFFICIENTS, rng.uniform(0.5, 2.0, len(COEFFICIENTS)) * 1e-5, strict=True))
        if kind == "fused":
            times = {"s_per_input_mb": 3e-5}
        kernels.append(KernelTime(kinds=(kind,), source="made up", **times))  # type: ignore[arg-type]
    return CpuParameters(kernels=tuple(kernels))


def seconds_of(machine: CpuParameters, samples: list[Sample]) -> np.ndarray:
    found = counts(together([sample.work for sample in samples]), machine)
    table = np.asarray([[getattr(kernel, name) for name in COEFFICIENTS] for kernel in machine.kernels])
    fused = machine.kernels[KINDS.index("fused")].s_per_input_mb
    summands = np.asarray([sample.summand_bytes for sample in samples]) / 1e6
    return (table[found.kind] * found.values).sum(axis=-1) + fused * summands


@cache
def works() -> tuple[tuple[str, Workload], ...]:
    return tuple(
        (f"{model.graph.name}/{node.name}", work_of(node))
        for model in networks(0.4)
        for node in ir.from_proto(model).graph
    )


def calibration_samples(rng: np.random.Generator) -> list[Sample]:
    return [Sample(name, work, int(rng.choice([0, 0, 40_000, 800_000])), 0.0) for name, work in works()]


def of_kinds(samples: list[Sample], machine: CpuParameters, *kinds: str) -> list[Sample]:
    return [sample for sample in samples if KINDS[int(counts(sample.work, machine).kind[0])] in kinds]


def with_times(samples: list[Sample], seconds: np.ndarray) -> list[Sample]:
    return [Sample(s.name, s.work, s.summand_bytes, float(t)) for s, t in zip(samples, seconds, strict=True)]


def test_a_machine_with_known_times_is_recovered() -> None:
    rng = np.random.default_rng(1)
    truth, samples = made_up(rng), calibration_samples(rng)
    samples = [
        sample for sample in samples if KINDS[int(counts(sample.work, truth).kind[0])] in ("conv_direct", "gemm")
    ]
    seconds = seconds_of(truth, samples)
    found = fit(with_times(samples, seconds), "made up")
    for kernel in found.parameters.kernels:
        wanted = truth.kernels[KINDS.index(kernel.kinds[0])]
        for name in COEFFICIENTS:
            if kernel.kinds[0] == "gemm" and name == "s_per_edge_mstep":
                continue  # matrix products have no padded edges
            assert getattr(kernel, name) == pytest.approx(getattr(wanted, name), rel=0.02), (kernel.kinds, name)
    assert max(np.abs(errors).max() for errors in found.errors.values()) < 0.01


def test_interrupted_kernels_do_not_move_the_fit() -> None:
    rng = np.random.default_rng(2)
    truth, samples = made_up(rng), calibration_samples(rng)
    samples = of_kinds(samples, truth, "conv_pointwise")
    seconds = seconds_of(truth, samples)
    disturbed = seconds * np.where(rng.random(len(seconds)) < 0.05, 3.0, rng.uniform(0.99, 1.01, len(seconds)))
    found = fit(with_times(samples, disturbed), "made up")
    again = {kernel.kinds[0]: kernel for kernel in found.parameters.kernels}
    table = np.asarray([getattr(again["conv_pointwise"], name) for name in COEFFICIENTS])
    summands = np.asarray([sample.summand_bytes for sample in samples]) / 1e6
    values = counts(together([sample.work for sample in samples]), truth).values
    predicted = values @ table + again["fused"].s_per_input_mb * summands
    assert np.abs(predicted / seconds - 1).max() < 0.05


def test_the_design_prices_what_the_fit_was_made_of() -> None:
    rng = np.random.default_rng(3)
    truth, samples = made_up(rng), calibration_samples(rng)
    design = Design("made-up", "", "cpu", truth, None, "made up", False, "")
    accelerator = Accelerator(0, "core0", "cpu", (design,), 2**33, 1e10, "made up")
    plain = [sample for sample in samples if sample.summand_bytes == 0]
    model = performance_model(design, accelerator)
    together_s = model.estimate(together([sample.work for sample in plain])).total_s
    assert together_s == pytest.approx(seconds_of(truth, plain))
    alone = [float(model.estimate(sample.work).total_s[0]) for sample in plain[:50]]
    assert alone == pytest.approx(together_s[:50])


def test_a_kind_that_was_not_measured_is_refused_by_name() -> None:
    rng = np.random.default_rng(4)
    kernels = tuple(kernel for kernel in made_up(rng).kernels if kernel.kinds != ("softmax",))
    design = Design("made-up", "", "cpu", CpuParameters(kernels=kernels), None, "made up", False, "")
    accelerator = Accelerator(0, "core0", "cpu", (design,), 2**33, 1e10, "made up")
    softmax = next(s for s in calibration_samples(rng) if "softmax" in s.name)
    with pytest.raises(InputError, match="'made-up' has no times of kernels of the kind 'softmax'"):
        performance_model(design, accelerator).estimate(softmax.work)


def test_nothing_measured_is_said() -> None:
    with pytest.raises(InputError, match="no kernel was measured"):
        fit([], "nothing")
