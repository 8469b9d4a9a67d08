"""Nodes that are computed whole: copied as they are, subgraphs and all, on whole inputs."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from mars_onnx.emission.partition import PartitionBuilder
from mars_onnx.geometry import whole_box
from mars_onnx.rules.signature import is_present, tensor_type
from mars_onnx.stages.sharded import captured_inputs, replace_captured


def copy_node(builder: PartitionBuilder, node: ir.Node) -> Sequence[ir.Value]:
    """Append a copy of a node that takes whole local tensors, and return its outputs."""
    outputs = [ir.Value(name=value.name, shape=value.shape, type=value.type) for value in node.outputs]
    copy = ir.Node(
        node.domain,
        node.op_type,
        [None if value is None else local_value(builder, value) for value in node.inputs],
        [_copy_attribute(attribute) for attribute in node.attributes.values()],
        overload=node.overload,
        outputs=outputs,
        name=node.name,
        version=node.version,
    )
    captured = {value: local_value(builder, value) for value in captured_inputs(node)}
    if captured:
        replace_captured(copy, captured)
    for attribute in copy.attributes.values():
        if attribute.type is ir.AttributeType.GRAPH:
            _rename(builder, attribute.as_graph())
    builder.append(copy)
    for value, local in zip(node.outputs, outputs, strict=True):
        if is_present(value) and tensor_type(value) is None:
            local.name = builder.unique(value.name or "")
            builder.opaque[value] = local
    return outputs


def local_value(builder: PartitionBuilder, value: ir.Value) -> ir.Value:
    """The whole of a global value here. What has no static tensor shape is never cut or sent: it is there as it is."""
    if not is_present(value):
        return ir.Value(name="")
    kind = tensor_type(value)
    if kind is None:
        return builder.opaque[value]
    return builder.fetch(value, whole_box(kind.shape))


def _copy_attribute(attribute: ir.Attr) -> ir.Attr:
    if attribute.type is ir.AttributeType.GRAPH:
        return ir.AttrGraph(attribute.name, attribute.as_graph().clone(allow_outer_scope_values=True))
    if attribute.type is ir.AttributeType.GRAPHS:
        copies = [graph.clone(allow_outer_scope_values=True) for graph in attribute.as_graphs()]
        return ir.AttrGraphs(attribute.name, copies)
    return attribute


def _rename(builder: PartitionBuilder, body: ir.Graph) -> None:
    """Names inside a body must not hide names around it."""
    for value in (*body.inputs, *body.initializers.values()):
        value.name = builder.unique(value.name or "value")
    for node in ir.traversal.RecursiveGraphIterator(body):
        for value in node.outputs:
            if is_present(value):
                value.name = builder.unique(value.name or "value")
