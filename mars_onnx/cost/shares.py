"""The compute time of the shares of a node."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from mars_onnx.cost.performance import performance_model
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
    return tuple(map(sum, phase_seconds(pool, signature, lower(signature, strategy, members), designs)))


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
    return tuple(
        _seconds(pool, rank, design, signature, phases)
        for rank, design, phases in zip(sharding.members, designs, sharding.phases, strict=True)
    )


def _seconds(
    pool: Pool, rank: int, design: str, signature: Signature, phases: tuple[Share | None, ...]
) -> tuple[float, ...]:
    accelerator = pool.accelerators[rank]
    found = accelerator.design(design)
    if found is None:
        raise ValueError(f"{accelerator.id} cannot take the design {design!r}")
    rule = rule_for(signature)
    active = [share for share in phases if share is not None]
    if not active:
        return (0.0,) * len(phases)
    ranges = {
        axis.name: (
            np.asarray([share.ranges[axis.name][0] for share in active], np.int64),
            np.asarray([share.ranges[axis.name][1] for share in active], np.int64),
        )
        for axis in rule.axes
    }
    total = np.broadcast_to(performance_model(found, accelerator).estimate(workload(rule, ranges)).total_s, len(active))
    seconds = iter(total.tolist())
    return tuple(0.0 if share is None else next(seconds) for share in phases)
