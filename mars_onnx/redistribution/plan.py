"""What a redistribution does, as data: collectives in order, and how every member puts together what it needs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mars_onnx.geometry import Box, Reduction, intersect, volume


class Pattern(StrEnum):
    """The communication operators, by the name they have in a partition."""

    SEND_RECV = "SendRecv"
    ALL_REDUCE = "AllReduce"
    ALL_GATHER = "AllGather"
    REDUCE_SCATTER = "ReduceScatter"
    ALL_TO_ALL = "AllToAll"
    BROADCAST = "Broadcast"
    HALO_EXCHANGE = "HaloExchange"
    SHIFT = "Shift"


@dataclass(frozen=True, slots=True)
class Fragment:
    """A box of the tensor in the memory of one member.

    Attributes:
        box: Which box.
        part: Which part of a partial tensor; ``None`` for the value itself.
    """

    box: Box
    part: int | None = None


@dataclass(frozen=True, slots=True)
class Collective:
    """One communication, seen from outside. In the file of every member of ``group`` it is one node.

    Attributes:
        pattern: Which operator.
        group: Ranks that take part, in the order that the operator's attributes use. For SEND_RECV: (source,
            destination). For BROADCAST the root is ``group[0]``.
        inputs: Per member of the group what it feeds, ``None`` for nothing (the destination of a send, the receivers of
            a broadcast). The box lies inside a fragment with the same part that the member has by then.
        outputs: Per member the fragment it has afterwards, in addition; ``None`` for nothing.
        axis: Dimension that is gathered, scattered, extended by a halo, or (AllToAll) concatenated.
        split_axis: Dimension along which AllToAll splits.
        reduction: Of AllReduce and ReduceScatter.
        offset: Of Shift: group member ``i`` sends to ``i + offset`` (modulo the group).

    Semantics, with ``n = len(group)``, boxes in whole-tensor coordinates:
        SEND_RECV: ``outputs[1] == inputs[0]``.
        ALL_REDUCE: all inputs have one box and different parts, which are all the parts; every output is
            that box, whole.
        ALL_GATHER: inputs are disjoint along ``axis``, in group order, equal in the other dimensions; every output is
            their union.
        REDUCE_SCATTER: as ALL_REDUCE, but output ``i`` is the i-th piece of the box along ``axis``; the pieces may be
            uneven, and ``None`` is a piece of extent zero (a member that only gives).
        ALL_TO_ALL: inputs tile a box along ``axis``, outputs tile the same box along ``split_axis``, in group order;
            both may be uneven, and an output may be ``None``, a piece of extent zero.
        BROADCAST: every output equals ``inputs[0]``; the other inputs are ``None``.
        HALO_EXCHANGE: inputs are disjoint along ``axis`` and equal elsewhere; each output is a range along ``axis`` of
            their union, equal to the inputs elsewhere; it may be wider, narrower or elsewhere than the own input.
            Members that only give get back their input. The union may have gaps, but no output has one.
        SHIFT: ``outputs[(i + offset) % n] == inputs[i]``.
    """

    pattern: Pattern
    group: tuple[int, ...]
    inputs: tuple[Fragment | None, ...]
    outputs: tuple[Fragment | None, ...]
    axis: int | None = None
    split_axis: int | None = None
    reduction: Reduction = Reduction.SUM
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Assembly:
    """How one member makes the box it needs from fragments it has when all collectives are done.

    Attributes:
        rank: The member.
        need: The box it needs.
        terms: Per part (one term if the tensor is not partial, or has been reduced) the pieces that tile ``need``; each
            lies inside a fragment with the same part. The result is the reduction of the terms. A need without elements
            that nobody has to give is one term without pieces.
    """

    rank: int
    need: Box
    terms: tuple[tuple[Fragment, ...], ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole redistribution. ``reduction`` combines the terms of an assembly.

    ``kind`` names it for a person: ``local`` (no communication), the pattern if it is one (``all-gather``), ``mixed``
    if several patterns are needed, ``p2p``, ``scatter`` or ``gather`` if there are only sends.
    """

    collectives: tuple[Collective, ...]
    assemblies: tuple[Assembly, ...]
    reduction: Reduction = Reduction.SUM
    kind: str = "local"

    def received_elements(self) -> dict[int, int]:
        """Per rank, how many elements reach its memory from others, if every pattern moves no more than it must."""
        totals: dict[int, int] = {}
        for collective in self.collectives:
            for rank, count in zip(collective.group, received(collective), strict=True):
                totals[rank] = totals.get(rank, 0) + count
        return totals


def received(collective: Collective) -> list[int]:
    """Per member of the group, how many elements reach its memory from others, if no more move than must."""
    members = len(collective.group)
    match collective.pattern:
        case Pattern.ALL_REDUCE:
            # A ring moves 2(n-1)/n of the box through every member (Patarasuk and Yuan, 2009).
            return [2 * (members - 1) * _elements(given) // members for given in collective.inputs]
        case Pattern.REDUCE_SCATTER:
            return [(members - 1) * _elements(taken) for taken in collective.outputs]
        case Pattern.SEND_RECV | Pattern.SHIFT:
            return [_elements(taken) for taken in collective.outputs]
    pairs = zip(collective.inputs, collective.outputs, strict=True)
    if collective.pattern is Pattern.BROADCAST:
        return [0 if given else _elements(taken) for given, taken in pairs]
    return [_elements(taken) - _overlap(given, taken) for given, taken in pairs]


def _elements(fragment: Fragment | None) -> int:
    return volume(fragment.box) if fragment else 0


def _overlap(given: Fragment | None, taken: Fragment | None) -> int:
    return volume(intersect(given.box, taken.box)) if given and taken else 0
