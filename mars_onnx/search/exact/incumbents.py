"""Mappings that are quickly found: what the search has to beat, and what stands if time is up before it does."""

from __future__ import annotations

from collections.abc import Iterator

from mars_onnx.cost.shares import twin
from mars_onnx.errors import InputError
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.base import Signature
from mars_onnx.search.comparators.h2h import h2h
from mars_onnx.search.comparators.single import single
from mars_onnx.search.comparators.uniform import uniform
from mars_onnx.search.exact.chain.segments import inputs_of
from mars_onnx.search.exact.strategies.shares import ShareTables
from mars_onnx.search.exact.work import FIRST_KIND, SIMPLE_KIND, WHOLE_KIND, spend_on_simple
from mars_onnx.search.greedy import greedy_mapping
from mars_onnx.search.method import Choose, Objective, SearchOptions
from mars_onnx.search.problem import Problem
from mars_onnx.sharding.mapping import Mapping


def first(problem: Problem, pool: Pool, objective: Objective) -> Iterator[Mapping]:
    """Those mappings of :func:`inside` that say whether many accelerators pay, or few: of all of them, and of one."""
    spend_on_simple(FIRST_KIND, problem, pool)
    yield greedy_mapping(problem, pool)
    yield from _mappings(problem, pool, objective, (single,))


def inside(problem: Problem, pool: Pool, objective: Objective) -> Iterator[Mapping]:
    """Mappings of the space that is searched, but for unequal shares; the cheapest to find first."""
    yield from first(problem, pool, objective)
    spend_on_simple(SIMPLE_KIND, problem, pool)
    yield from _mappings(problem, pool, objective, (uniform,))


def outside(
    problem: Problem, pool: Pool, objective: Objective, limit_s: float, shares: ShareTables
) -> Iterator[Mapping]:
    """Mappings outside of it, by H2H: it comes back to an accelerator, and lets branches run side by side.

    Nothing where no mapping of whole layers onto single accelerators can be below the limit.

    Args:
        problem: What is mapped.
        pool: The accelerators.
        objective: What is to be small.
        limit_s: What a mapping has to be below.
        shares: What layers take to compute on single accelerators.
    """
    if _whole_layers_at_least(problem, pool, objective, shares) < limit_s:
        spend_on_simple(WHOLE_KIND, problem, pool)
        yield from _mappings(problem, pool, objective, (h2h,))


def _whole_layers_at_least(problem: Problem, pool: Pool, objective: Objective, shares: ShareTables) -> float:
    """Seconds that every mapping of whole layers onto single accelerators takes: its compute alone."""
    least: dict[Signature, float] = {}
    ready: list[float] = []
    for layer in problem.layers:
        if layer.signature not in least:
            least[layer.signature] = _whole_at_least(pool, shares, layer.signature)
        before = max((ready[source.layer] for source in inputs_of(layer) if source.layer is not None), default=0.0)
        ready.append(before + least[layer.signature])
    if objective is Objective.LATENCY:
        return max(ready, default=0.0)
    own = [least[layer.signature] for layer in problem.layers]
    return max([sum(own) / pool.size, *own])


def _whole_at_least(pool: Pool, shares: ShareTables, signature: Signature) -> float:
    """Seconds of a layer on the accelerator and in the design that is best at it; infinite if none can run it."""
    found = [float("inf")]
    for rank in {twin(pool, rank) for rank in range(pool.size)}:
        for design in pool.accelerators[rank].designs:
            try:
                found.append(shares.least_compute(signature, (), (rank,), (design.name,)))
            except InputError:
                continue
    return min(found)


def _mappings(problem: Problem, pool: Pool, objective: Objective, methods: tuple[Choose, ...]) -> Iterator[Mapping]:
    for method in methods:
        try:
            yield method(problem, pool, SearchOptions(objective=objective)).mapping
        except InputError:
            # Where no accelerator can run all layers, some sets still may.
            continue
