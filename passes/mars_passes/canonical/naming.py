"""Unique names for nodes and values."""

import onnx_ir as ir


def make_names_unique(model: ir.Model) -> None:
    """Give every node and value a unique name; a name that is unique stays, and so do those of inputs and outputs."""
    graphs = list(model.graphs())
    fixed = list(dict.fromkeys([*model.graph.inputs, *model.graph.outputs]))
    values = _Names(value.name for graph in graphs for value in _values(graph))
    for value in fixed:
        values.keep(value.name)
    nodes = _Names(node.name for graph in graphs for node in graph)
    protected = {id(value) for value in fixed}
    for graph in graphs:
        inside = [value for value in _values(graph) if id(value) not in protected]
        for value in inside:
            if value.producer() is None:
                _rename(value, values.unique(value.name, "value"))
        for node in graph:
            name = nodes.unique(node.name, node.op_type)
            if name != node.name:
                node.name = name
            for index, value in enumerate(node.outputs):
                if id(value) not in protected and (value.name or value.uses()):
                    _rename(value, values.unique(value.name, f"{name}_out{index}"))


def _rename(value: ir.Value, name: str) -> None:
    if name != value.name:
        value.name = name


def _values(graph: ir.Graph) -> list[ir.Value]:
    outputs = (value for node in graph for value in node.outputs)
    return list(dict.fromkeys([*graph.inputs, *graph.initializers.values(), *outputs]))


class _Names:
    """Names given so far; a new name avoids those given later, too."""

    def __init__(self, existing: object) -> None:
        self._existing = {name for name in existing if name}  # type: ignore[attr-defined]
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
