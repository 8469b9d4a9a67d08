"""The best uniform strategy: one way to split, for every layer to which it applies.

A *way* names dimensions of what layers compute, whatever the operators call them (D1 are the channels of an image), or
the reduction. Sets are all accelerators, or equal divisions of them, group by group; one set alone, or all of them one
after the other with contiguous runs of layers of equal compute time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np

from mars_onnx.cost.shares import twin
from mars_onnx.errors import InputError
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.base import Signature
from mars_onnx.rules.registry import rule_for
from mars_onnx.search.comparators.pricer import Pricer
from mars_onnx.search.comparators.structure import Structure
from mars_onnx.search.comparators.trials import Best, Stopwatch
from mars_onnx.search.method import Ending, SearchOptions, SearchResult
from mars_onnx.search.problem import Problem
from mars_onnx.search.runs import balanced_runs, fastest_designs, relative_speeds, whole_seconds
from mars_onnx.sharding.lowering import lower_all
from mars_onnx.sharding.mapping import AcceleratorSet
from mars_onnx.sharding.strategy import WHOLE, Placement, Resolution, Split, Strategy

SPACE = "one way to split for all layers to which it applies; all accelerators, or equal divisions of them; per design"
#: Stands for the reduction of an operator.
REDUCTION = "reduction"
#: Dimensions of what a layer computes: batch, channels (or rows), height (or columns), width.
_DIMENSIONS = ("D0", "D1", "D2", "D3")


@dataclass(frozen=True, slots=True)
class Way:
    """A way to split a layer.

    Attributes:
        splits: Dimension, or ``REDUCTION``, and shares; outermost first.
        scatter: Whether partial sums are scattered along D1 rather than reduced on all members.
        fallback: What happens to layers that cannot be split so; ``None``: they are computed whole.
    """

    splits: tuple[tuple[str, tuple[int, ...]], ...]
    scatter: bool = False
    fallback: Way | None = None


def uniform(problem: Problem, pool: Pool, options: SearchOptions) -> SearchResult:
    """The best of all ways, sets and designs.

    Raises:
        InputError: No design can run all layers.
    """
    stopwatch = Stopwatch(options)
    best = Best(problem, pool, options)
    refused: InputError | None = None
    ending = Ending.HEURISTIC
    tried: dict[AcceleratorSet, tuple[Way, ...]] = {}

    def ways_of(own: AcceleratorSet) -> tuple[Way, ...]:
        if own not in tried:
            tried[own] = ways(len(own.members), _speeds(problem, pool, own))
        return tried[own]

    def choices(signature: Signature, own: AcceleratorSet) -> tuple[Strategy, ...]:
        return tuple(dict.fromkeys(strategy_of(signature, own.members, way) for way in ways_of(own)))

    pricer = Pricer(problem, pool, choices)
    limit = float("inf")
    try:
        for sets, places in _structures(problem, pool):
            try:
                structure = Structure(pricer, sets, places, options.objective)
                # All sets have the ways of the first: with unequal speeds, these may differ in shares.
                genes = [
                    [
                        own.index(strategy_of(layer.signature, sets[place].members, ways_of(sets[place])[way]))
                        for layer, own, place in zip(problem.layers, structure.options, places, strict=True)
                    ]
                    for way in range(min(len(ways_of(each)) for each in sets))
                ]
                found = structure.cheapest(np.array(genes, np.intp), limit)
            except InputError as error:
                refused = refused or error
                found = None
            if found is not None:
                limit = found[1]
                best.offer(structure.mapping(genes[found[0]]), f"uniform, {len(sets)} x {len(sets[0].members)}")
            if stopwatch.over and best.found:
                ending = Ending.TIME_LIMIT
                break
    except KeyboardInterrupt:
        if not best.found:
            raise
        ending = Ending.INTERRUPTED
    if not best.found and refused is not None:
        raise refused
    return best.result(ending, SPACE)


def _structures(problem: Problem, pool: Pool) -> Iterator[tuple[tuple[AcceleratorSet, ...], list[int]]]:
    """All accelerators first, then ever smaller divisions: all of them in a row, and the first alone."""
    order = [rank for group in pool.groups() for rank in group]
    for size in range(pool.size, 0, -1):
        if pool.size % size:
            continue
        parts = [tuple(sorted(order[start : start + size])) for start in range(0, pool.size, size)]
        for count in dict.fromkeys((1, len(parts))):
            for name in (*pool.designs, None):
                made = _sets(problem, pool, parts[:count], name)
                if made is not None:
                    yield made


def _sets(
    problem: Problem, pool: Pool, parts: list[tuple[int, ...]], name: str | None
) -> tuple[tuple[AcceleratorSet, ...], list[int]] | None:
    """Sets whose members take a design, where they can (else the one that is quickest for the run), and the runs.

    Without a name each set takes what is quickest for its run. ``None`` if nobody can take the design, or if that is
    the same as with a name.
    """
    able = name is None or any(pool.accelerators[rank].design(name) for part in parts for rank in part)
    first = parts[0][0]
    own = pool.accelerators[first].designs
    fixed = name if name is not None and pool.accelerators[first].design(name) else None
    if not able:
        return None
    works = [
        min(whole_seconds(pool, first, design.name, layer.signature) for design in own if fixed in (None, design.name))
        for layer in problem.layers
    ]
    places = balanced_runs(problem, works, len(parts))
    sets: list[AcceleratorSet] = []
    for number, members in enumerate(parts):
        layers = [layer for layer, place in zip(problem.layers, places, strict=True) if place == number]
        quickest = fastest_designs(pool, members, layers)
        designs = tuple(
            name if name is not None and pool.accelerators[rank].design(name) else other
            for rank, other in zip(members, quickest, strict=True)
        )
        sets.append(AcceleratorSet(members, designs))
    one_kind = len({design for each in sets for design in each.designs}) == 1
    return None if name is None and one_kind else (tuple(sets), places)


@lru_cache(maxsize=256)
def ways(count: int, speeds: tuple[int, ...]) -> tuple[Way, ...]:
    """All ways to split for a set of ``count`` members; with unequal speeds, also in their proportion."""
    shares = [(1,) * count] if len(set(speeds)) == 1 else [(1,) * count, speeds]
    if count == 1:
        return (Way(()),)
    found: list[Way] = []
    for each in shares:
        plain = [Way(((dimension, each),)) for dimension in _DIMENSIONS]
        found += plain
        found += [Way(way.splits, fallback=plain[1]) for way in plain if way is not plain[1]]
        found += [
            Way(((REDUCTION, each),), scatter, fallback) for scatter in (False, True) for fallback in (None, plain[1])
        ]
    equal = Way(((_DIMENSIONS[1], (1,) * count),))
    for first, second in permutations(_DIMENSIONS, 2):
        for outer in range(2, count // 2 + 1):
            if count % outer == 0:
                splits = ((first, (1,) * outer), (second, (1,) * (count // outer)))
                found += [Way(splits), Way(splits, fallback=equal)]
    return tuple(found)


@lru_cache(maxsize=65536)
def strategy_of(signature: Signature, members: tuple[int, ...], way: Way) -> Strategy:
    """What a way means for a layer: the way itself where it applies, else its fallback, else whole.

    A split applies if the axis is long enough that more than half of its shares have something to do.
    """
    rule = rule_for(signature)
    splits: list[Split] = []
    for dimension, shares in way.splits:
        if dimension == REDUCTION:
            reductions = [axis for axis in rule.axes if axis.reduction]
            axis = max(reductions, key=lambda axis: axis.size, default=None)
        else:
            axis = rule.axis(dimension)
        if axis is None or 2 * axis.size <= len(shares):
            break
        splits.append(Split(axis.name, shares))
    else:
        scatter = rule.axis(_DIMENSIONS[1]) if way.scatter else None
        strategy = WHOLE
        if splits:
            resolution = Resolution.REDUCE_SCATTER if scatter else Resolution.ALL_REDUCE
            name = scatter.name if scatter else None
            strategy = Strategy(Placement.SHARDED, tuple(splits), None, resolution, name)
        (lowered,) = lower_all(signature, (strategy,), members)
        if not isinstance(lowered, InputError):
            return strategy
    return WHOLE if way.fallback is None else strategy_of(signature, members, way.fallback)


def _speeds(problem: Problem, pool: Pool, own: AcceleratorSet) -> tuple[int, ...]:
    """Relative speeds of the members at the whole model, in whole numbers; all 1 where they are about equal."""
    known: dict[tuple[int, str], float] = {}
    seconds: list[float] = []
    for rank, design in zip(own.members, own.designs, strict=True):
        key = (twin(pool, rank), design)
        if key not in known:
            known[key] = sum(whole_seconds(pool, rank, design, layer.signature) for layer in problem.layers)
        seconds.append(known[key])
    return relative_speeds(seconds)
