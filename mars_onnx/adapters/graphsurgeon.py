"""To onnx-graphsurgeon and back, for surgery on a model or a partition.

graphsurgeon alone loses metadata, device annotations, overloads and doc strings, and wants every weight in memory.
Here weights stay where they are until somebody touches ``constant.values``, and ``from_graphsurgeon`` takes what
graphsurgeon cannot hold from the model that the graph came from: by name, for every node (of the same operator) and
value that still exists.

Do not call ``Graph.fold_constants``: graphsurgeon 0.6.1 folds Shape with ``start`` and ``end`` to the whole shape.
``canonicalize`` folds correctly.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir

from mars_onnx.errors import InputError
from mars_onnx.skeleton import is_stub, skeleton

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs


def to_graphsurgeon(model: ir.Model) -> "gs.Graph":
    """Return ``model`` as a graphsurgeon graph; weights are read when their ``values`` are."""
    import onnx_graphsurgeon as gs

    lazy_values = _lazy_values_class()
    proto = skeleton(model)
    graph = gs.import_onnx(proto)
    tensors = {name: value.const_value for each in model.graphs() for name, value in each.initializers.items()}
    stubs = {tensor.name: tensor for each in _graphs(proto.graph) for tensor in each.initializer if is_stub(tensor)}
    for constant in _constants(graph):
        if constant.name in stubs:
            constant.values = lazy_values(stubs[constant.name], tensors[constant.name])
            # Else a constant whose values were read would still claim to lie in a file.
            constant.data_location = None
    return graph


def from_graphsurgeon(graph: "gs.Graph", like: ir.Model | None = None) -> ir.Model:
    """Return a graphsurgeon graph as a model, its nodes in topological order.

    Args:
        graph: From ``to_graphsurgeon`` or made otherwise.
        like: The model that it came from: source of what graphsurgeon cannot hold.

    Raises:
        InputError: The graph is not a model: an output without a type, a cycle.
    """
    import onnx_graphsurgeon as gs

    lazy_values = _lazy_values_class()
    unread = {each.name: each._values.source for each in _constants(graph) if isinstance(each._values, lazy_values)}
    try:
        proto = gs.export_onnx(graph)
        _remove_shadows(proto.graph, frozenset())
        if like is not None:
            original = skeleton(like)
            exported_original = gs.export_onnx(gs.import_onnx(skeleton(like)))
            _restore_model(proto, original)
            _restore_functions(proto, original, exported_original)
        model: ir.Model = ir.from_proto(proto)
    except Exception as error:  # graphsurgeon raises its own, the protobuf helpers several others
        raise InputError(f"the graphsurgeon graph {graph.name!r} is not a valid model: {error}") from error
    for inner in model.graphs():
        for name, value in inner.initializers.items():
            if name in unread:
                value.const_value = unread[name]
    try:
        model.graph.sort()
    except ValueError as error:
        raise InputError(f"the nodes of the graphsurgeon graph {graph.name!r} form a cycle") from error
    return model


@cache
def _lazy_values_class() -> Any:
    """Define the class, once, so that isinstance recognises it; its base exists once graphsurgeon is imported."""
    from onnx_graphsurgeon.ir.tensor import LazyValues

    class ModelValues(LazyValues):  # type: ignore[misc]
        """Values that the tensor of an onnx_ir model gives when they are wanted."""

        def __init__(self, stub: onnx.TensorProto, source: ir.TensorProtocol) -> None:
            super().__init__(stub)
            self.source = source

        def load(self) -> Any:
            return self.source.numpy().copy()

    return ModelValues


def _constants(graph: "gs.Graph") -> Iterator[Any]:
    import onnx_graphsurgeon as gs

    for each in (graph, *graph.subgraphs(recursive=True)):
        for tensor in each.tensors().values():
            if isinstance(tensor, gs.Constant):
                yield tensor


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)
            for inner in attribute.graphs:
                yield from _graphs(inner)


def _remove_shadows(graph: onnx.GraphProto, outside: frozenset[str]) -> None:
    """Remove from subgraphs what belongs to a graph around them: graphsurgeon exports captured values in both."""
    for values in (graph.initializer, graph.value_info):
        kept = [value for value in values if value.name not in outside]
        if len(kept) < len(values):
            del values[:]
            values.extend(kept)
    known = outside.union(
        (value.name for value in (*graph.input, *graph.initializer)),
        (name for node in graph.node for name in node.output),
    )
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _remove_shadows(inner, known)


def _restore_model(proto: onnx.ModelProto, original: onnx.ModelProto) -> None:
    """Copy what belongs to model, graphs, nodes and values, where these still exist."""
    for field in ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string"):
        if original.HasField(field):
            setattr(proto, field, getattr(original, field))
    _copy_repeated(proto, original, ("metadata_props", "configuration"))
    graphs = {graph.name: graph for graph in _graphs(original.graph)}
    nodes = {node.name: node for graph in _graphs(original.graph) for node in graph.node if node.name}
    values = {value.name: value for graph in _graphs(original.graph) for value in _values(graph)}
    for graph in _graphs(proto.graph):
        if graph.name in graphs:
            _restore_documentation(graph, graphs[graph.name])
        for node in graph.node:
            source = nodes.get(node.name)
            if source is not None and (source.domain, source.op_type) == (node.domain, node.op_type):
                _restore_node(node, source)
        for value in _values(graph):
            if value.name in values:
                _restore_documentation(value, values[value.name])
        _add_descriptions(graph, values)


def _add_descriptions(graph: onnx.GraphProto, values: Mapping[str, onnx.ValueInfoProto]) -> None:
    """Describe again what graphsurgeon leaves undescribed: constants, and values of no known type."""
    described = {value.name for value in _values(graph)}
    types = {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in graph.initializer}
    outputs = [name for node in graph.node for name in node.output]
    for name in [*types, *outputs]:
        if name in values and name not in described:
            value = graph.value_info.add()
            if name in types:
                value.CopyFrom(onnx.helper.make_tensor_value_info(name, *types[name]))
            value.name = name
            _restore_documentation(value, values[name])


def _restore_node(node: onnx.NodeProto, source: onnx.NodeProto) -> None:
    _restore_documentation(node, source)
    if source.HasField("overload"):
        node.overload = source.overload
    names = {*node.input, *node.output}
    for configuration in source.device_configurations:
        copy = node.device_configurations.add()
        copy.CopyFrom(configuration)
        del copy.sharding_spec[:]
        copy.sharding_spec.extend(spec for spec in configuration.sharding_spec if spec.tensor_name in names)


def _restore_documentation(target: Any, source: Any) -> None:
    if source.doc_string:
        target.doc_string = source.doc_string
    _copy_repeated(target, source, ("metadata_props",))


def _copy_repeated(target: Any, source: Any, fields: tuple[str, ...]) -> None:
    for field in fields:
        del getattr(target, field)[:]
        getattr(target, field).extend(getattr(source, field))


def _values(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    yield from graph.input
    yield from graph.output
    yield from graph.value_info


def _restore_functions(proto: onnx.ModelProto, original: onnx.ModelProto, exported: onnx.ModelProto) -> None:
    """Put back every function that nobody edited, whole: exporting is what loses parts of it."""
    unedited = {
        after.SerializeToString(deterministic=True): before
        for before, after in zip(original.functions, exported.functions, strict=True)
    }
    for function in proto.functions:
        source = unedited.get(function.SerializeToString(deterministic=True))
        if source is not None:
            function.CopyFrom(source)
