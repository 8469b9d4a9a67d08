"""Chrome traces, which Perfetto and chrome://tracing show: an accelerator is a process with a thread per kind of work.

Predictions and measurements are written in this one form, so that they can be looked at side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COMPUTE, COMMUNICATION, MEMORY = 1, 2, 3
_THREADS = {COMPUTE: "compute", COMMUNICATION: "communication", MEMORY: "memory"}
US = 1e6
"""Microseconds in a second: the format wants them."""

Event = dict[str, Any]


def process(rank: int, accelerator: str) -> list[Event]:
    """The names of an accelerator and its threads."""
    return [
        _name("process_name", rank, 0, accelerator),
        {"ph": "M", "name": "process_sort_index", "pid": rank, "tid": 0, "args": {"sort_index": rank}},
        *(_name("thread_name", rank, thread, name) for thread, name in _THREADS.items()),
    ]


def span(
    name: str, kind: str, rank: int, thread: int, start_s: float, end_s: float, facts: Mapping[str, object]
) -> Event:
    """Something that an accelerator does for a while."""
    return {
        "ph": "X",
        "name": name,
        "cat": kind,
        "pid": rank,
        "tid": thread,
        "ts": start_s * US,
        "dur": (end_s - start_s) * US,
        "args": dict(facts),
    }


def document(events: Sequence[Event]) -> dict[str, Any]:
    """The content of a file."""
    return {"displayTimeUnit": "ns", "traceEvents": list(events)}


def _name(kind: str, rank: int, thread: int, name: str) -> Event:
    return {"ph": "M", "name": kind, "pid": rank, "tid": thread, "args": {"name": name}}
