"""insert-sharding: a layout for every tensor, and a Redistribute where a layer needs another one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import onnx_ir as ir

from mars_onnx.comm.domain import DOMAIN, VERSION
from mars_onnx.comm.functions import functions_for
from mars_onnx.errors import InputError
from mars_onnx.geometry import Layout, hull
from mars_onnx.redistribution.planner import redistribute
from mars_onnx.rules.signature import tensor_type
from mars_onnx.sharding.entries import entry_layout
from mars_onnx.sharding.lowering import Sharding
from mars_onnx.sharding.strategy import Strategy
from mars_onnx.stages import attachments
from mars_onnx.stages.sharded import (
    REDISTRIBUTE,
    captured_inputs,
    entry_problems,
    needed_inputs,
    replace_captured,
    satisfied,
    sharding_of,
)


@dataclass(frozen=True)
class InsertSharding(ir.passes.InPlacePass):
    """Give every tensor a layout and put a Redistribute where a layer needs another one.

    Contract: takes a canonical graph with a mapping (select-accelerators). Leaves the graph in global shapes, with a
    layout on every tensor; each Redistribute is the identity there, so the graph computes what it did before.

    Before::

        y = Conv (x, w)          # ES(H=2)
        z = Conv (y, v)          # ES(H=2), 3x3: needs a row from the neighbour

    After::

        y = Conv (x, w)
        y_halo = org.mars_onnx.comm.Redistribute <kind = "halo-exchange"> (y)
        z = Conv (y_halo, v)
    """

    stage: ClassVar[str] = "sharded"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        _Inserter(model).run()
        attachments.set_stage(model, self.stage)
        return ir.passes.PassResult(model, modified=True)


@dataclass
class _Inserter:
    model: ir.Model
    #: The value that stands for an original one after its partial sums are resolved.
    current: dict[ir.Value, ir.Value] = field(default_factory=dict)
    #: Redistributed versions, so that two layers with the same need share one.
    versions: dict[tuple[ir.Value, Layout], ir.Value] = field(default_factory=dict)
    #: How tensors enter sets, and the versions that have entered.
    entries: dict[tuple[str, int], Strategy] = field(default_factory=dict)
    entered: dict[tuple[ir.Value, int], ir.Value] = field(default_factory=dict)
    input_needs: dict[ir.Value, list[Layout]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def run(self) -> None:
        mapping = attachments.get_mapping(self.model)
        problems = entry_problems(self.model, mapping)
        if problems:
            raise InputError("\n".join(f"the mapping: {problem}" for problem in problems))
        self.entries = {(entry.tensor, entry.set_index): entry.strategy for entry in mapping.entries}
        for node in list(self.model.graph):
            sharding = sharding_of(node, mapping)
            self.check_opaque_inputs(node, sharding)
            for index, value, need in list(needed_inputs(node, sharding)):
                provided = self.provide(value, need, node)
                if index is not None:
                    node.replace_input_with(index, provided)
                elif provided is not value:
                    replace_captured(node, {value: provided})
            for value, produced, resolved in zip(node.outputs, sharding.produced, sharding.resolved, strict=True):
                if produced is None or resolved is None:
                    continue
                attachments.set_layout(value, produced)
                if resolved != produced:
                    self.current[value] = self.move(value, resolved, after=node)
        for value in self.model.graph.inputs:
            self.place_input(value)
        for index, value in enumerate(self.model.graph.outputs):
            self.place_output(index, value)
        used = any(node.domain == DOMAIN for node in self.model.graph)
        if used:
            self.model.graph.opset_imports[DOMAIN] = VERSION
            opset = self.model.graph.opset_imports[""]
            for function in functions_for(opset, [REDISTRIBUTE]):
                self.model.functions[function.identifier()] = function

    def provide(self, value: ir.Value, need: Layout, node: ir.Node) -> ir.Value:
        """The version of a value that holds, on each member, what it needs."""
        if value.is_graph_input() and not self.enters(value, node):
            self.input_needs.setdefault(value, []).append(need)
            return value
        source = self.enter(value, node)
        if satisfied(attachments.get_layout(source), need):
            return source
        key = (source, need)
        if key not in self.versions:
            self.versions[key] = self.move(source, need, before=node)
        return self.versions[key]

    def enters(self, value: ir.Value, node: ir.Node) -> bool:
        """Whether the mapping says in which layout a tensor comes to the set of a layer."""
        return (value.name or "", attachments.get_set(node)) in self.entries

    def enter(self, value: ir.Value, node: ir.Node) -> ir.Value:
        """The value from which a layer is served: as it was made, or as it entered the set of the layer."""
        source = self.current.get(value, value)
        index = attachments.get_set(node)
        strategy = self.entries.get((value.name or "", index))
        kind = tensor_type(value)
        if strategy is None or kind is None:
            return source
        if (value, index) not in self.entered:
            members = attachments.get_mapping(self.model).sets[index].members
            layout = entry_layout(kind, strategy, members)
            self.entered[value, index] = (
                self.land(value, layout, before=node)
                if value.is_graph_input()
                else source
                if attachments.get_layout(source) == layout
                else self.move(source, layout, before=node)
            )
        return self.entered[value, index]

    def land(self, value: ir.Value, layout: Layout, before: ir.Node) -> ir.Value:
        """A model input comes to a set in a stated layout: a version of its own, from which layers there take it."""
        self.input_needs.setdefault(value, []).append(layout)
        landed = ir.Value(name=self.unique(f"{value.name}.entered"), shape=value.shape, type=value.type)
        node = ir.Node(
            DOMAIN, REDISTRIBUTE, [value], [ir.AttrString("kind", "local")], outputs=[landed], name=f"to_{landed.name}"
        )
        self.model.graph.insert_before(before, node)
        attachments.set_layout(landed, layout)
        return landed

    def move(
        self, value: ir.Value, target: Layout, *, before: ir.Node | None = None, after: ir.Node | None = None
    ) -> ir.Value:
        """Insert a Redistribute of a value to the layout ``target``, by default at the end of the graph."""
        pool = attachments.get_pool(self.model)
        plan = redistribute(attachments.get_layout(value), target, pool.distance)
        moved = ir.Value(name=self.unique(f"{value.name}.{plan.kind}"), shape=value.shape, type=value.type)
        node = ir.Node(
            DOMAIN, REDISTRIBUTE, [value], [ir.AttrString("kind", plan.kind)], outputs=[moved], name=f"to_{moved.name}"
        )
        if before is not None:
            self.model.graph.insert_before(before, node)
        elif after is not None:
            self.model.graph.insert_after(after, node)
        else:
            self.model.graph.append(node)
        attachments.set_layout(moved, target)
        return moved

    def unique(self, name: str) -> str:
        """``name``, with a number behind it if a value of the graph has it."""
        if not self.names:
            values = (*self.model.graph.inputs, *self.model.graph.initializers.values())
            self.names.update(value.name or "" for value in values)
            nodes = ir.traversal.RecursiveGraphIterator(self.model.graph)
            self.names.update(value.name or "" for node in nodes for value in node.outputs)
        found, number = name, 1
        while found in self.names:
            found, number = f"{name}.{number}", number + 1
        self.names.add(found)
        return found

    def place_input(self, value: ir.Value) -> None:
        """A model input goes straight to whoever needs it: per member the smallest box around all its needs."""
        kind = tensor_type(value)
        if kind is None:
            return
        needs = self.input_needs.get(value, [])
        ranks = tuple(sorted({rank for need in needs for rank in need.members}))
        boxes = tuple(hull(need.box_of(rank) for need in needs) for rank in ranks)
        attachments.set_layout(value, Layout(kind.shape, ranks, boxes))

    def place_output(self, index: int, value: ir.Value) -> None:
        """A model output leaves as values, not as partial sums, and under its own name."""
        if tensor_type(value) is None:
            text = isinstance(value.type, ir.TensorType) and value.dtype == ir.DataType.STRING
            lack = "is text" if text else f"has no static shape ({value.type} {value.shape})"
            raise InputError(
                f"the model output {value.name!r} {lack}, so that no accelerator can give a box of it; remove it from "
                "the outputs, or compute it after the partitions"
            )
        final = self.current.get(value, value)
        layout = attachments.get_layout(final)
        if layout.partial:
            final = self.move(final, Layout(layout.shape, layout.members, layout.boxes))
        if final is not value:
            name, value.name = value.name, self.unique(f"{value.name}.partial")
            value.metadata_props[attachments.SOURCE] = name or ""
            final.name = name
            self.model.graph.outputs[index] = final

    def check_opaque_inputs(self, node: ir.Node, sharding: Sharding) -> None:
        """A value without static shape, or that is no tensor, cannot travel: who needs it must have computed it."""
        mapping = attachments.get_mapping(self.model)
        for value in (*node.inputs, *captured_inputs(node)):
            producer = value.producer() if value is not None else None
            if value is None or tensor_type(value) is not None or producer is None:
                continue
            if not _busy(sharding) <= _busy(sharding_of(producer, mapping)):
                raise InputError(
                    f"layer {node.name!r} takes {value.name!r}, which has no static tensor shape and so cannot be sent "
                    f"from the accelerators of {producer.name!r}; map both layers to the same set, both as 'whole'"
                )


def _busy(sharding: Sharding) -> set[int]:
    """The ranks that have a share."""
    return {rank for rank, share in zip(sharding.members, sharding.shares, strict=True) if share is not None}
