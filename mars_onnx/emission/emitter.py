"""The sharded global graph, node by node, into the graphs of the accelerators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from mars_onnx.emission.local_graph import type_of
from mars_onnx.emission.partition import Fragments, PartitionBuilder
from mars_onnx.emission.transcribe import Event, Transcriber
from mars_onnx.emission.whole import copy_node
from mars_onnx.errors import InvariantError
from mars_onnx.geometry import Box, Layout, Reduction
from mars_onnx.pool.topology import Pool
from mars_onnx.redistribution.plan import Fragment
from mars_onnx.redistribution.planner import redistribute
from mars_onnx.rules.base import OpRule, Share
from mars_onnx.rules.registry import rule_for
from mars_onnx.rules.signature import is_present, signature_of, tensor_type
from mars_onnx.sharding.lowering import RingPlan, Sharding, ring_shift
from mars_onnx.sharding.mapping import Mapping as AcceleratorMapping
from mars_onnx.stages import attachments
from mars_onnx.stages.sharded import canonical_name, is_redistribute, sharding_of


@dataclass(frozen=True, slots=True)
class Emitted:
    """All partitions while they are graphs under construction, and the communication between them.

    Attributes:
        builders: Per rank its graph.
        events: Communication in the global order.
        outputs: Per model output and rank the box and the local value that leave there; boxes tile the tensor.
        steps: How many steps there are before the first model output leaves.
    """

    builders: Mapping[int, PartitionBuilder]
    events: tuple[Event, ...]
    outputs: tuple[tuple[ir.Value, dict[int, tuple[Box, ir.Value]]], ...]
    steps: int


class Emitter:
    """Writes every node into the graphs of the members that have a share of it."""

    def __init__(self, model: ir.Model, mapping: AcceleratorMapping, pool: Pool) -> None:
        self.model = model
        self.mapping = mapping
        self.pool = pool
        opset = model.graph.opset_imports[""]
        ranks = sorted(rank for own in mapping.sets for rank in own.members)
        self.builders = {rank: PartitionBuilder(opset, rank) for rank in ranks}
        self.transcriber = Transcriber(self.builders)
        self.steps = 0

    def run(self) -> Emitted:
        """Emit the whole graph."""
        for value in self.model.graph.inputs:
            self.next_step()
            self.input(value)
        for node in self.model.graph:
            self.next_step()
            if is_redistribute(node):
                self.redistribution(node)
            else:
                self.node(node)
        outputs = tuple((value, self.output(value)) for value in self.model.graph.outputs)
        return Emitted(self.builders, tuple(self.transcriber.events), outputs, self.steps)

    def next_step(self) -> None:
        """What is written from now on belongs to the next step."""
        for builder in self.builders.values():
            builder.step = self.steps
        self.steps += 1

    def input(self, value: ir.Value) -> None:
        """A box of a model input enters every accelerator that needs one."""
        layout = attachments.get_layout(value)
        for rank, box in zip(layout.members, layout.boxes, strict=True):
            if box is not None:
                self.builders[rank].add_input(value, box)

    def redistribution(self, node: ir.Node) -> None:
        """Communicate as planned, and note what everyone holds of the result."""
        value, moved = node.inputs[0], node.outputs[0]
        kind = tensor_type(moved)
        if value is None or kind is None:
            raise InvariantError(f"{node.name!r} redistributes something that is no tensor")
        source, target = attachments.get_layout(value), attachments.get_layout(moved)
        plan = redistribute(source, target, self.pool.distance)
        for builder in self.builders.values():
            builder.begin(node, origin=canonical_name(value))
        fragments = {rank: Fragments(builder) for rank, builder in self.builders.items()}
        for rank, box, part in zip(source.members, source.boxes, source.parts, strict=True):
            if box is not None:
                held, local = self.builders[rank].held[value]
                fragment = Fragment(held, part if source.partial else None)
                fragments[rank].pieces.append((fragment, local))
        name = canonical_name(value)
        for rank, (box, local) in self.transcriber.redistribute(plan, name, kind.dtype, fragments).items():
            self.hold(rank, moved, box, local, None)

    def node(self, node: ir.Node) -> None:
        """Every member's share of a node."""
        sharding = sharding_of(node, self.mapping)
        rule = rule_for(signature_of(node))
        for builder in self.builders.values():
            builder.begin(node)
        if sharding.ring is not None:
            self.ring(node, rule, sharding, sharding.ring)
            return
        for rank, share in zip(sharding.members, sharding.shares, strict=True):
            if share is None:
                continue
            builder = self.builders[rank]
            if rule.is_fallback:
                builder.begin_share(share)
                copies = copy_node(builder, node)
                builder.end_share()
                self.keep(rank, node, sharding, share, copies)
                continue
            inputs = [
                None if value is None or box is None else builder.fetch(value, box)
                for value, box in zip(node.inputs, share.inputs, strict=True)
            ]
            self.keep(rank, node, sharding, share, _compute(builder, rule, share, inputs))

    def ring(self, node: ir.Node, rule: OpRule, sharding: Sharding, ring: RingPlan) -> None:
        """Shared shards: every phase computes on one piece, then the pieces move on by one."""
        rotating = node.inputs[ring.operand]
        kind = tensor_type(rotating)
        if rotating is None or kind is None:
            raise InvariantError(f"{node.name!r} rotates an operand that is no tensor")
        phases = dict(zip(sharding.members, sharding.phases, strict=True))
        results: dict[int, list[tuple[Share, tuple[ir.Value, ...]]]] = {rank: [] for rank in sharding.members}
        for group, pieces in zip(ring.groups, ring.pieces, strict=True):
            pieces_here = {
                rank: self.builders[rank].fetch(rotating, piece)
                for rank, piece in zip(group, pieces, strict=True)
                if piece is not None
            }
            for phase in range(len(group)):
                for rank in group:
                    builder = self.builders[rank]
                    share = phases[rank][phase]
                    builder.begin(node, phase=phase)
                    if share is None:
                        continue
                    inputs = [
                        pieces_here.get(rank)
                        if index == ring.operand
                        else (None if value is None or box is None else builder.fetch(value, box))
                        for index, (value, box) in enumerate(zip(node.inputs, share.inputs, strict=True))
                    ]
                    results[rank].append((share, _compute(builder, rule, share, inputs)))
                if phase + 1 < len(group):
                    pieces_here = self.rotate(group, pieces, phase, pieces_here, rotating, kind.dtype)
        for rank, whole in zip(sharding.members, sharding.shares, strict=True):
            if whole is not None:
                self.builders[rank].begin(node)
                self.keep(rank, node, sharding, whole, _join(self.builders[rank], rule, ring, results[rank]))

    def rotate(
        self,
        group: Sequence[int],
        pieces: Sequence[Box | None],
        phase: int,
        here: Mapping[int, ir.Value],
        rotating: ir.Value,
        dtype: ir.DataType,
    ) -> dict[int, ir.Value]:
        """Every member gives its piece to the one before it in the ring."""
        got: dict[int, ir.Value] = {}
        for shift in ring_shift(group, pieces, phase):
            fed = {rank: here[rank] for rank, given in zip(shift.group, shift.inputs, strict=True) if given is not None}
            for rank, (_, value) in self.transcriber.collective(shift, fed, canonical_name(rotating), dtype).items():
                got[rank] = value
        return got

    def keep(
        self, rank: int, node: ir.Node, sharding: Sharding, share: Share, values: Sequence[ir.Value | None]
    ) -> None:
        """Note what a member holds of the outputs of a node."""
        for index, (value, local) in enumerate(zip(node.outputs, values, strict=False)):
            layout = sharding.produced[index] if index < len(sharding.produced) else None
            box = share.outputs[index]
            if local is None or not is_present(value) or layout is None or box is None:
                continue
            self.hold(rank, value, box, local, layout if layout.partial else None)

    def hold(self, rank: int, value: ir.Value, box: Box, local: ir.Value, partial: Layout | None) -> None:
        """Note that the local value is a box of a global one; of a partial tensor, also which part."""
        builder = self.builders[rank]
        part = ""
        reduction = Reduction.SUM
        if partial is not None:
            part = f"{partial.parts[partial.members.index(rank)]}/{partial.num_parts}"
            reduction = partial.reduction
        builder.name_after(local, canonical_name(value), box, part, str(reduction))
        builder.held[value] = (box, local)

    def output(self, value: ir.Value) -> dict[int, tuple[Box, ir.Value]]:
        """Which accelerator gives which box of a model output: of replicas, the first."""
        layout = attachments.get_layout(value)
        leaving: dict[int, tuple[Box, ir.Value]] = {}
        for rank, box in zip(layout.members, layout.boxes, strict=True):
            if box is not None and all(box != taken for taken, _ in leaving.values()):
                leaving[rank] = self.builders[rank].held[value]
        return leaving


def _compute(
    builder: PartitionBuilder, rule: OpRule, share: Share, inputs: Sequence[ir.Value | None]
) -> tuple[ir.Value, ...]:
    """Write the nodes of a share, marked as such; there is at least one, so that a file shows all that it computes."""
    builder.begin_share(share)
    before = len(builder.nodes)
    values = rule.local(builder, share, inputs)
    if len(builder.nodes) == before:
        # The input, or a constant, is the result as it is.
        values = tuple(
            value if box is None else builder.op("Identity", [value], {}, [type_of(value)])[0]
            for value, box in zip(values, share.outputs, strict=False)
        )
    builder.end_share()
    return values


def _join(
    builder: PartitionBuilder,
    rule: OpRule,
    ring: RingPlan,
    results: Sequence[tuple[Share, tuple[ir.Value, ...]]],
) -> list[ir.Value]:
    """The outputs of all phases of a ring as one: summed up, or joined along the axis that was cut.

    Pieces are taken in their own order, not in the order of time, so that replicas round alike.
    """
    ordered = sorted(results, key=lambda result: result[0].ranges[ring.axis.name])
    if ring.axis.reduction:
        return [builder.combine(values, rule.reduction) for values in zip(*(v for _, v in ordered), strict=True)]
    joined: list[ir.Value] = []
    for index, values in enumerate(zip(*(v for _, v in ordered), strict=True)):
        dims = rule.outputs[index] or ()
        dim = next(d for d, dim_map in enumerate(dims) if ring.axis.name in dim_map.axes)
        joined.append(builder.concat(values, dim))
    return joined
