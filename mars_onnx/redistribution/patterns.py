"""Regular collectives: which groups along one axis (or from one axis to another) do a step of a redistribution.

A step changes one dimension of the boxes of all members. The others stay, so its groups are members whose boxes are
equal in the others: the rows or columns of a mesh, found from the boxes alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from mars_onnx.geometry import Box, Range, contains, volume
from mars_onnx.redistribution.plan import Collective, Fragment, Pattern

Boxes = Mapping[int, Box]
"""By rank."""


@dataclass(frozen=True, slots=True)
class Step:
    """Collectives over disjoint groups, what everyone has afterwards, and how many elements are received."""

    collectives: tuple[Collective, ...]
    after: dict[int, Box]
    received: int


@dataclass(frozen=True, slots=True)
class _Group:
    """Members in the order of their disjoint pieces along the axis."""

    ranks: tuple[int, ...]
    pieces: tuple[Range, ...]


def replaced(box: Box, axis: int, extent: Range) -> Box:
    """The box with another range along ``axis``."""
    return (*box[:axis], extent, *box[axis + 1 :])


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


def shift(held: Boxes, needs: Boxes) -> list[Collective] | None:
    """Shifts, if all who lack something need exactly what another one of them holds, and each gives to one."""
    movers = [rank for rank in sorted(needs) if not contains(held.get(rank), needs[rank])]
    holders: dict[Box, list[int]] = {}
    for rank in sorted(held):
        holders.setdefault(held[rank], []).append(rank)
    source_of: dict[int, int] = {}
    for rank in movers:
        sources = holders.get(needs[rank], [])
        replica = holders[held[rank]].index(rank) if rank in held else 0
        if replica >= len(sources):
            return None
        source_of[rank] = sources[replica]
    if sorted(source_of.values()) != movers:
        return None
    place = {rank: i for i, rank in enumerate(movers)}
    offsets = {(place[rank] - place[source]) % len(movers) for rank, source in source_of.items()}
    if len(offsets) == 1:
        return [_shift(tuple(movers), offsets.pop(), held)]
    return [_shift(cycle, 1, held) for cycle in _cycles({source: rank for rank, source in source_of.items()})]


def _shift(group: tuple[int, ...], offset: int, held: Boxes) -> Collective:
    inputs = tuple(Fragment(held[rank]) for rank in group)
    outputs = tuple(inputs[(i - offset) % len(group)] for i in range(len(group)))
    return Collective(Pattern.SHIFT, group, inputs, outputs, offset=offset)


def _cycles(successor: Mapping[int, int]) -> Iterable[tuple[int, ...]]:
    """The cycles of a permutation, each from its lowest member on."""
    done: set[int] = set()
    for first in sorted(successor):
        cycle: list[int] = []
        rank = first
        while rank not in done:
            done.add(rank)
            cycle.append(rank)
            rank = successor[rank]
        if cycle:
            yield tuple(cycle)


def widened(axis: int, current: Boxes, wants: Boxes) -> dict[int, Box]:
    """The wants, but along ``axis`` all that members with otherwise equal boxes have together.

    Where a mesh axis that cuts one dimension comes to cut another, while a second mesh axis takes over the first, there
    is a moment when nothing cuts that dimension. These are the wants for the step before.
    """
    spans: dict[Box, Range] = {}
    for box in current.values():
        rest, (start, stop) = (*box[:axis], *box[axis + 1 :]), box[axis]
        low, high = spans.get(rest, (start, stop))
        spans[rest] = (min(low, start), max(high, stop))
    return {
        rank: replaced(want, axis, spans[*current[rank][:axis], *current[rank][axis + 1 :]])
        for rank, want in wants.items()
    }


def extend(axis: int, current: Boxes, wants: Boxes) -> Step | None:
    """Bring every member the range along ``axis`` that it wants, all else as it is: AllGather, HaloExchange or nothing.

    Args:
        axis: The dimension.
        current: What everyone has.
        wants: What those who need something need in the end.

    Returns:
        ``None`` if the members are not in regular groups.
    """
    groups = _groups(axis, current, wants)
    if groups is None:
        return None
    collectives: list[Collective] = []
    received = 0
    for group in groups:
        made = _extend_group(axis, group, current, wants)
        if made is None:
            return None
        collectives.append(made[0])
        received += made[1]
    after = {rank: replaced(box, axis, wants[rank][axis]) if rank in wants else box for rank, box in current.items()}
    return Step(tuple(collectives), after, received)


def _extend_group(axis: int, group: _Group, current: Boxes, wants: Boxes) -> tuple[Collective, int] | None:
    wanted = [wants[rank][axis] if rank in wants else None for rank in group.ranks]
    own = [current[rank][axis] for rank in group.ranks]
    lacking = sum(range_ is not None and not _within(range_, has) for range_, has in zip(wanted, own, strict=True))
    idle = wanted.count(None)
    # Few receivers among many who only give are better off with sends.
    if idle and (lacking < 2 or 2 * idle > len(wanted)):
        return None
    whole = _union(group.pieces)
    if whole is not None and all(range_ == whole for range_ in wanted):
        pattern, ranges = Pattern.ALL_GATHER, [whole] * len(wanted)
    else:
        pattern = Pattern.HALO_EXCHANGE
        # Who lacks nothing (or needs nothing) gets back what it gives, so that every node has an output, at no cost.
        ranges = [
            piece if range_ is None or _within(range_, has) else range_
            for range_, has, piece in zip(wanted, own, group.pieces, strict=True)
        ]
    boxes = [current[rank] for rank in group.ranks]
    inputs = tuple(Fragment(replaced(box, axis, piece)) for box, piece in zip(boxes, group.pieces, strict=True))
    outputs = tuple(Fragment(replaced(box, axis, range_)) for box, range_ in zip(boxes, ranges, strict=True))
    width = volume(boxes[0][:axis]) * volume(boxes[0][axis + 1 :])
    moved = sum(_length(r) - _overlap(r, piece) for r, piece in zip(ranges, group.pieces, strict=True))
    return Collective(pattern, group.ranks, inputs, outputs, axis=axis), moved * width


def exchange(axis: int, split_axis: int, current: Boxes, wants: Boxes) -> Step | None:
    """Gather along ``axis`` and at once split along ``split_axis``: AllToAll in all groups.

    What the members get tiles what they want along ``split_axis``; where that overlaps (halos), is equal or leaves
    gaps, the ranges there still differ from the wanted ones afterwards, and another step has to follow.

    Returns:
        ``None`` if the members are not in regular groups.
    """
    groups = _groups(axis, current, wants)
    if not groups:
        return None
    after = {rank: replaced(box, axis, wants[rank][axis]) if rank in wants else box for rank, box in current.items()}
    collectives: list[Collective] = []
    received = 0
    for group in groups:
        whole = _union(group.pieces)
        takers = [rank for rank in group.ranks if rank in wants]
        if whole is None or len(takers) < 2 or any(wants[rank][axis] != whole for rank in takers):
            return None
        low, high = current[group.ranks[0]][split_axis]
        ranges = [(max(low, start), min(high, stop)) for start, stop in (wants[rank][split_axis] for rank in takers)]
        if any(start >= stop for start, stop in ranges):
            return None
        region = (ranges[0][0], ranges[-1][1])
        tile_of = {
            rank: tile for rank, tile in zip(takers, shares(region, ranges) or [], strict=False) if tile is not None
        }
        if len(tile_of) < len(takers):
            return None
        inputs: list[Fragment | None] = []
        outputs: list[Fragment | None] = []
        width = volume(current[group.ranks[0]]) // (_length(current[group.ranks[0]][axis]) * (high - low))
        for rank, piece in zip(group.ranks, group.pieces, strict=True):
            inputs.append(Fragment(replaced(replaced(current[rank], split_axis, region), axis, piece)))
            if rank not in tile_of:
                outputs.append(None)
                continue
            after[rank] = replaced(after[rank], split_axis, tile_of[rank])
            outputs.append(Fragment(after[rank]))
            received += (_length(whole) - _length(piece)) * _length(tile_of[rank]) * width
        collectives.append(
            Collective(Pattern.ALL_TO_ALL, group.ranks, tuple(inputs), tuple(outputs), axis=axis, split_axis=split_axis)
        )
    return Step(tuple(collectives), after, received)


def _groups(axis: int, current: Boxes, wants: Boxes) -> list[_Group] | None:
    """Members who have to talk to each other along ``axis``; ``None`` if they cannot all be put in regular groups.

    A group has every range of its part of the axis once; where ranges are replicated, the first holders make a group,
    then the second ones, and so on.
    """
    classes: dict[Box, dict[Range, list[int]]] = {}
    for rank in sorted(current):
        box = current[rank]
        classes.setdefault((*box[:axis], *box[axis + 1 :]), {}).setdefault(box[axis], []).append(rank)
    groups: list[_Group] = []
    for holders in classes.values():
        ranges = sorted(holders)
        wanted = [[wants[rank][axis] for rank in holders[range_] if rank in wants] for range_ in ranges]
        if all(_within(want, range_) for range_, all_wanted in zip(ranges, wanted, strict=True) for want in all_wanted):
            continue
        pieces = disjoint(ranges)
        components = pieces and _components(ranges, pieces, wanted)
        if pieces is None or not components:
            return None
        for component in components:
            replicas = {len(holders[ranges[i]]) for i in component}
            if len(replicas) > 1:
                return None
            count = replicas.pop()
            for j in range(count):
                ranks = [holders[ranges[i]][j] for i in component]
                if count == 1:
                    groups.append(_Group(tuple(ranks), tuple(pieces[i] for i in component)))
                    continue
                # Replicas may want different ranges, so a group can fall apart further.
                inner = _components(
                    [ranges[i] for i in component],
                    [pieces[i] for i in component],
                    [[wants[rank][axis]] if rank in wants else [] for rank in ranks],
                )
                if inner is None:
                    return None
                groups.extend(
                    _Group(tuple(ranks[i] for i in part), tuple(pieces[component[i]] for i in part)) for part in inner
                )
    return groups


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

    for i, all_wanted in enumerate(wanted):
        for want in all_wanted:
            if _within(want, ranges[i]):
                continue
            covered = 0
            for j, piece in enumerate(pieces):
                common = _overlap(piece, want)
                if common:
                    covered += common
                    parent[root(j)] = root(i)
            if covered != _length(want):
                return None
    members: dict[int, list[int]] = {}
    for i in range(len(pieces)):
        members.setdefault(root(i), []).append(i)
    return [places for places in members.values() if len(places) > 1]


def _union(pieces: Sequence[Range]) -> Range | None:
    """The union of sorted ranges where it has no gap."""
    if any(stop != start for (_, stop), (start, _) in pairwise(pieces)):
        return None
    return pieces[0][0], pieces[-1][1]


def _within(inner: Range, outer: Range) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _overlap(first: Range, second: Range) -> int:
    return max(0, min(first[1], second[1]) - max(first[0], second[0]))


def _length(extent: Range) -> int:
    return extent[1] - extent[0]
