"""A run as a Chrome trace, which Perfetto and chrome://tracing show: an accelerator is a process."""

from __future__ import annotations

from typing import Any

from mars_onnx.pool.topology import Pool
from mars_onnx.runtime.trace_format import COMMUNICATION, COMPUTE, MEMORY, US, document, process, span
from mars_onnx.simulation.result import Simulation


def chrome_trace(simulation: Simulation, pool: Pool) -> dict[str, Any]:
    """The content of trace.json. Times are in microseconds, as the format wants them."""
    events: list[dict[str, Any]] = []
    for rank in simulation.ranks:
        events += process(rank, pool.accelerators[rank].id)
    critical = set(simulation.critical_path)
    for index, task in enumerate(simulation.tasks):
        facts: dict[str, Any] = {"op": task.op, "alone_s": task.seconds, "critical": index in critical}
        if task.tag is not None:
            facts["tag"] = task.tag
        if task.phase is not None:
            facts["phase"] = task.phase
        if len(task.ranks) > 1:
            facts["group"] = [pool.accelerators[rank].id for rank in task.ranks]
        events += [
            span(
                f"{task.op} {task.label}".strip(),
                task.kind,
                rank,
                COMMUNICATION if task.moves else COMPUTE,
                task.start_s,
                task.end_s,
                facts,
            )
            for rank in task.ranks
        ]
    for rank, use in simulation.ranks.items():
        events += [
            {
                "ph": "C",
                "name": "memory",
                "pid": rank,
                "tid": MEMORY,
                "ts": point.time_s * US,
                "args": {
                    "weights": point.weight_bytes,
                    "activations": point.activation_bytes,
                    "communication": point.buffer_bytes,
                },
            }
            for point in use.memory
        ]
    return document(events)
