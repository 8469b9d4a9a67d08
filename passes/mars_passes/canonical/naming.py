"""Unique names for nodes and values."""

from collections.abc import Iterable

import onnx_ir as ir


def name_values(model: ir.Model) -> None:
    """Give every value a unique name; a name that is unique stays, and so do those of inputs and outputs."""
    graphs = list(model.graphs())
    fixed = list(dict.fromkeys([*model.graph.inputs, *model.graph.outputs]))
    names = _Names(value.name for graph in graphs for value in _values(graph))
    for value in fixed:
        names.keep(value.name)
    protected = {id(value) for value in fixed}
    for graph in graphs:
        for value in _values(graph):
            producer = value.producer()
            # An output that a node leaves out has no name and shall have none.
            if id(value) not in protected and (producer is None or value.name or value.uses()):
                base = "value" if producer is None else f"{producer.name or producer.op_type}_out{value.index()}"
                _rename(value, names.unique(value.name, base))


def name_nodes(model: ir.Model) -> None:
    """Give every node a unique name; a name that is unique stays."""
    nodes = [node for graph in model.graphs() for node in graph]
    names = _Names(node.name for node in nodes)
    for node in nodes:
        name = names.unique(node.name, node.op_type)
        if name != node.name:
            node.name = name


def _rename(value: ir.Value, name: str) -> None:
    if name != value.name:
        value.name = name


def _values(graph: ir.Graph) -> list[ir.Value]:
    outputs = (value for node in graph for value in node.outputs)
    return list(dict.fromkeys([*graph.inputs, *graph.initializers.values(), *outputs]))


class _Names:
    """Names given so far; a new name avoids those given later, too."""

    def __init__(self, existing: Iterable[str | None]) -> None:
        self._existing = {name for name in existing if name}
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def keep(self, name: str | None) -> None:
        self._taken.add(name or "")

    def unique(self, name: str | None, base: str) -> str:
        if name and name not in self._taken:
            self._taken.add(name)
            return name
        base = name or base
        number = self._next.get(base, 2 if name else 0)
        while f"{base}_{number}" in self._existing or f"{base}_{number}" in self._taken:
            number += 1
        self._next[base] = number + 1
        self._taken.add(f"{base}_{number}")
        return f"{base}_{number}"
