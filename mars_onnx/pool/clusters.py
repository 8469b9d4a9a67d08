"""Which accelerators of a pool are near each other, and which can be exchanged for each other."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import combinations, groupby

from mars_onnx.pool.topology import REFERENCE_BYTES, Pool


def clusterings(pool: Pool, ranks: Sequence[int]) -> list[tuple[tuple[int, ...], ...]]:
    """Ways to cut ranks into clusters whose members reach each other faster than others (single linkage).

    From the finest to the coarsest, without those of single ranks and of all together; order as in ``ranks``.
    """
    order = sorted((distance_s(pool, first, second), first, second) for first, second in combinations(ranks, 2))
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


def distance_s(pool: Pool, first: int, second: int) -> float:
    """How far two accelerators are from each other: seconds of a message of a usual size."""
    route = pool.route(first, second)
    return route.latency_s + REFERENCE_BYTES / route.bandwidth_bytes_per_s


def interchangeable(pool: Pool) -> tuple[tuple[int, ...], ...]:
    """Accelerators that a symmetry of the pool maps onto each other, by first rank: the orbits of its automorphisms.

    A symmetry keeps links with their numbers, kinds, designs and memories of accelerators, and where inputs start and
    outputs end. Found by colour refinement, and a search with backtracking where that does not decide.
    """
    return _Symmetry(pool).orbits()


class _Symmetry:
    def __init__(self, pool: Pool) -> None:
        self.size = pool.size
        self.count = len(pool.node_ids)
        self.near: list[dict[int, Hashable]] = [{} for _ in range(self.count)]
        for link in pool.links:
            kind = (link.bandwidth_bytes_per_s, link.latency_s, link.full_duplex, link.shared)
            first, second = link.ends
            self.near[first][second] = self.near[second][first] = kind
        kinds: list[Hashable] = []
        for node in range(self.count):
            ends = (node == pool.inputs_at, node == pool.outputs_at, node in pool.stores)
            if node < pool.size:
                each = pool.accelerators[node]
                designs = tuple(sorted(design.name for design in each.designs))
                kinds.append((ends, each.kind, designs, each.memory_bytes, each.memory_bandwidth_bytes_per_s))
            else:
                kinds.append((ends, node < pool.size + len(pool.hosts)))
        self.start = self.refine(_numbered(kinds))

    def refine(self, colours: Sequence[int]) -> tuple[int, ...]:
        """Colours split until nodes of one colour have neighbours of the same colours over the same links.

        Colours of two refinements can be compared: they are numbered by the order of what they stand for.
        """
        while True:
            signs: list[Hashable] = [
                (colours[node], tuple(sorted((colours[other], str(kind)) for other, kind in self.near[node].items())))
                for node in range(self.count)
            ]
            finer = _numbered(signs)
            if len(set(finer)) == len(set(colours)):
                return finer
            colours = finer

    def orbits(self) -> tuple[tuple[int, ...], ...]:
        parent = list(range(self.count))

        def find(node: int) -> int:
            while parent[node] != node:
                node = parent[node]
            return node

        for first, second in combinations(range(self.size), 2):
            if self.start[first] != self.start[second] or find(first) == find(second):
                continue
            if self._swap(first, second):
                found: dict[int, int] | None = {first: second}
            else:
                found = self._search(self._single(self.start, first), self._single(self.start, second))
            for one, other in (found or {}).items():
                low, high = sorted((find(one), find(other)))
                parent[high] = low
        made: dict[int, list[int]] = {}
        for rank in range(self.size):
            made.setdefault(find(rank), []).append(rank)
        return tuple(tuple(ranks) for ranks in made.values())

    def _swap(self, first: int, second: int) -> bool:
        """Whether exchanging just these two is a symmetry."""
        one, other = dict(self.near[first]), dict(self.near[second])
        return one.pop(second, None) == other.pop(first, None) and one == other

    def _single(self, colours: Sequence[int], node: int) -> tuple[int, ...]:
        return self.refine([2 * colour + (index == node) for index, colour in enumerate(colours)])

    def _search(self, left: tuple[int, ...], right: tuple[int, ...]) -> dict[int, int] | None:
        """A symmetry that takes every node to one of its colour, if there is one."""
        if sorted(left) != sorted(right):
            return None
        sizes: dict[int, list[int]] = {}
        for node, colour in enumerate(left):
            sizes.setdefault(colour, []).append(node)
        open_class = min((nodes for nodes in sizes.values() if len(nodes) > 1), key=len, default=None)
        if open_class is None:
            place = {colour: node for node, colour in enumerate(right)}
            mapped = {node: place[colour] for node, colour in enumerate(left)}
            sound = all(
                {mapped[other]: kind for other, kind in self.near[node].items()} == self.near[mapped[node]]
                for node in range(self.count)
            )
            return mapped if sound else None
        colour = left[open_class[0]]
        fixed = self._single(left, open_class[0])
        for node in range(self.count):
            if right[node] == colour:
                found = self._search(fixed, self._single(right, node))
                if found:
                    return found
        return None


def _numbered(signs: Sequence[Hashable]) -> tuple[int, ...]:
    number = {sign: index for index, sign in enumerate(sorted(set(signs), key=repr))}
    return tuple(number[sign] for sign in signs)
