"""The time of communication on a pool: alpha-beta costs of the collectives of a redistribution.

A message of ``S`` bytes over a route takes ``alpha + S * beta``: ``alpha`` the sum of the links' latencies, and
``1 / beta`` the bandwidth of its slowest link (Hockney, 1994). Transfers of one step that use the same direction of a
link, or any direction of a half-duplex link, share its bandwidth; the slowest transfer ends the step. The algorithms
and their step counts are the usual ones (Chan, Heimlich, Purkayastha and van de Geijn, "Collective communication:
theory, practice, and experience", 2007; Thakur, Rabenseifner and Gropp, 2005). What this leaves out is in
docs/cost-model.md.

All byte counts may be arrays; times then have their shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mars_onnx.cost.performance import FloatArray
from mars_onnx.geometry import intersect, volume
from mars_onnx.pool import Pool
from mars_onnx.redistribution.plan import Collective, Fragment, Pattern, Plan

Pair = tuple[int, int]


@dataclass(frozen=True)
class Step:
    """Transfers that start together.

    Attributes:
        alpha: Latency of each, in seconds.
        uses: Which channels (see ``Link.channel``) each occupies, as a matrix of 0 and 1.
        beta: Seconds per byte of each channel.
    """

    alpha: FloatArray
    uses: FloatArray
    beta: FloatArray

    def seconds(self, nbytes: npt.ArrayLike) -> FloatArray:
        """Until the last transfer is done.

        Args:
            nbytes: Bytes per transfer, in the last dimension; a transfer of nothing does not take place.
        """
        sizes = np.broadcast_to(np.asarray(nbytes, np.float64), (*np.shape(nbytes)[:-1], len(self.alpha)))
        busy = (sizes @ self.uses) * self.beta
        slowest = np.zeros(sizes.shape[:-1])
        for index, alpha in enumerate(self.alpha):
            channels = np.flatnonzero(self.uses[index])
            # From a node to itself there is no channel, and nothing to wait for.
            took = alpha + (busy[..., channels].max(axis=-1) if len(channels) else 0.0)
            slowest = np.maximum(slowest, np.where(sizes[..., index] > 0, took, 0.0))
        return slowest


class Interconnect:
    """Communication times on one pool. Nodes may be accelerators, hosts or switches; groups are of ranks."""

    def __init__(self, pool: Pool) -> None:
        """For a pool."""
        self._pool = pool
        self._steps: dict[tuple[Pair, ...], Step] = {}

    def step(self, pairs: Sequence[Pair]) -> Step:
        """The step in which every pair (source, target) exchanges a message."""
        key = tuple(pairs)
        if key not in self._steps:
            routes = [self._pool.route(*pair) for pair in key]
            channels = sorted({channel for route in routes for channel in route.channels})
            uses = np.array([[float(c in route.channels) for c in channels] for route in routes])
            rates = [self._pool.links[channel // 2].bandwidth_bytes_per_s for channel in channels]
            self._steps[key] = Step(
                np.array([route.latency_s for route in routes]),
                uses.reshape(len(routes), len(channels)),
                1.0 / np.array(rates, np.float64),
            )
        return self._steps[key]

    def exchange(self, pairs: Sequence[Pair], nbytes: npt.ArrayLike) -> FloatArray:
        """Messages that all start together; bytes per pair in the last dimension."""
        return self.step(pairs).seconds(nbytes)

    def ring(self, group: Sequence[int]) -> tuple[int, ...]:
        """The order round which a ring goes: group by group of the pool, so that it leaves each only once."""
        return tuple(sorted(group, key=lambda rank: (self._pool.group_of[rank], rank)))

    def all_reduce(self, group: Sequence[int], nbytes: npt.ArrayLike) -> FloatArray:
        """Ring: ``2 (n - 1)`` steps of ``S / n`` bytes (Patarasuk and Yuan, 2009). ``nbytes``: S, of the whole box."""
        sizes = np.asarray(nbytes, np.float64)
        count = len(group)
        if count < 2:
            return np.zeros(sizes.shape)
        pieces = np.repeat(sizes[..., None] / count, count, axis=-1)
        return 2 * (count - 1) * self.exchange(_around(self.ring(group)), pieces)

    def all_gather(self, group: Sequence[int], pieces: npt.ArrayLike) -> FloatArray:
        """Ring: ``n - 1`` steps, every piece passed on to the next. ``pieces``: bytes per member, last dimension."""
        return self._pass_pieces(group, pieces, 0)

    def reduce_scatter(self, group: Sequence[int], pieces: npt.ArrayLike) -> FloatArray:
        """Ring: ``n - 1`` steps, sums of a piece passed on to its owner. ``pieces``: bytes per member."""
        return self._pass_pieces(group, pieces, 1)

    def _pass_pieces(self, group: Sequence[int], pieces: npt.ArrayLike, lag: int) -> FloatArray:
        """In step ``s`` the member at place ``i`` of the ring passes on piece ``i - s - lag``."""
        ring = self.ring(group)
        count = len(ring)
        sizes = np.asarray(pieces, np.float64)[..., [list(group).index(rank) for rank in ring]]
        if count < 2:
            return np.zeros(sizes.shape[:-1])
        steps, places = np.arange(count - 1)[:, None], np.arange(count)[None, :]
        total: FloatArray = self.exchange(_around(ring), sizes[..., (places - steps - lag) % count]).sum(axis=-1)
        return total

    def all_to_all(self, group: Sequence[int], matrix: npt.ArrayLike) -> FloatArray:
        """Pairwise exchange: ``n - 1`` rounds; in round ``r`` place ``i`` of the ring sends to place ``i + r``.

        Args:
            group: Members.
            matrix: Bytes from member i to member j in ``[..., i, j]``; the diagonal is not looked at.
        """
        ring = self.ring(group)
        sizes = np.asarray(matrix, np.float64)
        places = {rank: index for index, rank in enumerate(group)}
        total = np.zeros(sizes.shape[:-2])
        for distance in range(1, len(ring)):
            pairs = [(rank, ring[(i + distance) % len(ring)]) for i, rank in enumerate(ring)]
            sources, targets = ([places[pair[side]] for pair in pairs] for side in (0, 1))
            total = total + self.exchange(pairs, sizes[..., sources, targets])
        return total

    def broadcast(self, group: Sequence[int], nbytes: npt.ArrayLike) -> FloatArray:
        """Binomial tree from ``group[0]``: ``ceil(log2 n)`` rounds, in each of which all who have it send it on.

        The root's own group of the pool comes first, so that it crosses to another as late as it can.
        """
        sizes = np.asarray(nbytes, np.float64)
        home = self._pool.group_of[group[0]]
        rest = sorted(group[1:], key=lambda rank: (self._pool.group_of[rank] != home, self._pool.group_of[rank], rank))
        order = (group[0], *rest)
        total = np.zeros(sizes.shape)
        have = 1
        while have < len(order):
            pairs = [(order[i], order[i + have]) for i in range(min(have, len(order) - have))]
            total = total + self.exchange(pairs, np.repeat(sizes[..., None], len(pairs), axis=-1))
            have *= 2
        return total

    def collective(self, collective: Collective, bytes_per_element: float) -> float:
        """Seconds of one collective of a plan."""
        group = collective.group
        given = [_elements(fragment) * bytes_per_element for fragment in collective.inputs]
        match collective.pattern:
            case Pattern.ALL_REDUCE:
                seconds = self.all_reduce(group, given[0])
            case Pattern.ALL_GATHER:
                seconds = self.all_gather(group, given)
            case Pattern.REDUCE_SCATTER:
                taken = [_elements(fragment) * bytes_per_element for fragment in collective.outputs]
                seconds = self.reduce_scatter(group, taken)
            case Pattern.ALL_TO_ALL:
                seconds = self.all_to_all(group, np.asarray(_overlaps(collective)) * bytes_per_element)
            case Pattern.BROADCAST:
                seconds = self.broadcast(group, given[0])
            case Pattern.SEND_RECV:
                seconds = self.exchange([(group[0], group[1])], [given[0]])
            case Pattern.SHIFT:
                pairs = [(rank, group[(i + collective.offset) % len(group)]) for i, rank in enumerate(group)]
                seconds = self.exchange(pairs, given)
            case Pattern.HALO_EXCHANGE:
                seconds = self._halo(collective, bytes_per_element)
        return float(seconds)

    def _halo(self, collective: Collective, bytes_per_element: float) -> FloatArray:
        """Every member sends to every other what that one needs of its piece, all at once."""
        group, moved = collective.group, _overlaps(collective)
        sent = [(i, j) for i in range(len(group)) for j in range(len(group)) if i != j and moved[i][j]]
        if not sent:
            return np.zeros(())
        return self.exchange(
            [(group[i], group[j]) for i, j in sent], [moved[i][j] * bytes_per_element for i, j in sent]
        )

    def plan(self, plan: Plan, bytes_per_element: float) -> tuple[float, ...]:
        """Seconds of every collective of a redistribution, in its order; one after the other they add up."""
        return tuple(self.collective(collective, bytes_per_element) for collective in plan.collectives)


def _around(ring: Sequence[int]) -> list[Pair]:
    return [(rank, ring[(i + 1) % len(ring)]) for i, rank in enumerate(ring)]


def _elements(fragment: Fragment | None) -> int:
    return volume(fragment.box) if fragment else 0


def _overlaps(collective: Collective) -> list[list[int]]:
    """Elements of member i's input that are in member j's output."""
    return [
        [volume(intersect(given.box, taken.box)) if given and taken else 0 for taken in collective.outputs]
        for given in collective.inputs
    ]
