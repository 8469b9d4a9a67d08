"""Which accelerators can be a set, and which sets a symmetry of the pool makes superfluous.

A *symmetry* is a permutation of the accelerators under which the pool looks the same: every accelerator goes to one
that computes as fast, and the links of every route to equal links, one to one. A mapping and its image under a symmetry
then cost the same, as long as the members of every set keep their order, by which strategies deal out shares. So of
the collections of disjoint sets that symmetries turn into each other, one is enough, and of all sets those that occur
in such collections: nothing is lost. On four equal accelerators eight of fifteen sets are left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise, permutations

from mars_onnx.cost.shares import twin
from mars_onnx.pool.topology import Link, Pool

Members = tuple[int, ...]
Symmetry = tuple[int, ...]


def subsets(size: int) -> list[Members]:
    """All sets of accelerators, members in the pool's order."""
    return [members for count in range(1, size + 1) for members in combinations(range(size), count)]


def symmetries(pool: Pool) -> list[Symmetry]:
    """Per symmetry of the pool where it takes each rank; the identity is the first. Tries all permutations."""
    return [found for found in permutations(range(pool.size)) if _is_symmetry(pool, found)]


def _is_symmetry(pool: Pool, image: Symmetry) -> bool:
    ranks = range(pool.size)
    if any(twin(pool, rank) != twin(pool, image[rank]) for rank in ranks):
        return False
    at = [node for node in (pool.inputs_at, pool.outputs_at) if node < pool.size]
    groups, nodes, channels = _OneToOne(), _OneToOne(), _OneToOne()
    if any(image[rank] != rank for rank in at):
        return False
    if not all(groups.take(pool.group_of[rank], pool.group_of[image[rank]]) for rank in ranks):
        return False
    ends = [(rank, image[rank]) for rank in ranks]
    ends += [(node, node) for node in dict.fromkeys((pool.inputs_at, pool.outputs_at)) if node >= pool.size]
    for (first, first_image), (second, second_image) in permutations(ends, 2):
        own, other = pool.route(first, second), pool.route(first_image, second_image)
        if list(map(_kind, own.links)) != list(map(_kind, other.links)):
            return False
        if not all(channels.take(one, two) for one, two in zip(own.channels, other.channels, strict=True)):
            return False
        for one, two in zip(own.nodes, other.nodes, strict=True):
            if not nodes.take(one, two) or (one in pool.stores) != (two in pool.stores):
                return False
    return True


def _kind(link: Link) -> tuple[float, float, bool, bool]:
    return link.bandwidth_bytes_per_s, link.latency_s, link.full_duplex, link.shared


class _OneToOne:
    """Pairs of numbers, as long as each has one partner."""

    def __init__(self) -> None:
        self._there: dict[int, int] = {}
        self._back: dict[int, int] = {}

    def take(self, own: int, other: int) -> bool:
        """Whether a pair goes with those before it."""
        return self._there.setdefault(own, other) == other and self._back.setdefault(other, own) == own


def image_of(members: Members, symmetry: Symmetry) -> Members | None:
    """Where a symmetry takes a set; ``None`` if its members do not keep their order."""
    image = tuple(symmetry[rank] for rank in members)
    return image if all(low < high for low, high in pairwise(image)) else None


@dataclass(frozen=True)
class Family:
    """The sets of an integer program.

    Attributes:
        sets: Members of each.
        symmetries: Of the pool; only the identity if nothing is merged.
    """

    sets: tuple[Members, ...]
    symmetries: tuple[Symmetry, ...]

    @staticmethod
    def of(pool: Pool, merge: bool = True) -> Family:
        """The sets that are needed; all of them if not to ``merge``."""
        identity = tuple(range(pool.size))
        if not merge:
            return Family(tuple(subsets(pool.size)), (identity,))
        every = symmetries(pool)
        chosen: dict[Members, None] = {}
        # Collections of many sets first: those of few are mostly part of them.
        for collection in sorted(_collections(subsets(pool.size)), key=lambda found: (-len(found), found)):
            if not any(_inside(collection, symmetry, chosen) for symmetry in every):
                chosen.update(dict.fromkeys(collection))
        return Family(tuple(sorted(chosen, key=lambda members: (-len(members), members))), tuple(every))

    def like(self, members: Sequence[Members]) -> tuple[Members, ...]:
        """Of the sequences of sets that symmetries make of this one, the first: the same for all that are alike."""
        images = []
        for symmetry in self.symmetries:
            image = tuple(image_of(own, symmetry) for own in members)
            if all(own is not None for own in image):
                images.append(tuple(own for own in image if own is not None))
        return min(images)


def _collections(sets: Sequence[Members]) -> Iterator[tuple[Members, ...]]:
    """All collections of disjoint sets."""
    for place, members in enumerate(sets):
        yield (members,)
        rest = [other for other in sets[place + 1 :] if not set(members) & set(other)]
        for others in _collections(rest):
            yield (members, *others)


def _inside(collection: Sequence[Members], symmetry: Symmetry, chosen: dict[Members, None]) -> bool:
    return all((image := image_of(members, symmetry)) is not None and image in chosen for members in collection)
