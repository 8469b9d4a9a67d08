"""The canonical stage: what ``canonicalize`` leaves and every later pass may rely on.

The invariants, with the reasons, are listed in docs/canonical-form.md; ``verify_canonical`` checks exactly that list
and numbers its findings as the list does.
"""

from collections.abc import Callable, Iterable, Iterator

import onnx_ir as ir

# Different on every run, so that partitions could never be shown to equal the original.
NONDETERMINISTIC = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


def static_shape(value: ir.Value) -> tuple[int, ...] | None:
    """Return the shape of ``value`` if all of it is known, else None: the value is opaque.

    An opaque value (its shape depends on data, or nothing is known about its operator) is computed whole.
    """
    is_tensor = value.type is None or isinstance(value.type, ir.TensorType)
    if not is_tensor or value.shape is None or not value.shape.is_static():
        return None
    return tuple(int(dim) for dim in value.shape)  # type: ignore[arg-type]


def verify_canonical(model: ir.Model) -> list[str]:
    """Return what keeps ``model`` from being canonical, one line each."""
    return [f"{number}. {finding}" for number, check in enumerate(_CHECKS, 1) for finding in check(model)]


def describe(node: ir.Node) -> str:
    """Return a node as people look for it: operator and name, or what it computes if it has none."""
    operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    if node.name:
        return f"{operator} node {node.name!r}"
    return f"{operator} node that computes {', '.join(repr(value.name) for value in node.outputs)}"


def captured_values(node: ir.Node) -> Iterator[ir.Value]:
    """Yield the values that the subgraphs of ``node`` use without computing them, possibly more than once."""
    for graph in subgraphs(node):
        own = {id(value) for value in graph.inputs} | {id(value) for value in graph.initializers.values()}
        own |= {id(value) for inner in graph for value in inner.outputs}
        for inner in graph:
            for value in (*inner.inputs, *captured_values(inner)):
                if value is not None and id(value) not in own:
                    yield value
        yield from (value for value in graph.outputs if id(value) not in own)


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the graphs in the attributes of ``node``."""
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue  # the graph is the caller's of the function around the node
        if attribute.type is ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type is ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _no_functions(model: ir.Model) -> Iterator[str]:
    for domain, name, _ in model.functions:
        yield f"there is a model-local function {domain}::{name}"


def _topological_order(model: ir.Model) -> Iterator[str]:
    yield from _order_of(model.graph, set())


def _order_of(graph: ir.Graph, outside: set[int]) -> Iterator[str]:
    known = outside | {id(value) for value in (*graph.inputs, *graph.initializers.values())}
    for node in graph:
        for value in node.inputs:
            if value is not None and id(value) not in known:
                yield f"{describe(node)} uses {value.name!r} before it is computed"
        for inner in subgraphs(node):
            yield from _order_of(inner, known)
        known.update(id(value) for value in node.outputs)


def _names(model: ir.Model) -> Iterator[str]:
    values = [value for graph in model.graphs() for value in _values_of(graph)]
    yield from _unique_names("value", [value.name for value in values])
    yield from _unique_names("node", [node.name for graph in model.graphs() for node in graph])


def _values_of(graph: ir.Graph) -> Iterator[ir.Value]:
    seen = set()
    for value in (*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)):
        # An output that a node leaves out has no name, and nobody uses it.
        left_out = not value.name and not value.uses() and not value.is_graph_output()
        if id(value) not in seen and not left_out:
            seen.add(id(value))
            yield value


def _unique_names(kind: str, names: Iterable[str | None]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if not name:
            yield f"a {kind} has no name"
        elif name in seen:
            yield f"two {kind}s are called {name!r}"
        else:
            seen.add(name)


def _inputs_and_outputs(model: ir.Model) -> Iterator[str]:
    graph = model.graph
    for value in graph.inputs:
        if value.is_initializer():
            yield f"the input {value.name!r} is an initializer too"
    for value in graph.outputs:
        if value.producer() is None:
            yield f"no node computes the output {value.name!r}"


def _shapes(model: ir.Model) -> Iterator[str]:
    for value in model.graph.inputs:
        if static_shape(value) is None or value.dtype is None:
            yield f"the input {value.name!r} is {value.dtype} of shape {value.shape}: not static"
    for value in model.graph.initializers.values():
        if static_shape(value) is None or value.dtype is None:
            yield f"the initializer {value.name!r} has no static shape and type"


def _nothing_idle(model: ir.Model) -> Iterator[str]:
    for node in model.graph:
        if node.domain == "" and node.op_type == "Constant":
            yield f"{describe(node)} is not an initializer"
        if node.domain == "" and node.op_type == "Identity" and not needed_identity(node):
            yield f"{describe(node)} does nothing"
        if is_idle_dropout(node):
            yield f"{describe(node)} does nothing"


def needed_identity(node: ir.Node) -> bool:
    """Whether an Identity gives a graph output a node of its own: its input is no node's, or an output itself."""
    source = node.inputs[0]
    if source is None or not node.outputs[0].is_graph_output():
        return False
    return source.producer() is None or source.is_graph_output()


def is_idle_dropout(node: ir.Node) -> bool:
    """Whether ``node`` is a Dropout for inference whose mask nobody uses."""
    if node.domain != "" or node.op_type != "Dropout":
        return False
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        return False
    training = node.inputs[2] if len(node.inputs) > 2 else None
    return training is None or training.const_value is not None


def _all_used(model: ir.Model) -> Iterator[str]:
    for node in model.graph:
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            yield f"nobody uses what {describe(node)} computes"
    for value in model.graph.initializers.values():
        if not value.uses() and not value.is_graph_output():
            yield f"nobody uses the initializer {value.name!r}"


def _deterministic(model: ir.Model) -> Iterator[str]:
    for graph in model.graphs():
        for node in graph:
            if node.domain == "" and node.op_type in NONDETERMINISTIC:
                yield f"{describe(node)} gives other values on every run"


def _no_empty_values(model: ir.Model) -> Iterator[str]:
    for node in model.graph:
        for value in node.outputs:
            shape = static_shape(value)
            if shape is not None and 0 in shape and value.uses():
                yield f"{describe(node)} computes the empty value {value.name!r}"


_CHECKS: tuple[Callable[[ir.Model], Iterator[str]], ...] = (
    _no_functions,
    _topological_order,
    _names,
    _inputs_and_outputs,
    _shapes,
    _nothing_idle,
    _all_used,
    _deterministic,
    _no_empty_values,
)
