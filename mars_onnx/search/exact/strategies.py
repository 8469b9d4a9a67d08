"""The strategies that exact search looks at, in a canonical order of digits.

A set has *levels*: ``(2, 4)`` are two clusters of four. A split of a level deals its digit out to iteration axes, or
to ``*`` (replicas); to several at once where it has factors. Inside a level only one order of axes is looked at: the
rule's, with replicas last. Between levels the order is that of the topology.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from itertools import combinations, product
from math import prod

from mars_onnx.rules.base import OpRule, Signature
from mars_onnx.rules.registry import rule_for
from mars_onnx.sharding.strategy import REPLICAS, SINGLE, WHOLE, Placement, Resolution, Split, Strategy

Factors = tuple[tuple[str, int], ...]

#: A set of more members is not cut along more than this many axes at one level.
_MOST_AXES = 3
#: Larger sets cut no reduction that is shorter than they have members: there are enough other axes.
_SMALL_SET = 8
#: Splitting a reduction into pieces shorter than this leaves more to add up than to multiply.
_SHORTEST_REDUCTION = 2


@lru_cache(maxsize=8192)
def strategies(signature: Signature, levels: tuple[int, ...]) -> tuple[Strategy, ...]:
    """All strategies for a layer on a set with these levels, without shared shards.

    Args:
        signature: Of the layer.
        levels: Sizes of the set's levels, outermost first; their product is the size of the set.
    """
    if prod(levels) == 1:
        return (WHOLE,)
    rule = rule_for(signature)
    found: dict[Strategy, None] = {WHOLE: None, SINGLE: None}
    for factors in _dealt(rule, levels):
        if all(axis == REPLICAS for axis, _ in factors):
            continue
        splits = tuple(Split(axis, (1,) * count) for axis, count in factors)
        if splits[-1].axis == REPLICAS:
            splits = splits[:-1]
        found.update(dict.fromkeys(_resolved(rule, Strategy(Placement.SHARDED, splits))))
    return tuple(found)


def _resolved(rule: OpRule, strategy: Strategy) -> Iterator[Strategy]:
    """A strategy with every way to resolve its partial sums."""
    yield strategy
    reductions = {axis.name for axis in rule.axes if axis.reduction}
    parts = prod(len(split.shares) for split in strategy.splits if split.axis in reductions)
    if parts == 1:
        return
    ways = {split.axis: len(split.shares) for split in strategy.splits}
    for axis in rule.axes:
        if not axis.reduction and axis.size >= 2 and axis.size // axis.granularity >= parts * ways.get(axis.name, 1):
            yield Strategy(Placement.SHARDED, strategy.splits, None, Resolution.REDUCE_SCATTER, axis.name)


def _dealt(rule: OpRule, levels: tuple[int, ...]) -> Iterator[Factors]:
    """Every way to deal the digits of all levels out to axes."""
    members = prod(levels)
    least = members if members > _SMALL_SET else 2
    names = tuple(axis.name for axis in rule.axes if axis.size >= (least if axis.reduction else 2))
    sizes = {axis.name: axis.size for axis in rule.axes}
    shortest = {axis.name: _SHORTEST_REDUCTION if axis.reduction else 1 for axis in rule.axes}
    seen: set[Factors] = set()
    for per_level in product(*(_one_level((*names, REPLICAS), size) for size in levels)):
        joined = _joined(per_level)
        if joined is None or joined in seen:
            continue
        seen.add(joined)
        # More ways than iterations leaves members idle; a few may be, half of them or more never pays.
        if all(axis == REPLICAS or sizes[axis] * 2 > count * shortest[axis] for axis, count in joined):
            yield joined


@cache
def _one_level(names: tuple[str, ...], size: int) -> tuple[Factors, ...]:
    """Ways to deal one digit out: ordered factors over axes in canonical order."""
    if size == 1:
        return ((),)
    found: list[Factors] = []
    for count in range(1, min(_MOST_AXES, len(names)) + 1):
        for factors in _factorisations(size, count):
            found += [tuple(zip(axes, factors, strict=True)) for axes in combinations(names, count)]
    return tuple(found)


@cache
def _factorisations(size: int, count: int) -> tuple[tuple[int, ...], ...]:
    """Ordered factors, each 2 or more, with this product."""
    if count == 1:
        return ((size,),)
    return tuple(
        (first, *rest)
        for first in range(2, size // 2 + 1)
        if size % first == 0
        for rest in _factorisations(size // first, count - 1)
    )


def _joined(per_level: Sequence[Factors]) -> Factors | None:
    """Levels one after the other; an axis of two neighbouring levels is one split, elsewhere it cannot be twice."""
    joined: list[tuple[str, int]] = []
    for factors in per_level:
        own = list(factors)
        last = joined[-1][0] if joined else None
        if last is not None and any(axis == last for axis, _ in own):
            first = next(pair for pair in own if pair[0] == last)
            own.remove(first)
            joined[-1] = (last, joined[-1][1] * first[1])
        joined += own
    names = [axis for axis, _ in joined]
    return tuple(joined) if len(set(names)) == len(names) else None
