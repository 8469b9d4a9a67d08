"""Inputs from the host process to all others, and their outputs back.

The host sends, per set of inputs, an order to every process and then its boxes; processes send their boxes of the
outputs. All of it does not block, so that several sets can be under way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI

from mars_onnx.runtime.boxes import extents, local_inputs, whole_outputs
from mars_onnx.runtime.mpi.transport import MpiHandle, as_bytes
from mars_onnx.runtime.plan_file import PlanFile, TensorBoxes
from mars_onnx.runtime.transport import Array

HOST = 0
"""The process that has the inputs and gets the outputs."""

_ORDER, _DATA = 0, 1
_LEAVING = 16
"""Outputs that may be on their way to the host."""
_RUN, _REFUSED, _STOP = 0, 1, 2


@dataclass(slots=True)
class Job:
    """A set of inputs on its way, as the host sees it."""

    own: dict[str, Array]
    sending: list[MpiHandle]
    receiving: list[MpiHandle]
    results: dict[int, dict[str, Array]]


@dataclass(frozen=True, slots=True)
class Order:
    """What the host wants: boxes to run with; else a refusal, with its reason; else the end."""

    inputs: dict[str, Array] | None = None
    refusal: str | None = None

    @property
    def stop(self) -> bool:
        """Whether this is the end."""
        return self.inputs is None and self.refusal is None


class Courier:
    """Carries boxes between the host and one process.

    Args:
        comm: For these messages alone.
        plan: Who takes and gives which boxes.
        ranks: The rank of every process.
    """

    def __init__(self, comm: MPI.Intracomm, plan: PlanFile, ranks: tuple[int, ...]) -> None:
        self._comm = comm
        self._plan = plan
        self._ranks = ranks
        self.process = comm.Get_rank()
        self.rank = ranks[self.process]
        self._leaving: deque[MpiHandle] = deque()

    def send(self, inputs: Mapping[str, Array]) -> Job:
        """Host: begin to send everybody's boxes, and to receive everybody's outputs."""
        job = Job(local_inputs(self._plan, self.rank, inputs), self._order(_RUN), [], {})
        for process, rank in enumerate(self._ranks):
            if process == self.process:
                continue
            for tag, tensor, _ in self._boxes(self._plan.inputs, rank):
                box = np.ascontiguousarray(local_inputs(self._plan, rank, inputs)[tensor.tensor])
                job.sending.append(self._isend(box, process, tag))
            job.results[rank] = {}
            for tag, tensor, shape in self._boxes(self._plan.outputs, rank):
                piece = np.empty(shape, tensor.numpy_dtype)
                job.results[rank][tensor.tensor] = piece
                job.receiving.append(self._irecv(piece, process, tag))
        return job

    def collect(self, job: Job, own: Mapping[str, Array]) -> dict[str, Array]:
        """Host: wait for everybody's outputs, and join them with the own."""
        for handle in (*job.sending, *job.receiving):
            handle.wait()
        return whole_outputs(self._plan, {**job.results, self.rank: own})

    def refuse(self, reason: str) -> None:
        """Host: tell everybody that there will be no run, and why."""
        for handle in self._order(_REFUSED, reason):
            handle.wait()

    def stop(self) -> None:
        """Host: tell everybody that it is over."""
        for handle in self._order(_STOP):
            handle.wait()

    def receive(self) -> Order:
        """Others: wait for the next order of the host, and for its boxes."""
        kind, reason = self._comm.recv(None, HOST, _ORDER)
        if kind == _STOP:
            return Order()
        if kind == _REFUSED:
            return Order(refusal=reason)
        inputs: dict[str, Array] = {}
        handles: list[MpiHandle] = []
        for tag, tensor, shape in self._boxes(self._plan.inputs, self.rank):
            inputs[tensor.tensor] = np.empty(shape, tensor.numpy_dtype)
            handles.append(self._irecv(inputs[tensor.tensor], HOST, tag))
        for handle in handles:
            handle.wait()
        return Order(inputs)

    def deliver(self, results: Mapping[str, Array]) -> None:
        """Others: begin to send copies of the own outputs."""
        while len(self._leaving) > _LEAVING:
            self._leaving.popleft().wait()
        for tag, tensor, _ in self._boxes(self._plan.outputs, self.rank):
            self._leaving.append(self._isend(np.array(results[tensor.tensor], order="C"), HOST, tag))

    def settle(self) -> None:
        """Others: wait until the outputs have left."""
        while self._leaving:
            self._leaving.popleft().wait()

    def _order(self, kind: int, reason: str = "") -> list[MpiHandle]:
        others = (process for process in range(len(self._ranks)) if process != self.process)
        return [MpiHandle(self._comm.isend((kind, reason), process, _ORDER)) for process in others]

    def _boxes(self, tensors: tuple[TensorBoxes, ...], rank: int) -> list[tuple[int, TensorBoxes, tuple[int, ...]]]:
        """Tag, tensor and shape of what a rank takes or gives."""
        return [
            (_DATA + number, tensor, extents(held.box))
            for number, tensor in enumerate(tensors)
            for held in tensor.boxes
            if held.rank == rank
        ]

    def _isend(self, array: Array, process: int, tag: int) -> MpiHandle:
        data = as_bytes(array)
        return MpiHandle(self._comm.Isend([data, MPI.BYTE], process, tag), data)

    def _irecv(self, array: Array, process: int, tag: int) -> MpiHandle:
        data = as_bytes(array)
        return MpiHandle(self._comm.Irecv([data, MPI.BYTE], process, tag), data)
