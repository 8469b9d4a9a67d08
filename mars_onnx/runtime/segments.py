"""Cut a partition at its communication nodes.

Between two communications everything that can be computed is one segment: a stock ONNX model of its own. ONNX Runtime
is free to reorder nodes inside a session, so a kernel that waits for another rank inside one can deadlock; nodes
between sessions cannot.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from mars_onnx.comm import DOMAIN, Communication, communication_of, is_communication
from mars_onnx.errors import InvariantError
from mars_onnx.stages.canonical import captured_values

INLINE_BYTES = 1024
"""Initializers up to this size are written into the segment; larger ones are handed to the session by name."""

SHARED_BYTES = 256 * 1024
"""Weights from this size on can be fed as inputs, so that no session copies them."""


@dataclass(frozen=True, slots=True)
class CommunicationStep:
    """A communication node: which operator, and the names of its data input and output."""

    name: str
    operator: Communication
    x: str | None
    y: str | None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the values it reads."""
        return () if self.x is None else (self.x,)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the values it makes."""
        return () if self.y is None else (self.y,)


@dataclass(frozen=True, slots=True)
class Segment:
    """The nodes that are computed together, and the values that cross its border."""

    name: str
    nodes: tuple[ir.Node, ...]
    input_values: tuple[ir.Value, ...]
    output_values: tuple[ir.Value, ...]
    initializers: tuple[ir.Value, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the values it reads."""
        return tuple(_name(value) for value in self.input_values)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the values it makes."""
        return tuple(_name(value) for value in self.output_values)


Step = Segment | CommunicationStep


def communication_order(graph: ir.Graph) -> list[ir.Node]:
    """The communication nodes of a partition in the order of the token.

    Raises:
        InvariantError: There is not one chain of tokens through all of them, or one is hidden in a subgraph.
    """
    nodes = [node for node in graph if is_communication(node)]
    for node in graph.all_nodes():
        if is_communication(node) and node.graph is not graph:
            raise InvariantError(f"communication node {node.name} is inside the body of another node")
    by_token: dict[ir.Value | None, ir.Node] = {}
    for node in nodes:
        communication_of(node)
        token = node.inputs[-1]
        other = by_token.setdefault(token, node)
        if other is not node:
            raise InvariantError(f"{other.name} and {node.name} take the same token; the order between them is open")
    tokens = {node.outputs[-1] for node in nodes}
    starts = [node for node in nodes if node.inputs[-1] not in tokens]
    if len(starts) > 1:
        names = ", ".join(str(node.name) for node in starts)
        raise InvariantError(f"more than one token starts in this partition: at {names}")
    order = starts
    while order and order[-1].outputs[-1] in by_token:
        order.append(by_token[order[-1].outputs[-1]])
    if len(order) != len(nodes):
        raise InvariantError("the tokens of the communication nodes form a cycle")
    return order


def cut(model: ir.Model, keep: Collection[str] = ()) -> tuple[Step, ...]:
    """Segments and communications in the order in which to run them.

    Args:
        model: A partition.
        keep: Names of values that have to come out of their segments though nobody outside reads them.

    Raises:
        InvariantError: The file cannot be run in this way; the message names the node.
    """
    graph = model.graph
    order = communication_order(graph)
    position = {node: number for number, node in enumerate(order)}
    tokens = {node.outputs[-1] for node in order} | {node.inputs[-1] for node in order}
    level: dict[ir.Value, int] = {}
    constant: dict[ir.Value, ir.Node] = {}
    groups: list[list[ir.Node]] = [[] for _ in range(len(order) + 1)]
    for node in graph:
        if _is_constant(node):
            constant[node.outputs[0]] = node
            continue
        reads = [value for value in _reads(node) if value not in constant]
        ready = max((_level(level, value, node) for value in reads if value not in tokens), default=0)
        if node in position:
            if ready > position[node]:
                raise InvariantError(f"{node.name} reads a value that a later communication makes")
            ready = position[node] + 1
        else:
            for value in reads:
                if value in tokens:
                    raise InvariantError(f"{node.name} reads the token {value.name}, which only carries order")
            groups[ready].append(node)
        level.update(dict.fromkeys(node.outputs, ready))
    wanted = {value for value in graph.outputs if value not in tokens}
    wanted |= {value for value in level if value.name in keep}
    for node in order:
        wanted.update(value for value in node.inputs[:-1] if value is not None)
    return tuple(_steps(groups, order, wanted, constant))


@dataclass(frozen=True, slots=True)
class SegmentModel:
    """A segment as a model of its own.

    Attributes:
        proto: The model, without the data of large initializers.
        large: Initializers that the model names but does not contain.
        fed: Initializers that have become inputs of the model.
    """

    proto: onnx.ModelProto
    large: dict[str, ir.TensorProtocol]
    fed: dict[str, ir.TensorProtocol]


def segment_model(model: ir.Model, segment: Segment, feed_weights: bool = False) -> SegmentModel:
    """A segment as a model of its own.

    Args:
        model: The partition it was cut from.
        segment: Which segment.
        feed_weights: Make large floating-point initializers inputs. ONNX Runtime copies an initializer, even one that
            it is given in memory. It can be told to keep the caller's memory, but then it computes wrong numbers where
            an optimisation has changed the initializer in place (it transposes them, for one). An input is not copied
            and not changed.
    """
    proto = onnx.ModelProto(ir_version=model.ir_version, producer_name="mars_onnx")
    for domain, version in model.opset_imports.items():
        if domain != DOMAIN:
            proto.opset_import.add(domain=domain, version=version)
    graph = proto.graph
    graph.name = segment.name
    for node in segment.nodes:
        graph.node.append(_bare(ir.serde.serialize_node(node)))
    graph.input.extend(_value_info(value) for value in segment.input_values)
    graph.output.extend(_value_info(value) for value in segment.output_values)
    large: dict[str, ir.TensorProtocol] = {}
    fed: dict[str, ir.TensorProtocol] = {}
    for value in segment.initializers:
        tensor, name = value.const_value, _name(value)
        if tensor is None:
            raise InvariantError(f"initializer {name} has no data")
        if feed_weights and tensor.nbytes >= SHARED_BYTES and tensor.dtype in _FEEDABLE:
            fed[name] = tensor
            shape = list(tensor.shape.numpy())
            graph.input.append(onnx.helper.make_tensor_value_info(name, int(tensor.dtype), shape))
        else:
            graph.initializer.append(initializer_proto(name, tensor, large))
    for function in model.functions.values():
        if function.domain != DOMAIN:
            proto.functions.append(ir.serde.serialize_function(function))
    return SegmentModel(proto, large, fed)


_FEEDABLE = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})
"""No integers: kernels may want those as constants (indices, quantised weights)."""


def initializer_proto(name: str, tensor: ir.TensorProtocol, large: dict[str, ir.TensorProtocol]) -> onnx.TensorProto:
    """An initializer for a model in memory: with its data, or, if large, only announced (and added to ``large``)."""
    if tensor.nbytes <= INLINE_BYTES or tensor.dtype == ir.DataType.STRING or tensor.dtype.itemsize < 1:
        # A tensor in a file would be serialized as a reference to the file.
        loaded = ir.tensor(tensor.numpy(), dtype=tensor.dtype) if isinstance(tensor, ir.ExternalTensor) else tensor
        proto = ir.serde.serialize_tensor(loaded)
        proto.name = name
        return proto
    proto = onnx.TensorProto(name=name, data_type=int(tensor.dtype), dims=tuple(tensor.shape.numpy()))
    proto.data_location = onnx.TensorProto.EXTERNAL
    # The place is never opened: ONNX Runtime finds the name among the initializers it was given.
    for key, text in (("location", "given-in-memory"), ("offset", "0"), ("length", str(tensor.nbytes))):
        proto.external_data.add(key=key, value=text)
    large[name] = tensor
    return proto


def _steps(
    groups: list[list[ir.Node]], order: list[ir.Node], wanted: set[ir.Value], constant: dict[ir.Value, ir.Node]
) -> Iterator[Step]:
    read_later: list[set[ir.Value]] = [set() for _ in groups]
    for number in range(len(groups) - 1, 0, -1):
        read_later[number - 1] = read_later[number] | {v for node in groups[number] for v in _reads(node)}
    # A constant that somebody outside wants is made in the first segment; otherwise it goes to whoever reads it,
    # because a kernel or a shape inference may need to see that it is one.
    groups[0][:0] = [node for value, node in constant.items() if value in wanted]
    for number, nodes in enumerate(groups):
        segment = _segment(f"segment{number}", nodes, wanted | read_later[number], constant)
        # What a replica computes and nobody asks of it makes no outputs, and ONNX Runtime wants some.
        if segment.output_values:
            yield segment
        if number < len(order):
            node = order[number]
            operator = communication_of(node)
            x = _name(node.inputs[0]) if operator.takes_data and node.inputs[0] is not None else None
            y = _name(node.outputs[0]) if operator.gives_data else None
            yield CommunicationStep(str(node.name), operator, x, y)


def _segment(name: str, nodes: list[ir.Node], wanted: set[ir.Value], constant: dict[ir.Value, ir.Node]) -> Segment:
    made = {value for node in nodes for value in node.outputs}
    read = dict.fromkeys(value for node in nodes for value in _reads(node) if value not in made)
    copied = [constant[value] for value in read if value in constant]
    outside = [value for value in read if value not in constant]
    return Segment(
        name=name,
        nodes=(*copied, *nodes),
        input_values=tuple(value for value in outside if not value.is_initializer()),
        output_values=tuple(value for node in nodes for value in node.outputs if value in wanted and value.name),
        initializers=tuple(value for value in outside if value.is_initializer()),
    )


def _is_constant(node: ir.Node) -> bool:
    return node.op_type == "Constant" and node.domain in ("", "ai.onnx")


def _level(level: dict[ir.Value, int], value: ir.Value, node: ir.Node) -> int:
    if value in level:
        return level[value]
    if value.is_graph_input() or value.is_initializer():
        return 0
    raise InvariantError(f"{node.name} reads {value.name}, which no node before it makes")


def _reads(node: ir.Node) -> list[ir.Value]:
    """The outer values a node reads, also inside its bodies, each once."""
    found = dict.fromkeys((*node.inputs, *captured_values(node)))
    return [value for value in found if value is not None]


def _bare(proto: onnx.NodeProto) -> onnx.NodeProto:
    for field in ("metadata_props", "doc_string", "device_configurations"):
        proto.ClearField(field)
    return proto


def _value_info(value: ir.Value) -> onnx.ValueInfoProto:
    if value.type is None:
        raise InvariantError(f"the element type of {value.name} is not known; it passes between segments")
    proto = ir.serde.serialize_value(value)
    proto.ClearField("metadata_props")
    return proto


def _name(value: ir.Value | None) -> str:
    if value is None or not value.name:
        raise InvariantError("a value without a name passes between segments")
    return value.name
