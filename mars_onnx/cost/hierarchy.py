"""Levels of a group of accelerators: clusters that are near each other, for collectives that go level by level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from mars_onnx.pool.clusters import clusterings
from mars_onnx.pool.topology import Pool

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
