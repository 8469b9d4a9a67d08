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
        rounds, fastest = np.ceil(np.log2(parts)) * passes, port.fastest_s_per_byte
    else:
        rounds, fastest = passes, port.all_s_per_byte
    s_per_byte = np.where(scattered, parts - 1, 2 * (parts - 1) / parts) * fastest.min()
    waits = rounds * near_s + (rounds + 1) * ends
    # With the strategies last, processors have long rows to work on.
    by_member = np.ascontiguousarray(kept.T)
    # Of unequal pieces a member takes in those of the others, too: the mean is what is certain.
    bytes_in = np.where(scattered, by_member.sum(axis=0) / len(by_member), by_member.max(axis=0))
    seconds: FloatArray = waits + bytes_in * s_per_byte
    if len(port.groups) > 1:
        # Some members resolve more than others, and not all of them across clusters: of pieces, the least is certain.
        least = by_member.min(axis=0)
        # Where a group lacks a part, every byte that it keeps takes in something from another group.
        held = np.ascontiguousarray(part.T)
        there = np.asarray([different(held.take(inside, axis=0)) for inside in port.groups])
        most = np.asarray([by_member.take(inside, axis=0).max(axis=0) for inside in port.groups])
        rate, far_s = float(fastest.min()), port.crossing_latency_s
        further = far_s - near_s
        far_rate: FloatArray | float = rate
        # What has been summed goes back across as well.
        if port.one_port:
            # All who sum up together keep the same bytes, of which those of a cluster may each take in a share.
            far_rate, extra = port.crossing_s_per_byte, port.dearer_s_per_byte
            summed = waits + 2 * further + most * (s_per_byte + extra / there)
            pieces = waits + further + least * (s_per_byte + extra)
        else:
            # All at once, parts from nearby come while a member waits for those that do not.
            beyond = (parts - there) * rate
            summed = waits + np.maximum(2 * further + most * 2 * beyond / parts, most * s_per_byte)
            pieces = waits + np.maximum(further + least * beyond, least * s_per_byte)
        alone = there * (near_s + 2 * ends + most * rate)
        alone += (parts - there) * (far_s + 2 * ends + most * far_rate)
        crossing = np.where(scattered, pieces, np.minimum(summed, alone))
        seconds = np.maximum(seconds, np.where((there < parts) & (most > 0), crossing, 0.0).max(axis=0))
    return seconds


def different(numbers: IntArray) -> IntArray:
    """How many different ones are in each column."""
    found = np.zeros(numbers.shape[1], np.int64)
    for start in range(0, int(numbers.max(initial=0)) + 1, 64):
        # A bit for each; those that are not among these 64 have none.
        bits = np.uint64(1) << (numbers - start).astype(np.uint64)
        found += np.bitwise_count(np.bitwise_or.reduce(bits, axis=0))
    return found
