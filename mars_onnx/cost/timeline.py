"""A run without overlap: every accelerator does one thing at a time, in one global order of events.

In lockstep, events are grouped in steps, and accelerators begin and end a step together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
class Step:
    """Events that belong together, and who has to be there for all of them.

    Attributes:
        ranks: Who begins and ends the step together, whether or not there is an event for them.
        events: In their order; they name no other ranks.
        label: For a person.
    """

    ranks: tuple[int, ...]
    events: tuple[Event, ...]
    label: str = ""


@dataclass(frozen=True, slots=True)
class Timeline:
    """When everything happened. Seconds from the start of the run; per event in the order given, per rank by rank.

    Attributes:
        events: As given.
        start_s: Per event.
        end_s: Per event.
        steps: Per step its start and end; none if events were not grouped in steps.
        compute_s: Per rank, the seconds it computed.
        communication_s: Per rank, the seconds it communicated; waiting for the others is idle time.
        latency_s: The end of the last event.
    """

    events: tuple[Event, ...]
    start_s: tuple[float, ...]
    end_s: tuple[float, ...]
    steps: tuple[tuple[float, float], ...]
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
    run = _Run(_count(events) if ranks is None else ranks)
    for event in events:
        run.perform(event)
    return run.timeline()


def schedule_steps(steps: Sequence[Step], ranks: int) -> Timeline:
    """Run steps: each starts as soon as all its ranks are done with their steps before it, and ends for all at once.

    Inside a step events run as in :func:`schedule`. Steps that have no rank in common run at the same time, and those
    that all share a rank one after another: their seconds add up.

    Args:
        steps: In global order.
        ranks: Number of accelerators.
    """
    run = _Run(ranks)
    for step in steps:
        run.step(step)
    return run.timeline()


def seconds_of(events: Iterable[tuple[Sequence[int], float]]) -> float:
    """How long events take that nothing precedes, of which each is told as its ranks and seconds."""
    free: dict[int, float] = {}
    for ranks, seconds in events:
        end = max([free.get(rank, 0.0) for rank in ranks], default=0.0) + seconds
        free |= dict.fromkeys(ranks, end)
    return max(free.values(), default=0.0)


def _count(events: Sequence[Event]) -> int:
    return max((rank + 1 for event in events for rank in event.ranks), default=0)


class _Run:
    """When every rank is free, and what has happened so far."""

    def __init__(self, ranks: int) -> None:
        self.free = [0.0] * ranks
        self.events: list[Event] = []
        self.starts: list[float] = []
        self.ends: list[float] = []
        self.spans: list[tuple[float, float]] = []

    def perform(self, event: Event) -> float:
        """Run an event and return its end."""
        start = max((self.free[rank] for rank in event.ranks), default=0.0)
        end = start + event.seconds
        for rank in event.ranks:
            self.free[rank] = end
        self.events.append(event)
        self.starts.append(start)
        self.ends.append(end)
        return end

    def step(self, step: Step) -> None:
        """Run a step."""
        start = max((self.free[rank] for rank in step.ranks), default=0.0)
        for rank in step.ranks:
            self.free[rank] = start
        end = max((self.perform(event) for event in step.events), default=start)
        for rank in step.ranks:
            self.free[rank] = end
        self.spans.append((start, end))

    def timeline(self) -> Timeline:
        """What has happened."""
        spent = {False: [0.0] * len(self.free), True: [0.0] * len(self.free)}
        for event in self.events:
            for rank in event.ranks:
                spent[event.communication][rank] += event.seconds
        return Timeline(
            tuple(self.events),
            tuple(self.starts),
            tuple(self.ends),
            tuple(self.spans),
            tuple(spent[False]),
            tuple(spent[True]),
            max(self.ends, default=0.0),
        )
