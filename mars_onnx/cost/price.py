"""The price of a mapping: every node and every collective of a sharded graph, on a timeline without overlap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mars_onnx.cost.interconnect import Interconnect
from mars_onnx.cost.shares import phase_seconds
from mars_onnx.cost.timeline import Event, Timeline, schedule
from mars_onnx.geometry import Box, volume
from mars_onnx.pool.topology import Pool
from mars_onnx.redistribution.planner import redistribute
from mars_onnx.rules.base import OpRule, Signature
from mars_onnx.rules.registry import rule_for
from mars_onnx.rules.signature import signature_of, tensor_type
from mars_onnx.sharding.lowering import Sharding, ring_shift
from mars_onnx.sharding.mapping import Mapping
from mars_onnx.stages import attachments
from mars_onnx.stages.sharded import canonical_name, is_redistribute, sharding_of


@dataclass(frozen=True, slots=True)
class LayerPrice:
    """One node of the canonical graph.

    Attributes:
        name: Its name.
        op_type: Its operator.
        set_index: Where it runs.
        strategy: How it is cut, as text.
        macs: Multiply-accumulates of the whole node.
        whole: Whether it has no rule and so is computed whole by every member.
        events: Indices of its compute events.
        moves: Indices of the communication events for its inputs, its ring and its partial sums.
    """

    name: str
    op_type: str
    set_index: int
    strategy: str
    macs: int
    whole: bool
    events: tuple[int, ...]
    moves: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CommunicationPrice:
    """One collective, in the global order in which it is emitted.

    Attributes:
        op: Name of its operator.
        tensor: Name of the global tensor.
        group: Ranks that take part.
        event: Index of its event.
    """

    op: str
    tensor: str
    group: tuple[int, ...]
    event: int


@dataclass(frozen=True, slots=True)
class Price:
    """What a mapping costs.

    Attributes:
        timeline: All events; model inputs come first and model outputs last.
        layers: In topological order.
        communication: In the global order.
    """

    timeline: Timeline
    layers: tuple[LayerPrice, ...]
    communication: tuple[CommunicationPrice, ...]

    @property
    def latency_s(self) -> float:
        """From the start of the inputs' transfer to the end of the outputs'."""
        return self.timeline.latency_s


def price(model: ir.Model) -> Price:
    """Price a sharded graph on its pool."""
    return _Pricer(model).run()


class _Pricer:
    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.pool: Pool = attachments.get_pool(model)
        self.mapping: Mapping = attachments.get_mapping(model)
        self.interconnect = Interconnect(self.pool)
        self.events: list[Event] = []
        self.layers: list[LayerPrice] = []
        self.communication: list[CommunicationPrice] = []

    def run(self) -> Price:
        """Walk through the graph in the order of emission."""
        for value in self.model.graph.inputs:
            self.transfer(value, entering=True)
        #: Communication since the last layer, for the inputs of the next.
        pending: list[int] = []
        for node in self.model.graph:
            if is_redistribute(node):
                pending += self.redistribution(node)
            else:
                self.layers.append(self.layer(node, pending))
                pending = []
        for value in self.model.graph.outputs:
            self.transfer(value, entering=False)
        timeline = schedule(self.events, self.pool.size)
        return Price(timeline, tuple(self.layers), tuple(self.communication))

    def transfer(self, value: ir.Value, *, entering: bool) -> None:
        """Boxes of a model input from where inputs start, or of an output to where outputs end, all at once."""
        kind = tensor_type(value)
        if kind is None:
            return
        layout = attachments.get_layout(value)
        boxes: dict[int, Box] = {}
        for rank, box in zip(layout.members, layout.boxes, strict=True):
            # Of replicas of an output, one leaves; of an input, every member gets its own.
            if box is not None and (entering or box not in boxes.values()):
                boxes[rank] = box
        end = self.pool.inputs_at if entering else self.pool.outputs_at
        pairs = [(end, rank) if entering else (rank, end) for rank in boxes]
        sizes = [volume(box) * kind.dtype.bitwidth / 8 for box in boxes.values()]
        if pairs:
            seconds = float(self.interconnect.exchange(pairs, np.asarray(sizes)))
            self.events.append(Event.collective(tuple(boxes), seconds, value.name or ""))

    def redistribution(self, node: ir.Node) -> Iterator[int]:
        """The collectives of a redistribution."""
        value, moved = node.inputs[0], node.outputs[0]
        kind = tensor_type(moved)
        if value is None or kind is None:
            return
        plan = redistribute(attachments.get_layout(value), attachments.get_layout(moved), self.pool.distance)
        tensor = canonical_name(value)
        for collective in plan.collectives:
            seconds = self.interconnect.collective(collective, kind.dtype.bitwidth / 8)
            yield self.communicate(str(collective.pattern), tensor, collective.group, seconds)

    def communicate(self, op: str, tensor: str, group: tuple[int, ...], seconds: float) -> int:
        """Note a collective and return the index of its event."""
        self.events.append(Event.collective(group, seconds, tensor))
        self.communication.append(CommunicationPrice(op, tensor, group, len(self.events) - 1))
        return len(self.events) - 1

    def layer(self, node: ir.Node, pending: list[int]) -> LayerPrice:
        """Compute of every member, phase by phase, with the shifts of a ring between the phases."""
        signature = signature_of(node)
        rule = rule_for(signature)
        sharding = sharding_of(node, self.mapping)
        index = attachments.get_set(node)
        phases = phase_seconds(self.pool, signature, sharding, self.mapping.sets[index].designs)
        computed: list[int] = []
        moves = list(pending)
        rings = sharding.ring.groups if sharding.ring else (sharding.members,)
        places = {rank: place for place, rank in enumerate(sharding.members)}
        for number, group in enumerate(rings):
            for phase in range(max((len(phases[places[rank]]) for rank in group), default=0)):
                for rank in group:
                    seconds = phases[places[rank]][phase]
                    if sharding.phases[places[rank]][phase] is not None:
                        self.events.append(Event.compute(rank, seconds, node.name or ""))
                        computed.append(len(self.events) - 1)
                if sharding.ring and phase + 1 < len(group):
                    moves += self.shift(node, sharding, number, phase)
        return LayerPrice(
            node.name or "",
            node.op_type,
            index,
            str(attachments.get_strategy(node)),
            _macs(rule, signature),
            rule.is_fallback,
            tuple(computed),
            tuple(moves),
        )

    def shift(self, node: ir.Node, sharding: Sharding, number: int, phase: int) -> list[int]:
        """The pieces of one ring move on by one."""
        ring = sharding.ring
        rotating = node.inputs[ring.operand] if ring else None
        kind = tensor_type(rotating)
        if ring is None or rotating is None or kind is None:
            return []
        return [
            self.communicate(
                str(collective.pattern),
                canonical_name(rotating),
                collective.group,
                self.interconnect.collective(collective, kind.dtype.bitwidth / 8),
            )
            for collective in ring_shift(ring.groups[number], ring.pieces[number], phase)
        ]


def _macs(rule: OpRule, signature: Signature) -> int:
    return int(rule.macs(rule.whole_ranges())) if any(is_tensor for is_tensor in signature.outputs) else 0
