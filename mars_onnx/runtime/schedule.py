"""Static check of all partitions' communication: it pairs up, agrees, and cannot deadlock, without running anything.

Every partition is walked along its token. A communication happens when all who take part have come to it, as on a
transport without buffers; where nobody can go on, the message says who stands where.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise

import onnx_ir as ir

from mars_onnx.comm import (
    AllGather,
    AllReduce,
    AllToAll,
    Broadcast,
    Communication,
    Grouped,
    HaloExchange,
    Recv,
    ReduceScatter,
    Send,
    Shift,
    communication_of,
    static_shape,
)
from mars_onnx.errors import InvariantError
from mars_onnx.runtime.segments import communication_order

_LOCAL_FIELDS = {"shape"}
"""Attributes that may differ between the members of a group."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A communication node in the file of a rank, with the type and shape of what it gives and gets."""

    rank: int
    name: str
    operator: Communication
    x: tuple[ir.DataType | None, tuple[int, ...] | None]
    y: tuple[ir.DataType | None, tuple[int, ...] | None]

    def __str__(self) -> str:
        return f"{self.operator.op_type} {self.name} (tag {self.operator.tag}) of rank {self.rank}"


def check_schedule(partitions: Mapping[int, ir.Model]) -> int:
    """Check that the partitions can communicate.

    Args:
        partitions: By rank.

    Returns:
        How many communications there are; a Send and its Recv are one.

    Raises:
        InvariantError: They cannot; the message names tag, ranks and nodes.
    """
    queues = {rank: _places(rank, model) for rank, model in partitions.items()}
    at = dict.fromkeys(queues, 0)
    done: dict[int, _Place] = {}
    # Only ranks that have just moved can have made a communication possible.
    active = sorted(queues)
    while active:
        rank = active.pop()
        place = _head(queues, at, rank)
        if place is None:
            continue
        members = _meeting(queues, at, place)
        if members is None:
            continue
        tag = place.operator.tag
        if tag in done:
            raise InvariantError(f"{place} has the tag of {done[tag]}, another communication")
        done[tag] = place
        _check(members)
        for member in members:
            at[member.rank] += 1
        active.extend(sorted(member.rank for member in members))
    stuck = [place for rank in sorted(queues) if (place := _head(queues, at, rank)) is not None]
    if stuck:
        waits = "; ".join(_wait(queues, at, place) for place in stuck)
        raise InvariantError(f"the communication cannot be completed: {waits}")
    return len(done)


def _places(rank: int, model: ir.Model) -> list[_Place]:
    places: list[_Place] = []
    try:
        order = communication_order(model.graph)
    except InvariantError as error:
        raise InvariantError(f"rank {rank}: {error}") from None
    for node in order:
        operator = communication_of(node)
        x = _kind(node.inputs[0]) if operator.takes_data else (None, None)
        y = _kind(node.outputs[0]) if operator.gives_data else (None, None)
        place = _Place(rank, str(node.name), operator, x, y)
        if rank not in operator.ranks(rank):
            raise InvariantError(f"{place}: the rank is not in its group {list(operator.ranks(rank))}")
        if isinstance(operator, Send | Recv) and len(set(operator.ranks(rank))) == 1:
            raise InvariantError(f"{place}: it speaks to itself")
        places.append(place)
    return places


def _kind(value: ir.Value | None) -> tuple[ir.DataType | None, tuple[int, ...] | None]:
    return (None, None) if value is None else (value.dtype, static_shape(value))


def _head(queues: Mapping[int, list[_Place]], at: Mapping[int, int], rank: int) -> _Place | None:
    return queues[rank][at[rank]] if rank in queues and at[rank] < len(queues[rank]) else None


def _meets(place: _Place, other: _Place | None) -> bool:
    if other is None or other.operator.tag != place.operator.tag:
        return False
    return other.operator.ranks(other.rank) == place.operator.ranks(place.rank)


def _meeting(queues: Mapping[int, list[_Place]], at: Mapping[int, int], place: _Place) -> list[_Place] | None:
    """All who take part, in the order of the group, if all have come; ``None`` if not yet."""
    heads = [_head(queues, at, rank) for rank in place.operator.ranks(place.rank)]
    members = [head for head in heads if head is not None and _meets(place, head)]
    return members if len(members) == len(heads) else None


def _wait(queues: Mapping[int, list[_Place]], at: Mapping[int, int], place: _Place) -> str:
    """Why a place cannot go on."""
    reasons: list[str] = []
    for rank in place.operator.ranks(place.rank):
        head = _head(queues, at, rank)
        if rank == place.rank or _meets(place, head):
            continue
        if rank not in queues:
            reasons.append(f"rank {rank}, which has no partition")
        elif head is None:
            reasons.append(f"rank {rank}, which has ended")
        elif head.operator.tag == place.operator.tag:
            reasons.append(f"rank {rank}, whose {head} has another group or partner")
        else:
            reasons.append(f"rank {rank}, which is at {head.operator.op_type} {head.name} (tag {head.operator.tag})")
    return f"{place} waits for {' and '.join(reasons)}"


def _check(members: list[_Place]) -> None:
    first = members[0]
    if isinstance(first.operator, Send | Recv):
        _check_pair(members)
        return
    for place in members[1:]:
        if type(place.operator) is not type(first.operator):
            raise InvariantError(f"{first} and {place} are different operators of one tag")
        for field in fields(first.operator):
            ours, theirs = getattr(first.operator, field.name), getattr(place.operator, field.name)
            if field.name not in _LOCAL_FIELDS and ours != theirs:
                raise InvariantError(f"{first} and {place} disagree on {field.name}: {ours} and {theirs}")
    if isinstance(first.operator, Grouped):
        _check_group(members)


def _check_pair(members: list[_Place]) -> None:
    send, recv = members
    if not isinstance(send.operator, Send) or not isinstance(recv.operator, Recv):
        raise InvariantError(f"{send} and {recv} are not a Send and its Recv")
    _same(send, send.x, recv, (recv.operator.dtype, recv.operator.shape))
    _same(recv, recv.y, recv, (recv.operator.dtype, recv.operator.shape))


def _check_group(members: list[_Place]) -> None:
    """Compare what everybody gives and gets with what the attributes say of all."""
    operators = [place.operator for place in members]
    for number, place in enumerate(members):
        match place.operator:
            case AllReduce():
                _same(place, place.x, members[0], members[0].x)
                _same(place, place.y, place, place.x)
                continue
            case AllGather(axis=axis, sizes=sizes, shape=shape):
                given = _replaced(shape, axis, sizes[number])
                expected = _replaced(shape, axis, sum(sizes))
            case ReduceScatter(axis=axis, sizes=sizes, shape=shape):
                given = _replaced(shape, axis, sum(sizes))
                expected = _replaced(shape, axis, sizes[number])
            case AllToAll(split_axis=split, concat_axis=concat, split_sizes=splits, concat_sizes=concats, shape=shape):
                given = _replaced(_replaced(shape, concat, concats[number]), split, sum(splits))
                expected = _replaced(_replaced(shape, concat, sum(concats)), split, splits[number])
            case HaloExchange(axis=axis, shape=shape) as halo:
                _check_held(place, halo)
                given = _replaced(shape, axis, _extent(halo.held_by(number)))
                expected = _replaced(shape, axis, _extent(halo.needed_by(number)))
            case Shift(offset=offset, shape=shape):
                given = shape_of(operators[(number + offset) % len(operators)])
                expected = shape
            case Broadcast(root=root, shape=shape):
                expected = shape_of(operators[0])
                given = expected if place.rank == root else (place.x[1] or ())
                if place.rank != root and 0 not in given and given != expected:
                    raise InvariantError(f"{place} gives shape {list(given)}; it should be empty, or {list(expected)}")
            case other:
                raise InvariantError(f"{place}: no check for {other.op_type}")
        dtype = getattr(place.operator, "dtype", None)
        _same(place, place.x, members[0], (dtype, given))
        if shape_of(place.operator) != expected:
            raise InvariantError(
                f"{place} has shape {list(shape_of(place.operator))}; with what the others hold it is {list(expected)}"
            )
        _same(place, place.y, place, (dtype, expected))
        for other_place in members:
            if isinstance(place.operator, Shift | Broadcast):
                continue
            _same_elsewhere(place, other_place)


def shape_of(operator: Communication) -> tuple[int, ...]:
    """The ``shape`` attribute; empty for operators that have none."""
    shape: tuple[int, ...] = getattr(operator, "shape", ())
    return shape


def _same_elsewhere(place: _Place, other: _Place) -> None:
    """Outputs of one collective differ only along the axes that it cuts."""
    cut = {getattr(place.operator, name, None) for name in ("axis", "split_axis")}
    ours, theirs = shape_of(place.operator), shape_of(other.operator)
    if len(ours) != len(theirs) or any(
        a != b for axis, (a, b) in enumerate(zip(ours, theirs, strict=False)) if axis not in cut
    ):
        raise InvariantError(f"{place} and {other} have shapes that do not fit: {list(ours)} and {list(theirs)}")


def _check_held(place: _Place, halo: HaloExchange) -> None:
    """The held ranges are disjoint, and together contain every needed one."""
    ranges = sorted(halo.held_by(member) for member in range(len(halo.group)) if _extent(halo.held_by(member)))
    for (_, stop), (start, _) in pairwise(ranges):
        if start < stop:
            raise InvariantError(f"{place}: {start}:{stop} is held twice")
    for member, rank in enumerate(halo.group):
        start, stop = halo.needed_by(member)
        for low, high in ranges:
            if low <= start < high:
                start = high
        if start < stop:
            raise InvariantError(f"{place}: rank {rank} needs {start}:{stop}, which nobody holds")


def _extent(pair: tuple[int, int]) -> int:
    return max(0, pair[1] - pair[0])


def _replaced(shape: tuple[int, ...], axis: int, extent: int) -> tuple[int, ...]:
    return (*shape[:axis], extent, *shape[axis + 1 :])


def _same(
    place: _Place,
    found: tuple[ir.DataType | None, tuple[int, ...] | None],
    other: _Place,
    wanted: tuple[ir.DataType | None, tuple[int, ...] | None],
) -> None:
    """Compare types and shapes as far as they are known."""
    for ours, theirs in zip(found, wanted, strict=True):
        if ours is not None and theirs is not None and ours != theirs:
            raise InvariantError(f"{place} has {_text(found)} where {other} says {_text(wanted)}")


def _text(kind: tuple[ir.DataType | None, tuple[int, ...] | None]) -> str:
    dtype, shape = kind
    return f"{dtype.name if dtype is not None else '?'}{list(shape) if shape is not None else '[?]'}"
