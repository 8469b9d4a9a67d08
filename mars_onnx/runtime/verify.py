"""Whether the partitions, run together, compute what the original computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from mars_onnx.errors import UsageError, VerificationError
from mars_onnx.runtime.compare import ATOL, RTOL, Comparison, compare
from mars_onnx.runtime.deep_check import DeepReport, check_observed, sources
from mars_onnx.runtime.plan_file import PlanFile
from mars_onnx.runtime.random_inputs import random_inputs
from mars_onnx.runtime.reference import output_names, run_reference, run_with_tensors
from mars_onnx.runtime.runner import run_partitions
from mars_onnx.runtime.sessions import ExecutorOptions
from mars_onnx.runtime.transport import Array


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of :func:`verify`.

    Attributes:
        outputs: Per output of the original.
        deep: The deep check, if it was asked for.
    """

    outputs: tuple[Comparison, ...]
    deep: DeepReport | None = None

    @property
    def failures(self) -> tuple[Comparison, ...]:
        """All comparisons that do not agree, outputs first."""
        wrong = tuple(comparison for comparison in self.outputs if not comparison.passed)
        return wrong + (self.deep.failures if self.deep is not None else ())

    @property
    def passed(self) -> bool:
        """Whether everything agrees."""
        return not self.failures

    def raise_if_failed(self) -> None:
        """Raise VerificationError that names the first disagreements."""
        failures = self.failures
        if failures:
            shown = "; ".join(f"{c.name}: {c.status} (largest {c.max_abs_error:.3g})" for c in failures[:5])
            rest = f"; and {len(failures) - 5} more" if len(failures) > 5 else ""
            raise VerificationError(f"the partitions do not compute what the original computes: {shown}{rest}")


def verify(
    original: ir.Model | str | Path,
    partitions: Sequence[ir.Model | str | Path],
    plan: PlanFile,
    *,
    seed: int = 0,
    inputs: Mapping[str, Array] | None = None,
    deep: bool = False,
    canonical_model: ir.Model | None = None,
    rtol: float = RTOL,
    atol: float = ATOL,
    options: ExecutorOptions | None = None,
) -> Verification:
    """Run the original in one session and the partitions together, and compare.

    The partitions run with rendezvous semantics, the harshest a transport can have.

    Args:
        original: The model, or its file.
        partitions: In the order of ``plan.partitions``.
        plan: Whose are which boxes of inputs and outputs.
        seed: Of the random inputs.
        inputs: Inputs to use instead.
        deep: Compare also every local value that is a box of a canonical tensor.
        canonical_model: The graph whose tensors those are; needed if ``deep``.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        options: How the sessions of the partitions are built.

    Returns:
        All comparisons; look at ``passed``, or call ``raise_if_failed``.

    Raises:
        VerificationError: Nothing was there to compare, or a value claims to be of a tensor that does not exist.
        RunError: The partitions do not run.
    """
    if deep and canonical_model is None:
        raise UsageError("the deep check needs the canonical model")
    feeds = dict(inputs) if inputs is not None else random_inputs(plan, seed)
    expected = run_reference(original, feeds)
    result = run_partitions(partitions, plan, feeds, deep=deep, rendezvous=True, options=options)
    outputs = compare(_named_as_in_plan(expected, plan, original), result.outputs, rtol, atol)
    if not deep or canonical_model is None:
        return Verification(outputs)
    reference = run_with_tensors(canonical_model, feeds, sorted(sources(result.observed)))
    report = check_observed(result.observed, reference, rtol, atol)
    if report.boxes + report.partial_boxes == 0 and any(array.size for array in expected.values()):
        raise VerificationError("the deep check found nothing to compare: no value of any partition names its source")
    return Verification(outputs, report)


def _named_as_in_plan(
    expected: Mapping[str, Array], plan: PlanFile, original: ir.Model | str | Path
) -> Mapping[str, Array]:
    """The outputs of the original, by the names that partitions give those that are inputs or given twice."""
    planned = [tensor.tensor for tensor in plan.outputs]
    if set(planned) == set(expected):
        return expected
    names = output_names(original)
    if len(names) != len(planned):
        return expected
    inputs = {tensor.tensor for tensor in plan.inputs}
    renamed = {name for name in names if name in inputs or names.count(name) > 1}
    return {other if name in renamed else name: expected[name] for name, other in zip(names, planned, strict=True)}
