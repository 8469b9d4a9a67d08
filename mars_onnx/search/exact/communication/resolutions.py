"""What it takes at least to resolve the partial sums of many strategies."""

from __future__ import annotations

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.communication.ports import Ports
from mars_onnx.search.exact.strategies.cuts import BoolArray
from mars_onnx.search.exact.strategies.space import FloatArray


def resolution_bounds(
    kept: FloatArray, parts: IntArray, part: IntArray, scattered: BoolArray, port: Ports
) -> FloatArray:
    """Seconds at least to resolve the partial sums of strategies, each of which leaves some.

    Of ``p`` parts, a member that keeps ``r`` bytes of the sum has to take in ``(p - 1) r`` if it alone keeps them, and
    ``2 (p - 1) / p r`` if all holders keep all (Patarasuk and Yuan, 2009), in as many rounds as doubling takes.

    Args:
        kept: Bytes that each member keeps, ``[strategies, members]``.
        parts: Per strategy how many parts there are, more than one.
        part: Which of them each member has, ``[strategies, members]``.
        scattered: Per strategy whether the sum is.
        port: How fast data can come in.
    """
    passes = np.where(scattered, 1, 2)
    if port.one_port:
        taken = np.where(scattered, parts - 1, 2 * (parts - 1) / parts)
        rounds, fastest = np.ceil(np.log2(parts)) * passes, np.minimum(port.near_s_per_byte, port.far_s_per_byte)
    else:
        taken, rounds, fastest = np.ones(len(parts)), passes, port.all_s_per_byte
    s_per_byte = taken * fastest.min()
    waits = rounds * port.least_latency_s + (rounds + 1) * port.endpoint_latency_s
    # Of unequal pieces a member takes in those of the others, too: the mean is what is certain.
    seconds: FloatArray = waits + kept.mean(axis=-1) * s_per_byte
    if len(port.groups) > 1:
        # Some members resolve more than others, and not all of them across clusters: of these, the least is certain.
        least = kept.min(axis=-1)
        for inside in port.groups:
            # Where a group lacks a part, every byte that it keeps takes in something from another group.
            there = np.sort(part.take(inside, axis=1), axis=1)
            lacking = 1 + np.count_nonzero(there[:, 1:] != there[:, :-1], axis=1) < parts
            # All holders of an all-reduce keep the same bytes, of which each may take in its share.
            across = np.where(scattered, least, least / len(inside))
            extra = max(float(port.far_s_per_byte[inside].min() - fastest[inside].max()), 0.0) if port.one_port else 0.0
            further = float(port.far_latency_s[inside].min()) - port.least_latency_s
            crossing = waits + further + least * s_per_byte + across * extra
            some = lacking & (kept.take(inside, axis=1) > 0).any(axis=-1)
            seconds = np.where(some, np.maximum(seconds, crossing), seconds)
    return seconds
