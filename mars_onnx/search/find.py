"""Asking a search method for a mapping, watched by somebody, and not taking its word for what it found."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

from mars_onnx.errors import InvariantError, UsageError
from mars_onnx.pool.topology import Pool
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.method import Ending, Objective, Progress, SearchOptions, SearchResult
from mars_onnx.search.problem import Problem
from mars_onnx.search.registry import search_method
from mars_onnx.sharding.mapping import Mapping

Report = Callable[[Progress], None]
#: Entered while a method searches; gives what the method reports to. It may raise KeyboardInterrupt from there, which
#: a method takes as its time limit.
Watch = Callable[[], AbstractContextManager[Report]]

#: Costs that differ by less, relatively, differ by rounding.
_ROUNDING = 1e-9
#: A proof may leave so much, relatively, to the tolerances of a solver.
_PROOF_TOLERANCE = 1e-6
#: Name in place of a method's, of a mapping that somebody gave.
GIVEN = "mapping"


@dataclass(frozen=True, slots=True)
class Found:
    """An answer, and how it came about.

    Attributes:
        method: Name of the search method, or ``mapping`` for a mapping that was given.
        objective: What was to be small.
        result: The answer.
        seconds: How long it took.
        work_limit: Units of work that it had; ``None`` for no limit.
        time_limit_s: Seconds that it had; ``None`` for no limit.
    """

    method: str
    objective: Objective
    result: SearchResult
    seconds: float
    work_limit: float | None = None
    time_limit_s: float | None = None

    @property
    def proven(self) -> bool:
        """Whether no mapping of the space that was looked at is better."""
        return self.result.ending is Ending.PROVEN


@contextmanager
def unwatched() -> Iterator[Report]:
    """The watch of nobody."""
    yield SearchOptions().report


def find_mapping(problem: Problem, pool: Pool, name: str, options: SearchOptions, watch: Watch = unwatched) -> Found:
    """Let a search method choose a mapping.

    Args:
        problem: What is to be mapped.
        pool: Onto what.
        name: Of the method.
        options: Objective, limits and seed; whom it reports to is decided by ``watch``.
        watch: Entered while the method searches.

    Raises:
        UsageError: There is no such method, it has another objective, or an option has no sense.
        CapacityError: Nothing fits.
        InvariantError: The answer costs something else than the method says, or its claims contradict each other.
    """
    method = search_method(name)
    check_options(options)
    if options.objective not in method.objectives:
        able = ", ".join(method.objectives)
        raise UsageError(f"the search method {name!r} has the objective {able}, not {options.objective}")
    start = time.perf_counter()
    with watch() as report:

        def named(progress: Progress) -> None:
            report(replace(progress, stage=f"{name}: {progress.stage}"))

        result = method.choose(problem, pool, replace(options, report=named))
    seconds = time.perf_counter() - start
    _check_claims(problem, pool, name, options.objective, result)
    return Found(name, options.objective, result, seconds, options.work_limit, options.time_limit_s)


def given_mapping(problem: Problem, pool: Pool, mapping: Mapping, objective: Objective) -> Found:
    """A mapping that somebody gave, as an answer: nothing was searched and nothing is claimed."""
    cost_s = evaluate(problem, pool, mapping).cost_s(objective)
    return Found(GIVEN, objective, SearchResult(mapping, cost_s, None, Ending.GIVEN, "the mapping that was given"), 0.0)


def check_options(options: SearchOptions) -> None:
    """Refuse what has no sense.

    Raises:
        UsageError: The message names the option.
    """
    limit = options.time_limit_s
    if limit is not None and not (math.isfinite(limit) and limit > 0):
        raise UsageError(f"--time-limit {limit:g}: must be a number of seconds above 0")
    work = options.work_limit
    if work is not None and not (math.isfinite(work) and work > 0):
        raise UsageError(f"--work-limit {work:g}: must be a number of units above 0")
    if options.seed < 0:
        raise UsageError(f"--seed {options.seed}: must not be negative")


def _check_claims(problem: Problem, pool: Pool, name: str, objective: Objective, result: SearchResult) -> None:
    """The evaluator is the judge of cost; a bound above the cost, or a proof without a bound, is none."""
    cost_s = evaluate(problem, pool, result.mapping).cost_s(objective)
    who = f"the search method {name!r}"
    if not math.isclose(result.cost_s, cost_s, rel_tol=_ROUNDING):
        raise InvariantError(f"{who} says that its mapping costs {result.cost_s!r} s, but it costs {cost_s!r} s")
    bound_s = result.lower_bound_s
    if bound_s is not None and not bound_s <= cost_s * (1 + _ROUNDING):
        raise InvariantError(f"{who} found a mapping of {cost_s!r} s, below its own lower bound of {bound_s!r} s")
    if result.ending is Ending.PROVEN and (bound_s is None or bound_s < cost_s * (1 - _PROOF_TOLERANCE)):
        raise InvariantError(f"{who} claims a proof, but its lower bound is {bound_s!r} s and the cost {cost_s!r} s")
