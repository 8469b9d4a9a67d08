"""A run as a Chrome trace, which Perfetto and chrome://tracing show: an accelerator is a process."""

from __future__ import annotations

from typing import Any

from mars_onnx.pool.topology import Pool
from mars_onnx.simulation.result import Simulation

_COMPUTE, _COMMUNICATION, _MEMORY = 1, 2, 3
_THREADS = {_COMPUTE: "compute", _COMMUNICATION: "communication", _MEMORY: "memory"}
_US = 1e6


def chrome_trace(simulation: Simulation, pool: Pool) -> dict[str, Any]:
    """The content of trace.json. Times are in microseconds, as the format wants them."""
    events: list[dict[str, Any]] = []
    for rank in simulation.ranks:
        events.append(_name("process_name", rank, 0, pool.accelerators[rank].id))
        events.append({"ph": "M", "name": "process_sort_index", "pid": rank, "tid": 0, "args": {"sort_index": rank}})
        events += [_name("thread_name", rank, thread, name) for thread, name in _THREADS.items()]
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
            {
                "ph": "X",
                "name": f"{task.op} {task.label}".strip(),
                "cat": task.kind,
                "pid": rank,
                "tid": _COMMUNICATION if task.moves else _COMPUTE,
                "ts": task.start_s * _US,
                "dur": (task.end_s - task.start_s) * _US,
                "args": facts,
            }
            for rank in task.ranks
        ]
    for rank, use in simulation.ranks.items():
        events += [
            {
                "ph": "C",
                "name": "memory",
                "pid": rank,
                "tid": _MEMORY,
                "ts": point.time_s * _US,
                "args": {
                    "weights": point.weight_bytes,
                    "activations": point.activation_bytes,
                    "communication": point.buffer_bytes,
                },
            }
            for point in use.memory
        ]
    return {"displayTimeUnit": "ns", "traceEvents": events}


def _name(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "args": {"name": name}}
