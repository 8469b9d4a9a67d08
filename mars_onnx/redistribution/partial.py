"""Partial tensors: where and how the parts are reduced before, or instead of, moving values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mars_onnx.geometry import Box, Layout, Range, contains, hull, intersect, subtract, volume
from mars_onnx.redistribution.groups import shares
from mars_onnx.redistribution.patterns import Boxes, Planned, replaced
from mars_onnx.redistribution.plan import Collective, Fragment, Pattern, received
from mars_onnx.redistribution.sources import Distance, Holders, Piece, sends
from mars_onnx.redistribution.stages import MAX_EXCESS, missing_volume, plan_values


@dataclass(frozen=True, slots=True)
class _Group:
    """One holder of every part of a box, and the region of the box that is needed of them."""

    ranks: tuple[int, ...]
    parts: tuple[int, ...]
    region: Box


@dataclass(frozen=True, slots=True)
class _Resolution:
    """Collectives that reduce, who has which values then, and how much the whole redistribution moves at least."""

    collectives: tuple[Collective, ...]
    held: dict[int, Box]
    estimate: int
    complete: bool


def plan_parts(source: Layout, needs: Boxes, distance: Distance) -> tuple[list[Planned], bool]:
    """Collectives after which every rank in ``needs`` can compute its box of a partial tensor.

    Returns:
        The collectives, and whether they leave values. Otherwise they leave pieces of every part at every rank, which
        reduces them itself.

    Raises:
        ValueError: Nobody holds some needed element of some part.
    """
    if not needs:
        return [], True
    groups = _groups(source, needs)
    resolutions = _resolutions(source, groups, needs)
    direct_volume = sum(
        volume(need) * source.num_parts - volume(intersect(source.box_of(rank), need)) for rank, need in needs.items()
    )
    if resolutions:
        least = min(resolution.estimate for resolution in resolutions)
        # Where every member of the groups needs a result, reducing in the groups is what the layout is made for.
        related = all(rank in needs for group in groups for rank in group.ranks)
        direct_better = direct_volume < least or (
            direct_volume == least and not any(r.complete for r in resolutions if r.estimate == least)
        )
        if related or not direct_better:
            limit = MAX_EXCESS * min(least, direct_volume) if related else least
            allowed = [resolution for resolution in resolutions if resolution.estimate <= limit]
            plans: list[list[Planned]] = []
            for resolution in allowed:
                plans.append([*resolution.collectives, *plan_values(resolution.held, needs, distance)])
                if not any(isinstance(own, Collective) and own.pattern is Pattern.SEND_RECV for own in plans[-1]):
                    return plans[-1], True
            if not direct_better:
                return plans[0], True
    return [*_direct(source, needs, distance)], False


def part_tiles(source: Layout, needs: Boxes, distance: Distance) -> list[dict[int, list[Piece]]]:
    """Per part, who gives which pieces of it to whom if every rank reduces for itself."""
    tiles: list[dict[int, list[Piece]]] = []
    for part in range(source.num_parts):
        held = [
            (rank, box)
            for rank, box, number in zip(source.members, source.boxes, source.parts, strict=True)
            if number == part and volume(box)
        ]
        holders = Holders(((rank, box) for rank, box in held if box is not None), distance)
        tiles.append({rank: holders.tile(rank, need) for rank, need in sorted(needs.items())})
    return tiles


def _direct(source: Layout, needs: Boxes, distance: Distance) -> list[Collective]:
    tiles = part_tiles(source, needs, distance)
    return [message for part, pieces in enumerate(tiles) for message in sends(pieces, part)]


def _groups(source: Layout, needs: Boxes) -> list[_Group]:
    """Groups that hold every part of a box, and together all that is needed; empty if there are none such.

    The members of a group are the holders of one replica rank. Who needs something of a box takes it from the group of
    its own replica rank, so only what those need is in a group's region, and groups without any are left out.
    """
    classes: dict[Box, list[list[int]]] = {}
    for rank, box, part in sorted(zip(source.members, source.boxes, source.parts, strict=True), key=lambda m: m[0]):
        if box is not None and volume(box):
            classes.setdefault(box, [[] for _ in range(source.num_parts)])[part].append(rank)
    replica = {rank: i for parts in classes.values() for ranks in parts for i, rank in enumerate(ranks)}
    home = {rank: box for box, parts in classes.items() for ranks in parts for rank in ranks}
    groups: list[_Group] = []
    for box, parts in classes.items():
        count = min(map(len, parts))
        if not count:
            continue
        wanted: list[list[Box]] = [[] for _ in range(count)]
        for rank, need in needs.items():
            common = intersect(box, need)
            if common is not None:
                # Who holds nothing is nobody's replica. It takes from a group that reduces anyway, if there is one.
                wanted[min(replica.get(rank, 0), count - 1)].append(common)
        if not any(home.get(rank) == box for rank in needs):
            # Nobody here needs a result: one group does the work for all others.
            wanted = [[common for commons in wanted for common in commons]]
        for i, commons in enumerate(wanted):
            region = hull(commons)
            if region is not None:
                groups.append(_Group(tuple(ranks[i] for ranks in parts), tuple(range(len(parts))), region))
    regions = {group.region for group in groups}
    return groups if all(_covered(need, regions) for need in set(needs.values())) else []


def _covered(need: Box, boxes: set[Box]) -> bool:
    if any(contains(box, need) for box in boxes):
        return True
    rest = [need]
    for box in sorted(boxes):
        rest = [left for piece in rest for left in subtract(piece, box)]
    return not rest


def _resolutions(source: Layout, groups: Sequence[_Group], needs: Boxes) -> list[_Resolution]:
    """Ways to reduce in the groups, the least volume first; AllReduce before others that move as much."""
    if not groups:
        return []
    found = [_reduced(source, groups, needs, None)]
    rank_of_tensor = len(source.shape)
    axes = [axis for axis in range(rank_of_tensor) if any(_cut_apart(group, axis, needs) for group in groups)]
    if any(not any(rank in needs for rank in group.ranks) for group in groups):
        region = groups[0].region
        axes.append(max(range(rank_of_tensor), key=lambda axis: region[axis][1] - region[axis][0], default=-1))
    found += [_reduced(source, groups, needs, axis) for axis in sorted(set(axes)) if axis >= 0]
    return sorted((r for r in found if r is not None), key=lambda r: (r.estimate, not r.complete))


def _cut_apart(group: _Group, axis: int, needs: Boxes) -> bool:
    """Whether the members of a group need different ranges along the axis."""
    return len({needs[rank][axis] for rank in group.ranks if rank in needs}) > 1


def _reduced(source: Layout, groups: Sequence[_Group], needs: Boxes, axis: int | None) -> _Resolution | None:
    """AllReduce in all groups, or ReduceScatter along an axis; ``None`` if some group cannot be scattered there."""
    collectives: list[Collective] = []
    held: dict[int, Box] = {}
    for group in groups:
        part_of = dict(zip(group.ranks, group.parts, strict=True))
        if axis is None:
            ranks, pieces = tuple(sorted(group.ranks)), [group.region] * len(group.ranks)
            results: list[Box | None] = list(pieces)
        else:
            scattered = _scattered(group, axis, needs)
            if scattered is None:
                return None
            ranks = tuple(rank for rank, _ in scattered)
            results = [None if piece is None else replaced(group.region, axis, piece) for _, piece in scattered]
        held |= {rank: box for rank, box in zip(ranks, results, strict=True) if box is not None}
        collectives.append(
            Collective(
                Pattern.ALL_REDUCE if axis is None else Pattern.REDUCE_SCATTER,
                ranks,
                tuple(Fragment(group.region, part_of[rank]) for rank in ranks),
                tuple(None if box is None else Fragment(box) for box in results),
                axis=axis,
                reduction=source.reduction,
            )
        )
    moved = sum(sum(received(collective)) for collective in collectives)
    missing = missing_volume(held, needs)
    return _Resolution(tuple(collectives), held, moved + missing, not missing)


def _scattered(group: _Group, axis: int, needs: Mapping[int, Box]) -> list[tuple[int, Range | None]] | None:
    """The members in the order of their pieces of the region along ``axis``, like what they need of it.

    Members that need the same share it evenly; so do all if none needs anything.
    """
    low, high = group.region[axis]
    wanted: list[tuple[Range, int]] = []
    for rank in group.ranks:
        need = intersect(needs.get(rank), group.region)
        if need is not None:
            wanted.append((need[axis], rank))
    wanted = sorted(wanted) or [((low, high), rank) for rank in sorted(group.ranks)]
    pieces = shares((low, high), [range_ for range_, _ in wanted])
    if pieces is None:
        return None
    result: list[tuple[int, Range | None]] = [(rank, piece) for (_, rank), piece in zip(wanted, pieces, strict=True)]
    placed = {rank for rank, _ in result}
    result += [(rank, None) for rank in sorted(group.ranks) if rank not in placed]
    return result if sum(piece is not None for _, piece in result) > 1 else None
