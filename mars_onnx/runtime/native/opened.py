"""A partition whose communications have been taken out, as one stock model that ONNX Runtime can optimise as a whole.

What a communication gives becomes an input, what it takes becomes an output. So fusions reach across the places where
the graph will be cut, which a segment alone does not allow: a residual that comes from three segments ago is still
fused into the convolution that it is added to.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from mars_onnx.comm import (
    DOMAIN,
    TOKEN_NAME,
    AllReduce,
    Communication,
    ReduceScatter,
    communication_of,
    is_communication,
    static_shape,
)
from mars_onnx.errors import InvariantError
from mars_onnx.geometry import Reduction
from mars_onnx.runtime.native.trimming import Repeat, untrimmed
from mars_onnx.runtime.segments import communication_order, initializer_proto
from mars_onnx.stages.canonical import captured_values

_PREFIX = "mars.open"
_IN_GRAPH_MEMBERS = 4
"""Up to so many partial tensors are added up by every member for itself; more would be read too often."""


@dataclass(frozen=True, slots=True)
class Opening:
    """An input of the opened model, through which a communication gives what it has brought.

    Attributes:
        name: Of the input.
        marker: The value that the graph reads: the input through a node that only marks it, or the input itself.
    """

    name: str
    marker: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """A communication of the partition.

    Attributes:
        name: Of its node.
        operator: What it does.
        x: Name of what it takes, in the partition.
        y: Name of what it gives.
        openings: One for y; several for a reduction that the graph does itself: what each member gives, in the order of
            the group. None if no node reads y.
        in_graph: Whether the graph reduces.
    """

    name: str
    operator: Communication
    x: str | None
    y: str | None
    openings: tuple[Opening, ...]
    in_graph: bool = False


@dataclass(frozen=True, slots=True)
class OpenedPartition:
    """The model, the data of its large initializers by name, and its communications in the order of the token."""

    proto: onnx.ModelProto
    large: dict[str, ir.TensorProtocol]
    exchanges: tuple[Exchange, ...]


def open_partition(
    model: ir.Model, block: int, in_graph: Collection[int] = (), repeated: Collection[Repeat] = ()
) -> OpenedPartition:
    """Take the communications out.

    Args:
        model: The partition.
        block: Channels in a block of the blocked layout; 1 if there is none.
        in_graph: Tags of reductions that may be computed from what all members give.
        repeated: Communications to leave out, because others have brought the same.

    Raises:
        InvariantError: The communications are not in one order; see :func:`communication_order`.
    """
    graph = model.graph
    every = communication_order(graph)
    nodes = {communication_of(node).tag: node for node in every}
    left_out = {repeat.tag for repeat in repeated}
    order = [node for tag, node in nodes.items() if tag not in left_out]
    wholes = {nodes[one.tag].outputs[0]: (nodes[one.before].outputs[0], one.box) for one in repeated}
    inside = [node for node in graph if node.domain != DOMAIN]
    computed = {value for node in inside for value in node.outputs if value.name}
    computed |= {node.outputs[0] for node in order if _reduces_in_graph(communication_of(node), node, in_graph)}
    proto = onnx.ModelProto(ir_version=model.ir_version, producer_name="mars_onnx")
    for domain, version in model.opset_imports.items():
        if domain != DOMAIN:
            proto.opset_import.add(domain=domain, version=version)
    proto.graph.name = str(graph.name or "partition")
    tokens = {value for node in every for value in (node.inputs[-1], node.outputs[-1])}
    proto.graph.input.extend(
        _info(value) for value in graph.inputs if value not in tokens and not value.is_initializer()
    )
    kept = {whole for whole, _ in wholes.values()}
    exchanges = tuple(_open(node, proto.graph, block, in_graph, node.outputs[0] in kept) for node in order)
    for part, (whole, box) in wholes.items():
        _add_slice(proto.graph, part, whole, box)
    for node in inside:
        written = _bare(ir.serde.serialize_node(node))
        roomier = untrimmed(node, wholes)
        if roomier is not None:
            written.input[0] = str(roomier.name)
        proto.graph.node.append(written)
    wanted = [value for value in graph.outputs if value.name != TOKEN_NAME and value in computed]
    wanted += [node.inputs[0] for node in order if node.inputs[0] in computed]
    proto.graph.output.extend(_info(value) for value in dict.fromkeys(wanted))
    _add_reductions(proto.graph, exchanges, {str(value.name) for value in wanted})
    large: dict[str, ir.TensorProtocol] = {}
    read = {value for node in inside for value in (*node.inputs, *captured_values(node))}
    for name, value in graph.initializers.items():
        if value not in read:
            continue
        if value.const_value is None:
            raise InvariantError(f"initializer {name} has no data")
        proto.graph.initializer.append(initializer_proto(name, value.const_value, large))
    for function in model.functions.values():
        if function.domain != DOMAIN:
            proto.functions.append(ir.serde.serialize_function(function))
    return OpenedPartition(proto, large, exchanges)


def _open(node: ir.Node, graph: onnx.GraphProto, block: int, in_graph: Collection[int], kept: bool) -> Exchange:
    operator = communication_of(node)
    x = node.inputs[0].name if operator.takes_data and node.inputs[0] is not None else None
    if not operator.gives_data:
        return Exchange(str(node.name), operator, x, None, ())
    y = node.outputs[0]
    reduces = _reduces_in_graph(operator, node, in_graph)
    read = kept or any(reduces or not is_communication(user) for user, _ in y.uses())
    if not read and not (reduces and y.is_graph_output()):
        return Exchange(str(node.name), operator, x, y.name, ())
    openings = []
    for number in range(len(operator.ranks(0)) if reduces else 1):
        name = f"{_PREFIX}.{operator.tag}.{number}"
        marked = f"{name}.marked" if reduces else str(y.name)
        if _is_markable(y, block):
            # ONNX Runtime carries its blocked layout from node to node, and this node can be in it.
            marker = onnx.helper.make_node("MaxPool", [name], [marked], name=f"{name}.marker", kernel_shape=[1, 1])
            graph.node.append(marker)
            openings.append(Opening(name, marked))
        else:
            name = name if reduces else str(y.name)
            openings.append(Opening(name, name))
        graph.input.append(_info(y, openings[-1].name))
    return Exchange(str(node.name), operator, x, y.name, tuple(openings), reduces)


def _add_slice(graph: onnx.GraphProto, part: ir.Value, whole: ir.Value, box: tuple[tuple[int, int], ...]) -> None:
    """Cut ``part`` out of ``whole``."""
    names = []
    columns = ([start for start, _ in box], [stop for _, stop in box])
    for kind, numbers in zip(("starts", "stops"), columns, strict=True):
        names.append(f"{_PREFIX}.{part.name}.{kind}")
        graph.initializer.append(onnx.helper.make_tensor(names[-1], onnx.TensorProto.INT64, [len(box)], numbers))
    graph.node.append(
        onnx.helper.make_node("Slice", [str(whole.name), *names], [str(part.name)], name=f"{names[0]}.cut")
    )


def _add_reductions(graph: onnx.GraphProto, exchanges: tuple[Exchange, ...], outputs: set[str]) -> None:
    """Nodes that add up what all members give, one after the other in the order of the group; first in the graph."""
    nodes: list[onnx.NodeProto] = []
    for exchange in exchanges:
        if not exchange.in_graph or not exchange.openings:
            continue
        total = exchange.openings[0].marker
        for number, opening in enumerate(exchange.openings[1:], start=1):
            last = number == len(exchange.openings) - 1
            result = str(exchange.y) if last else f"{_PREFIX}.{exchange.operator.tag}.sum{number}"
            nodes.append(onnx.helper.make_node("Add", [total, opening.marker], [result], name=f"{result}.reduce"))
            total = result
    markers = [node for node in graph.node if node.name.startswith(f"{_PREFIX}.") and node.name.endswith(".marker")]
    rest = [node for node in graph.node if node not in markers]
    del graph.node[:]
    graph.node.extend([*markers, *nodes, *rest])


def _reduces_in_graph(operator: Communication, node: ir.Node, in_graph: Collection[int]) -> bool:
    """Sums of floats of 32 bits and more: smaller ones are added up in a wider type, which the runtime does."""
    if not isinstance(operator, AllReduce | ReduceScatter) or operator.tag not in in_graph:
        return False
    return (
        operator.reduce_op is Reduction.SUM
        and node.outputs[0].dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE)
        and 2 <= len(operator.group) <= _IN_GRAPH_MEMBERS
    )


def _is_markable(value: ir.Value, block: int) -> bool:
    shape = static_shape(value)
    return (
        block > 1
        and value.dtype == ir.DataType.FLOAT
        and shape is not None
        and len(shape) == 4
        and shape[1] % block == 0
        and 0 not in shape
    )


def _info(value: ir.Value, name: str | None = None) -> onnx.ValueInfoProto:
    if value.type is None or static_shape(value) is None:
        raise InvariantError(f"{value.name} has no static shape and element type")
    proto = ir.serde.serialize_value(value)
    proto.ClearField("metadata_props")
    if name is not None:
        proto.name = name
    return proto


def _bare(proto: onnx.NodeProto) -> onnx.NodeProto:
    for field in ("metadata_props", "doc_string", "device_configurations"):
        proto.ClearField(field)
    return proto
