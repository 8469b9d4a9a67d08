"""From measured kernels to samples: the work of a kernel, and the seconds it took."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mars_onnx.calibration.profiles import REORDERS, Kernel, nodes_of
from mars_onnx.cost.performance import Workload
from mars_onnx.cost.workload import workload
from mars_onnx.rules.registry import rule_for
from mars_onnx.rules.signature import signature_of


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured kernel.

    Attributes:
        name: Where it was measured.
        work: Of the operator with the weights; one entry.
        summand_bytes: Read besides, by operators that were computed in the same kernel.
        seconds: What it takes.
    """

    name: str
    work: Workload
    summand_bytes: int
    seconds: float


def steady(seconds: Sequence[float]) -> float:
    """What a kernel takes when nothing disturbs it: the mean of the faster half of its runs.

    Interruptions only ever add time, and whole microseconds need a mean.
    """
    ordered = np.sort(np.asarray(seconds, np.float64))
    return float(ordered[: max(1, len(ordered) // 2)].mean())


def samples_of(kernels: Sequence[Kernel], graph: ir.Graph, overhead_s: float = 0.0) -> list[Sample]:
    """Samples of the kernels of a session that ran a graph with static shapes.

    Args:
        kernels: What was measured; layout changes, and kernels that no node of the graph has given, are left out.
        graph: What was run.
        overhead_s: What profiling itself adds to a kernel.
    """
    name = graph.name or "graph"
    return [
        Sample(
            f"{name}/{kernel.name}",
            work_of(nodes[0]),
            sum(_summand_bytes(node) for node in nodes[1:]),
            max(steady(kernel.seconds) - overhead_s, 1e-7),
        )
        for kernel, nodes in nodes_of(kernels, graph)
    ]


def work_of(node: ir.Node) -> Workload:
    """The work of a whole node, as one entry."""
    rule = rule_for(signature_of(node))
    return one_entry(workload(rule, rule.whole_ranges()))


def one_entry(work: Workload) -> Workload:
    """A single piece of work as an array of one."""
    return work if work.shape else Workload(**{name: np.asarray(getattr(work, name))[None] for name in _NAMES})


_NAMES = tuple(Workload.__slots__)


def _summand_bytes(node: ir.Node) -> int:
    work = work_of(node)
    return max(0, int(work.input_bytes[0] - work.output_bytes[0]))


def reorder_rate(kernels: Iterable[Kernel]) -> list[tuple[float, float]]:
    """Bytes and seconds of every change of layout."""
    return [
        (4.0 * float(np.prod(kernel.outputs[0])), steady(kernel.seconds))
        for kernel in kernels
        if kernel.op_type in REORDERS and kernel.outputs and kernel.outputs[0]
    ]
