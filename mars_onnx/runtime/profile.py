"""What every accelerator did and when in real runs, in the form of the prediction's ``trace.json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Any

from mars_onnx.comm import METADATA_SOURCE
from mars_onnx.runtime.plan_file import PlanFile
from mars_onnx.runtime.segments import Segment, Step
from mars_onnx.runtime.trace_format import COMMUNICATION, COMPUTE, document, process, span

_NS = 1e9


@dataclass(slots=True)
class Recorder:
    """A monitor that notes when steps begin and end: triples of step, begin and end in ns of ``perf_counter_ns``."""

    events: list[tuple[int, int, int]] = field(default_factory=list)
    begun_ns: int = 0

    def begin(self, step: int) -> None:
        """See :class:`mars_onnx.runtime.native.partition.Monitor`."""
        self.begun_ns = perf_counter_ns()

    def end(self, step: int) -> None:
        """See :class:`mars_onnx.runtime.native.partition.Monitor`."""
        self.events.append((step, self.begun_ns, perf_counter_ns()))


@dataclass(frozen=True, slots=True)
class StepFacts:
    """A step as a trace shows it."""

    name: str
    kind: str
    facts: tuple[tuple[str, object], ...]


@dataclass(frozen=True, slots=True)
class Track:
    """What one accelerator did.

    Attributes:
        rank: Its rank.
        accelerator: Its id.
        steps: Its steps.
        events: As :class:`Recorder` has them, on the clock of the host.
    """

    rank: int
    accelerator: str
    steps: tuple[StepFacts, ...]
    events: tuple[tuple[int, int, int], ...]


def step_facts(step: Step, plan: PlanFile) -> StepFacts:
    """How a trace shows a step: layers by their names in the canonical graph, tensors likewise."""
    if isinstance(step, Segment):
        layers = [node.metadata_props.get(METADATA_SOURCE) or node.name or node.op_type for node in step.nodes]
        names = list(dict.fromkeys(layers))
        op = step.nodes[0].op_type if len(names) == 1 else "Segment"
        name = f"{op} {names[0]}" if len(names) == 1 else f"{names[0]} .. {names[-1]}"
        return StepFacts(name, "compute", (("op", op), ("segment", step.name), ("layers", names)))
    operator = step.operator
    planned = {entry.tag: entry for entry in plan.communication}.get(operator.tag)
    tensor = step.name if planned is None else planned.tensor
    op = operator.op_type if planned is None else planned.op
    ids = {entry.rank: entry.accelerator for entry in plan.partitions}
    group = [] if planned is None else [ids.get(rank, str(rank)) for rank in planned.group]
    return StepFacts(f"{op} {tensor}", "communication", (("op", op), ("tag", operator.tag), ("group", group)))


def chrome_trace(tracks: Sequence[Track], runs: int | None = None) -> dict[str, Any]:
    """The content of the file.

    Args:
        tracks: One per accelerator.
        runs: How many runs to show, the last ones; all if not given.
    """
    shown = {track.rank: _last_runs(track.events, runs) for track in tracks}
    origin_ns = min((begin for events in shown.values() for _, _, begin, _ in events), default=0)
    events = [event for track in tracks for event in process(track.rank, track.accelerator)]
    for track in tracks:
        for run, number, begin_ns, end_ns in shown[track.rank]:
            step = track.steps[number]
            events.append(
                span(
                    step.name,
                    step.kind,
                    track.rank,
                    COMMUNICATION if step.kind == "communication" else COMPUTE,
                    (begin_ns - origin_ns) / _NS,
                    (end_ns - origin_ns) / _NS,
                    {**dict(step.facts), "run": run},
                )
            )
    return document(events)


def _last_runs(events: Sequence[tuple[int, int, int]], runs: int | None) -> list[tuple[int, int, int, int]]:
    """Events with the number of their run; a run begins when steps are counted from the start again."""
    numbered: list[tuple[int, int, int, int]] = []
    run, before = 0, -1
    for step, begin, end in events:
        run += step <= before
        before = step
        numbered.append((run, step, begin, end))
    first = 0 if runs is None else max(0, run + 1 - runs)
    return [(number - first, step, begin, end) for number, step, begin, end in numbered if number >= first]
