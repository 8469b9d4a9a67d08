"""What a communication moves, read from the operators in the files: as a collective, and as loads of channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from mars_onnx.comm import (
    AllGather,
    AllReduce,
    AllToAll,
    Broadcast,
    Communication,
    HaloExchange,
    Recv,
    ReduceScatter,
    Shift,
)
from mars_onnx.cost.interconnect import Interconnect
from mars_onnx.errors import InvariantError
from mars_onnx.geometry import Box, intersect, volume, whole_box
from mars_onnx.pool.topology import Pool
from mars_onnx.redistribution.plan import Collective, Fragment, Pattern
from mars_onnx.rules.base import TensorType
from mars_onnx.rules.signature import tensor_type
from mars_onnx.simulation.sharing import Demand

#: Source, destination, bytes.
Message = tuple[int, int, float]


def collective_of(
    operators: Mapping[int, Communication], nodes: Mapping[int, ir.Node]
) -> tuple[Collective, ir.DataType]:
    """The collective that the operators of one tag are, and the type of its elements.

    Boxes are relative to what is communicated, not to the whole tensor; only their sizes matter for a price.

    Args:
        operators: Per rank.
        nodes: Per rank the node of it.
    """
    rank, operator = next(iter(operators.items()))
    group = operator.ranks(rank)
    match operator:
        case AllReduce():
            kind = _kind(nodes[rank])
            box = Fragment(whole_box(kind.shape))
            every = (box,) * len(group)
            return Collective(Pattern.ALL_REDUCE, group, every, every, reduction=operator.reduce_op), kind.dtype
        case AllGather(axis=axis, sizes=sizes, shape=shape, dtype=dtype):
            whole = (Fragment(whole_box(shape)),) * len(group)
            return Collective(Pattern.ALL_GATHER, group, _cut(shape, axis, sizes), whole, axis=axis), dtype
        case ReduceScatter(axis=axis, sizes=sizes, shape=shape, dtype=dtype):
            full = _with(shape, axis, sum(sizes))
            whole = (Fragment(whole_box(full)),) * len(group)
            return Collective(Pattern.REDUCE_SCATTER, group, whole, _cut(full, axis, sizes), axis=axis), dtype
        case AllToAll(split_axis=split, concat_axis=concat, shape=shape, dtype=dtype):
            full = _with(_with(shape, split, sum(operator.split_sizes)), concat, sum(operator.concat_sizes))
            given, taken = _cut(full, concat, operator.concat_sizes), _cut(full, split, operator.split_sizes)
            return Collective(Pattern.ALL_TO_ALL, group, given, taken, axis=concat, split_axis=split), dtype
        case Broadcast(root=root, shape=shape, dtype=dtype):
            ordered = (root, *(other for other in group if other != root))
            box = Fragment(whole_box(shape))
            none = (None,) * (len(group) - 1)
            return Collective(Pattern.BROADCAST, ordered, (box, *none), (box,) * len(group)), dtype
        case HaloExchange(axis=axis, shape=shape, dtype=dtype):
            members = range(len(group))
            held = tuple(_along(shape, axis, *operator.held_by(member)) for member in members)
            need = tuple(_along(shape, axis, *operator.needed_by(member)) for member in members)
            return Collective(Pattern.HALO_EXCHANGE, group, held, need, axis=axis), dtype
        case Shift(offset=offset, dtype=dtype):
            boxes = [Fragment(whole_box(_shape(operators[member]))) for member in group]
            given = tuple(boxes[(place + offset) % len(group)] for place in range(len(group)))
            return Collective(Pattern.SHIFT, group, given, tuple(boxes), offset=offset), dtype
    recv = operators[group[1]]
    if not isinstance(recv, Recv):
        raise InvariantError(f"the Send with the tag {operator.tag} has no Recv")
    box = Fragment(whole_box(recv.shape))
    return Collective(Pattern.SEND_RECV, group, (box, None), (None, box)), recv.dtype


def messages_of(
    collective: Collective, bytes_per_element: float, interconnect: Interconnect, pool: Pool
) -> Iterator[Message]:
    """All that goes from one member to another during a collective.

    Rings, a binomial tree, everyone to everyone: what the interconnect takes may be another algorithm that was faster
    alone, and loads other links.
    """
    group = collective.group
    given = [_volume(fragment) * bytes_per_element for fragment in collective.inputs]
    taken = [_volume(fragment) * bytes_per_element for fragment in collective.outputs]
    count = len(group)
    match collective.pattern:
        case Pattern.ALL_REDUCE:
            each = 2 * (count - 1) * given[0] / count
            yield from _round(interconnect.ring(group), dict.fromkeys(group, each))
        case Pattern.ALL_GATHER:
            ring = interconnect.ring(group)
            # A member passes on every piece but that of the one behind it, which has it already.
            pieces = dict(zip(group, given, strict=True))
            rest = {rank: sum(given) - pieces[ring[(i + 1) % count]] for i, rank in enumerate(ring)}
            yield from _round(ring, rest)
        case Pattern.REDUCE_SCATTER:
            ring = interconnect.ring(group)
            rest = {rank: sum(taken) - own for rank, own in zip(group, taken, strict=True)}
            yield from _round(ring, rest)
        case Pattern.BROADCAST:
            yield from ((source, target, given[0]) for source, target in _tree(group, pool))
        case Pattern.SEND_RECV:
            yield group[0], group[1], given[0]
        case Pattern.SHIFT:
            for place, rank in enumerate(group):
                yield rank, group[(place + collective.offset) % count], given[place]
        case Pattern.ALL_TO_ALL | Pattern.HALO_EXCHANGE:
            for source, held in zip(group, collective.inputs, strict=True):
                for target, need in zip(group, collective.outputs, strict=True):
                    if source != target and held and need:
                        moved = volume(intersect(held.box, need.box))
                        yield source, target, moved * bytes_per_element


def demand_of(messages: Iterator[Message] | Sequence[Message], seconds: float, pool: Pool) -> Demand:
    """Which share of a communication's time it keeps each channel busy, taken even over that time."""
    busy: dict[int, float] = {}
    for source, target, size in messages:
        if size > 0 and source != target:
            for channel in pool.route(source, target).channels:
                busy[channel] = busy.get(channel, 0.0) + size / pool.links[channel // 2].bandwidth_bytes_per_s
    if seconds <= 0:
        return ()
    return tuple((channel, min(1.0, own / seconds)) for channel, own in sorted(busy.items()))


def _tree(group: Sequence[int], pool: Pool) -> Iterator[tuple[int, int]]:
    """Who gives to whom in a binomial tree from the first of the group, its own group of the pool first."""
    home = pool.group_of[group[0]]
    order = (group[0], *sorted(group[1:], key=lambda rank: (pool.group_of[rank] != home, pool.group_of[rank], rank)))
    have = 1
    while have < len(order):
        yield from zip(order, order[have : 2 * have], strict=False)
        have *= 2


def _round(ring: Sequence[int], sizes: Mapping[int, float]) -> Iterator[Message]:
    for place, rank in enumerate(ring):
        yield rank, ring[(place + 1) % len(ring)], sizes[rank]


def _volume(fragment: Fragment | None) -> int:
    return volume(fragment.box) if fragment else 0


def _kind(node: ir.Node) -> TensorType:
    kind = tensor_type(node.inputs[0])
    if kind is None:
        raise InvariantError(f"{node.name}: its input has no static shape and element type")
    return kind


def _shape(operator: Communication) -> tuple[int, ...]:
    shape: tuple[int, ...] = getattr(operator, "shape", ())
    return shape


def _with(shape: tuple[int, ...], axis: int, extent: int) -> tuple[int, ...]:
    return (*shape[:axis], extent, *shape[axis + 1 :])


def _along(shape: tuple[int, ...], axis: int, low: int, high: int) -> Fragment:
    whole: Box = whole_box(shape)
    return Fragment((*whole[:axis], (low, high), *whole[axis + 1 :]))


def _cut(shape: tuple[int, ...], axis: int, sizes: Sequence[int]) -> tuple[Fragment, ...]:
    pieces: list[Fragment] = []
    start = 0
    for size in sizes:
        pieces.append(_along(shape, axis, start, start + size))
        start += size
    return tuple(pieces)
