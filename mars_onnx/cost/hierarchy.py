"""Levels of a group of accelerators: clusters that are near each other, for collectives that go level by level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, groupby

from mars_onnx.pool.topology import REFERENCE_BYTES, Pool

#: Most ways to cut a group into clusters that are looked at.
MAX_CUTS = 4


@dataclass(frozen=True, slots=True)
class Levels:
    """A group cut into clusters.

    Attributes:
        inner: The clusters.
        outer: What joins them. Of even clusters: per place the members at that place; else one group of the first ones.
        disjoint: Whether the two levels use different channels, and so can work at the same time.
    """

    inner: tuple[tuple[int, ...], ...]
    outer: tuple[tuple[int, ...], ...]
    disjoint: bool


def clusterings(pool: Pool, ranks: Sequence[int]) -> list[tuple[tuple[int, ...], ...]]:
    """Ways to cut ranks into clusters whose members reach each other faster than others (single linkage).

    From the finest to the coarsest, without those of single ranks and of all together; order as in ``ranks``.
    """
    order = sorted((_seconds(pool, first, second), first, second) for first, second in combinations(ranks, 2))
    cluster = {rank: [rank] for rank in ranks}
    found: list[tuple[tuple[int, ...], ...]] = []
    place = {rank: index for index, rank in enumerate(ranks)}
    for _, alike in groupby(order, key=lambda entry: f"{entry[0]:.9e}"):
        merged = False
        for _, first, second in alike:
            if cluster[first] is not cluster[second]:
                merged = True
                joined = cluster[first] + cluster[second]
                cluster.update(dict.fromkeys(joined, joined))
        apart = {id(members): members for members in cluster.values()}
        if len(apart) == 1:
            break
        if merged:
            ordered = (tuple(sorted(members, key=place.__getitem__)) for members in apart.values())
            found.append(tuple(sorted(ordered, key=lambda members: place[members[0]])))
    return found


def _seconds(pool: Pool, first: int, second: int) -> float:
    route = pool.route(first, second)
    return route.latency_s + REFERENCE_BYTES / route.bandwidth_bytes_per_s


def levels_of(pool: Pool, order: Sequence[int], *, even: bool) -> tuple[Levels, ...]:
    """The levels of a group, for each of its clusterings; with ``even``, of those whose clusters are of one size."""
    found = []
    for inner in clusterings(pool, order):
        if even and len({len(cluster) for cluster in inner}) > 1:
            continue
        outer = tuple(zip(*inner, strict=True)) if even else (tuple(cluster[0] for cluster in inner),)
        found.append(Levels(inner, outer, not (_channels(pool, inner) & _channels(pool, outer))))
    return tuple(found[:MAX_CUTS])


def _channels(pool: Pool, groups: Sequence[Sequence[int]]) -> set[int]:
    return {
        channel
        for group in groups
        for first, second in combinations(group, 2)
        for route in (pool.route(first, second), pool.route(second, first))
        for channel in route.channels
    }
