"""The time of communication on a pool: alpha-beta costs of the collectives of a redistribution.

A message of ``S`` bytes over a route takes ``alpha + S * beta``: ``alpha`` the sum of the links' latencies, and
``1 / beta`` the bandwidth of its slowest link (Hockney, 1994), or, past nodes that store a message before they pass it
on, ``beta`` the sum of the slowest links' before and after each of them. Transfers of one round that use the same
direction of a link, or any direction of a half-duplex link, share its bandwidth; the slowest transfer ends the round.
Collectives are rounds of transfers (``mars_onnx.cost.rounds``), in as many chunks as the pool declares; of the
algorithms that it allows, the fastest is taken. What this leaves out is in docs/cost-model.md.

All byte counts may be arrays; times then have their shape. For the collectives of plans, of which a search prices many
thousands that differ in little but their size, the time is kept as a function of it (``mars_onnx.cost.curves``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import reduce
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from mars_onnx.cost.curves import Curve
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
from mars_onnx.cost.sizes import Amounts, Sizes, amounts_of, assembled
from mars_onnx.cost.transfers import Step, likeness, step_of
from mars_onnx.geometry import intersect, volume
from mars_onnx.pool import Pool
from mars_onnx.redistribution.plan import Collective, Pattern, Plan

Time = TypeVar("Time")

#: How many dimensions the sizes of a collective have; 1 if not said.
_DIMENSIONS = {"all_reduce": 0, "broadcast": 0, "all_to_all": 2}

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


class _Collectives(ABC, Generic[Time]):
    """Which algorithm takes how long, whatever a time is: numbers, or functions of the size."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._rules = pool.collectives
        self._steps: dict[tuple[Pair, ...], Step] = {}
        self._levels: dict[tuple[tuple[int, ...], bool], tuple[Levels, ...]] = {}

    @abstractmethod
    def seconds(self, rounds: Sequence[Rounds]) -> Time:
        """Rounds one after the other, with the sums between them and the ends of messages. No bytes, no time."""

    @abstractmethod
    def _sum(self, *terms: tuple[int, Time]) -> Time:
        """Times one after the other, each so many times."""

    @abstractmethod
    def _least(self, times: Sequence[Time]) -> Time:
        """The fastest of several."""

    @abstractmethod
    def _most(self, times: Sequence[Time]) -> Time:
        """The slowest of several."""

    def step(self, pairs: Sequence[Pair]) -> Step:
        """The step in which every pair (source, target) exchanges a message."""
        key = tuple(pairs)
        found = self._steps.get(key)
        if found is None:
            found = self._steps[key] = step_of(self._pool, key)
        return found

    def ring(self, group: Sequence[int]) -> tuple[int, ...]:
        """The order round which a ring goes: group by group of the pool, so that it leaves each only once.

        Otherwise as given, so that what a collective takes does not depend on how accelerators are numbered.
        """
        group_of = self._pool.group_of
        first: dict[int, int] = {}
        for place, rank in enumerate(group):
            first.setdefault(group_of[rank], place)
        return tuple(sorted(group, key=lambda rank: first[group_of[rank]]))

    def algorithms(self, op: str, group: Sequence[int], sizes: npt.ArrayLike) -> dict[str, Time]:
        """Seconds of a collective by every algorithm that the pool allows and that can run on the group.

        If none of those can, a plain one that always can. One member communicates nothing.

        Args:
            op: ``all_reduce``, ``all_gather``, ``reduce_scatter``, ``all_to_all`` or ``broadcast``.
            group: Members.
            sizes: Bytes, as for the method of that name.
        """
        given = np.asarray(sizes, np.float64)
        if len(group) < 2:
            return {"": self._nothing(given.shape[: given.ndim - _DIMENSIONS.get(op, 1)])}
        # A root comes first, and its own group of the pool: a tree crosses to another one as late as it can.
        order = self.ring(group)
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

    def _by(self, op: str, name: str, order: tuple[int, ...], given: FloatArray) -> Time | None:
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
            each = self._most([inner, outer]) if levels.disjoint else self._sum((1, inner), (1, outer))
            made.append(self._sum((1, inner), (1, outer), (chunks - 1, each)))
        return self._least(made) if made else None

    def _flat(self, op: str, name: str, order: tuple[int, ...], given: FloatArray) -> Time:
        """Seconds by a flat algorithm, chunk by chunk."""
        chunks = self._rules.chunks
        if name == "chain":
            return self.seconds(chain_broadcast((order,), given, chunks))
        return self._sum((chunks, self._side_by_side(op, name, (order,), _one(op, given) / chunks)))

    def _side_by_side(self, op: str, name: str, groups: Groups, sizes: FloatArray) -> Time:
        """Seconds of one chunk of a collective that several groups run at the same time."""
        if op == "broadcast":
            return self.seconds(_BROADCASTS[name](groups, sizes))
        return self.seconds(_FLAT[op][name](groups, sizes, self._rules.reductions_overlap))

    def _best(self, op: str, groups: Groups, sizes: FloatArray) -> Time:
        """The same by the fastest flat algorithm that the pool allows, or else by any."""
        members = {len(group) for group in groups}
        known = _BROADCASTS if op == "broadcast" else _FLAT[op]
        fit = [name for name in known if all(applies(name, count) for count in members)]
        if len(members) > 1:
            fit = [name for name in fit if name != "scatter_gather"]
        allowed = [name for name in self._rules.algorithms[op] if name in fit] or fit
        return self._least([self._side_by_side(op, name, groups, sizes) for name in allowed])

    def _phases(self, op: str, levels: Levels, order: tuple[int, ...], given: FloatArray) -> tuple[Time, Time]:
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
        return self._sum((1, scatter), (1, gather)), self._best(op, outer, across)

    @abstractmethod
    def _nothing(self, shape: tuple[int, ...]) -> Time:
        """No time at all, for sizes of that shape."""


class _Scaled(_Collectives[Curve]):
    """Times for any multiple of the sizes given."""

    def seconds(self, rounds: Sequence[Rounds]) -> Curve:
        """As in the base class; the bytes have no dimensions but the last two."""
        terms: list[tuple[float, Curve]] = []
        rate = self._rules.reduction_bytes_per_s
        messages = 0
        for part in rounds:
            for curve in self.step(part.pairs).curves(part.nbytes) if part.pairs else ():
                messages += part.times
                terms.append((part.times, curve))
            if part.pairs and part.summed is not None and rate is not None:
                terms.append((part.times, Curve.straight(0.0, float(part.summed.sum()) / rate)))
        ends = self._rules.endpoint_latency_s * (messages + 1 if messages else 0)
        return Curve.sum([*terms, (1, Curve.straight(ends, 0.0))])

    def _sum(self, *terms: tuple[int, Curve]) -> Curve:
        return Curve.sum(terms)

    def _least(self, times: Sequence[Curve]) -> Curve:
        return Curve.least(times)

    def _most(self, times: Sequence[Curve]) -> Curve:
        return Curve.most(times)

    def _nothing(self, shape: tuple[int, ...]) -> Curve:
        return Curve.straight(0.0, 0.0)

    def of(self, pattern: Pattern, group: Sequence[int], offset: int, sizes: Sizes) -> Curve:
        """A collective of a plan.

        Args:
            pattern: Which.
            group: Members.
            offset: Of Shift.
            sizes: Of every member's piece, or of the message from every member to every other.
        """
        given = np.asarray(sizes, np.float64)
        match pattern:
            case Pattern.ALL_REDUCE | Pattern.BROADCAST:
                op, given = ("all_reduce" if pattern is Pattern.ALL_REDUCE else "broadcast"), given[0]
            case Pattern.ALL_GATHER:
                op = "all_gather"
            case Pattern.REDUCE_SCATTER:
                op = "reduce_scatter"
            case Pattern.ALL_TO_ALL | Pattern.HALO_EXCHANGE:
                # A halo exchange is an all-to-all in which most have nothing for each other: where a member takes one
                # message at a time, its neighbours come one after the other.
                op = "all_to_all"
                given = given.reshape(len(group), len(group))
            case Pattern.SEND_RECV:
                return self._exchange([(group[0], group[1])], given[:1])
            case Pattern.SHIFT:
                return self._exchange([(rank, group[(i + offset) % len(group)]) for i, rank in enumerate(group)], given)
        return self._least([*self.algorithms(op, group, given).values()])

    def _exchange(self, pairs: Sequence[Pair], sizes: FloatArray) -> Curve:
        return self.seconds([Rounds(tuple(pairs), sizes[None, :])])


class Interconnect(_Collectives[FloatArray]):
    """Communication times on one pool. Nodes may be accelerators, hosts or switches; groups are of ranks."""

    def __init__(self, pool: Pool) -> None:
        """For a pool."""
        super().__init__(pool)
        self._scaled = _Scaled(pool)
        self._curves: dict[tuple[Pattern, tuple[int, ...], int, Sizes], Curve] = {}
        self._first: dict[Hashable, tuple[int, ...]] = {}
        self._alike: dict[tuple[int, ...], tuple[int, ...]] = {}

    def exchange(self, pairs: Sequence[Pair], nbytes: npt.ArrayLike) -> FloatArray:
        """Messages that all start together; bytes per pair in the last dimension."""
        sizes = np.asarray(nbytes, np.float64)
        return self.seconds([Rounds(tuple(pairs), sizes[..., None, :])])

    def seconds(self, rounds: Sequence[Rounds]) -> FloatArray:
        """As in the base class; the dimensions of the bytes before the last two stay."""
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

    def all_reduce(self, group: Sequence[int], nbytes: npt.ArrayLike) -> FloatArray:
        """The sum of a tensor, on every member. ``nbytes``: of the whole tensor."""
        return self._least([*self.algorithms("all_reduce", group, nbytes).values()])

    def all_gather(self, group: Sequence[int], pieces: npt.ArrayLike) -> FloatArray:
        """The pieces of all members, on every member. ``pieces``: bytes per member, last dimension."""
        return self._least([*self.algorithms("all_gather", group, pieces).values()])

    def reduce_scatter(self, group: Sequence[int], pieces: npt.ArrayLike) -> FloatArray:
        """The sum of a tensor, a piece on every member. ``pieces``: bytes per member, last dimension."""
        return self._least([*self.algorithms("reduce_scatter", group, pieces).values()])

    def all_to_all(self, group: Sequence[int], matrix: npt.ArrayLike) -> FloatArray:
        """Bytes from member i to member j in ``matrix[..., i, j]``; the diagonal is not looked at."""
        return self._least([*self.algorithms("all_to_all", group, matrix).values()])

    def broadcast(self, group: Sequence[int], nbytes: npt.ArrayLike) -> FloatArray:
        """From ``group[0]`` to all. ``nbytes``: of the whole tensor."""
        return self._least([*self.algorithms("broadcast", group, nbytes).values()])

    def _sum(self, *terms: tuple[int, FloatArray]) -> FloatArray:
        total: FloatArray = sum((times * seconds for times, seconds in terms), np.zeros(()))
        return total

    def _least(self, times: Sequence[FloatArray]) -> FloatArray:
        return reduce(np.minimum, times)

    def _most(self, times: Sequence[FloatArray]) -> FloatArray:
        return reduce(np.maximum, times)

    def _nothing(self, shape: tuple[int, ...]) -> FloatArray:
        return np.zeros(shape)

    def collective(self, collective: Collective, bytes_per_element: float) -> float:
        """Seconds of one collective of a plan."""
        [amounts] = amounts_of([collective])
        if not amounts.unit:
            return 0.0
        return self.moved(amounts, bytes_per_element) + self._overhead(collective, bytes_per_element)

    def moved(self, amounts: Amounts, bytes_per_element: float) -> float:
        """The same without what software adds."""
        if not amounts.unit:
            return 0.0
        key = (amounts.pattern, self._like(amounts.group), amounts.offset, amounts.proportions)
        curve = self._curves.get(key)
        if curve is None:
            curve = self._curves[key] = self._scaled.of(*key)
        return curve.at(amounts.unit * bytes_per_element)

    def _like(self, group: tuple[int, ...]) -> tuple[int, ...]:
        """The first group that anyone has asked for in which everything takes as long: plans have hundreds of these."""
        found = self._alike.get(group)
        if found is None:
            found = self._alike[group] = self._first.setdefault(likeness(self._pool, group), group)
        return found

    def _overhead(self, collective: Collective, bytes_per_element: float) -> float:
        """What the pool says that software adds."""
        known = self._rules.overheads.get(str(collective.pattern))
        if known is None or len(collective.group) < 2:
            return 0.0
        pairs = zip(collective.inputs, collective.outputs, strict=True)
        kept = (volume(intersect(given.box, taken.box)) if given and taken else 0 for given, taken in pairs)
        return known.seconds(max(kept) * bytes_per_element, assembled(collective) * bytes_per_element)

    def plan(self, plan: Plan, bytes_per_element: float) -> tuple[float, ...]:
        """Seconds of every collective of a redistribution, in its order; one after the other they add up."""
        return tuple(self.collective(collective, bytes_per_element) for collective in plan.collectives)


def _one(op: str, given: FloatArray) -> FloatArray:
    """Sizes with a dimension of one group."""
    if op == "broadcast":
        return given
    return given[..., None, :, :] if op == "all_to_all" else given[..., None, :]
