"""The compute time of the shares of a node."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from mars_onnx.cost.performance import Workload, performance_model
from mars_onnx.cost.workload import workload
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.base import Share, Signature
from mars_onnx.rules.registry import rule_for
from mars_onnx.sharding.lowering import Sharding, lower
from mars_onnx.sharding.strategy import Strategy


@lru_cache(maxsize=65536)
def share_seconds(
    pool: Pool, signature: Signature, strategy: Strategy, members: tuple[int, ...], designs: tuple[str, ...]
) -> tuple[float, ...]:
    """Per member of a set the seconds of its share; of a ring, of all its phases."""
    return strategy_seconds(pool, signature, (strategy,), members, designs)[0]


@lru_cache(maxsize=65536)
def strategy_seconds(
    pool: Pool,
    signature: Signature,
    strategies: tuple[Strategy, ...],
    members: tuple[int, ...],
    designs: tuple[str, ...],
) -> tuple[tuple[float, ...], ...]:
    """Per strategy and member of a set the seconds of its share, all strategies priced at once."""
    shardings = [lower(signature, strategy, members) for strategy in strategies]
    return tuple(tuple(map(sum, own)) for own in _seconds(pool, signature, shardings, designs))


def phase_seconds(
    pool: Pool, signature: Signature, sharding: Sharding, designs: tuple[str, ...]
) -> tuple[tuple[float, ...], ...]:
    """Per member of the set and phase the seconds of compute; 0 where it is idle.

    Args:
        pool: Where the accelerators are described.
        signature: Of the node.
        sharding: Its shares.
        designs: Per member what it is configured as.
    """
    return _seconds(pool, signature, [sharding], designs)[0]


def _seconds(
    pool: Pool, signature: Signature, shardings: Sequence[Sharding], designs: tuple[str, ...]
) -> list[tuple[tuple[float, ...], ...]]:
    """Per sharding, member and phase the seconds of compute."""
    rule = rule_for(signature)
    # Members share few different shares; each is priced once per performance model, all together.
    phases = [own for sharding in shardings for own in sharding.phases]
    shares = list({id(share): share for own in phases for share in own if share is not None}.values())
    priced: dict[tuple[int, str], dict[int, float]] = {}
    if shares:
        bounds = np.asarray([[share.ranges[axis.name] for axis in rule.axes] for share in shares], np.int64)
        bounds = bounds.reshape(len(shares), len(rule.axes), 2)
        ranges = {axis.name: (bounds[:, place, 0], bounds[:, place, 1]) for place, axis in enumerate(rule.axes)}
        work = workload(rule, ranges)
        for kind in dict.fromkeys(
            (twin(pool, rank), design) for rank, design in zip(shardings[0].members, designs, strict=True)
        ):
            priced[kind] = _priced(pool, *kind, work, shares)
    return [
        tuple(
            tuple(0.0 if share is None else priced[twin(pool, rank), design][id(share)] for share in own)
            for rank, design, own in zip(sharding.members, designs, sharding.phases, strict=True)
        )
        for sharding in shardings
    ]


@lru_cache(maxsize=65536)
def twin(pool: Pool, rank: int) -> int:
    """The first accelerator of the pool that computes as fast as this one in every design."""
    own = pool.accelerators[rank]
    return next(
        other.rank
        for other in pool.accelerators
        if other.designs == own.designs
        and other.memory_bandwidth_bytes_per_s == own.memory_bandwidth_bytes_per_s
        and other.memory_bytes == own.memory_bytes
    )


def _priced(pool: Pool, rank: int, design: str, work: Workload, shares: Sequence[Share]) -> dict[int, float]:
    accelerator = pool.accelerators[rank]
    found = accelerator.design(design)
    if found is None:
        raise ValueError(f"{accelerator.id} cannot take the design {design!r}")
    total = np.broadcast_to(performance_model(found, accelerator).estimate(work).total_s, len(shares)).tolist()
    return {id(share): seconds for share, seconds in zip(shares, total, strict=True)}
