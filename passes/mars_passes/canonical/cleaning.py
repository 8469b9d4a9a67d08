"""Small clean-ups: what exporters leave behind, constants, idle nodes, unused things, outputs, order."""

from collections.abc import Iterable

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from mars_onnx.errors import InputError
from mars_onnx.stages.canonical import is_idle_dropout, needed_identity, static_shape

#: Far more than any network has; a small file whose functions call each other twice each would have 2^n.
_MOST_INLINED_NODES = 1_000_000


def strip_exporter_metadata(model: ir.Model) -> None:
    """Remove stack traces, exporters' notes and doc strings of nodes and values; keep everybody else's metadata."""
    holders: list[ir.Graph | ir.Node | ir.Value | ir.Model] = [model]
    for graph in model.graphs():
        holders += [graph, *graph.inputs, *graph.initializers.values()]
        for node in graph:
            node.doc_string = None
            holders += [node, *node.outputs]
    for holder in holders:
        for key in [key for key in holder.metadata_props if key.startswith("pkg.") or key == "namespace"]:
            del holder.metadata_props[key]
        if isinstance(holder, ir.Value):
            holder.doc_string = None


def separate_initializers_from_inputs(model: ir.Model) -> None:
    """Make an initializer that is also an input (as all are in IR 3) a plain initializer."""
    for graph in model.graphs():
        kept = [value for value in graph.inputs if not value.is_initializer()]
        if len(kept) < len(graph.inputs):
            graph.inputs.clear()
            graph.inputs.extend(kept)


def lift_constants(model: ir.Model) -> None:
    """Make Constant nodes initializers (but not where one is the output of a subgraph)."""
    for graph in model.graphs():
        for node in list(graph):
            if node.domain != "" or node.op_type != "Constant":
                continue
            if graph is not model.graph and node.outputs[0].is_graph_output():
                continue
            tensor = ir.convenience.get_const_tensor(node.outputs[0])
            if tensor is not None:
                become_initializer(node.outputs[0], tensor)
                graph.remove(node, safe=True)


def become_initializer(value: ir.Value, tensor: ir.TensorProtocol) -> ir.Value:
    """Replace ``value``, which a node computes, by a new initializer of its name; the node is left without users.

    A graph output stays where it is, under its name, as an Identity of the initializer.
    """
    node = value.producer()
    assert node is not None
    assert node.graph is not None
    graph, name = node.graph, value.name or ""
    value.name = f"{name}_computed"
    if tensor.name != name and not isinstance(tensor, ir.ExternalTensor):
        tensor.name = name
    constant = ir.Value(
        name=name, shape=ir.Shape(tuple(tensor.shape.numpy())), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    constant.metadata_props.update(value.metadata_props)
    graph.register_initializer(constant)
    value.replace_all_uses_with(constant, replace_graph_outputs=True)
    return constant


def remove_idle_nodes(graph: ir.Graph) -> None:
    """Remove Identity, and Dropout whose mask nobody uses, where no output needs them."""
    for node in list(graph):
        idle_identity = node.domain == "" and node.op_type == "Identity" and not needed_identity(node)
        if (idle_identity or is_idle_dropout(node)) and node.inputs[0] is not None:
            _bypass(graph, node, node.inputs[0])


def _bypass(graph: ir.Graph, node: ir.Node, source: ir.Value) -> None:
    result = node.outputs[0]
    if result.is_graph_output():
        if source.producer() is None or source.is_graph_output() or source.graph is not graph:
            if node.op_type != "Identity":
                _become_identity(graph, node)
            return
        # The output's name is what people know.
        name, result.name = result.name, f"{result.name}_removed"
        source.name = name
    result.replace_all_uses_with(source, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _become_identity(graph: ir.Graph, node: ir.Node) -> None:
    old = node.outputs[0]
    name, old.name = old.name, f"{old.name}_removed"
    new = ir.Value(name=name, shape=old.shape, type=old.type)
    identity = ir.Node("", "Identity", [node.inputs[0]], outputs=[new], name=node.name)
    graph.insert_before(node, identity)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def give_outputs_a_node(graph: ir.Graph) -> None:
    """Insert an Identity before every output that is an input, an initializer or given twice.

    An input that is an output gets the output name ``<name>_output``; a value has one name only.
    """
    seen: set[int] = set()
    for position, value in enumerate(list(graph.outputs)):
        if value.producer() is not None and id(value) not in seen:
            seen.add(id(value))
            continue
        name = f"{value.name}_output"
        if value.is_initializer():
            # The name of an initializer is ours to change, that of an output is not.
            name, value.name = value.name or "", _free_name(graph, f"{value.name}_value")
        copy = ir.Value(name=name, shape=value.shape, type=value.type)
        graph.append(ir.Node("", "Identity", [value], outputs=[copy], name=f"Identity_{name}"))
        graph.outputs[position] = copy
        seen.add(id(copy))


def _free_name(graph: ir.Graph, name: str) -> str:
    number = 1
    candidate = name
    while candidate in graph.initializers:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def inline_constant_ifs(graph: ir.Graph) -> bool:
    """Replace an If with a constant condition by the branch taken; say whether there was one."""
    found = False
    for node in list(graph):
        if node.domain != "" or node.op_type != "If" or node.inputs[0] is None:
            continue
        condition = node.inputs[0].const_value
        if condition is None:
            continue
        branch = node.attributes["then_branch" if bool(condition.numpy().item()) else "else_branch"].as_graph()
        _inline(graph, node, branch)
        found = True
    return found


def _inline(graph: ir.Graph, node: ir.Node, branch: ir.Graph) -> None:
    for value in list(branch.initializers.values()):
        branch.initializers.pop(value.name or "")
        # Names are made unique at the end; here they only have to be free among the initializers.
        value.name = _free_name(graph, value.name or "constant")
        graph.initializers.add(value)
    results = list(branch.outputs)
    branch.outputs.clear()
    for inner in list(branch):
        branch.remove(inner)
        graph.insert_before(node, inner)
    for old, new in zip(list(node.outputs), results, strict=True):
        name, old.name = old.name, f"{old.name}_removed"
        # An Identity takes over; if it is idle, the next round removes it.
        copy = ir.Value(name=name, shape=old.shape or new.shape, type=old.type or new.type)
        graph.insert_before(node, ir.Node("", "Identity", [new], outputs=[copy], name=f"{node.name}_{name}"))
        old.replace_all_uses_with(copy, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def empty_values_become_initializers(graph: ir.Graph) -> bool:
    """Replace every value that has no elements by an empty initializer, inputs too; say whether there was one.

    An input stays one, for the model takes it, but nothing reads it.
    """
    found = False
    for value in graph.inputs:
        empty = _empty_tensor(value)
        if empty is not None and value.uses():
            constant = ir.Value(
                name=_free_name(graph, f"{value.name}_value"), shape=empty.shape, type=value.type, const_value=empty
            )
            graph.register_initializer(constant)
            value.replace_all_uses_with(constant)
            found = True
    for node in list(graph):
        if node.domain == "" and node.op_type == "Identity" and needed_identity(node):
            continue
        for value in node.outputs:
            empty = _empty_tensor(value)
            if empty is not None and (value.uses() or value.is_graph_output()):
                become_initializer(value, empty)
                found = True
    return found


def _empty_tensor(value: ir.Value) -> ir.LazyTensor | None:
    """The tensor of a value that has no elements; None where it has some, or might have."""
    shape = static_shape(value)
    if shape is None or 0 not in shape or value.dtype in (None, ir.DataType.STRING):
        return None
    assert value.dtype is not None
    return ir.LazyTensor(_Empty(shape, value.dtype), value.dtype, ir.Shape(shape), name=value.name, cache=True)


class _Empty:
    """Make an empty tensor."""

    def __init__(self, shape: tuple[int, ...], dtype: ir.DataType) -> None:
        self.shape, self.dtype = shape, dtype

    def __call__(self) -> ir.TensorProtocol:
        import numpy as np

        return ir.Tensor(np.empty(self.shape, self.dtype.numpy()), dtype=self.dtype)


def sort(model: ir.Model) -> None:
    """Put nodes in topological order, as near to the given order as can be.

    Raises:
        InputError: There is a cycle.
    """
    try:
        common_passes.TopologicalSortPass()(model)
    except ValueError as error:
        raise InputError(f"the nodes of the model form a cycle, so no order can compute them: {error}") from error


def remove_unused(model: ir.Model) -> None:
    """Remove nodes, initializers and opset imports that nothing needs."""
    common_passes.RemoveUnusedNodesPass()(model)
    for graph in model.graphs():
        for value in list(graph.initializers.values()):
            if not value.uses() and not value.is_graph_output():
                graph.initializers.pop(value.name or "")
    common_passes.RemoveUnusedOpsetsPass()(model)


def _inlined_nodes(model: ir.Model) -> int:
    """How many nodes the main graph would have without functions; a circle counts once, since it is refused later."""
    sizes: dict[ir.OperatorIdentifier, int] = {}

    def size(nodes: Iterable[ir.Node]) -> int:
        total = 0
        for node in nodes:
            identifier = node.op_identifier()
            if identifier in model.functions and identifier not in sizes:
                sizes[identifier] = 1
                sizes[identifier] = size(model.functions[identifier].all_nodes())
            total += sizes.get(identifier, 1)
        return total

    return size(model.graph.all_nodes())


def inline_functions(model: ir.Model) -> None:
    """Replace calls of model-local functions by their bodies.

    Raises:
        InputError: Functions call each other in a circle, need another opset than the model, or are nested so that
            their bodies would fill the memory.
    """
    if not model.functions:
        return
    inlined = _inlined_nodes(model)
    if inlined > _MOST_INLINED_NODES:
        raise InputError(
            f"the model's functions call each other so often that the graph would have {inlined} nodes; "
            f"at most {_MOST_INLINED_NODES} are supported"
        )
    for function in model.functions.values():
        for node in function:
            # Else the inliner would call them all "node".
            node.name = node.name or node.op_type
    try:
        common_passes.InlinePass()(model)
    except (ValueError, ir.passes.PreconditionError) as error:
        raise InputError(f"the model's functions cannot be inlined: {error}") from error
    common_passes.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
