"""What a search method is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from mars_onnx.pool.topology import Pool
from mars_onnx.search.problem import Problem
from mars_onnx.sharding.mapping import Mapping


class Objective(StrEnum):
    """What is to be small: the latency of one inference, or the time between two of a stream."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"


class Ending(StrEnum):
    """Why a search stopped."""

    PROVEN = "proven"  # the answer is optimal in the stated space
    WORK_LIMIT = "work limit"  # as much was done as was asked for, which is the same on every machine
    TIME_LIMIT = "time limit"
    INTERRUPTED = "interrupted"
    HEURISTIC = "heuristic"  # the method is a rule of thumb and proves nothing
    GIVEN = "given"  # nothing was searched: somebody gave the mapping
    GAP = "gap"  # the bound and the answer did not meet; the method has nothing more to try


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a search is.

    Attributes:
        stage: What it does now, for a person.
        cost_s: Of the best answer so far.
        lower_bound_s: Below which no answer can be.
        done: Share of the work that is done, 0 to 1; ``None`` if unknown.
    """

    stage: str
    cost_s: float | None = None
    lower_bound_s: float | None = None
    done: float | None = None


def _ignore(progress: Progress) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How to search.

    Attributes:
        objective: What is to be small.
        time_limit_s: When to stop with the best answer so far; ``None`` for no limit.
        seed: Of methods that draw random numbers.
        work_limit: How much to do at most, in units of half a second to a second that are the same on every machine, of
            methods that count what they do; ``None`` for no limit.
        report: Called now and then. A KeyboardInterrupt is taken as a limit.
    """

    objective: Objective = Objective.LATENCY
    time_limit_s: float | None = None
    seed: int = 0
    work_limit: float | None = None
    report: Callable[[Progress], None] = field(default=_ignore, compare=False)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """An answer.

    Attributes:
        mapping: The best mapping found.
        cost_s: What it costs, by :func:`mars_onnx.search.evaluate.evaluate`: seconds of one inference or, for
            throughput, between two.
        lower_bound_s: No mapping of the space costs less; ``None`` if the method proves nothing.
        ending: Why it stopped.
        space: In words, what was looked at.
        others: Further good mappings, best first, for a second look by simulation.
        work: What was done, in units of the work limit; ``None`` if the method does not count it.
    """

    mapping: Mapping
    cost_s: float
    lower_bound_s: float | None
    ending: Ending
    space: str
    others: tuple[Mapping, ...] = ()
    work: float | None = None

    @property
    def gap(self) -> float | None:
        """How much of the cost the bound leaves open: 0 if the answer is proven optimal."""
        if self.lower_bound_s is None:
            return None
        return max(0.0, 1.0 - self.lower_bound_s / self.cost_s) if self.cost_s > 0 else 0.0


Choose = Callable[[Problem, Pool, SearchOptions], SearchResult]


@dataclass(frozen=True, slots=True)
class Method:
    """A way to choose a mapping.

    Attributes:
        choose: From a problem and a pool to a mapping.
        title: In a few words, for a person.
        objectives: What it can make small.
        small: Whether it refuses problems that are not small; it is not meant by ``--compare all``.
    """

    choose: Choose
    title: str
    objectives: tuple[Objective, ...] = (Objective.LATENCY,)
    small: bool = False
