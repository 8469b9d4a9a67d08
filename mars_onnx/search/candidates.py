"""Strategies worth a look for a layer on a set."""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations

from mars_onnx.errors import InputError
from mars_onnx.rules.base import OpRule, Signature
from mars_onnx.rules.registry import rule_for
from mars_onnx.sharding.lowering import lower_all
from mars_onnx.sharding.strategy import WHOLE, Placement, Split, Strategy

#: Axes looked at two at a time; more make little difference and many candidates.
_PAIRED_AXES = 3
#: Splitting a shorter reduction than this leaves more to add up than to multiply.
_SHORTEST_REDUCTION = 16


@lru_cache(maxsize=65536)
def candidates(signature: Signature, members: tuple[int, ...], weights: tuple[int, ...]) -> tuple[Strategy, ...]:
    """Whole, every axis alone, and pairs of parallel axes, as far as the rule allows them.

    Args:
        signature: Of the layer.
        members: The set.
        weights: Relative speeds of the members; shares follow them where all members share one axis.
    """
    rule = rule_for(signature)
    count = len(members)
    found = [WHOLE]
    if count > 1:
        found += [_split((axis, weights)) for axis in _axes(rule)]
        if len(set(weights)) == 1:
            found += _pairs(rule, count)
    lowered = lower_all(signature, found, members)
    return tuple(strategy for strategy, own in zip(found, lowered, strict=True) if not isinstance(own, InputError))


def _axes(rule: OpRule) -> list[str]:
    return [a.name for a in rule.axes if a.size >= (_SHORTEST_REDUCTION if a.reduction else 2)]


def _pairs(rule: OpRule, count: int) -> list[Strategy]:
    parallel = [axis for axis in rule.axes if not axis.reduction and axis.size >= 2][:_PAIRED_AXES]
    return [
        _split((first.name, (1,) * outer), (second.name, (1,) * (count // outer)))
        for first, second in permutations(parallel, 2)
        for outer in range(2, count // 2 + 1)
        if count % outer == 0 and first.size >= outer and second.size >= count // outer
    ]


def _split(*splits: tuple[str, tuple[int, ...]]) -> Strategy:
    return Strategy(Placement.SHARDED, tuple(Split(axis, shares) for axis, shares in splits))
