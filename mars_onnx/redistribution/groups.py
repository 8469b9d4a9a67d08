"""One dimension of a step: who has to talk to whom, which piece everyone gives, and what it has afterwards.

The same few columns come up again and again, in the search for one plan and from tensor to tensor, so what is found
out about them is remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby, pairwise
from typing import NamedTuple

from mars_onnx.geometry import Range
from mars_onnx.redistribution.plan import Pattern

Column = tuple[Range, ...]
"""One dimension of the boxes of all members, who are numbered by their places."""

Wanted = tuple[Range | None, ...]
"""A column of those who want something, ``None`` at the places of the others."""

Classes = tuple[int, ...]
"""Per place a number that is the same for members whose boxes are equal in all other dimensions."""

#: Columns that are remembered with what was found out about them. A set of eight takes about a kilobyte each.
REMEMBERED = 1 << 14


class _Group(NamedTuple):
    """Places in the order of their disjoint pieces along the axis."""

    places: tuple[int, ...]
    pieces: tuple[Range, ...]


class Extension(NamedTuple):
    """A group in which members get what they want along an axis: each gives a piece and has a range afterwards.

    Attributes:
        places: Who, in the order of the pieces.
        pieces: What each gives.
        ranges: What each has afterwards.
        pattern: AllGather or HaloExchange.
        moved: The length of all that is received, summed over the group.
    """

    places: tuple[int, ...]
    pieces: tuple[Range, ...]
    ranges: tuple[Range, ...]
    pattern: Pattern
    moved: int


class Gathering(NamedTuple):
    """A group in which all who want something want all: the half of an AllToAll that gathers.

    Attributes:
        places: Who, in the order of the pieces.
        pieces: What each gives.
        whole: What is gathered.
        takers: The places that want it, in the same order.
        lacks: What each of those does not have, as a length.
    """

    places: tuple[int, ...]
    pieces: tuple[Range, ...]
    whole: Range
    takers: tuple[int, ...]
    lacks: tuple[int, ...]


def disjoint(ranges: Sequence[Range]) -> list[Range] | None:
    """Sorted ranges cut where they overlap, half of the overlap to each; ``None`` if one is inside another."""
    pieces = list(ranges)
    for i, ((start, stop), (other_start, other_stop)) in enumerate(pairwise(ranges)):
        if start >= other_start or stop >= other_stop:
            return None
        if other_start < stop:
            cut = (other_start + stop) // 2
            pieces[i] = (pieces[i][0], cut)
            pieces[i + 1] = (cut, other_stop)
    return pieces


def shares(region: Range, ranges: Sequence[Range]) -> list[Range | None] | None:
    """Pieces that tile ``region``, one for each of the sorted ranges, as like them as can be.

    Overlaps (halos) and gaps between the ranges are halved, equal ranges share theirs evenly (``None`` where there are
    fewer elements than sharers). ``None`` in all if a range is inside another.
    """
    counts = [(extent, len(list(equal))) for extent, equal in groupby(ranges)]
    cuts = [region[0]]
    for ((start, stop), _), ((other_start, other_stop), _) in pairwise(counts):
        if start >= other_start or stop >= other_stop:
            return None
        cuts.append((other_start + stop) // 2)
    cuts.append(region[1])
    pieces: list[Range | None] = []
    for (start, stop), (_, count) in zip(pairwise(cuts), counts, strict=True):
        inner = [start + (stop - start) * i // count for i in range(count + 1)]
        pieces += [(low, high) if low < high else None for low, high in pairwise(inner)]
    return pieces


@lru_cache(maxsize=REMEMBERED)
def extensions(alike: Classes, column: Column, wanted: Wanted) -> tuple[Extension, ...] | None:
    """The groups of :func:`~mars_onnx.redistribution.patterns.extend`."""
    found: list[Extension] = []
    groups = _groups(alike, column, wanted)
    for group in groups or ():
        extension = _extension(group, column, wanted)
        if extension is None:
            return None
        found.append(extension)
    return None if groups is None else tuple(found)


def _extension(group: _Group, column: Column, wanted: Wanted) -> Extension | None:
    own, wants = [column[place] for place in group.places], [wanted[place] for place in group.places]
    idle = wants.count(None)
    # Few receivers among many who only give are better off with sends.
    if idle and (2 * idle > len(wants) or _lacking(wants, own) < 2):
        return None
    whole = _union(group.pieces)
    if whole is not None and wants.count(whole) == len(wants):
        pattern, ranges = Pattern.ALL_GATHER, (whole,) * len(wants)
    else:
        pattern = Pattern.HALO_EXCHANGE
        # Who lacks nothing (or needs nothing) gets back what it gives, so that every node has an output, at no cost.
        ranges = tuple(
            [
                piece if range_ is None or _within(range_, has) else range_
                for range_, has, piece in zip(wants, own, group.pieces, strict=True)
            ]
        )
    moved = sum([length(r) - overlap(r, piece) for r, piece in zip(ranges, group.pieces, strict=True)])
    return Extension(group.places, group.pieces, ranges, pattern, moved)


def _lacking(wants: Sequence[Range | None], own: Sequence[Range]) -> int:
    """How many do not have all they want."""
    return sum(range_ is not None and not _within(range_, has) for range_, has in zip(wants, own, strict=True))


@lru_cache(maxsize=REMEMBERED)
def gatherings(alike: Classes, column: Column, wanted: Wanted) -> tuple[Gathering, ...] | None:
    """The groups of :func:`~mars_onnx.redistribution.patterns.exchange`; ``None`` if some cannot do that."""
    found: list[Gathering] = []
    for group in _groups(alike, column, wanted) or ():
        whole = _union(group.pieces)
        takers = tuple([place for place in group.places if wanted[place] is not None])
        if whole is None or len(takers) < 2 or [wanted[place] for place in takers].count(whole) < len(takers):
            return None
        lacks = [length(whole) - length(piece) for piece in group.pieces]
        lacking = tuple([lack for place, lack in zip(group.places, lacks, strict=True) if wanted[place] is not None])
        found.append(Gathering(group.places, group.pieces, whole, takers, lacking))
    return tuple(found)


@lru_cache(maxsize=REMEMBERED)
def tiles(held: Range, wanted: Wanted) -> tuple[Range, ...] | None:
    """Of a range that all hold, the pieces that tile what is wanted of it; ``None`` if somebody would have nothing."""
    low, high = held
    ranges = [(max(low, want[0]), min(high, want[1])) for want in wanted if want is not None]
    if any(start >= stop for start, stop in ranges):
        return None
    pieces = [piece for piece in shares((ranges[0][0], ranges[-1][1]), ranges) or () if piece is not None]
    return tuple(pieces) if len(pieces) == len(ranges) else None


@lru_cache(maxsize=REMEMBERED)
def _groups(alike: Classes, column: Column, wanted: Wanted) -> tuple[_Group, ...] | None:
    """Members who have to talk to each other along an axis; ``None`` if they cannot all be put in regular groups.

    Args:
        alike: Per place its class: only members of one class can be in a group.
        column: What everyone has along the axis.
        wanted: What is wanted along it.
    """
    groups: list[_Group] = []
    for places in _members(alike):
        inner = _groups_of_class(tuple([column[p] for p in places]), tuple([wanted[p] for p in places]))
        if inner is None:
            return None
        groups += [_Group(tuple([places[i] for i in group.places]), group.pieces) for group in inner]
    return tuple(groups)


@lru_cache(maxsize=REMEMBERED)
def _members(alike: Classes) -> tuple[tuple[int, ...], ...]:
    """The places of every class."""
    members: dict[int, list[int]] = {}
    for place, number in enumerate(alike):
        members.setdefault(number, []).append(place)
    return tuple(map(tuple, members.values()))


@lru_cache(maxsize=REMEMBERED)
def _groups_of_class(column: Column, wanted: Wanted) -> tuple[_Group, ...] | None:
    """The groups among members whose boxes differ along the axis only.

    A group has every range of its part of the axis once; where ranges are replicated, the first holders make a group,
    then the second ones, and so on.
    """
    holders: dict[Range, list[int]] = {}
    for place, range_ in enumerate(column):
        holders.setdefault(range_, []).append(place)
    ranges = sorted(holders)
    wants = [[want for place in holders[range_] if (want := wanted[place]) is not None] for range_ in ranges]
    if all(_within(want, range_) for range_, all_wants in zip(ranges, wants, strict=True) for want in all_wants):
        return ()
    pieces = disjoint(ranges)
    components = pieces and _components(ranges, pieces, wants)
    if pieces is None or not components:
        return None
    groups: list[_Group] = []
    for component in components:
        replicas = {len(holders[ranges[i]]) for i in component}
        if len(replicas) > 1:
            return None
        count = replicas.pop()
        for j in range(count):
            places = [holders[ranges[i]][j] for i in component]
            if count == 1:
                groups.append(_Group(tuple(places), tuple(pieces[i] for i in component)))
                continue
            # Replicas may want different ranges, so a group can fall apart further.
            inner = _components(
                [ranges[i] for i in component],
                [pieces[i] for i in component],
                [[] if (want := wanted[place]) is None else [want] for place in places],
            )
            if inner is None:
                return None
            groups += [
                _Group(tuple(places[i] for i in part), tuple(pieces[component[i]] for i in part)) for part in inner
            ]
    return tuple(groups)


def _components(
    ranges: Sequence[Range], pieces: Sequence[Range], wanted: Sequence[Sequence[Range]]
) -> list[list[int]] | None:
    """Places that give to or take from each other; ``None`` if something wanted is in none of the pieces."""
    parent = list(range(len(pieces)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    takers: dict[Range, list[int]] = {}
    for i, all_wanted in enumerate(wanted):
        for want in all_wanted:
            if not _within(want, ranges[i]):
                takers.setdefault(want, []).append(i)
    for want, places in takers.items():
        covered = 0
        for j, piece in enumerate(pieces):
            common = overlap(piece, want)
            if common:
                covered += common
                parent[root(j)] = root(places[0])
        if covered != length(want):
            return None
        for i in places[1:]:
            parent[root(i)] = root(places[0])
    members: dict[int, list[int]] = {}
    for i in range(len(pieces)):
        members.setdefault(root(i), []).append(i)
    return [places for places in members.values() if len(places) > 1]


def _union(pieces: Sequence[Range]) -> Range | None:
    """The union of sorted ranges where it has no gap."""
    for (_, stop), (start, _) in pairwise(pieces):
        if stop != start:
            return None
    return pieces[0][0], pieces[-1][1]


def _within(inner: Range, outer: Range) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def overlap(first: Range, second: Range) -> int:
    """Length of what two ranges have in common."""
    # Planning asks for this a thousand times a plan: conditions take half as long as ``min`` and ``max``.
    (start, stop), (low, high) = first, second
    common = (stop if stop < high else high) - (start if start > low else low)
    return common if common > 0 else 0


def length(extent: Range) -> int:
    """Of a range."""
    return extent[1] - extent[0]
