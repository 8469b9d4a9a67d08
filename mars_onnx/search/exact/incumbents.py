"""Mappings that are quickly found: what the search has to beat, and what stands if time is up before it does."""

from __future__ import annotations

from collections.abc import Iterator

from mars_onnx.errors import InputError
from mars_onnx.pool.topology import Pool
from mars_onnx.search.comparators.h2h import h2h
from mars_onnx.search.comparators.single import single
from mars_onnx.search.comparators.uniform import uniform
from mars_onnx.search.greedy import greedy_mapping
from mars_onnx.search.method import Choose, Objective, SearchOptions
from mars_onnx.search.problem import Problem
from mars_onnx.sharding.mapping import Mapping


def inside(problem: Problem, pool: Pool, objective: Objective) -> Iterator[Mapping]:
    """Mappings of the space that is searched, but for unequal shares; the cheapest to find first."""
    yield greedy_mapping(problem, pool)
    yield from _mappings(problem, pool, objective, (single, uniform))


def outside(problem: Problem, pool: Pool, objective: Objective) -> Iterator[Mapping]:
    """Mappings outside of it, by H2H: it comes back to an accelerator, and lets branches run side by side."""
    yield from _mappings(problem, pool, objective, (h2h,))


def _mappings(problem: Problem, pool: Pool, objective: Objective, methods: tuple[Choose, ...]) -> Iterator[Mapping]:
    for method in methods:
        try:
            yield method(problem, pool, SearchOptions(objective=objective)).mapping
        except InputError:
            # Where no accelerator can run all layers, some sets still may.
            continue
