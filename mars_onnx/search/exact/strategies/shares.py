"""What the shares of a layer take to compute: of all strategies on sets of several shapes, priced at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mars_onnx.cost.performance import Workload, performance_model
from mars_onnx.cost.shares import twin
from mars_onnx.cost.workload import workload
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.axes import Axis, IntArray
from mars_onnx.rules.base import Signature
from mars_onnx.rules.registry import rule_for
from mars_onnx.search.exact.strategies.cuts import Levels, RangeArrays, cuts
from mars_onnx.search.exact.strategies.space import FloatArray, sound_cuts

#: Levels of the sets whose shares are priced together.
Family = tuple[Levels, ...]


def compute_seconds(
    pool: Pool, signature: Signature, family: Family, levels: Levels, members: Sequence[int], designs: Sequence[str]
) -> FloatArray:
    """Seconds of the longest share, per pattern of the strategies that a rule has no objection to.

    Args:
        pool: Where the accelerators are described.
        signature: Of the layer.
        family: Levels of sets that will be asked for, these among them.
        levels: Of the set.
        members: The set.
        designs: Per member what it is configured as.
    """
    number = _shares(rule_for(signature).axes, family).number[levels][sound_cuts(signature, levels).origin]
    kinds = [(twin(pool, rank), design) for rank, design in zip(members, designs, strict=True)]
    if len(set(kinds)) == 1:
        alike: FloatArray = _seconds(pool, signature, family, *kinds[0])[number].max(axis=1)
        return alike
    columns = [_seconds(pool, signature, family, *kind)[number[:, place]] for place, kind in enumerate(kinds)]
    longest: FloatArray = np.max(columns, axis=0)
    return longest


@lru_cache(maxsize=65536)
def least_compute(
    pool: Pool, signature: Signature, family: Family, levels: Levels, members: tuple[int, ...], designs: tuple[str, ...]
) -> float:
    """Seconds of the strategy that computes fastest."""
    kinds = {(twin(pool, rank), design) for rank, design in zip(members, designs, strict=True)}
    if len(kinds) == 1:
        return _least_if_alike(pool, signature, family, *kinds.pop())[levels]
    return float(compute_seconds(pool, signature, family, levels, members, designs).min())


@lru_cache(maxsize=8192)
def _least_if_alike(pool: Pool, signature: Signature, family: Family, rank: int, design: str) -> dict[Levels, float]:
    """The same on sets of all levels whose members are alike."""
    every = _every_share(signature, family)
    longest = np.maximum.reduceat(_seconds(pool, signature, family, rank, design)[every.number], every.rows)
    return dict(zip(family, np.minimum.reduceat(longest, every.starts).tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class _EveryShare:
    """The shares of all strategies that a rule has no objection to, on sets of all levels, one after the other.

    Attributes:
        number: Which share each member has.
        rows: Where each strategy starts.
        starts: At which of the strategies each of the levels starts.
    """

    number: IntArray
    rows: IntArray
    starts: IntArray


@lru_cache(maxsize=2048)
def _every_share(signature: Signature, family: Family) -> _EveryShare:
    shares = _shares(rule_for(signature).axes, family)
    every = [shares.number[levels][sound_cuts(signature, levels).origin] for levels in family]
    sizes = np.concatenate([np.full(len(own), own.shape[1]) for own in every])
    rows = np.cumsum([0, *sizes[:-1]])
    starts = np.cumsum([0, *(len(own) for own in every[:-1])])
    return _EveryShare(np.concatenate([own.ravel() for own in every]), rows, starts)


@dataclass(frozen=True, eq=False)
class _Shares:
    """The different shares of all strategies of layers with some axes.

    Attributes:
        ranges: Per axis the range of each share; one after the last is nothing to do.
        number: Per levels which of the shares each member has, ``[patterns, members]``.
    """

    ranges: RangeArrays
    number: dict[Levels, IntArray]


@lru_cache(maxsize=2048)
def _shares(axes: tuple[Axis, ...], family: Family) -> _Shares:
    every = [cuts(axes, levels) for levels in family]
    number = np.zeros(sum(own.idle.size for own in every), np.int64)
    bounds: list[tuple[IntArray, IntArray]] = []
    for axis in axes:
        low = np.concatenate([own.ranges[axis.name][0].ravel() for own in every])
        high = np.concatenate([own.ranges[axis.name][1].ravel() for own in every])
        bounds.append((low, high))
        _, at = np.unique(low * (axis.size + 1) + high, return_inverse=True)
        number = number * (int(at.max()) + 1) + at
        if int(number.max()) > 1 << 40:
            number = np.unique(number, return_inverse=True)[1]
    idle = np.concatenate([own.idle.ravel() for own in every])
    _, first, number = np.unique(np.where(idle, -1, number), return_index=True, return_inverse=True)
    # Those who are idle come first, if there are any: they go last.
    some = int(idle.any())
    number = np.where(idle, len(first) - some, number - some)
    ranges = {
        axis.name: (low[first[some:]], high[first[some:]]) for axis, (low, high) in zip(axes, bounds, strict=True)
    }
    starts = np.cumsum([0, *(own.idle.size for own in every)])
    return _Shares(
        ranges,
        {
            levels: number[start : start + own.idle.size].reshape(own.idle.shape)
            for levels, own, start in zip(family, every, starts, strict=False)
        },
    )


@lru_cache(maxsize=2048)
def _work(signature: Signature, family: Family) -> Workload:
    rule = rule_for(signature)
    return workload(rule, _shares(rule.axes, family).ranges)


@lru_cache(maxsize=8192)
def _seconds(pool: Pool, signature: Signature, family: Family, rank: int, design: str) -> FloatArray:
    """Per share its seconds, and none for nothing to do."""
    accelerator = pool.accelerators[rank]
    found = accelerator.design(design)
    if found is None:
        raise ValueError(f"{accelerator.id} cannot take the design {design!r}")
    total = performance_model(found, accelerator).estimate(_work(signature, family)).total_s
    ranges = _shares(rule_for(signature).axes, family).ranges
    count = len(next(iter(ranges.values()))[0]) if ranges else 1
    return np.append(np.broadcast_to(total, count), 0.0)
