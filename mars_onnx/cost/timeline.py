"""A run without overlap: every accelerator does one thing at a time, in one global order of events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """Something that occupies accelerators from one moment to another.

    Attributes:
        ranks: Who takes part. All start and end together.
        seconds: How long it takes once all are ready.
        communication: Whether it is communication, and not compute.
        label: For a person.
    """

    ranks: tuple[int, ...]
    seconds: float
    communication: bool = False
    label: str = ""

    @staticmethod
    def compute(rank: int, seconds: float, label: str = "") -> Event:
        """One accelerator computes."""
        return Event((rank,), seconds, False, label)

    @staticmethod
    def collective(group: Sequence[int], seconds: float, label: str = "") -> Event:
        """Accelerators communicate."""
        return Event(tuple(group), seconds, True, label)


@dataclass(frozen=True, slots=True)
class Timeline:
    """When everything happened. Seconds from the start of the run; per event in the order given, per rank by rank.

    Attributes:
        events: As given.
        start_s: Per event.
        end_s: Per event.
        compute_s: Per rank, the seconds it computed.
        communication_s: Per rank, the seconds it communicated; waiting for the others is idle time.
        latency_s: The end of the last event.
    """

    events: tuple[Event, ...]
    start_s: tuple[float, ...]
    end_s: tuple[float, ...]
    compute_s: tuple[float, ...]
    communication_s: tuple[float, ...]
    latency_s: float

    @property
    def idle_s(self) -> tuple[float, ...]:
        """Per rank, what is left of the latency."""
        spent = zip(self.compute_s, self.communication_s, strict=True)
        return tuple(max(0.0, self.latency_s - compute - communication) for compute, communication in spent)


def schedule(events: Sequence[Event], ranks: int | None = None) -> Timeline:
    """Run events: each starts as soon as all who take part are done with what comes before it.

    Args:
        events: In global order.
        ranks: Number of accelerators; by default as many as the events name.
    """
    count = max((rank + 1 for event in events for rank in event.ranks), default=0) if ranks is None else ranks
    free = [0.0] * count
    compute, communication = [0.0] * count, [0.0] * count
    starts: list[float] = []
    ends: list[float] = []
    for event in events:
        start = max((free[rank] for rank in event.ranks), default=0.0)
        end = start + event.seconds
        spent = communication if event.communication else compute
        for rank in event.ranks:
            free[rank] = end
            spent[rank] += event.seconds
        starts.append(start)
        ends.append(end)
    latency = max(ends, default=0.0)
    return Timeline(tuple(events), tuple(starts), tuple(ends), tuple(compute), tuple(communication), latency)
