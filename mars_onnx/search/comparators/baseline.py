"""The computation-prioritised baseline that MARS (DAC 2023) compares itself with: compute time decides, alone.

The groups of the pool are the accelerator sets. Layers go to them in contiguous runs of about equal compute time; each
set takes the design that computes its run fastest; and each layer is split along the longest two dimensions of what it
computes. No cost of communication is looked at. docs/comparators.md says what of this is reconstructed.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations

from mars_onnx.errors import InputError
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.base import Signature
from mars_onnx.rules.registry import rule_for
from mars_onnx.search.comparators.trials import best_of
from mars_onnx.search.method import SearchOptions, SearchResult
from mars_onnx.search.problem import Problem
from mars_onnx.search.runs import balanced_runs, fastest_designs, least_seconds
from mars_onnx.sharding.lowering import lower
from mars_onnx.sharding.mapping import AcceleratorSet, LayerChoice, Mapping
from mars_onnx.sharding.strategy import WHOLE, Placement, Split, Strategy

SPACE = "one mapping: a set per group, contiguous runs of equal compute time, the longest two dimensions split"


def baseline(problem: Problem, pool: Pool, options: SearchOptions) -> SearchResult:
    """The one mapping that the rule gives; it looks at no objective.

    Raises:
        InputError: A design cannot run a layer.
    """
    return best_of(problem, pool, options, [baseline_mapping(problem, pool)], "baseline", SPACE)


def baseline_mapping(problem: Problem, pool: Pool) -> Mapping:
    """Sets by group, runs by compute time, designs by compute time, splits by length."""
    groups = pool.groups()
    seconds = [least_seconds(pool, layer.signature) for layer in problem.layers]
    runs = balanced_runs(problem, seconds, len(groups))
    sets = tuple(
        AcceleratorSet(
            members,
            fastest_designs(
                pool, members, [layer for layer, run in zip(problem.layers, runs, strict=True) if run == number]
            ),
        )
        for number, members in enumerate(groups)
    )
    choices = tuple(
        LayerChoice(layer.name, run, longest_two(layer.signature, groups[run]))
        for layer, run in zip(problem.layers, runs, strict=True)
    )
    return Mapping(sets, choices)


@lru_cache(maxsize=65536)
def longest_two(signature: Signature, members: tuple[int, ...]) -> Strategy:
    """The longest two parallel dimensions split, the longest the most; equal ones as a person would name them.

    Where a dimension is too short, or the rule refuses the split, the next longest pair counts, then one dimension
    alone; and what cannot be split is computed whole by all.
    """
    axes = sorted((axis for axis in rule_for(signature).axes if not axis.reduction), key=lambda axis: -axis.size)
    outer, inner = squarest(len(members))
    pairs = [
        ((first, outer), (second, inner))
        for first, second in combinations(axes, 2)
        if first.size >= outer and second.size >= inner and inner > 1
    ]
    alone = [((axis, len(members)),) for axis in axes if axis.size >= len(members) > 1]
    for splits in (*pairs, *alone):
        strategy = Strategy(Placement.SHARDED, tuple(Split(axis.name, (1,) * ways) for axis, ways in splits))
        try:
            lower(signature, strategy, members)
        except InputError:
            continue
        return strategy
    return WHOLE


def squarest(count: int) -> tuple[int, int]:
    """Two factors of a number that are as near to each other as can be, the larger first."""
    inner = max(factor for factor in range(1, count + 1) if count % factor == 0 and factor * factor <= count)
    return count // inner, inner
