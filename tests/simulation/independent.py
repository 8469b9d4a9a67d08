"""The same run again with simpy: a process per accelerator and kind of work, which walks through its own list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import simpy


@dataclass
class Job:
    """A task, as a process sees it: who has to come, how long it takes, whose results it takes, in which step."""

    seconds: float
    ranks: tuple[int, ...]
    moves: bool
    after: tuple[int, ...] = ()
    demand: Mapping[int, float] = field(default_factory=dict)
    step: int | None = None


class Fabric:
    """Links as a fluid: whenever a transfer comes or goes, all rates are found anew, from scratch."""

    def __init__(self, env: simpy.Environment) -> None:
        self.env = env
        self.left: dict[int, float] = {}
        self.demands: dict[int, Mapping[int, float]] = {}
        self.news = env.event()

    def transfer(self, number: int, job: Job) -> Any:
        """A process that ends when the transfer does."""
        self.left[number], self.demands[number] = job.seconds, job.demand
        self._wake()
        while self.left[number] > 1e-15 * job.seconds:
            rate = rates(self.demands)[number]
            since = self.env.now
            end = self.env.timeout(self.left[number] / rate)
            yield end | self.news
            self.left[number] -= rate * (self.env.now - since)
            if end.processed:
                break
        del self.left[number], self.demands[number]
        self._wake()

    def _wake(self) -> None:
        news, self.news = self.news, self.env.event()
        news.succeed()


def rates(demands: Mapping[int, Mapping[int, float]]) -> dict[int, float]:
    """Max-min fair rates, channel by channel: the tightest one decides first; exact arithmetic."""
    found: dict[int, Fraction] = {}
    open_jobs = set(demands)
    channels = {channel for own in demands.values() for channel in own}
    while open_jobs:
        level, tightest = Fraction(1), None
        for channel in sorted(channels):
            taken = sum(found[job] * Fraction(demands[job][channel]) for job in found if channel in demands[job])
            wanted = sum(Fraction(demands[job][channel]) for job in open_jobs if channel in demands[job])
            if wanted and (1 - taken) / wanted < level:
                level, tightest = (1 - taken) / wanted, channel
        settled = {job for job in open_jobs if tightest is None or tightest in demands[job]}
        found |= dict.fromkeys(settled, level)
        open_jobs -= settled
    return {job: float(rate) for job, rate in found.items()}


def run_again(
    jobs: Sequence[Job],
    order: Mapping[int, Sequence[int]],
    *,
    overlap: bool,
    contention: bool,
    sets: Mapping[int, str] | None = None,
) -> list[tuple[float, float]]:
    """Start and end of every job; with the set of every rank, in lockstep."""
    env = simpy.Environment()
    fabric = Fabric(env)
    done = [env.event() for _ in jobs]
    missing = [len(job.ranks) for job in jobs]
    spans = [(0.0, 0.0)] * len(jobs)
    steps = {job.step: env.event() for job in jobs if job.step is not None}

    def perform(number: int) -> Any:
        job = jobs[number]
        start = env.now
        if contention and job.demand:
            yield env.process(fabric.transfer(number, job))
        else:
            yield env.timeout(job.seconds)
        spans[number] = (start, env.now)
        done[number].succeed()

    def sequence(own: str, members: Mapping[int, str]) -> Any:
        """What a set does: step by step, and on to the next when the last job of a step is done."""
        for step in sorted(steps):
            here = [number for number, job in enumerate(jobs) if job.step == step]
            concerned = {members[rank] for number in here for rank in jobs[number].ranks}
            if own in concerned:
                arrived.setdefault(step, set()).add(own)
                if arrived[step] == concerned:
                    steps[step].succeed()
                yield env.all_of([done[number] for number in here])

    def stream(numbers: Sequence[int]) -> Any:
        for number in numbers:
            step = jobs[number].step
            if sets is not None and step is not None:
                yield steps[step]
            if overlap:
                for before in jobs[number].after:
                    yield done[before]
            missing[number] -= 1
            if not missing[number]:
                env.process(perform(number))
            yield done[number]

    arrived: dict[int, set[str]] = {}
    for name in sorted(set(sets.values())) if sets is not None else ():
        env.process(sequence(name, sets or {}))
    for own in order.values():
        parts = [[n for n in own if jobs[n].moves == moves] for moves in (False, True)] if overlap else [own]
        for part in parts:
            env.process(stream(part))
    env.run()
    assert all(event.processed for event in done)
    return spans
