"""The time of communication on a pool: alpha-beta costs of the collectives of a redistribution.

A message of ``S`` bytes over a route takes ``alpha + S * beta``: ``alpha`` the sum of the links' latencies, and
``1 / beta`` the bandwidth of its slowest link (Hockney, 1994), or, past nodes that store a message before they pass it
on, ``beta`` the sum of the slowest links' before and after each of them. Transfers of one round that use the same
direction of a link, or any direction of a half-duplex link, share its bandwidth; the slowest transfer ends the round.
Collectives are rounds of transfers (``mars_onnx.cost.rounds``), in as many chunks as the pool declares; of the
algorithms that it allows, the fastest is taken. What this leaves out is in docs/cost-model.md.

All byte counts may be arrays; times then have their shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mars_onnx.cost.hierarchy import Levels, levels_of
from mars_onnx.cost.performance import FloatArray
from mars_onnx.cost.rounds import (
    EXCHANGES,
    GATHERS,
    REDUCES,
    SCATTERS,
    Algorithm,
    Groups,
    Pair,
    Rounds,
    applies,
    chain_broadcast,
    direct_broadcast,
    scatter_broadcast,
    tree_broadcast,
)
from mars_onnx.geometry import intersect, volume
from mars_onnx.pool import Pool
from mars_onnx.redistribution.plan import Collective, Fragment, Pattern, Plan

_FLAT: dict[str, dict[str, Algorithm]] = {
    "all_reduce": REDUCES,
    "all_gather": GATHERS,
    "reduce_scatter": SCATTERS,
    "all_to_all": EXCHANGES,
}
_BROADCASTS: dict[str, Callable[[Groups, FloatArray], list[Rounds]]] = {
    "tree": tree_broadcast,
    "direct": direct_broadcast,
    "scatter_gather": scatter_broadcast,
    "chain": lambda groups, nbytes: chain_broadcast(groups, nbytes, 1),
}


@dataclass(frozen=True)
class Step:
    """Transfers that start together.

    A route is cut into stretches at the nodes that store messages, and each stretch occupies channels (see
    ``Link.channel``).

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

    def seconds(self, nbytes: npt.ArrayLike) -> FloatArray:
        """Until the last transfer is done.

        Args:
            nbytes: Bytes per transfer, in the last dimension; a transfer of nothing does not take place.
        """
        sizes = np.broadcast_to(np.asarray(nbytes, np.float64), (*np.shape(nbytes)[:-1], len(self.alpha)))
        busy = (sizes @ self.uses) * self.beta
        own = sizes[..., None] * self.own
        # Messages queue up at the busiest stretch only: at the others they arrive, and go on, one by one.
        waits = (busy[..., self.stretches].max(axis=-1) - own).max(axis=-1)
        needed = self.alpha + own.sum(axis=-1) + np.maximum(waits, 0.0)
        took: FloatArray = np.where(sizes > 0, needed, 0.0).max(axis=-1, initial=0.0)
        return took


def step_of(pool: Pool, pairs: Sequence[Pair]) -> Step:
    """The step in which every pair (source, target) exchanges a message."""
    routes = [pool.route(*pair) for pair in pairs]
    numbers: dict[int, int] = {}
    cut: list[list[tuple[list[int], float]]] = []
    for route in routes:
        stretches: list[tuple[list[int], float]] = [([], 0.0)]
        for link, (start, end) in zip(route.links, pairwise(route.nodes), strict=True):
            channels, slowest = stretches[-1]
            if link.shared:
                channels.append(numbers.setdefault(link.channel(start, end), len(numbers)))
            stretches[-1] = (channels, max(slowest, 1.0 / link.bandwidth_bytes_per_s))
            if end in pool.stores:
                stretches.append(([], 0.0))
        cut.append(stretches)
    idle = len(numbers)
    most = max(map(len, cut), default=1)
    longest = max((len(channels) for stretches in cut for channels, _ in stretches), default=0)
    index = np.full((len(pairs), most, max(longest, 1)), idle, np.intp)
    own = np.zeros((len(pairs), most))
    uses = np.zeros((len(pairs), idle + 1))
    for transfer, stretches in enumerate(cut):
        for number, (channels, slowest) in enumerate(stretches):
            index[transfer, number, : len(channels)] = channels
            own[transfer, number] = slowest
            uses[transfer, channels] = 1.0
    rates = [pool.links[channel // 2].bandwidth_bytes_per_s for channel in numbers]
    beta = np.array([*(1.0 / rate for rate in rates), 0.0])
    return Step(np.array([route.latency_s for route in routes]), uses, beta, index, own)


class Interconnect:
    """Communication times on one pool. Nodes may be accelerators, hosts or switches; groups are of ranks."""

    def __init__(self, pool: Pool) -> None:
        """For a pool."""
        self._pool = pool
        self._rules = pool.collectives
        self._steps: dict[tuple[Pair, ...], Step] = {}
        self._levels: dict[tuple[tuple[int, ...], bool], tuple[Levels, ...]] = {}
        self._known: dict[tuple[Collective, float], float] = {}

    def step(self, pairs: Sequence[Pair]) -> Step:
        """The step in which every pair (source, target) exchanges a message."""
        key = tuple(pairs)
        if key not in self._steps:
            self._steps[key] = step_of(self._pool, key)
        return self._steps[key]

    def exchange(self, pairs: Sequence[Pair], nbytes: npt.ArrayLike) -> FloatArray:
        """Messages that all start together; bytes per pair in the last dimension."""
        sizes = np.asarray(nbytes, np.float64)
        return self.seconds([Rounds(tuple(pairs), sizes[..., None, :])])

    def seconds(self, rounds: Sequence[Rounds]) -> FloatArray:
        """Rounds one after the other, with the sums between them and the ends of messages. No bytes, no time."""
        total: FloatArray = np.zeros(())
        messages: FloatArray = np.zeros(())
        rate = self._rules.reduction_bytes_per_s
        for part in rounds:
            if not part.pairs:
                continue
            total = total + part.times * self.step(part.pairs).seconds(part.nbytes).sum(axis=-1)
            messages = messages + part.times * (part.nbytes > 0).any(axis=-1).sum(axis=-1)
            if part.summed is not None and rate is not None:
                total = total + part.times * part.summed.sum(axis=-1) / rate
        return total + self._rules.endpoint_latency_s * np.where(messages > 0, messages + 1, 0)

    def ring(self, group: Sequence[int]) -> tuple[int, ...]:
        """The order round which a ring goes: group by group of the pool, so that it leaves each only once."""
        return tuple(sorted(group, key=lambda rank: (self._pool.group_of[rank], rank)))

    def all_reduce(self, group: Sequence[int], nbytes: npt.ArrayLike) -> FloatArray:
        """The sum of a tensor, on every member. ``nbytes``: of the whole tensor."""
        return _fastest(self.algorithms("all_reduce", group, nbytes).values())

    def all_gather(self, group: Sequence[int], pieces: npt.ArrayLike) -> FloatArray:
        """The pieces of all members, on every member. ``pieces``: bytes per member, last dimension."""
        return _fastest(self.algorithms("all_gather", group, pieces).values())

    def reduce_scatter(self, group: Sequence[int], pieces: npt.ArrayLike) -> FloatArray:
        """The sum of a tensor, a piece on every member. ``pieces``: bytes per member, last dimension."""
        return _fastest(self.algorithms("reduce_scatter", group, pieces).values())

    def all_to_all(self, group: Sequence[int], matrix: npt.ArrayLike) -> FloatArray:
        """Bytes from member i to member j in ``matrix[..., i, j]``; the diagonal is not looked at."""
        return _fastest(self.algorithms("all_to_all", group, matrix).values())

    def broadcast(self, group: Sequence[int], nbytes: npt.ArrayLike) -> FloatArray:
        """From ``group[0]`` to all. ``nbytes``: of the whole tensor."""
        return _fastest(self.algorithms("broadcast", group, nbytes).values())

    def algorithms(self, op: str, group: Sequence[int], sizes: npt.ArrayLike) -> dict[str, FloatArray]:
        """Seconds of a collective by every algorithm that the pool allows and that can run on the group.

        If none of those can, a plain one that always can. One member communicates nothing.

        Args:
            op: ``all_reduce``, ``all_gather``, ``reduce_scatter``, ``all_to_all`` or ``broadcast``.
            group: Members.
            sizes: Bytes, as for the method of that name.
        """
        given = np.asarray(sizes, np.float64)
        dimensions = {"all_reduce": 0, "broadcast": 0, "all_to_all": 2}.get(op, 1)
        if len(group) < 2:
            return {"": np.zeros(given.shape[: given.ndim - dimensions])}
        order = self._from_root(group) if op == "broadcast" else self.ring(group)
        places = [list(group).index(rank) for rank in order]
        if op == "all_reduce":
            given = np.repeat(given[..., None] / len(order), len(order), axis=-1)
        elif op == "all_to_all":
            given = given[..., places, :][..., places]
        elif op != "broadcast":
            given = given[..., places]
        found = {}
        for name in self._rules.algorithms[op]:
            seconds = self._by(op, name, order, given)
            if seconds is not None:
                found[name] = seconds
        return found or {"direct": self._flat(op, "direct", order, given)}

    def _from_root(self, group: Sequence[int]) -> tuple[int, ...]:
        """The root's own group of the pool first, so that a tree crosses to another as late as it can."""
        home = self._pool.group_of[group[0]]
        near = sorted((self._pool.group_of[rank] != home, self._pool.group_of[rank], rank) for rank in group[1:])
        return (group[0], *(rank for _, _, rank in near))

    def _by(self, op: str, name: str, order: tuple[int, ...], given: FloatArray) -> FloatArray | None:
        """Seconds by one algorithm; ``None`` if it cannot run on so many members."""
        if name != "hierarchical":
            return self._flat(op, name, order, given) if applies(name, len(order)) else None
        even = op != "broadcast"
        if (order, even) not in self._levels:
            self._levels[order, even] = levels_of(self._pool, order, even=even)
        chunks = self._rules.chunks
        made = []
        for levels in self._levels[order, even]:
            inner, outer = self._phases(op, levels, order, given / chunks)
            # A chunk's inner phases keep the inner level busy while the chunk before it is at the outer one.
            each = np.maximum(inner, outer) if levels.disjoint else inner + outer
            made.append(inner + outer + (chunks - 1) * each)
        return _fastest(made) if made else None

    def _flat(self, op: str, name: str, order: tuple[int, ...], given: FloatArray) -> FloatArray:
        """Seconds by a flat algorithm, chunk by chunk."""
        chunks = self._rules.chunks
        if name == "chain":
            return self.seconds(chain_broadcast((order,), given, chunks))
        return chunks * self._side_by_side(op, name, (order,), _one(op, given) / chunks)

    def _side_by_side(self, op: str, name: str, groups: Groups, sizes: FloatArray) -> FloatArray:
        """Seconds of one chunk of a collective that several groups run at the same time."""
        if op == "broadcast":
            return self.seconds(_BROADCASTS[name](groups, sizes))
        return self.seconds(_FLAT[op][name](groups, sizes, self._rules.reductions_overlap))

    def _best(self, op: str, groups: Groups, sizes: FloatArray) -> FloatArray:
        """The same by the fastest flat algorithm that the pool allows, or else by any."""
        members = {len(group) for group in groups}
        known = _BROADCASTS if op == "broadcast" else _FLAT[op]
        fit = [name for name in known if all(applies(name, count) for count in members)]
        if len(members) > 1:
            fit = [name for name in fit if name != "scatter_gather"]
        allowed = [name for name in self._rules.algorithms[op] if name in fit] or fit
        return _fastest(self._side_by_side(op, name, groups, sizes) for name in allowed)

    def _phases(
        self, op: str, levels: Levels, order: tuple[int, ...], given: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Seconds of one chunk inside the clusters, and between them."""
        inner, outer = levels.inner, levels.outer
        if op == "broadcast":
            return self._best(op, inner, given), self._best(op, outer, given)
        place = {rank: index for index, rank in enumerate(order)}
        index = np.array([[place[rank] for rank in cluster] for cluster in inner])
        if op == "all_to_all":
            # First to the member of one's own cluster that is at the place of the target, then to the target's cluster.
            blocks = given[..., index[:, :, None, None], index[None, None]]
            within, between = blocks.sum(axis=-2), np.moveaxis(blocks.sum(axis=-3), -1, -3)
            return self._best(op, inner, within), self._best(op, outer, between)
        pieces = given[..., index]
        bundles = np.broadcast_to(pieces.sum(axis=-2, keepdims=True), pieces.shape)
        across = np.swapaxes(pieces, -1, -2)
        if op != "all_reduce":
            return self._best(op, inner, bundles), self._best(op, outer, across)
        scatter, gather = self._best("reduce_scatter", inner, bundles), self._best("all_gather", inner, bundles)
        return scatter + gather, self._best(op, outer, across)

    def collective(self, collective: Collective, bytes_per_element: float) -> float:
        """Seconds of one collective of a plan."""
        key = (collective, bytes_per_element)
        if key not in self._known:
            seconds = float(self._collective(collective, bytes_per_element))
            self._known[key] = seconds + self._overhead(collective, bytes_per_element)
        return self._known[key]

    def _overhead(self, collective: Collective, bytes_per_element: float) -> float:
        """What the pool says that software adds."""
        known = self._rules.overheads.get(str(collective.pattern))
        if known is None or len(collective.group) < 2:
            return 0.0
        pairs = zip(collective.inputs, collective.outputs, strict=True)
        kept = (volume(intersect(given.box, taken.box)) if given and taken else 0 for given, taken in pairs)
        return known.seconds(max(kept) * bytes_per_element)

    def _collective(self, collective: Collective, bytes_per_element: float) -> FloatArray:
        group = collective.group
        given = [_elements(fragment) * bytes_per_element for fragment in collective.inputs]
        match collective.pattern:
            case Pattern.ALL_REDUCE:
                return self.all_reduce(group, given[0])
            case Pattern.ALL_GATHER:
                return self.all_gather(group, given)
            case Pattern.REDUCE_SCATTER:
                taken = [_elements(fragment) * bytes_per_element for fragment in collective.outputs]
                return self.reduce_scatter(group, taken)
            case Pattern.ALL_TO_ALL | Pattern.HALO_EXCHANGE:
                # A halo exchange is an all-to-all in which most have nothing for each other: where a member takes one
                # message at a time, its neighbours come one after the other.
                return self.all_to_all(group, np.asarray(_overlaps(collective)) * bytes_per_element)
            case Pattern.BROADCAST:
                return self.broadcast(group, given[0])
            case Pattern.SEND_RECV:
                return self.exchange([(group[0], group[1])], [given[0]])
            case Pattern.SHIFT:
                pairs = [(rank, group[(i + collective.offset) % len(group)]) for i, rank in enumerate(group)]
                return self.exchange(pairs, given)

    def plan(self, plan: Plan, bytes_per_element: float) -> tuple[float, ...]:
        """Seconds of every collective of a redistribution, in its order; one after the other they add up."""
        return tuple(self.collective(collective, bytes_per_element) for collective in plan.collectives)


def _fastest(algorithms: Iterable[FloatArray]) -> FloatArray:
    return reduce(np.minimum, algorithms)


def _one(op: str, given: FloatArray) -> FloatArray:
    """Sizes with a dimension of one group."""
    if op == "broadcast":
        return given
    return given[..., None, :, :] if op == "all_to_all" else given[..., None, :]


def _elements(fragment: Fragment | None) -> int:
    return volume(fragment.box) if fragment else 0


def _overlaps(collective: Collective) -> list[list[int]]:
    """Elements of member i's input that are in member j's output."""
    return [
        [volume(intersect(given.box, taken.box)) if given and taken else 0 for taken in collective.outputs]
        for given in collective.inputs
    ]
