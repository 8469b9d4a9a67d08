"""Memory of a partition: its weights, and the most that is alive at once while its nodes run in file order."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from mars_onnx.simulation.memory import size_of
from mars_onnx.simulation.program import reads


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that a partition needs.

    Attributes:
        weight_bytes: Of all initializers.
        activation_bytes: The most that values take at any moment; a value lives from the node that makes it to the last
            one that reads it (in a subgraph, too), inputs from the start, outputs to the end.
    """

    weight_bytes: int
    activation_bytes: int


def memory_of(model: ir.Model) -> Memory:
    """What a partition needs, in the order of its nodes."""
    graph = model.graph
    tensors = [value.const_value for value in graph.initializers.values()]
    weights = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    nodes = list(graph)
    last: dict[ir.Value, int] = {}
    for position, node in enumerate(nodes):
        last.update((value, position) for value in reads(node))
    last.update((value, len(nodes)) for value in graph.outputs)
    weights_and_inputs = set(graph.initializers.values())
    alive = sum(size_of(value) for value in graph.inputs if value not in weights_and_inputs)
    peak = alive
    ending: dict[int, list[ir.Value]] = {}
    for value, position in last.items():
        if value not in weights_and_inputs:
            ending.setdefault(position, []).append(value)
    for position, node in enumerate(nodes):
        alive += sum(size_of(value) for value in node.outputs)
        peak = max(peak, alive)
        alive -= sum(size_of(value) for value in ending.get(position, []))
        alive -= sum(size_of(value) for value in node.outputs if value not in last)
    return Memory(weights, peak)
