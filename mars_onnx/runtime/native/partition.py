"""A partition bound to memory, and its run: sessions and copies in a fixed order, and waits for other ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import onnx_ir as ir

from mars_onnx.runtime.native.binder import Binder
from mars_onnx.runtime.native.placement import Wait, place
from mars_onnx.runtime.native.preparation import prepare
from mars_onnx.runtime.native.region import Region
from mars_onnx.runtime.segments import CommunicationStep, Segment
from mars_onnx.runtime.sessions import ExecutorOptions
from mars_onnx.runtime.transport import Array, Transport

_COUNTER_BYTES = 64
"""One cache line per rank, so that who writes one does not disturb who reads another."""


class Monitor(Protocol):
    """Is told where a run stands; steps are counted as in ``PartitionExecutor.steps``."""

    def begin(self, step: int) -> None:
        """The step begins."""

    def end(self, step: int) -> None:
        """The step has ended."""


class NativePartition:
    """A partition, lowered for this machine and bound to memory that it shares with the ranks of its region.

    Args:
        model: The partition.
        region: Ranks that share memory with this one. All of them must build theirs at the same time.
        options: How sessions are built.

    Attributes:
        steps: What a run consists of, in the words of a run in segments.
        links: The communications.
        placement: Where what passes between ranks of the region lies.

    Raises:
        UnsuitableError: A rank of the region cannot run its partition like this. All ranks raise it then.
    """

    def __init__(self, model: ir.Model, region: Region, options: ExecutorOptions) -> None:
        prepared = prepare(model, region, options)
        placement = place(prepared.programs)
        self.links = prepared.links
        self.placement = placement
        counters_bytes = _COUNTER_BYTES * len(region.ranks)
        shared = region.allocate(counters_bytes + placement.size)
        self._region = region
        self._given = prepared.given
        self._counters = shared[:counters_bytes].cast("q")
        self._stride = _COUNTER_BYTES // self._counters.itemsize
        self._position = {rank: position for position, rank in enumerate(region.ranks)}
        self._lengths = [prepared.programs[rank].steps for rank in region.ranks]
        self._seen = [0] * len(region.ranks)
        self._run = 0
        arena = np.frombuffer(shared, np.uint8)[counters_bytes:]
        self._binder = Binder(
            prepared, region.rank, placement, arena, {**_constants(model, prepared.given), **prepared.constants}
        )
        self._actions = self._binder.actions()
        self.steps: tuple[Segment | CommunicationStep, ...] = tuple(
            action.step for action in self._actions if action.step is not None
        )

    def bind(self, transport: Transport) -> None:
        """Let the transport set up the communications with ranks outside the region, together with all ranks."""
        self._binder.bind_messages(transport)

    def run(
        self, inputs: Mapping[str, Array], transport: Transport, monitor: Monitor | None = None
    ) -> dict[str, Array]:
        """Run once.

        Args:
            inputs: The local boxes of the model's inputs, of the right shapes and element types.
            transport: For communications with ranks outside the region.
            monitor: Is told where the run stands.

        Raises:
            RunError: A kernel fails, or another rank has failed.
        """
        binder = self._binder
        binder.transport = transport
        for name, array in inputs.items():
            binder.late[name] = array if array.flags.c_contiguous else array.copy()
        for bound in binder.bound.values():
            bound.settle()
            bound.post()
        own = self._position[self._region.rank]
        counters, slot, base = self._counters, own * self._stride, self._run * self._lengths[own]
        number = -1
        for action in self._actions:
            if monitor is not None and action.step is not None:
                number += 1
                monitor.begin(number)
            if action.waits:
                self._wait(action.waits)
            action.act()
            counters[slot] = base + action.done
            if monitor is not None and action.step is not None:
                monitor.end(number)
        outputs = {name: binder.output(name) for name in self._given}
        counters[slot] = base + self._lengths[own]
        self._run += 1
        return outputs

    def settle(self) -> None:
        """Wait until all that has been sent has left."""
        for bound in self._binder.bound.values():
            bound.settle()

    def _wait(self, waits: tuple[Wait, ...]) -> None:
        counters, seen = self._counters, self._seen
        for wait in waits:
            position = self._position[wait.rank]
            target = (self._run + wait.run) * self._lengths[position] + wait.step
            if seen[position] >= target:
                continue
            slot = position * self._stride
            turns = 0
            while (now := counters[slot]) < target:
                turns += 1
                self._region.idle(turns)
            seen[position] = now


def _constants(model: ir.Model, given: tuple[str, ...]) -> dict[str, Array]:
    """Initializers that communications take or the partition gives."""
    taken = {str(value.name) for node in model.graph for value in node.inputs if value is not None and node.domain}
    return {
        name: np.ascontiguousarray(value.const_value.numpy())
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and (name in given or name in taken)
    }
