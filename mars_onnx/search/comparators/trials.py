"""Trying mappings one after the other, until time is up: how a method of a few candidates answers."""

from __future__ import annotations

import time
from collections.abc import Iterable

from mars_onnx.errors import InputError
from mars_onnx.pool.topology import Pool
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.method import Ending, Progress, SearchOptions, SearchResult
from mars_onnx.search.problem import Problem
from mars_onnx.sharding.mapping import Mapping

#: How many of the mappings that were not best are kept for a second look.
MOST_OTHERS = 4


class Stopwatch:
    """When a search has to stop."""

    def __init__(self, options: SearchOptions) -> None:
        """Start it."""
        self._end = None if options.time_limit_s is None else time.monotonic() + options.time_limit_s

    @property
    def over(self) -> bool:
        """Whether the time limit has passed."""
        return self._end is not None and time.monotonic() >= self._end


class Best:
    """The best mappings seen so far, judged by :func:`mars_onnx.search.evaluate.evaluate`."""

    def __init__(self, problem: Problem, pool: Pool, options: SearchOptions) -> None:
        """None yet."""
        self._problem, self._pool, self._options = problem, pool, options
        self._seen: list[tuple[float, int, Mapping]] = []
        self._met: set[Mapping] = set()

    def offer(self, mapping: Mapping, stage: str) -> float:
        """Judge a mapping, keep it if it is one of the best, and return its cost in seconds.

        Raises:
            InputError: A design cannot run a layer that the mapping gives it.
        """
        cost_s = evaluate(self._problem, self._pool, mapping).cost_s(self._options.objective)
        if mapping not in self._met:
            self._met.add(mapping)
            self._seen = sorted([*self._seen, (cost_s, len(self._met), mapping)])[: MOST_OTHERS + 1]
        self._options.report(Progress(stage, self._seen[0][0]))
        return cost_s

    @property
    def found(self) -> bool:
        """Whether there is an answer yet."""
        return bool(self._seen)

    def result(self, ending: Ending, space: str) -> SearchResult:
        """The answer.

        Raises:
            ValueError: Nothing was offered.
        """
        if not self._seen:
            raise ValueError("no mapping was offered")
        (cost_s, _, mapping), *others = self._seen
        return SearchResult(mapping, cost_s, None, ending, space, tuple(other for _, _, other in others))


def best_of(
    problem: Problem, pool: Pool, options: SearchOptions, candidates: Iterable[Mapping], stage: str, space: str
) -> SearchResult:
    """The cheapest of several mappings.

    The first is always judged; a time limit or a KeyboardInterrupt after it ends the search with the best so far. A
    mapping that a design cannot run is passed over.

    Raises:
        InputError: No mapping can be run; of the first the reason.
        KeyboardInterrupt: There was nothing to answer with yet.
    """
    stopwatch = Stopwatch(options)
    best = Best(problem, pool, options)
    refused: InputError | None = None
    ending = Ending.HEURISTIC
    try:
        for mapping in candidates:
            try:
                best.offer(mapping, stage)
            except InputError as error:
                refused = refused or error
            if stopwatch.over and best.found:
                ending = Ending.TIME_LIMIT
                break
    except KeyboardInterrupt:
        if not best.found:
            raise
        ending = Ending.INTERRUPTED
    if not best.found and refused is not None:
        raise refused
    return best.result(ending, space)
