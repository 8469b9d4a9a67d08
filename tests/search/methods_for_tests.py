"""Search methods that answer as a test wants."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mars_onnx.pool.topology import Pool
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.greedy import greedy_mapping
from mars_onnx.search.method import Ending, Method, Objective, Progress, SearchOptions, SearchResult
from mars_onnx.search.problem import Problem
from mars_onnx.search.registry import METHODS
from mars_onnx.sharding.mapping import AcceleratorSet, LayerChoice, Mapping
from mars_onnx.sharding.strategy import WHOLE

Change = Callable[[SearchResult], SearchResult]
#: Made in the working folder again and again while a method searches.
MARKER = Path("searching")
BOTH = (Objective.LATENCY, Objective.THROUGHPUT)


def whole_on(problem: Problem, pool: Pool, *ranks: int) -> Mapping:
    """Equally many layers, uncut, on each of some accelerators in turn."""
    sets = tuple(AcceleratorSet((rank,), (pool.accelerators[rank].designs[0].name,)) for rank in ranks)
    count = len(problem.layers)
    return Mapping(
        sets, tuple(LayerChoice(la.name, len(ranks) * i // count, WHOLE) for i, la in enumerate(problem.layers))
    )


def answering(problem: Problem, pool: Pool, options: SearchOptions, *mappings: Mapping) -> SearchResult:
    """The answer of an honest method that looked at these mappings alone."""
    priced = sorted(
        ((evaluate(problem, pool, own).cost_s(options.objective), own) for own in mappings), key=lambda pair: pair[0]
    )
    (cost_s, best), *others = priced
    return SearchResult(best, cost_s, cost_s, Ending.PROVEN, "a few", tuple(own for _, own in others))


def few(problem: Problem, pool: Pool, options: SearchOptions) -> SearchResult:
    """The best of greedy, one accelerator, and all of them one after the other."""
    ranks = tuple(range(min(pool.size, len(problem.layers))))
    every = (greedy_mapping(problem, pool), whole_on(problem, pool, 0), whole_on(problem, pool, *ranks))
    return answering(problem, pool, options, *dict.fromkeys(every))


def patient(problem: Problem, pool: Pool, options: SearchOptions) -> SearchResult:
    """Reports until it is interrupted or its time is over; its bound is half of the cost."""
    found = few(problem, pool, options)
    bound = found.cost_s / 2
    start, ending = time.monotonic(), Ending.TIME_LIMIT
    try:
        while options.time_limit_s is None or time.monotonic() - start < options.time_limit_s:
            if options.time_limit_s is None:
                MARKER.touch()
            options.report(Progress("waiting", found.cost_s, bound))
            time.sleep(0.002)
    except KeyboardInterrupt:
        ending = Ending.INTERRUPTED
    return replace(found, lower_bound_s=bound, ending=ending)


def deaf(problem: Problem, pool: Pool, options: SearchOptions) -> SearchResult:
    """Never reports, takes an interrupt for a reason to go on for a while, and says then what it found."""
    try:
        while True:
            MARKER.touch()
            time.sleep(0.02)
    except KeyboardInterrupt:
        return few(problem, pool, options)


def register(monkeypatch: pytest.MonkeyPatch, name: str, choose: Callable[..., SearchResult]) -> None:
    """Make a method known for the time of a test."""
    monkeypatch.setitem(METHODS, name, Method(choose, "for tests", BOTH))
