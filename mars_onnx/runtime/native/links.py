"""The communications of a partition and its steps, prepared but not yet bound to memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from mars_onnx.runtime.native.assembly import Assembly
from mars_onnx.runtime.native.compute import Kind, Session
from mars_onnx.runtime.native.opened import Exchange
from mars_onnx.runtime.native.placement import Program
from mars_onnx.runtime.native.steps import Step
from mars_onnx.runtime.transport import Array


@dataclass(frozen=True, slots=True)
class Source:
    """What a communication takes: a value that a step computes, or else a name.

    The name is that of an input of the partition, of an initializer, or of what another communication has given.
    """

    name: str
    computed: ir.Value | None


@dataclass(frozen=True, slots=True)
class Link:
    """A communication, prepared.

    Attributes:
        exchange: Which one.
        blocked: Whether its tensors are in blocks.
        shared: Whether it goes through common memory.
        source: What it takes.
        x_kind: Of what it takes; ``None`` for Recv.
        y_kind: Of what it gives; ``None`` for Send.
        assembly: How the own result is put together, on tensors of five dimensions if they are in blocks.
    """

    exchange: Exchange
    blocked: bool
    shared: bool
    source: Source | None
    x_kind: Kind | None
    y_kind: Kind | None
    assembly: Assembly | None

    @property
    def tag(self) -> int:
        """Of the communication."""
        return self.exchange.operator.tag


@dataclass(slots=True)
class Prepared:
    """One rank's partition, before it is bound to memory.

    Attributes:
        block: Channels in a block.
        openings: Inputs of the graph through which communications give their results, by name.
        links: The communications.
        steps: In their order.
        sessions: Of the steps that compute, by number of the step.
        kinds: Of all values that pass between steps.
        given: Names of what the partition gives.
        outputs: Those of them that the graph computes.
        constants: What communications take or the partition gives, and the optimisation has found to be constant.
        moved: Values that are computed in the place of what a later step adds them to, and whose place that is; see
            :func:`mars_onnx.runtime.native.offers.program_of`.
        programs: What all ranks of the region say about themselves.
    """

    block: int
    openings: dict[str, ir.Value]
    links: tuple[Link, ...]
    steps: tuple[Step, ...]
    sessions: dict[int, Session]
    kinds: dict[ir.Value, Kind]
    given: tuple[str, ...]
    outputs: dict[str, ir.Value]
    constants: dict[str, Array]
    moved: dict[ir.Value, ir.Value] = field(default_factory=dict)
    programs: dict[int, Program] = field(default_factory=dict)
