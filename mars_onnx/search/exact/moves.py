"""What it costs to redistribute a tensor: for all pairs of layouts a lower bound at once, exactly one pair at a time.

A plan takes milliseconds to find, and a network has hundreds of thousands of pairs. So a search works with bounds, and
asks for the exact cost of the pairs on its best way only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mars_onnx.cost.steps import move_seconds
from mars_onnx.geometry import Layout, Reduction
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.space import LayerSpace
from mars_onnx.search.exact.work import BOUND, BOUND_TABLE, spend, spend_on_plan
from mars_onnx.sharding.strategy import Resolution

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

#: Pairs of members of pairs of layouts that are looked at together.
_MOST_PAIRS = 4_000_000
#: Algorithms in which a member has one message coming in at a time.
_ONE_PORT = {"ring", "halving_doubling", "hierarchical", "pairwise", "tree", "chain"}
#: Of these, those that run on any number of members. Where none is allowed, another one may have to stand in.
_ALWAYS = {"ring", "pairwise", "tree", "chain"}


@dataclass(frozen=True, eq=False)
class Ports:
    """How fast data can come to the members of a set, at best.

    Attributes:
        one_port: Whether a member takes one message at a time, so that rounds and bytes add up.
        group: Per member the number of its group of the pool.
        near_s_per_byte: From a member of its own group, at best; where it is alone, as ``far_s_per_byte``.
        far_s_per_byte: From a member of another group, at best; where there is none, as ``near_s_per_byte``.
        all_s_per_byte: From everywhere at once.
        near_latency_s: Of a message inside a group.
        far_latency_s: Of a message from another group.
    """

    one_port: bool
    group: IntArray
    near_s_per_byte: FloatArray
    far_s_per_byte: FloatArray
    all_s_per_byte: FloatArray
    near_latency_s: FloatArray
    far_latency_s: FloatArray


@lru_cache(maxsize=4096)
def ports(pool: Pool, members: tuple[int, ...]) -> Ports:
    """How fast data can come to these accelerators from each other."""
    near: list[float] = []
    far: list[float] = []
    everywhere: list[float] = []
    near_latency: list[float] = []
    far_latency: list[float] = []
    for rank in members:
        others = [other for other in members if other != rank]
        inside = [pool.route(o, rank) for o in others if pool.group_of[o] == pool.group_of[rank]]
        outside = [pool.route(o, rank) for o in others if pool.group_of[o] != pool.group_of[rank]]
        rate = {True: 0.0, False: 0.0}
        for local, routes in ((True, inside), (False, outside)):
            rate[local] = max((route.bandwidth_bytes_per_s for route in routes), default=0.0)
        links = {link.index: link for route in (*inside, *outside) for link in route.links[-1:]}
        free = any(not link.shared for link in links.values())
        total = sum(link.bandwidth_bytes_per_s for link in links.values())
        near.append(1 / (rate[True] or rate[False] or np.inf))
        far.append(1 / (rate[False] or rate[True] or np.inf))
        everywhere.append(0.0 if free or not total else 1 / total)
        near_latency.append(min((route.latency_s for route in inside or outside), default=0.0))
        far_latency.append(min((route.latency_s for route in outside or inside), default=0.0))
    return Ports(
        one_port(pool),
        np.asarray([pool.group_of[rank] for rank in members]),
        *(np.asarray(column, np.float64) for column in (near, far, everywhere, near_latency, far_latency)),
    )


@dataclass(slots=True)
class Clock:
    """Counts costs that have become exact, over many tables."""

    now: int = 0

    def tick(self) -> None:
        """One more."""
        self.now += 1


@lru_cache(maxsize=16)
def one_port(pool: Pool) -> bool:
    """Whether a member never takes two messages at a time: of different chunks it may."""
    rules = pool.collectives
    names = rules.algorithms.values()
    return rules.chunks == 1 and all(_ONE_PORT.issuperset(own) and _ALWAYS.intersection(own) for own in names)


@lru_cache(maxsize=65536)
def crossing(pool: Pool, sources: tuple[int, ...], targets: tuple[int, ...]) -> tuple[float, float]:
    """Latency, and seconds per byte, of what goes from a set to another, at best: all members at once."""
    single = one_port(pool)
    rate = 0.0
    for target in targets:
        routes = [pool.route(source, target) for source in sources]
        links = {link.index: link for route in routes for link in route.links[-1:]}
        if single:
            rate += max(route.bandwidth_bytes_per_s for route in routes)
        elif all(link.shared for link in links.values()):
            rate += sum(link.bandwidth_bytes_per_s for link in links.values())
        else:
            rate = float("inf")
    return min(pool.latency(source, target) for source in sources for target in targets), 1 / rate


class Moves:
    """Layouts of tensors of one shape and width on some accelerators, and what it takes between them."""

    def __init__(
        self, pool: Pool, shape: tuple[int, ...], bits: int, ranks: tuple[int, ...], clock: Clock | None = None
    ) -> None:
        """For tensors of a shape and width on some accelerators; ``clock`` ticks whenever a cost becomes exact."""
        self.pool, self.shape, self.bits, self.ranks = pool, shape, bits, ranks
        self._clock = Clock() if clock is None else clock
        self._ids: dict[bytes, int] = {}
        self._boxes: list[IntArray] = []
        self._members: list[tuple[int, ...]] = []
        self._exact: dict[tuple[int, int], float] = {}
        self._layouts: dict[int, Layout] = {}
        #: Pairs in the order in which their costs became exact.
        self.log: list[tuple[int, int]] = []

    def register(self, boxes: IntArray, members: tuple[int, ...]) -> IntArray:
        """Numbers of layouts.

        Args:
            boxes: ``[layouts, members, rank, 2]``.
            members: Ranks, among those of the table.
        """
        if members != self.ranks:
            spread = np.zeros((len(boxes), len(self.ranks), *boxes.shape[2:]), np.int64)
            spread[:, [self.ranks.index(rank) for rank in members]] = boxes
            boxes = spread
        numbers = np.empty(len(boxes), np.int64)
        prefix = repr(members).encode()
        for row, own in enumerate(boxes):
            key = prefix + own.tobytes()
            number = self._ids.get(key)
            if number is None:
                number = self._ids[key] = len(self._boxes)
                self._boxes.append(own)
                self._members.append(members)
            numbers[row] = number
        return numbers

    def layout(self, number: int) -> Layout:
        """A registered layout."""
        if number not in self._layouts:
            self._layouts[number] = _layout(self._boxes[number], self.shape, self.ranks, self._members[number])
        return self._layouts[number]

    def exact(self, source: int, target: int) -> float:
        """Seconds of a redistribution."""
        key = (source, target)
        if key not in self._exact:
            spend_on_plan(len(self.ranks))
            self._exact[key] = move_seconds(self.pool, self.layout(source), self.layout(target), self.bits)
            self.log.append(key)
            self._clock.tick()
        return self._exact[key]

    def sharpen(self, source: int, target: int) -> bool:
        """Make the cost of a pair exact; says whether it was not."""
        if (source, target) in self._exact:
            return False
        held, needed = self._boxes[source], self._boxes[target]
        if source == target or (self._members[source] == self._members[target] and _inside(needed, held)):
            return False
        self.exact(source, target)
        return True

    def boxes(self, numbers: IntArray) -> IntArray:
        """Boxes of layouts, ``[layouts, ranks, rank, 2]``."""
        return np.stack([self._boxes[number] for number in numbers.tolist()])

    def bounds(self, sources: IntArray, targets: IntArray) -> FloatArray:
        """Seconds at least, ``[sources, targets]``; exact where that is known, and where nothing moves."""
        held, needed = self.boxes(sources), self.boxes(targets)
        spend(BOUND, BOUND_TABLE + len(sources) * len(targets) * len(self.ranks) ** 2)
        port = ports(self.pool, self.ranks)
        # All pairs of members of all pairs of layouts would fill the memory on large sets: some layouts at a time.
        several = max(1, _MOST_PAIRS // (len(targets) * len(self.ranks) ** 2))
        blocks = [held[start : start + several] for start in range(0, len(held), several)]
        seconds = np.concatenate([_bounds(block, needed, port, self.bits) for block in blocks])
        columns = {int(number): place for place, number in enumerate(targets)}
        rows = {int(number): place for place, number in enumerate(sources)}
        for (source, target), value in self._exact.items():
            if source in rows and target in columns:
                seconds[rows[source], columns[target]] = value
        return seconds


def _inside(needed: IntArray, held: IntArray) -> bool:
    """Whether every member holds what it needs."""
    nothing = (needed[..., 0] >= needed[..., 1]).any(axis=-1)
    within = ((held[..., 0] <= needed[..., 0]) & (needed[..., 1] <= held[..., 1])).all(axis=-1)
    return bool((nothing | within).all())


def _layout(boxes: IntArray, shape: tuple[int, ...], ranks: tuple[int, ...], members: tuple[int, ...]) -> Layout:
    own = {
        rank: tuple((low, high) for low, high in box) if all(low < high for low, high in box) else None
        for rank, box in zip(ranks, boxes.tolist(), strict=True)
    }
    empty = not shape
    return Layout(
        shape,
        members,
        tuple((() if own[rank] is not None else None) if empty else own[rank] for rank in members),
        reduction=Reduction.SUM,
    )


def _bounds(held: IntArray, needed: IntArray, port: Ports, bits: int) -> FloatArray:
    """Seconds at least."""
    extents = _overlaps(held, needed)  # [A, B, members (needing), members (holding)]
    whole = np.maximum(needed[..., 1] - needed[..., 0], 0).prod(axis=-1)
    own = np.diagonal(extents, axis1=2, axis2=3)
    lack = (whole[None] - own) * (bits / 8)  # [A, B, members]
    largest = np.maximum(held[..., 1] - held[..., 0], 0).prod(axis=-1).max(axis=-1) * (bits / 8)
    partners = np.ceil(lack / np.maximum(largest, 1e-30)[:, None, None])
    latency = np.minimum(port.near_latency_s, port.far_latency_s)
    if not port.one_port:
        least: FloatArray = np.where(lack > 0, latency + lack * port.all_s_per_byte, 0.0).max(axis=-1)
        return least
    fastest = np.minimum(port.near_s_per_byte, port.far_s_per_byte)
    # A member takes in all that it lacks. And whoever has taken in bytes of n members, one message at a time, has them
    # after 1 + log2(n) rounds, however they are gathered: this holds for the fastest link anywhere.
    rounds = np.ceil(np.log2(1 + partners))
    own_way = latency + lack * fastest
    gathering = rounds * latency.min() + lack * fastest.min()
    seconds: FloatArray = np.where(lack > 0, np.maximum(own_way, gathering), 0.0).max(axis=-1)
    groups = np.unique(port.group)
    if len(groups) > 1:
        weights = _replica_weights(held, port.group)
        for group in groups:
            inside = port.group == group
            available = (extents[:, :, inside][..., inside] * weights[:, None, None, inside]).sum(axis=-1)
            missing = ((whole[None][..., inside] - available) * (bits / 8)).max(axis=-1)  # [A, B] across, at least
            share = missing / inside.sum()
            extra = share * np.maximum(port.far_s_per_byte[inside].min() - fastest[inside].max(), 0.0)
            # Of the members of the group, the one that takes most across pays for that, and for what it lacks itself.
            gathered = lack[..., inside].min(axis=-1) * fastest[inside].min()
            crossing = np.where(missing > 1e-9, port.far_latency_s[inside].min() + extra + gathered, 0.0)
            seconds = np.maximum(seconds, crossing)
    return seconds


def resolution_bounds(kept: FloatArray, space: LayerSpace, port: Ports) -> FloatArray:
    """Seconds at least to resolve the partial sums of strategies, 0 where there are none.

    Of ``p`` parts, a member that keeps ``r`` bytes of the sum has to take in ``(p - 1) r`` if it alone keeps them, and
    ``2 (p - 1) / p r`` if all holders keep all (Patarasuk and Yuan, 2009), in as many rounds as doubling takes.

    Args:
        kept: Bytes that each member keeps, ``[strategies, members]``.
        space: The strategies.
        port: How fast data can come in.
    """
    scattered = np.asarray([s.resolution is Resolution.REDUCE_SCATTER for s in space.strategies])[:, None]
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
            lacking = np.asarray(
                [
                    len(set(row[inside].tolist())) < count
                    for row, count in zip(space.part, space.parts.tolist(), strict=True)
                ]
            )
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


def _overlaps(held: IntArray, needed: IntArray) -> IntArray:
    """Elements of what member ``i`` needs that member ``j`` holds, ``[A, B, i, j]``."""
    total: IntArray | None = None
    for dim in range(held.shape[2]):
        kept, held_at = _distinct(held[:, :, dim])
        wanted, wanted_at = _distinct(needed[:, :, dim])
        table = np.minimum(kept[:, None, 1], wanted[None, :, 1]) - np.maximum(kept[:, None, 0], wanted[None, :, 0])
        table = np.maximum(table, 0)
        if len(kept) == 1 and len(wanted) == 1:
            scalar = int(table[0, 0])
            total = (
                np.full((len(held), len(needed), needed.shape[1], held.shape[1]), scalar)
                if total is None
                else (total * scalar)
            )
            continue
        part = table[held_at[:, None, None, :], wanted_at[None, :, :, None]]
        total = part if total is None else total * part
    if total is None:
        raise ValueError("boxes have at least one dimension")
    return total


def _distinct(intervals: IntArray) -> tuple[IntArray, IntArray]:
    """Distinct ``(low, high)`` of ``[layouts, members, 2]``, and where each is."""
    packed = intervals[..., 0] * (1 << 31) + intervals[..., 1]
    found, at = np.unique(packed, return_inverse=True)
    return np.stack([found >> 31, found & ((1 << 31) - 1)], axis=-1), at.reshape(packed.shape)


def _replica_weights(held: IntArray, group: IntArray) -> FloatArray:
    """One over the number of members of the same group that hold the same box, ``[layouts, members]``."""
    equal = (held[:, :, None] == held[:, None]).all(axis=(-1, -2)) & (group[:, None] == group[None])
    weights: FloatArray = 1.0 / equal.sum(axis=-1)
    return weights
