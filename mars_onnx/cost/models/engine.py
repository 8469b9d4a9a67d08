"""What all designs with a multiplier array share: what runs where, the width of data, and the way to memory.

A model of such a design says what its array does with a loop nest (:meth:`Engine.array`); everything else is here:

- convolutions, transposed convolutions and matrix products run on the array;
- other work without weights on the vector unit, if the design has one that can, at its rate;
- moves (Transpose, Concat, Slice) are traffic of the DMA engine alone: read once, written once;
- a view costs the overhead only;
- what is left runs on the design's host, with its data going there and back, or is refused by name.

Arithmetic and memory traffic overlap (double buffering): the longer of the two counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mars_onnx.cost.models.loops import BoolArray, Loops, loops
from mars_onnx.cost.performance import Estimate, FloatArray, OpClass, Workload
from mars_onnx.errors import InputError
from mars_onnx.pool import Accelerator, Design, Parameters
from mars_onnx.pool.model_parameters import EngineParameters, Host

ARRAY_CLASSES = (OpClass.CONV, OpClass.CONV_TRANSPOSE, OpClass.MATMUL)


@dataclass(frozen=True, slots=True)
class ArrayTime:
    """What an array does with loop nests; arrays of their shape.

    Attributes:
        compute_cycles: Of the design's clock, if data were always there.
        cycles: With what the array's own ports and feeds make it wait for.
        dram_bytes: Read and written in memory.
        buffer_bytes: On-chip memory in use at once.
    """

    compute_cycles: FloatArray
    cycles: FloatArray
    dram_bytes: FloatArray
    buffer_bytes: FloatArray


class Engine:
    """Base of models of designs with a multiplier array."""

    Parameters: ClassVar[type[Parameters]] = EngineParameters

    def __init__(self, design: Design, accelerator: Accelerator) -> None:
        """Prepare for a design on an accelerator."""
        if not isinstance(design.parameters, EngineParameters):
            raise TypeError(f"{type(self).__name__} takes {self.Parameters.__name__}")
        self._name = design.name
        self._common: EngineParameters = design.parameters
        self._data_bits = design.data_bits
        self._bandwidth = accelerator.memory_bandwidth_bytes_per_s

    def array(self, nest: Loops, bytes_per_word: FloatArray) -> ArrayTime:
        """What the array does with loop nests."""
        raise NotImplementedError

    def beside(self, work: Workload) -> tuple[BoolArray, FloatArray] | None:
        """Work that the design does in a way of its own, and its cycles there; by default none."""
        return None

    def estimate(self, work: Workload) -> Estimate:
        """Price work; see the module."""
        common = self._common
        active = work.elements > 0
        on_array = np.isin(work.op_class, ARRAY_CLASSES) & active
        moves = (work.op_class == OpClass.MOVE) & active
        vector = active & np.isin(work.op_class, _classes(common))
        host = active & ~on_array & ~moves & ~vector & (work.op_class != OpClass.VIEW)
        if common.host is None:
            refuse(self._name, work, host)
        bits = np.asarray(work.dtype_bits if self._data_bits is None else self._data_bits, np.float64)
        tensor_bytes: FloatArray = work.bytes * (bits / work.dtype_bits)

        time = self.array(loops(work), bits / 8 * np.ones(work.shape))
        rate = common.vector.operations_per_cycle if common.vector else 1.0
        vector_cycles: FloatArray = np.where(vector, work.macs / rate, 0.0)
        compute_cycles = np.where(on_array, time.compute_cycles, vector_cycles)
        cycles = np.where(on_array, time.cycles, vector_cycles)
        # Never less than the tensors themselves, whatever the loops say.
        other = np.where(vector, self.vector_traffic(tensor_bytes), np.where(moves, tensor_bytes, 0.0))
        dram_bytes = np.where(on_array, self.traffic(time, tensor_bytes), other)
        if special := self.beside(work):
            chosen, own = special
            chosen = chosen & active & ~host
            compute_cycles, cycles = np.where(chosen, own, compute_cycles), np.where(chosen, own, cycles)
            dram_bytes = np.where(chosen, self.beside_traffic(work, tensor_bytes), dram_bytes)
        memory_s = dram_bytes / self._bandwidth
        own_s = np.maximum(cycles / common.clock_hz, memory_s)
        on_host_s = host_seconds(common.host, self._bandwidth, work, tensor_bytes) if common.host else 0.0
        compute_s: FloatArray = np.where(host, on_host_s, compute_cycles / common.clock_hz)
        return Estimate(
            compute_s=compute_s,
            memory_s=memory_s,
            dram_bytes=np.where(host, tensor_bytes, dram_bytes),
            total_s=np.where(host, on_host_s, own_s) + np.where(active, common.overhead_s, 0.0),
            cycles=cycles,
            buffer_bytes=np.where(on_array, time.buffer_bytes, 0.0),
        )

    def traffic(self, time: ArrayTime, tensor_bytes: FloatArray) -> FloatArray:
        """Bytes between memory and array; at least the tensors, each once."""
        return np.maximum(time.dram_bytes, tensor_bytes)

    def vector_traffic(self, tensor_bytes: FloatArray) -> FloatArray:
        """Bytes between memory and the vector unit."""
        return tensor_bytes

    def beside_traffic(self, work: Workload, tensor_bytes: FloatArray) -> FloatArray:
        """Bytes between memory and what works beside the array."""
        return tensor_bytes


def _classes(common: EngineParameters) -> list[int]:
    return [int(OpClass[name.upper()]) for name in common.vector.classes] if common.vector else []


def refuse(design: str, work: Workload, refused: BoolArray) -> None:
    """Say which work a design without a host cannot run, if there is any."""
    if np.any(refused):
        kinds = np.broadcast_to(work.op_class, work.shape)[refused]
        names = ", ".join(OpClass(kind).name.lower() for kind in np.unique(kinds))
        raise InputError(
            f"the design {design!r} cannot run work of the class {names}, and names no host that would; "
            "give it a `host` (or a `vector` unit that can), or another design"
        )


def host_seconds(host: Host, memory_bandwidth: float, work: Workload, tensor_bytes: FloatArray) -> FloatArray:
    """There and back, and a roofline of the host: ``bytes / route + max(macs / rate, bytes / memory) + overhead``."""
    route = host.route_bandwidth_bytes_per_s or memory_bandwidth
    busy = np.maximum(work.macs / host.macs_per_s, tensor_bytes / host.memory_bandwidth_bytes_per_s)
    seconds: FloatArray = tensor_bytes / route + busy + host.overhead_s
    return seconds
