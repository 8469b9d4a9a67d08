"""What a simulation gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from mars_onnx.simulation.conditions import Conditions


@dataclass(frozen=True, slots=True)
class TaskRun:
    """A task and when it ran.

    Attributes:
        kind: ``compute``, ``local``, ``communication``, ``input`` or ``output``.
        label: Node of the original that it computes, or tensor that it moves.
        op: Name of the operator.
        ranks: Who takes part.
        tag: Of a communication; else ``None``.
        phase: Of a ring; else ``None``.
        seconds: What it would take alone, with nothing fetched ahead.
        start_s: From the start of the run.
        end_s: From the start of the run.
    """

    kind: str
    label: str
    op: str
    ranks: tuple[int, ...]
    tag: int | None
    phase: int | None
    seconds: float
    start_s: float
    end_s: float

    @property
    def moves(self) -> bool:
        """Whether it occupies links, and not arithmetic."""
        return self.kind in ("communication", "input", "output")


@dataclass(frozen=True, slots=True)
class MemoryPoint:
    """What an accelerator holds from a moment on.

    Attributes:
        time_s: The moment.
        weight_bytes: Initializers.
        activation_bytes: Live values that were computed, or are model inputs.
        buffer_bytes: Live values that communication delivered.
        at: Label of the task that started or ended at this moment: a layer, or a tensor that is moved.
    """

    time_s: float
    weight_bytes: int
    activation_bytes: int
    buffer_bytes: int
    at: str = ""

    @property
    def total_bytes(self) -> int:
        """All together."""
        return self.weight_bytes + self.activation_bytes + self.buffer_bytes


@dataclass(frozen=True, slots=True)
class RankUse:
    """What one accelerator did.

    Attributes:
        compute_s: Seconds it computed, moves within its memory included.
        communication_s: Seconds it communicated.
        idle_s: Seconds it did neither.
        memory: Over time; each point holds until the next.
        peak: The point with most bytes; of several, the first.
    """

    compute_s: float
    communication_s: float
    idle_s: float
    memory: tuple[MemoryPoint, ...]
    peak: MemoryPoint

    @property
    def peak_bytes(self) -> int:
        """The most that is held at any moment."""
        return self.peak.total_bytes


@dataclass(frozen=True)
class Simulation:
    """A run of partitions on a pool.

    Attributes:
        conditions: What was taken into account.
        tasks: In the order in which they started.
        critical_path: Indices into ``tasks``, first to last: each could start when the one before it had ended.
        ranks: Per accelerator that has a partition, by rank.
        utilisation: Per resource the part of the latency it is busy: ``<id> compute``, ``<id> memory``, and
            ``<id> -> <id>`` for a link's direction (``<id> - <id>`` for a half-duplex link).
    """

    conditions: Conditions
    tasks: tuple[TaskRun, ...]
    critical_path: tuple[int, ...]
    ranks: Mapping[int, RankUse]
    utilisation: Mapping[str, float]

    @cached_property
    def latency_s(self) -> float:
        """The end of the last task."""
        return max((task.end_s for task in self.tasks), default=0.0)

    @cached_property
    def by_tag(self) -> Mapping[int, TaskRun]:
        """Communications by tag."""
        return {task.tag: task for task in self.tasks if task.tag is not None}

    @cached_property
    def by_layer(self) -> Mapping[str, tuple[TaskRun, ...]]:
        """Compute tasks by the name of the node of the original."""
        found: dict[str, list[TaskRun]] = {}
        for task in self.tasks:
            if task.kind == "compute":
                found.setdefault(task.label, []).append(task)
        return {name: tuple(own) for name, own in found.items()}
