"""The whole model on one accelerator: the best of them, in its best design."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from mars_onnx.cost.shares import twin
from mars_onnx.cost.transfers import alike_routes
from mars_onnx.pool.topology import Accelerator, Pool
from mars_onnx.search.comparators.trials import best_of
from mars_onnx.search.method import SearchOptions, SearchResult
from mars_onnx.search.problem import Problem
from mars_onnx.sharding.mapping import AcceleratorSet, LayerChoice, Mapping
from mars_onnx.sharding.strategy import WHOLE


def single(problem: Problem, pool: Pool, options: SearchOptions) -> SearchResult:
    """Every accelerator in every design, all layers whole; of those that are alike, the first.

    Raises:
        InputError: No accelerator can run all layers.
    """
    return best_of(
        problem, pool, options, _mappings(problem, pool), "single accelerator", "one accelerator, one design"
    )


def _mappings(problem: Problem, pool: Pool) -> Iterator[Mapping]:
    choices = tuple(LayerChoice(layer.name, 0, WHOLE) for layer in problem.layers)
    different: dict[Hashable, Accelerator] = {}
    for accelerator in pool.accelerators:
        rank = accelerator.rank
        ends = alike_routes(pool, [(pool.inputs_at, rank), (rank, pool.outputs_at)])
        different.setdefault((twin(pool, rank), ends), accelerator)
    for accelerator in different.values():
        for design in accelerator.designs:
            yield Mapping((AcceleratorSet((accelerator.rank,), (design.name,)),), choices)
