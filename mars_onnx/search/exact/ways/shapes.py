"""Which accelerators can be a set: shapes that the pool's topology makes sensible.

Accelerators that are near each other and alike are a *cell*. A set takes some number of members from some cells, the
next ones that are free. Cells that are alike, and of which equally many are taken, can be exchanged: only one order is
looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

from mars_onnx.cost.shares import twin
from mars_onnx.pool.clusters import clusterings
from mars_onnx.pool.topology import Pool
from mars_onnx.search.exact.ways.routes import Routes

Counts = tuple[int, ...]

#: With more cells than this, sets are whole branches of the topology with equally many members of every cell.
_FEW_CELLS = 3


@dataclass(frozen=True, slots=True)
class Place:
    """A set, and what is taken when it is placed.

    Attributes:
        counts: Members of each cell.
        used: Accelerators of each cell that are taken, this set's included.
        members: Ranks.
    """

    counts: Counts
    used: Counts
    members: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Shapes:
    """The sets of a pool."""

    pool: Pool
    _alike: dict[tuple[int, ...], tuple[object, ...]] = field(default_factory=dict)
    _levels: dict[tuple[int, ...], tuple[int, ...]] = field(default_factory=dict)

    @cached_property
    def _clusters(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """From the finest to the coarsest, and everything together."""
        ranks = tuple(range(self.pool.size))
        return (*clusterings(self.pool, ranks), (ranks,))

    @cached_property
    def cells(self) -> tuple[tuple[int, ...], ...]:
        """Ranks of each cell."""
        finest = self._clusters[0]
        found: list[tuple[int, ...]] = []
        for cluster in finest:
            kinds: dict[int, list[int]] = {}
            for rank in cluster:
                kinds.setdefault(twin(self.pool, rank), []).append(rank)
            found += [tuple(ranks) for ranks in kinds.values()]
        return tuple(found)

    @cached_property
    def _kinds(self) -> tuple[int, ...]:
        """Per cell a number; cells that are alike have the same."""
        facts = [
            (
                len(cell),
                twin(self.pool, cell[0]),
                self._distance(cell[0], self.pool.inputs_at),
                self._distance(cell[0], self.pool.outputs_at),
                tuple(sorted(self._distance(cell[0], rank) for rank in range(self.pool.size) if rank != cell[0])),
            )
            for cell in self.cells
        ]
        return tuple(map(facts.index, facts))

    def _distance(self, first: int, second: int) -> tuple[float, float]:
        route = self.pool.route(first, second)
        return route.latency_s, route.bandwidth_bytes_per_s

    @cached_property
    def counts(self) -> tuple[Counts, ...]:
        """How many members of each cell sets have; the largest first."""
        sizes = tuple(len(cell) for cell in self.cells)
        if len(sizes) <= _FEW_CELLS:
            found = {counts for counts in product(*(range(size + 1) for size in sizes)) if any(counts)}
        else:
            found = set()
            for clusters in (self.cells, *self._clusters):
                for cluster in clusters:
                    inside = [bool(set(cell) & set(cluster)) for cell in self.cells]
                    largest = max(size for size, own in zip(sizes, inside, strict=True) if own)
                    for take in {1, largest // 2, largest} - {0}:
                        found.add(tuple(min(take, size) if own else 0 for size, own in zip(sizes, inside, strict=True)))
        return tuple(sorted(found, key=lambda counts: (-sum(counts), tuple(-count for count in counts))))

    def placed(self, used: Counts) -> list[Place]:
        """The sets that can still be placed; of those that only differ in cells that can be exchanged, the first."""
        found: list[Place] = []
        seen: set[tuple[object, ...]] = set()
        for counts in self.counts:
            if any(u + c > len(cell) for u, c, cell in zip(used, counts, self.cells, strict=True)):
                continue
            key = tuple(sorted(zip(self._kinds, used, counts, strict=True)))
            if key in seen:
                continue
            seen.add(key)
            after = tuple(u + c for u, c in zip(used, counts, strict=True))
            found.append(Place(counts, after, self._members(used, counts)))
        return found

    @cached_property
    def uniform(self) -> bool:
        """Whether members of a cell cannot be told apart: then all sets are like those of :meth:`first`."""
        nodes = {*range(self.pool.size), self.pool.inputs_at, self.pool.outputs_at}
        return all(
            len({self._distance(rank, node) for rank in cell if rank != node}) <= 1
            for cell in self.cells
            for node in nodes
        )

    def first(self) -> list[Place]:
        """Sets of all counts, of the first members of each cell."""
        return [Place(counts, counts, self._members((0,) * len(counts), counts)) for counts in self.counts]

    def _members(self, used: Counts, counts: Counts) -> tuple[int, ...]:
        """The next members of each cell; among cells that are alike, those come first of which most are taken.

        So sets that only differ in cells that can be exchanged are alike, and share what is known of them.
        """
        order = list(range(len(counts)))
        for kind in set(self._kinds):
            alike = [number for number, own in enumerate(self._kinds) if own == kind]
            for place, number in zip(alike, sorted(alike, key=lambda number: -counts[number]), strict=True):
                order[place] = number
        return tuple(rank for number in order for rank in self.cells[number][used[number] :][: counts[number]])

    def levels(self, members: tuple[int, ...]) -> tuple[int, ...]:
        """Sizes of the levels of a set: of the clusters that its members form, where these are of equal size."""
        if members not in self._levels:
            self._levels[members] = self._levels_of(members)
        return self._levels[members]

    def _levels_of(self, members: tuple[int, ...]) -> tuple[int, ...]:
        sizes = [1]
        for clusters in clusterings(self.pool, members):
            size = len(clusters[0])
            even = {len(cluster) for cluster in clusters} == {size}
            in_order = tuple(rank for cluster in clusters for rank in cluster) == members
            if even and in_order and size > sizes[-1] and size % sizes[-1] == 0:
                sizes.append(size)
        sizes.append(len(members))
        return tuple(outer // inner for outer, inner in zip(sizes[:0:-1], sizes[-2::-1], strict=True) if outer > inner)

    def likeness(self, members: tuple[int, ...]) -> tuple[object, ...]:
        """Equal for sets inside which everything costs the same, with model inputs and outputs.

        Nothing depends on how accelerators are numbered: not plans (:mod:`mars_onnx.redistribution.places`), and not
        what a collective takes.
        """
        if members not in self._alike:
            groups = [self.pool.group_of[rank] for rank in members]
            kinds = tuple(twin(self.pool, rank) for rank in members)
            self._alike[members] = kinds, tuple(map(groups.index, groups)), self._routes.among(members)
        return self._alike[members]

    @cached_property
    def _routes(self) -> Routes:
        return Routes(self.pool)
