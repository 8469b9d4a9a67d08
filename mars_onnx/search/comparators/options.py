"""The strategies that the genetic algorithm chooses from: those of the paper, for any operator with a rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import permutations

from mars_onnx.rules.axes import Axis
from mars_onnx.rules.base import OpRule, Signature
from mars_onnx.rules.registry import rule_for
from mars_onnx.sharding.strategy import WHOLE, Placement, Resolution, Ring, Split, Strategy

#: A reduction this short is split alone only, not together with another axis.
_SHORTEST_PAIRED_REDUCTION = 16
#: Along how many parallel axes, in the rule's order, partial sums may be scattered.
_SCATTER_AXES = 2


@lru_cache(maxsize=65536)
def options(signature: Signature, count: int, weights: tuple[int, ...] = ()) -> tuple[Strategy, ...]:
    """Everything that may be tried; the rule can still refuse some of it.

    Whole; exclusive shards along one axis, or two in every order and factorisation; each also with shared shards of an
    operand that the split leaves replicated; partial sums all-reduced, or reduce-scattered along a parallel axis.

    Args:
        signature: Of the layer.
        count: How many accelerators the set has.
        weights: Relative speeds of unequal members; an axis is then also split in these proportions.
    """
    if count < 2:
        return (WHOLE,)
    rule = rule_for(signature)
    long_enough = [axis for axis in rule.axes if axis.size >= 2]
    found = [WHOLE]
    for splits in _splits(long_enough, count, weights):
        found += _finished(rule, long_enough, splits)
    return tuple(dict.fromkeys(found))


def _splits(axes: Sequence[Axis], count: int, weights: tuple[int, ...]) -> Iterator[tuple[Split, ...]]:
    for axis in axes:
        yield (Split(axis.name, (1,) * count),)
        if len(set(weights)) > 1:
            yield (Split(axis.name, weights),)
    pairable = [axis for axis in axes if not axis.reduction or axis.size >= _SHORTEST_PAIRED_REDUCTION]
    for first, second in permutations(pairable, 2):
        if first.reduction and second.reduction:
            continue
        for outer in range(2, count // 2 + 1):
            inner = count // outer
            if count % outer == 0 and first.size >= outer and second.size >= inner:
                yield Split(first.name, (1,) * outer), Split(second.name, (1,) * inner)


def _finished(rule: OpRule, axes: Sequence[Axis], splits: tuple[Split, ...]) -> Iterator[Strategy]:
    """A split, with everything that may become of what it replicates or leaves partial."""
    yield Strategy(Placement.SHARDED, splits)
    names = {split.axis for split in splits}
    if any(axis.reduction for axis in axes if axis.name in names):
        for axis in [axis for axis in axes if not axis.reduction][:_SCATTER_AXES]:
            yield Strategy(Placement.SHARDED, splits, resolution=Resolution.REDUCE_SCATTER, scatter_axis=axis.name)
    for operand, name in rule.operands.items():
        dims = rule.inputs[operand] if operand < len(rule.inputs) else None
        if dims is not None and not names & {axis for dim in dims for axis in dim.axes}:
            yield Strategy(Placement.SHARDED, splits, Ring(name))
