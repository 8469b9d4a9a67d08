"""Mappings that are quickly found: what the search has to beat, and what stands if time is up before it does."""

from __future__ import annotations

from collections.abc import Iterator

from mars_onnx.errors import InputError
from mars_onnx.pool.topology import Pool
from mars_onnx.search.comparators.h2h import h2h
from mars_onnx.search.comparators.single import single
from mars_onnx.search.comparators.uniform import uniform
from mars_onnx.search.greedy import greedy_mapping
from mars_onnx.search.method import Objective, SearchOptions
from mars_onnx.search.problem import Problem
from mars_onnx.sharding.mapping import Mapping


def incumbents(problem: Problem, pool: Pool, objective: Objective) -> Iterator[Mapping]:
    """One after the other, the cheapest to find first."""
    yield greedy_mapping(problem, pool)
    options = SearchOptions(objective=objective)
    # Whole layers on single accelerators are a good answer where a model has several inputs.
    for method in (single, uniform, *([h2h] if len(problem.inputs) > 1 else [])):
        try:
            yield method(problem, pool, options).mapping
        except InputError:
            # Where no accelerator can run all layers, some sets still may.
            continue
