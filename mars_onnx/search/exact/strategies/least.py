"""The least seconds that a layer can take on so many accelerators, whatever it costs to bring the data there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod

import numpy as np
import numpy.typing as npt

from mars_onnx.cost.performance import FloatArray, Workload, performance_model
from mars_onnx.cost.workload import workload
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.axes import Axis, IntArray
from mars_onnx.rules.base import OpRule, Signature
from mars_onnx.rules.registry import rule_for
from mars_onnx.rules.shares import cut


@lru_cache(maxsize=65536)
def least_seconds(pool: Pool, signature: Signature, kinds: frozenset[tuple[int, str]], size: int) -> float:
    """The longest share of the best cut into at most ``size`` equal parts, on the fastest of the members.

    Args:
        pool: Where the accelerators are described.
        signature: Of the layer.
        kinds: Rank of one accelerator of each kind in the set, and its design.
        size: Members of the set; cuts are into numbers of parts that divide it.
    """
    table = _by_parts(pool, signature, kinds, size)
    return min(seconds for parts, seconds in table if size % parts == 0)


@lru_cache(maxsize=65536)
def _by_parts(
    pool: Pool, signature: Signature, kinds: frozenset[tuple[int, str]], size: int
) -> tuple[tuple[int, float], ...]:
    rule = rule_for(signature)
    cuts = list(cuts_of(rule, size))
    seconds = np.full(len(cuts), np.inf)
    for rank, design in kinds:
        seconds = np.minimum(seconds, _longest(pool, signature, rank, design, size))
    return tuple((prod(counts), float(own)) for counts, own in zip(cuts, seconds.tolist(), strict=True))


@lru_cache(maxsize=65536)
def _longest(pool: Pool, signature: Signature, rank: int, design: str, size: int) -> FloatArray:
    """Per cut the seconds of its longest share."""
    shares = _shares(signature, size)
    accelerator = pool.accelerators[rank]
    found = accelerator.design(design)
    if found is None:
        raise ValueError(f"{accelerator.id} cannot take the design {design!r}")
    estimate = performance_model(found, accelerator).estimate(shares.work)
    total = np.where(shares.idle, 0.0, np.broadcast_to(estimate.total_s, shares.idle.shape))
    longest: FloatArray = np.maximum.reduceat(total[shares.members], shares.starts)
    return longest


@dataclass(frozen=True, eq=False)
class _Shares:
    """The different shares of all cuts of a layer.

    Attributes:
        work: Of each.
        idle: Whether it is empty.
        members: Per cut, one after the other, its shares.
        starts: Where each cut starts among them.
    """

    work: Workload
    idle: npt.NDArray[np.bool_]
    members: IntArray
    starts: IntArray


@lru_cache(maxsize=4096)
def _shares(signature: Signature, size: int) -> _Shares:
    rule = rule_for(signature)
    number: dict[tuple[tuple[int, int], ...], int] = {}
    members: list[int] = []
    starts: list[int] = []
    for counts in cuts_of(rule, size):
        starts.append(len(members))
        for row in product(*(_pieces(axis, count) for axis, count in zip(rule.axes, counts, strict=True))):
            members.append(number.setdefault(row, len(number)))
    bounds = np.asarray(list(number), np.int64).reshape(len(number), len(rule.axes), 2)
    ranges = {axis.name: (bounds[:, place, 0], bounds[:, place, 1]) for place, axis in enumerate(rule.axes)}
    idle = np.asarray((bounds[..., 0] >= bounds[..., 1]).any(axis=-1))
    return _Shares(workload(rule, ranges), idle, np.asarray(members), np.asarray(starts))


@lru_cache(maxsize=65536)
def _pieces(axis: Axis, count: int) -> tuple[tuple[int, int], ...]:
    # Pieces of one length cost about the same but for the edges of windows, so none is left out.
    return tuple(cut(axis, (1,) * count))


def cuts_of(rule: OpRule, size: int) -> Iterator[tuple[int, ...]]:
    """Numbers of parts per axis, their product at most ``size`` and a divisor of it."""

    def deal(axes: tuple[Axis, ...], left: int) -> Iterator[tuple[int, ...]]:
        if not axes:
            yield ()
            return
        first, rest = axes[0], axes[1:]
        for count in range(1, left + 1):
            if left % count == 0 and (count == 1 or first.size * 2 > count):
                for others in deal(rest, left // count):
                    yield (count, *others)

    yield from deal(rule.axes, size)
