"""From a collective of a plan to one communication node in the file of every member."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mars_onnx.comm.attributes import (
    AllGather,
    AllReduce,
    AllToAll,
    Broadcast,
    Communication,
    HaloExchange,
    Recv,
    ReduceScatter,
    Send,
    Shift,
)
from mars_onnx.emission.partition import Fragments, PartitionBuilder
from mars_onnx.geometry import Box, box_shape
from mars_onnx.redistribution.plan import Collective, Fragment, Pattern, Plan, received


@dataclass(frozen=True, slots=True)
class Event:
    """One communication as it stands in plan.json.

    Attributes:
        tag: Its number, which is its place in the global order.
        op: Name of the operator (``SendRecv`` for a pair).
        tensor: Name of the global tensor.
        group: Ranks that take part.
        received_bytes: What reaches all members together.
    """

    tag: int
    op: str
    tensor: str
    group: tuple[int, ...]
    received_bytes: int


class Transcriber:
    """Writes collectives into the graphs of their members, each at one point of a single global order."""

    def __init__(self, builders: Mapping[int, PartitionBuilder]) -> None:
        self.builders = builders
        self.events: list[Event] = []

    def redistribute(
        self, plan: Plan, tensor: str, dtype: ir.DataType, fragments: Mapping[int, Fragments]
    ) -> dict[int, tuple[Box, ir.Value]]:
        """Write a whole redistribution and return what every member has in the end.

        Args:
            plan: What to do.
            tensor: Name of the global tensor.
            dtype: Its element type.
            fragments: Per rank what it has to begin with; collectives add to it.
        """
        for collective in plan.collectives:
            fed = {
                rank: fragments[rank].find(given)
                for rank, given in zip(collective.group, collective.inputs, strict=True)
                if given is not None
            }
            for rank, (taken, value) in self.collective(collective, fed, tensor, dtype).items():
                fragments[rank].pieces.append((taken, value))
        return {a.rank: (a.need, fragments[a.rank].assemble(a.need, a.terms, plan.reduction)) for a in plan.assemblies}

    def collective(
        self, collective: Collective, fed: Mapping[int, ir.Value], tensor: str, dtype: ir.DataType
    ) -> dict[int, tuple[Fragment, ir.Value]]:
        """Write one collective into the files of its members, and return what each of them gets."""
        tag = len(self.events)
        size = sum(received(collective)) * dtype.bitwidth // 8
        self.events.append(Event(tag, str(collective.pattern), tensor, collective.group, size))
        got: dict[int, tuple[Fragment, ir.Value]] = {}
        for member, rank in enumerate(collective.group):
            builder = self.builders[rank]
            node = local_operator(collective, member, tag, dtype)
            x = fed.get(rank)
            if x is None and node.takes_data:
                # Only the root of a broadcast has something to give; the operator wants an input all the same.
                x = builder.constant(np.zeros(0, dtype.numpy()))
            value = builder.communicate(node, x, tensor)
            taken = collective.outputs[member]
            if taken is not None and value is not None:
                got[rank] = (taken, value)
        return got


def local_operator(collective: Collective, member: int, tag: int, dtype: ir.DataType) -> Communication:
    """The operator that a member of the group has in its file."""
    group = collective.group
    shape = _output_shape(collective, member)
    axis = collective.axis or 0
    match collective.pattern:
        case Pattern.SEND_RECV:
            return Send(tag, dst=group[1]) if member == 0 else Recv(tag, src=group[0], shape=shape, dtype=dtype)
        case Pattern.ALL_REDUCE:
            return AllReduce(tag, group, reduce_op=collective.reduction)
        case Pattern.ALL_GATHER:
            sizes = _extents(collective.inputs, axis)
            return AllGather(tag, group, shape, dtype, axis=axis, sizes=sizes)
        case Pattern.REDUCE_SCATTER:
            sizes = _extents(collective.outputs, axis)
            return ReduceScatter(tag, group, shape, dtype, axis=axis, sizes=sizes, reduce_op=collective.reduction)
        case Pattern.ALL_TO_ALL:
            split = collective.split_axis or 0
            return AllToAll(
                tag,
                group,
                shape,
                dtype,
                split_axis=split,
                concat_axis=axis,
                split_sizes=_extents(collective.outputs, split),
                concat_sizes=_extents(collective.inputs, axis),
            )
        case Pattern.BROADCAST:
            return Broadcast(tag, group, shape, dtype, root=group[0])
        case Pattern.HALO_EXCHANGE:
            held, need = _flat(collective.inputs, axis), _flat(collective.outputs, axis)
            return HaloExchange(tag, group, shape, dtype, axis=axis, held=held, need=need)
        case Pattern.SHIFT:
            return Shift(tag, group, shape, dtype, offset=collective.offset)


def _output_shape(collective: Collective, member: int) -> tuple[int, ...]:
    """Shape of what a member gets; who only gives to a ReduceScatter or AllToAll gets a piece of extent zero."""
    taken = collective.outputs[member]
    if taken is not None:
        return box_shape(taken.box)
    pieces = [output for output in collective.outputs if output is not None]
    if collective.pattern is Pattern.SEND_RECV or not pieces:
        return ()
    axis = collective.split_axis if collective.pattern is Pattern.ALL_TO_ALL else collective.axis
    shape = box_shape(pieces[0].box)
    return tuple(0 if dim == axis else extent for dim, extent in enumerate(shape))


def _extents(fragments: Iterable[Fragment | None], axis: int) -> tuple[int, ...]:
    return tuple(0 if f is None else f.box[axis][1] - f.box[axis][0] for f in fragments)


def _flat(fragments: Sequence[Fragment | None], axis: int) -> tuple[int, ...]:
    return tuple(edge for f in fragments for edge in ((0, 0) if f is None else f.box[axis]))
