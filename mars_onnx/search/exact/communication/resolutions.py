"""What it takes at least to resolve the partial sums of many strategies."""

from __future__ import annotations

import numpy as np

from mars_onnx.search.exact.communication.ports import Ports
from mars_onnx.search.exact.strategies.space import FloatArray, LayerSpace


def resolution_bounds(kept: FloatArray, space: LayerSpace, port: Ports) -> FloatArray:
    """Seconds at least to resolve the partial sums of strategies, 0 where there are none.

    Of ``p`` parts, a member that keeps ``r`` bytes of the sum has to take in ``(p - 1) r`` if it alone keeps them, and
    ``2 (p - 1) / p r`` if all holders keep all (Patarasuk and Yuan, 2009), in as many rounds as doubling takes.

    Args:
        kept: Bytes that each member keeps, ``[strategies, members]``.
        space: The strategies.
        port: How fast data can come in.
    """
    scattered = space.scattered[:, None]
    parts = space.parts[:, None]
    volume = kept * np.where(scattered, parts - 1, 2 * (parts - 1) / np.maximum(parts, 1))
    rounds = np.ceil(np.log2(np.maximum(parts, 1))) * np.where(scattered, 1, 2)
    latency = np.minimum(port.near_latency_s, port.far_latency_s)
    fastest = np.minimum(port.near_s_per_byte, port.far_s_per_byte)
    if not port.one_port:
        rounds, fastest = np.ones_like(rounds), port.all_s_per_byte
        volume = kept
    # Of unequal pieces a member takes in those of the others, too: the mean is what is certain.
    seconds = rounds.max(axis=-1) * latency.min() + volume.mean(axis=-1) * fastest.min()
    groups = np.unique(port.group)
    if len(groups) > 1 and port.one_port:
        for group in groups:
            inside = port.group == group
            # Where a group lacks a part, every byte that it keeps takes in something from another group.
            there = np.sort(space.part[:, inside], axis=1)
            lacking = 1 + (there[:, 1:] != there[:, :-1]).sum(axis=1) < space.parts
            # Pieces of one group pass through members of another, so that only means over all of them are certain.
            across = np.minimum(kept[:, inside].mean(axis=-1), kept.mean(axis=-1))
            # All holders of an all-reduce keep the same bytes, of which each may take in its share.
            across = np.where(scattered[:, 0], across, across / inside.sum())
            gathered = volume.mean(axis=-1) * fastest.min()
            extra = np.maximum(port.far_s_per_byte[inside].min() - fastest[inside].max(), 0.0)
            crossing = port.far_latency_s[inside].min() + gathered + across * extra
            seconds = np.maximum(seconds, np.where(lacking & (across > 0), crossing, 0.0))
    bounds: FloatArray = np.where(space.parts > 1, seconds, 0.0)
    return bounds
