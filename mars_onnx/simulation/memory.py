"""Memory of every accelerator over time: what tasks make, and when the last reader of it has ended."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from mars_onnx.comm import is_communication
from mars_onnx.rules.signature import is_present
from mars_onnx.simulation.program import Kind, Program, Task, reads
from mars_onnx.simulation.result import MemoryPoint


def size_of(value: ir.Value) -> int:
    """Bytes of a value of static shape; 0 for another."""
    shape, dtype = value.shape, value.dtype
    if shape is None or dtype is None or not shape.is_static() or dtype is ir.DataType.STRING:
        return 0
    size = dtype.bitwidth
    for extent in shape.numpy():
        size *= extent
    return (size + 7) // 8


class _Held:
    """What one accelerator holds while the log is replayed."""

    def __init__(self, graph: ir.Graph) -> None:
        tensors = [value.const_value for value in graph.initializers.values()]
        self.weights = sum(tensor.nbytes for tensor in tensors if tensor is not None)
        self.activations = 0
        self.buffers = 0
        self.points = [MemoryPoint(0.0, self.weights, 0, 0)]
        self.peak = self.points[0]
        self._constant = set(graph.initializers.values())
        self._kept = set(graph.outputs)
        self._readers: dict[ir.Value, int] = {}
        #: What is there, with its size and whether communication delivered it.
        self._alive: dict[ir.Value, tuple[int, bool]] = {}
        self._reads = {node: tuple(dict.fromkeys(reads(node))) for node in graph}
        for taken in self._reads.values():
            for value in taken:
                self._readers[value] = self._readers.get(value, 0) + 1

    def enter(self, value: ir.Value) -> None:
        """A model input; it stays if nobody reads it."""
        if value not in self._constant:
            self._add(value, buffer=False)

    def make(self, node: ir.Node) -> None:
        """The outputs of a node come into being."""
        buffer = is_communication(node)
        for value in node.outputs:
            if is_present(value):
                self._add(value, buffer=buffer)

    def release(self, node: ir.Node) -> None:
        """A node has ended: what it was the last to read goes, and what it made for nobody."""
        for value in self._reads[node]:
            self._readers[value] = self._readers.get(value, 0) - 1
            if self._readers[value] <= 0:
                self._drop(value)
        for value in node.outputs:
            if self._readers.get(value, 0) <= 0:
                self._drop(value)

    def note(self, now: float, at: str) -> None:
        """Remember the present state; of one moment, in the curve, the last, and for the peak every one."""
        point = MemoryPoint(now, self.weights, self.activations, self.buffers, at)
        if point.total_bytes > self.peak.total_bytes:
            self.peak = point
        if self.points[-1].time_s == now:
            self.points[-1] = point
        else:
            self.points.append(point)

    def _add(self, value: ir.Value, *, buffer: bool) -> None:
        size = size_of(value)
        self._alive[value] = (size, buffer)
        if buffer:
            self.buffers += size
        else:
            self.activations += size

    def _drop(self, value: ir.Value) -> None:
        if value in self._kept or value not in self._alive:
            return
        size, buffer = self._alive.pop(value)
        if buffer:
            self.buffers -= size
        else:
            self.activations -= size


def memory_of_run(
    program: Program, log: Sequence[int], start_s: Sequence[float], end_s: Sequence[float]
) -> dict[int, tuple[tuple[MemoryPoint, ...], MemoryPoint]]:
    """Per rank the memory over time, and the point at which it is highest.

    A value lives from the start of the task that makes it to the end of the last one that reads it; a model input from
    the start of its transfer, a model output to the end of the run. Nodes of one task run one after another; all but
    the last count at its start.
    """
    held = {rank: _Held(model.graph) for rank, model in program.models.items()}
    for entry in log:
        started = entry >= 0
        task = program.tasks[entry if started else ~entry]
        if task.kind is Kind.OUTPUT:
            continue
        _replay(held, task, (start_s if started else end_s)[task.index], started=started)
    return {rank: (tuple(own.points), own.peak) for rank, own in held.items()}


def _replay(held: dict[int, _Held], task: Task, now: float, *, started: bool) -> None:
    for rank, value in task.values.items():
        if started:
            held[rank].enter(value)
            held[rank].note(now, task.label)
    for rank, nodes in task.nodes.items():
        own = held[rank]
        if started:
            for node in nodes[:-1]:
                own.make(node)
                own.note(now, task.label)
                own.release(node)
            own.make(nodes[-1])
        else:
            own.release(nodes[-1])
        own.note(now, task.label)
