"""The price of a mapping: every node and every collective of a sharded graph, in lockstep.

The steps are those of ``mars_onnx.cost.steps``: a layer, a redistribution, a transfer of a model input or output. A
step occupies all members of the sets that take part in it from its start to its end, so on one set seconds add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from mars_onnx.cost.steps import (
    Part,
    input_boxes,
    input_seconds,
    layer_parts,
    move_parts,
    output_boxes,
    output_seconds,
)
from mars_onnx.cost.timeline import Event, Step, Timeline, schedule_steps
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.base import OpRule, Signature
from mars_onnx.rules.registry import rule_for
from mars_onnx.rules.signature import signature_of, tensor_type
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
        steps: In the same order: model inputs, then the nodes of the sharded graph, then model outputs.
        layers: In topological order.
        communication: In the global order.
    """

    timeline: Timeline
    steps: tuple[Step, ...]
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
        self.events = 0
        self.steps: list[Step] = []
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
        timeline = schedule_steps(self.steps, self.pool.size)
        return Price(timeline, tuple(self.steps), tuple(self.layers), tuple(self.communication))

    def step(self, label: str, parts: Sequence[Part]) -> tuple[list[int], list[int]]:
        """Note a step, and return the indices of what computes in it and of what communicates.

        All members of every set that takes part are in it, also those that have nothing to do.
        """
        busy = {rank for part in parts for rank in part.event.ranks}
        ranks = tuple(rank for own in self.mapping.sets if busy.intersection(own.members) for rank in own.members)
        computed: list[int] = []
        moved: list[int] = []
        for index, part in enumerate(parts, self.events):
            (moved if part.event.communication else computed).append(index)
            if part.collective is not None:
                entry = CommunicationPrice(str(part.collective.pattern), part.event.label, part.event.ranks, index)
                self.communication.append(entry)
        self.steps.append(Step(ranks, tuple(part.event for part in parts), label))
        self.events += len(parts)
        return computed, moved

    def transfer(self, value: ir.Value, *, entering: bool) -> None:
        """Boxes of a model input from where inputs start, or of an output to where outputs end, all at once."""
        kind = tensor_type(value)
        if kind is None:
            return
        layout = attachments.get_layout(value)
        boxes = input_boxes(layout) if entering else output_boxes(layout)
        seconds = (input_seconds if entering else output_seconds)(self.pool, layout, kind.dtype.bitwidth)
        name = value.name or ""
        self.step(name, [Part(Event.collective(tuple(boxes), seconds, name))] if boxes else [])

    def redistribution(self, node: ir.Node) -> list[int]:
        """The collectives of a redistribution."""
        value, moved = node.inputs[0], node.outputs[0]
        kind = tensor_type(moved)
        if value is None or kind is None:
            return []
        source, target = attachments.get_layout(value), attachments.get_layout(moved)
        parts = move_parts(self.pool, source, target, kind.dtype.bitwidth, canonical_name(value))
        return self.step(node.name or "", list(parts))[1]

    def layer(self, node: ir.Node, pending: list[int]) -> LayerPrice:
        """Compute of every member, phase by phase, with the shifts of a ring between the phases."""
        signature = signature_of(node)
        rule = rule_for(signature)
        sharding = sharding_of(node, self.mapping)
        index = attachments.get_set(node)
        rotating = node.inputs[sharding.ring.operand] if sharding.ring else None
        moved = "" if rotating is None else canonical_name(rotating)
        name = node.name or ""
        parts = layer_parts(self.pool, signature, sharding, self.mapping.sets[index].designs, name, moved)
        computed, shifts = self.step(name, list(parts))
        return LayerPrice(
            name,
            node.op_type,
            index,
            str(attachments.get_strategy(node)),
            _macs(rule, signature),
            rule.is_fallback,
            tuple(computed),
            (*pending, *shifts),
        )


def _macs(rule: OpRule, signature: Signature) -> int:
    return int(rule.macs(rule.whole_ranges())) if any(is_tensor for is_tensor in signature.outputs) else 0
