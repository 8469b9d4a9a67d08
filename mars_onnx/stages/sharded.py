"""The sharded stage: what a node's strategy means on its set, and the invariants of a graph with layouts.

Invariants, checked by :func:`verify_sharded`:

- every node of the main graph has a set and a strategy, and the strategy can be applied to it;
- every tensor that is no initializer has a layout, and what a node gives is there completely, in each of its parts
  (after a Redistribute there need not be more than somebody needs);
- every node finds on each member what that member needs of its inputs, whole, not as partial sums (only a
  Redistribute resolves those);
- the layouts of a node's outputs are the ones that its strategy gives;
- a graph output is not partial.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from mars_onnx.comm.domain import DOMAIN
from mars_onnx.errors import InputError
from mars_onnx.geometry import Layout, box_text, contains
from mars_onnx.pool.document import unknown
from mars_onnx.rules.base import TensorType
from mars_onnx.rules.signature import is_present, signature_of, tensor_type
from mars_onnx.sharding.entries import entry_layout
from mars_onnx.sharding.lowering import Sharding, lower
from mars_onnx.sharding.mapping import Mapping as AcceleratorMapping
from mars_onnx.sharding.strategy import Strategy
from mars_onnx.stages import attachments
from mars_onnx.stages.canonical import captured_values, subgraphs

REDISTRIBUTE = "Redistribute"


def is_redistribute(node: ir.Node) -> bool:
    """Whether a node moves a tensor from one layout to another."""
    return node.domain == DOMAIN and node.op_type == REDISTRIBUTE


def origin_of(value: ir.Value) -> ir.Value:
    """The tensor of the canonical graph that a value is a redistribution of."""
    producer = value.producer()
    while producer is not None and is_redistribute(producer) and producer.inputs[0] is not None:
        value = producer.inputs[0]
        producer = value.producer()
    return value


def canonical_name(value: ir.Value) -> str:
    """Name that the tensor of a value has in the canonical graph."""
    origin = origin_of(value)
    return origin.metadata_props.get(attachments.SOURCE) or origin.name or ""


def sharding_of(node: ir.Node, mapping: AcceleratorMapping) -> Sharding:
    """What the strategy attached to a node means on its set.

    Raises:
        InputError: The strategy cannot be applied; the message names the layer.
    """
    members = mapping.sets[attachments.get_set(node)].members
    try:
        return lower(signature_of(node), attachments.get_strategy(node), members)
    except InputError as error:
        raise InputError(f"layer {node.name!r}: {error}") from error


def entry_problems(model: ir.Model, mapping: AcceleratorMapping) -> list[str]:
    """What is wrong with the entries of a mapping for a canonical graph; empty if nothing is.

    Every message begins with the place of the entry in a mapping file.
    """
    made = {value.name or "": node for node in model.graph for value in node.outputs if is_present(value)}
    inputs = {value.name or "": value for value in model.graph.inputs}
    where = {choice.name: choice.set_index for choice in mapping.layers}
    takers = {
        (value.name or "", where[node.name or ""])
        for node in model.graph
        for value in (*node.inputs, *captured_inputs(node))
        if value is not None
    }
    found: list[str] = []
    seen: set[tuple[str, int]] = set()
    for entry in mapping.entries:
        problem: str | None = None
        producer = made.get(entry.tensor)
        if (entry.tensor, entry.set_index) in seen:
            problem = "the tensor enters the set twice"
        elif entry.tensor not in inputs and producer is None:
            problem = unknown("tensor", entry.tensor, (*inputs, *made))
        elif (entry.tensor, entry.set_index) not in takers:
            problem = "no layer of the set takes the tensor"
        else:
            outputs = producer.outputs if producer is not None else ()
            values = (*inputs.values(), *outputs)
            kind = tensor_type(next(value for value in values if value.name == entry.tensor))
            members = mapping.sets[entry.set_index].members
            problem = "the tensor has no static shape" if kind is None else _inapplicable(kind, entry.strategy, members)
        seen.add((entry.tensor, entry.set_index))
        if problem:
            found.append(f"sets[{entry.set_index}].enters.{entry.tensor}: {problem}")
    return found


def _inapplicable(kind: TensorType, strategy: Strategy, members: tuple[int, ...]) -> str | None:
    try:
        entry_layout(kind, strategy, members)
    except InputError as error:
        return str(error)
    return None


def needed_inputs(node: ir.Node, sharding: Sharding) -> Iterator[tuple[int | None, ir.Value, Layout]]:
    """The tensors that a node takes from the graph, with the boxes that its members need before it starts.

    Yields:
        Index of the input (one tensor may be two inputs with different needs), tensor, needed boxes. The index is
        ``None`` for what a subgraph captures from outside; that is needed whole, wherever the node runs.
    """
    for index, (value, need) in enumerate(zip(node.inputs, sharding.needs, strict=False)):
        if value is not None and need is not None and not value.is_initializer():
            yield index, value, need
    for value in captured_inputs(node):
        kind = tensor_type(value)
        if kind is not None and not value.is_initializer():
            whole = Layout.replicated(kind.shape, sharding.members)
            idle = tuple(
                None if share is None else box for share, box in zip(sharding.shares, whole.boxes, strict=True)
            )
            yield None, value, Layout(kind.shape, sharding.members, idle)


def replace_captured(node: ir.Node, replacements: Mapping[ir.Value, ir.Value]) -> None:
    """Use other values of the surrounding graph in the bodies that a node holds."""
    for body in subgraphs(node):
        for inner in ir.traversal.RecursiveGraphIterator(body):
            for index, value in enumerate(inner.inputs):
                if value is not None and value in replacements:
                    inner.replace_input_with(index, replacements[value])
        for index, value in enumerate(body.outputs):
            if value in replacements:
                body.outputs[index] = replacements[value]


def captured_inputs(node: ir.Node) -> tuple[ir.Value, ...]:
    """Values of the graph around a node that its subgraphs use, each once, in order of first use."""
    return tuple(dict.fromkeys(value for value in captured_values(node) if is_present(value)))


def satisfied(held: Layout, need: Layout) -> bool:
    """Whether every member already holds, whole, what it needs."""
    if held.partial:
        return all(box is None for box in need.boxes)
    boxes = dict(zip(held.members, held.boxes, strict=True))
    return all(contains(boxes.get(rank), box) for rank, box in zip(need.members, need.boxes, strict=True))


def verify_sharded(model: ir.Model) -> list[str]:
    """Everything that breaks an invariant of the sharded stage; empty if all hold."""
    mapping = attachments.get_mapping(model)
    found: list[str] = []
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    for value in values:
        if tensor_type(value) is None or not is_present(value):
            continue
        if not attachments.has_layout(value):
            found.append(f"value {value.name!r} has no layout")
        elif (producer := value.producer()) is not None and not is_redistribute(producer):
            found += [f"value {value.name!r}: {problem}" for problem in attachments.get_layout(value).problems()]
    if found:
        return found
    for node in model.graph:
        if is_redistribute(node):
            continue
        sharding = sharding_of(node, mapping)
        for _, value, need in needed_inputs(node, sharding):
            held = attachments.get_layout(value)
            if not satisfied(held, need):
                found.append(
                    f"node {node.name!r} needs {value.name!r} as {need.to_text()}, but it is there as {held.to_text()}"
                )
        for value, layout in zip(node.outputs, sharding.produced, strict=True):
            if layout is not None and attachments.get_layout(value) != layout:
                found.append(f"node {node.name!r} leaves {value.name!r} in another layout than the one attached to it")
    found += [
        f"graph output {value.name!r} is partial"
        for value in model.graph.outputs
        if tensor_type(value) is not None and attachments.get_layout(value).partial
    ]
    return found


def without_redistribution(model: ir.Model) -> ir.Model:
    """A copy of a sharded model as it was when it was mapped: no Redistribute, no layouts, all values named as then."""
    mapped = model.clone()
    attachments.set_pool(mapped, attachments.get_pool(model))
    attachments.set_stage(mapped, "mapped")
    for node in [node for node in mapped.graph if is_redistribute(node)]:
        source = node.inputs[0]
        if source is not None:
            node.outputs[0].replace_all_uses_with(source, replace_graph_outputs=True)
        mapped.graph.remove(node, safe=True)
    for value in (*mapped.graph.inputs, *(value for node in mapped.graph for value in node.outputs)):
        value.metadata_props.pop(attachments.LAYOUT, None)
        value.name = value.metadata_props.pop(attachments.SOURCE, value.name)
    for identifier in [own for own in mapped.functions if own[0] == DOMAIN]:
        del mapped.functions[identifier]
    mapped.graph.opset_imports.pop(DOMAIN, None)
    return mapped


def describe(layout: Layout) -> str:
    """A layout for a person: the box of each member."""
    return ", ".join(f"{rank}: {box_text(box)}" for rank, box in zip(layout.members, layout.boxes, strict=True))
