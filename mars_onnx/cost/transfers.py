"""Transfers that start together, and how long they take: what they share of the links."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, permutations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mars_onnx.cost.curves import Curve
from mars_onnx.cost.performance import FloatArray
from mars_onnx.cost.rounds import Pair
from mars_onnx.pool import Pool

#: Numbers that are added up together, at most.
_AT_ONCE = 1_000_000


class Stretch(NamedTuple):
    """A part of a route.

    Attributes:
        channels: What it occupies of what transfers share (see ``Link.channel``), by their places in the step.
        own: Seconds per byte of its slowest link, with nothing else going on.
    """

    channels: tuple[int, ...]
    own: float


@dataclass(frozen=True)
class Step:
    """Transfers that start together.

    A route is cut into stretches at the nodes that store messages.

    Attributes:
        latencies: Of each transfer, in seconds.
        routes: The stretches of each.
        rates: Seconds per byte of each channel.
    """

    latencies: tuple[float, ...]
    routes: tuple[tuple[Stretch, ...], ...]
    rates: tuple[float, ...]

    def seconds(self, nbytes: FloatArray) -> FloatArray:
        """Until the last transfer is done.

        Args:
            nbytes: Bytes per transfer, in the last dimension; a transfer of nothing does not take place.
        """
        needed = self._arrays.alpha + self._beyond_latency(nbytes)
        took: FloatArray = np.where(nbytes > 0, needed, 0.0).max(axis=-1, initial=0.0)
        return took

    def curves(self, nbytes: FloatArray) -> Iterator[Curve]:
        """The same of several rounds, for any multiple of ``nbytes`` ``[rounds, transfers]``; of nothing, no curve.

        Most steps have few transfers, and are asked for once: plain numbers are several times as fast as arrays.
        """
        for sizes in nbytes.tolist():
            busy = [0.0] * len(self.rates)
            for size, stretches in zip(sizes, self.routes, strict=True):
                for stretch in stretches:
                    for channel in stretch.channels:
                        busy[channel] += size
            needed = [total * rate for total, rate in zip(busy, self.rates, strict=True)]
            # Of transfers with equal latencies the steepest is the slowest.
            steepest: dict[float, float] = {}
            for latency, size, stretches in zip(self.latencies, sizes, self.routes, strict=True):
                if size > 0:
                    slope = _beyond_latency(size, stretches, needed)
                    if slope > steepest.get(latency, -1.0):
                        steepest[latency] = slope
            if steepest:
                yield Curve.highest(steepest.items())

    @cached_property
    def _arrays(self) -> _Arrays:
        idle = len(self.rates)
        most = max(map(len, self.routes), default=1)
        longest = max((len(stretch.channels) for stretches in self.routes for stretch in stretches), default=0)
        index = np.full((len(self.routes), most, max(longest, 1)), idle, np.intp)
        own = np.zeros((len(self.routes), most))
        uses = np.zeros((len(self.routes), idle + 1))
        for transfer, stretches in enumerate(self.routes):
            for number, (channels, slowest) in enumerate(stretches):
                index[transfer, number, : len(channels)] = channels
                own[transfer, number] = slowest
                uses[transfer, channels] = 1.0
        return _Arrays(np.array(self.latencies), uses, np.array([*self.rates, 0.0]), index, own)

    def _beyond_latency(self, sizes: FloatArray) -> FloatArray:
        """Seconds of every transfer without its latency; in proportion to the sizes."""
        arrays = self._arrays
        busy = self._busy(sizes) * arrays.beta
        own = sizes[..., None] * arrays.own
        # Messages queue up at the busiest stretch only: at the others they arrive, and go on, one by one.
        waits = (busy[..., arrays.stretches].max(axis=-1) - own).max(axis=-1)
        needed: FloatArray = own.sum(axis=-1) + np.maximum(waits, 0.0)
        return needed

    def _busy(self, sizes: FloatArray) -> FloatArray:
        """Bytes on every channel, ``[..., channels]``.

        Not as a product of matrices: that adds up in another order on another processor, and wakes other cores.
        """
        uses = self._arrays.uses
        rounds = sizes.reshape(-1, sizes.shape[-1])
        several = max(1, _AT_ONCE // max(1, uses.size))
        blocks: list[FloatArray] = [
            (rounds[start : start + several, :, None] * uses).sum(axis=1)
            for start in range(0, max(1, len(rounds)), several)
        ]
        busy: FloatArray = np.concatenate(blocks).reshape(*sizes.shape[:-1], uses.shape[1])
        return busy


class _Arrays(NamedTuple):
    """A step as arrays.

    Attributes:
        alpha: Latency of each transfer, in seconds.
        uses: How often each occupies a channel, ``[transfers, channels]``.
        beta: Seconds per byte of each channel; 0 where transfers do not share.
        stretches: Per transfer and stretch the channels, ``[transfers, stretches, channels of one]``, filled up with
            the last channel, which takes no time.
        own: Seconds per byte of the slowest link of a stretch, with nothing else going on, ``[transfers, stretches]``.
    """

    alpha: FloatArray
    uses: FloatArray
    beta: FloatArray
    stretches: npt.NDArray[np.intp]
    own: FloatArray


def _beyond_latency(size: float, stretches: Sequence[Stretch], needed: Sequence[float]) -> float:
    """Seconds of a transfer without its latency, where channels are needed for so many seconds."""
    total = waits = 0.0
    for channels, slowest in stretches:
        own = size * slowest
        total += own
        # Messages queue up at the busiest stretch only: at the others they arrive, and go on, one by one.
        waits = max(waits, max([needed[channel] for channel in channels], default=0.0) - own)
    return total + waits


def step_of(pool: Pool, pairs: Sequence[Pair]) -> Step:
    """The step in which every pair (source, target) exchanges a message."""
    numbers: dict[int, int] = {}
    latencies: list[float] = []
    routes: list[tuple[Stretch, ...]] = []
    for pair in pairs:
        route = pool.route(*pair)
        stretches: list[Stretch] = []
        channels: list[int] = []
        slowest = 0.0
        for link, (start, end) in zip(route.links, pairwise(route.nodes), strict=True):
            if link.shared:
                channels.append(numbers.setdefault(link.channel(start, end), len(numbers)))
            slowest = max(slowest, 1.0 / link.bandwidth_bytes_per_s)
            if end in pool.stores:
                stretches.append(Stretch(tuple(channels), slowest))
                channels, slowest = [], 0.0
        latencies.append(route.latency_s)
        routes.append((*stretches, Stretch(tuple(channels), slowest)))
    rates = tuple([1.0 / pool.links[channel // 2].bandwidth_bytes_per_s for channel in numbers])
    return Step(tuple(latencies), tuple(routes), rates)


def likeness(pool: Pool, group: Sequence[int]) -> Hashable:
    """Equal for groups in which everything takes as long, member by member: whatever is looked at to say how long.

    That is what :func:`alike_routes` looks at, and who is in one group of the pool.
    """
    groups = [pool.group_of[rank] for rank in group]
    return alike_routes(pool, permutations(group, 2)), tuple(map(groups.index, groups))


def alike_routes(pool: Pool, pairs: Iterable[Pair]) -> Hashable:
    """Equal for pairs of nodes between which any transfers take as long, pair by pair.

    That is the links of all routes with what these share, and which nodes store messages.
    """
    numbers: dict[int, int] = {}
    routes: list[Hashable] = []
    for pair in pairs:
        route = pool.route(*pair)
        for link, (start, end) in zip(route.links, pairwise(route.nodes), strict=True):
            channel = numbers.setdefault(link.channel(start, end), len(numbers))
            routes.append((channel, link.bandwidth_bytes_per_s, link.latency_s, link.shared, end in pool.stores))
        routes.append(None)
    return tuple(routes)
