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

#: Per member of a set what it is configured as.
Designs = tuple[str, ...]
#: Per member of a set and phase the seconds of compute.
PhaseSeconds = tuple[tuple[float, ...], ...]
#: An accelerator among those that are like it, and its design.
Kind = tuple[int, str]


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
    (found,) = _seconds(pool, [(signature, shardings, designs)])
    return tuple(tuple(map(sum, own)) for own in found)


def phase_seconds(pool: Pool, signature: Signature, sharding: Sharding, designs: Designs) -> PhaseSeconds:
    """Per member of the set and phase the seconds of compute; 0 where it is idle.

    Args:
        pool: Where the accelerators are described.
        signature: Of the node.
        sharding: Its shares.
        designs: Per member what it is configured as.
    """
    return phases_seconds(pool, [(signature, sharding, designs)])[0]


def phases_seconds(pool: Pool, nodes: Sequence[tuple[Signature, Sharding, Designs]]) -> list[PhaseSeconds]:
    """The same of several nodes, priced together."""
    every = _seconds(pool, [(signature, [sharding], designs) for signature, sharding, designs in nodes])
    return [own for (own,) in every]


def _seconds(pool: Pool, nodes: Sequence[tuple[Signature, Sequence[Sharding], Designs]]) -> list[list[PhaseSeconds]]:
    """Per node and sharding, for every member and phase the seconds of compute; shardings of a node are on one set."""
    asked: dict[Kind, list[tuple[Workload, list[Share]]]] = {}
    for signature, shardings, designs in nodes:
        # Members share few different shares; each is priced once per performance model.
        phases = [own for sharding in shardings for own in sharding.phases]
        shares = list({id(share): share for own in phases for share in own if share is not None}.values())
        if shares:
            work = _work(signature, shares)
            for kind in dict.fromkeys(member_kinds(pool, shardings[0].members, designs)):
                asked.setdefault(kind, []).append((work, shares))
    priced = {kind: _priced(pool, *kind, own) for kind, own in asked.items()}
    return [
        [
            tuple(
                tuple(0.0 if share is None else priced[kind][id(share)] for share in own)
                for kind, own in zip(member_kinds(pool, sharding.members, designs), sharding.phases, strict=True)
            )
            for sharding in shardings
        ]
        for _, shardings, designs in nodes
    ]


def member_kinds(pool: Pool, members: Sequence[int], designs: Sequence[str]) -> tuple[Kind, ...]:
    """Per member of a set its kind; those of a kind compute everything in the same time."""
    return tuple([(twin(pool, rank), design) for rank, design in zip(members, designs, strict=True)])


def _work(signature: Signature, shares: Sequence[Share]) -> Workload:
    rule = rule_for(signature)
    bounds = np.asarray([[share.ranges[axis.name] for axis in rule.axes] for share in shares], np.int64)
    bounds = bounds.reshape(len(shares), len(rule.axes), 2)
    ranges = {axis.name: (bounds[:, place, 0], bounds[:, place, 1]) for place, axis in enumerate(rule.axes)}
    return workload(rule, ranges)


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


def _priced(pool: Pool, rank: int, design: str, asked: Sequence[tuple[Workload, list[Share]]]) -> dict[int, float]:
    """Per share, by its identity, its seconds."""
    accelerator = pool.accelerators[rank]
    found = accelerator.design(design)
    if found is None:
        raise ValueError(f"{accelerator.id} cannot take the design {design!r}")
    work = Workload.joined([own for own, _ in asked])
    total = np.broadcast_to(performance_model(found, accelerator).estimate(work).total_s, work.shape)
    ends = np.cumsum([own.elements.size for own, _ in asked])
    seconds: dict[int, float] = {}
    for own, (_, shares) in zip(np.split(total, ends[:-1]), asked, strict=True):
        # All shares of a node without axes are one.
        seconds |= zip(map(id, shares), np.broadcast_to(own, len(shares)).tolist(), strict=True)
    return seconds
