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
    ``2 (p - 1) / p r`` if all holders keep all (Patarasuk and Yuan, 2009), in as many rounds as doubling takes. All
    holders may also send their parts to all others, one after the other.

    Args:
        kept: Bytes that each member keeps, ``[strategies, members]``.
        parts: Per strategy how many parts there are, more than one.
        part: Which of them each member has, ``[strategies, members]``.
        scattered: Per strategy whether the sum is.
        port: How fast data can come in.
    """
    passes = np.where(scattered, 1, 2)
    ends, near_s = port.endpoint_latency_s, port.least_latency_s
    if port.one_port:
        rounds, fastest = np.ceil(np.log2(parts)) * passes, np.minimum(port.near_s_per_byte, port.far_s_per_byte)
    else:
        rounds, fastest = passes, port.all_s_per_byte
    s_per_byte = np.where(scattered, parts - 1, 2 * (parts - 1) / parts) * fastest.min()
    waits = rounds * near_s + (rounds + 1) * ends
    # Of unequal pieces a member takes in those of the others, too: the mean is what is certain.
    seconds: FloatArray = waits + np.where(scattered, kept.mean(axis=-1), kept.max(axis=-1)) * s_per_byte
    if len(port.groups) > 1:
        # Some members resolve more than others, and not all of them across clusters: of pieces, the least is certain.
        least = kept.min(axis=-1)
        for inside in port.groups:
            # Where a group lacks a part, every byte that it keeps takes in something from another group.
            there = np.sort(part.take(inside, axis=1), axis=1)
            different = 1 + np.count_nonzero(there[:, 1:] != there[:, :-1], axis=1)
            most = kept.take(inside, axis=1).max(axis=-1)
            far_s, rate = float(port.far_latency_s[inside].min()), float(fastest.min())
            further, far_rate = far_s - near_s, rate
            # What has been summed goes back across as well.
            if port.one_port:
                # All who sum up together keep the same bytes, of which those of a cluster may each take in a share.
                far_rate = max(rate, float(port.far_s_per_byte[inside].min()))
                extra = max(far_rate - float(fastest[inside].max()), 0.0)
                summed = waits + 2 * further + most * (s_per_byte + extra / different)
                pieces = waits + further + least * (s_per_byte + extra)
            else:
                # All at once, parts from nearby come while a member waits for those that do not.
                beyond = (parts - different) * rate
                summed = waits + np.maximum(2 * further + most * 2 * beyond / parts, most * s_per_byte)
                pieces = waits + np.maximum(further + least * beyond, least * s_per_byte)
            alone = different * (near_s + 2 * ends + most * rate)
            alone += (parts - different) * (far_s + 2 * ends + most * far_rate)
            crossing = np.where(scattered, pieces, np.minimum(summed, alone))
            seconds = np.where((different < parts) & (most > 0), np.maximum(seconds, crossing), seconds)
    return seconds
