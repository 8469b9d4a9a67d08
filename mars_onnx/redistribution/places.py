"""One plan for all accelerators that are as far from each other, whatever their ranks.

A plan is made with places instead of ranks, and then told in ranks: first come the members of the source, in the order
of their set, then those that are new in the target. So a redistribution costs as much on any set that is like another
one, and a search has to price only one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

from mars_onnx.geometry import Layout
from mars_onnx.redistribution.patterns import Planned, Regular
from mars_onnx.redistribution.plan import Collective, Plan
from mars_onnx.redistribution.sources import Distance

Ranks = tuple[int, ...]
"""The rank at every place."""

_Table = tuple[tuple[float, ...], ...]


class PlaceDistance:
    """From a place to another, and of those at the same distance the first places before the others.

    Those that are equal are the same object, so that plans can be looked up by it.
    """

    def __init__(self, table: _Table) -> None:
        """With the distance from every place to every other."""
        self._table = table

    def __call__(self, source: int, destination: int) -> tuple[float, int]:
        """Only comparisons are made with it."""
        return self._table[source][destination], source


@lru_cache(maxsize=1 << 12)
def _between(table: _Table) -> PlaceDistance:
    return PlaceDistance(table)


@lru_cache(maxsize=1 << 12)
def place_distance(distance: Distance, ranks: Ranks) -> PlaceDistance:
    """The distance between the places of some ranks."""
    return _between(tuple(tuple(distance(source, rank) for rank in ranks) for source in ranks))


def ranks_of(source: Layout, target: Layout) -> Ranks:
    """Who takes part, in the order of places."""
    members = set(source.members)
    return (*source.members, *(rank for rank in target.members if rank not in members))


def layout_at(layout: Layout, ranks: Ranks) -> Layout:
    """A layout with places for members."""
    if layout.members == ranks:
        return replace(layout, members=tuple(range(len(ranks))))
    place = {rank: place for place, rank in enumerate(ranks)}
    return replace(layout, members=tuple([place[rank] for rank in layout.members]))


def planned_among(planned: Iterable[Planned], ranks: Ranks) -> tuple[Planned, ...]:
    """What is planned for places, for ranks."""
    return tuple(
        [
            _collective(own, ranks) if isinstance(own, Collective) else Regular(own.step, _of(own.ranks, ranks))
            for own in planned
        ]
    )


def plan_among(plan: Plan, ranks: Ranks) -> Plan:
    """A plan for places, for ranks."""
    assemblies = [replace(own, rank=ranks[own.rank]) for own in plan.assemblies]
    return replace(
        plan,
        collectives=tuple(_collective(own, ranks) for own in plan.collectives),
        assemblies=tuple(sorted(assemblies, key=lambda own: own.rank)),
    )


def _collective(own: Collective, ranks: Ranks) -> Collective:
    return replace(own, group=_of(own.group, ranks))


def _of(places: Sequence[int], ranks: Ranks) -> Ranks:
    return tuple([ranks[place] for place in places])
