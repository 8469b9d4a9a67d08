"""The file formats of pools and designs, version 1, as pydantic models. Units stand in the key names.

The JSON Schemas in ``hwdb/schema`` are made from these (``python -m mars_onnx.pool.schema``); the docstrings of the
fields are what an editor shows.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from mars_onnx.pool.numbers import Bandwidth, Bytes, Count, Flag, Latency, Notes, Text

POOL_FORMAT = "mars-onnx/pool/1"
DESIGN_FORMAT = "mars-onnx/design/1"

#: Limits that keep a hostile or broken file from eating the machine.
MAX_FILE_BYTES = 8 * 2**20
MAX_ACCELERATORS = 4096
MAX_NODES = 8192
MAX_LINKS = 32768

#: Names become file names (``<id>.onnx``), here and on other systems.
MAX_NAME_LENGTH = 64
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$"
PROVIDER_PATTERN = r"^[A-Za-z][A-Za-z0-9]{0,31}$"
_DEVICES = r"con|prn|aux|nul|com[0-9]|lpt[0-9]"
RESERVED = re.compile(rf"(annotated|plan|report|trace|({_DEVICES})(\..*)?)", re.IGNORECASE)

Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class _Base(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Sourced(_Base):
    """A group of numbers, and where they are from."""

    source: Text
    """Where the numbers are from: a document, a measurement, or an estimate that says so."""
    reconstructed: Flag = False
    """Whether they are inferred from incomplete publications rather than read or measured."""
    notes: Notes = ""
    """Anything else a person should know."""


class DesignEntry(Sourced):
    """What an accelerator can be configured as, with the performance model that prices it."""

    name: Name
    """How pools and mappings call it; of a design file, the file's name without `.json`."""
    title: Text
    """What it is, in a few words."""
    model: Name
    """Performance model: `tiled`, `systolic`, `winograd`, `array`, `cpu`, `measured`, `roofline`, or a plugin's."""
    data_bits: Annotated[Count, Field(le=64)] | None = None
    """Width of a value in the accelerator's memory; by default that of the tensor's type."""
    parameters: dict[str, JsonValue]
    """The numbers of the performance model."""


class DesignFile(DesignEntry):
    """A design in a file of its own, `designs/<name>.json`."""

    editor_schema: str | None = Field(None, alias="$schema", exclude=True)
    """For editors only: where the JSON Schema lies."""
    format: Literal["mars-onnx/design/1"] = Field(alias="schema")
    """Format and version of this file."""


Provider = Annotated[str, Field(strict=True, pattern=PROVIDER_PATTERN)]


class AcceleratorEntry(Sourced):
    """A device with its own memory. Its place in the list is its rank."""

    id: Name
    """Unique in the pool; its partition is `<id>.onnx`."""
    kind: Name
    """What it is: fpga, gpu, cpu, npu, ..."""
    designs: Annotated[tuple[Name, ...], Field(min_length=1, max_length=256)]
    """What it can be configured as; several: it is adaptive, one: it is fixed."""
    memory_bytes: Bytes
    """Memory for weights, activations and communication buffers."""
    memory_bandwidth_bytes_per_s: Bandwidth
    """Rate between that memory and the arithmetic."""
    provider: Provider | None = None
    """Execution provider of ONNX Runtime that mars-onnx-run takes for it, without the ending ExecutionProvider: `CPU`,
    `CUDA`, `OpenVINO`, ...; default: `CPU`. No price depends on it."""


class NodeEntry(_Base):
    """A host or a switch: something that forwards data and computes nothing."""

    id: Name
    """Unique in the pool."""
    forwarding: Literal["cut_through", "store_and_forward"] = "cut_through"
    """Whether a message is passed on while it arrives (cut_through) or when it is there (store_and_forward)."""
    notes: Notes = ""
    """Anything else a person should know."""


class LinkEntry(Sourced):
    """Links that have the same numbers."""

    between: Annotated[tuple[tuple[str, str], ...], Field(min_length=1, max_length=MAX_LINKS)]
    """Pairs of ids (accelerators, hosts, switches); every pair is one link."""
    bandwidth_bytes_per_s: Bandwidth
    """Of one link; with `full` duplex, in either direction at once."""
    latency_s: Latency
    """From the first byte sent to the first byte received."""
    duplex: Literal["full", "half"] = "full"
    """Whether both directions run at once (full) or share the bandwidth (half)."""
    shared: Flag = True
    """Whether messages at the same time share the bandwidth; false only to leave contention out of a model."""


CollectiveName = Literal[
    "AllReduce", "AllGather", "ReduceScatter", "AllToAll", "Broadcast", "HaloExchange", "Shift", "SendRecv"
]
Exchanging = Literal["ring", "ring_both_ways", "halving_doubling", "direct", "hierarchical"]
_CHOICE = Field(min_length=1, max_length=8)


class AlgorithmsEntry(_Base):
    """Per collective the algorithms to choose the fastest of; default: all. See docs/cost-model.md."""

    all_reduce: Annotated[tuple[Exchanging, ...], _CHOICE] | None = None
    """Sum of tensors, on every member."""
    all_gather: Annotated[tuple[Exchanging, ...], _CHOICE] | None = None
    """Pieces of every member, on every member."""
    reduce_scatter: Annotated[tuple[Exchanging, ...], _CHOICE] | None = None
    """Sum of tensors, a piece on every member."""
    all_to_all: Annotated[tuple[Literal["pairwise", "direct", "ring", "hierarchical"], ...], _CHOICE] | None = None
    """A piece from every member to every other."""
    broadcast: (
        Annotated[tuple[Literal["tree", "chain", "direct", "scatter_gather", "hierarchical"], ...], _CHOICE] | None
    ) = None
    """From one member to all."""


class OverheadEntry(_Base):
    """What the software of a member takes for a collective, beside its messages."""

    ops: Annotated[tuple[CollectiveName, ...], _CHOICE]
    """Operators; each is named once at most."""
    latency_s: Latency = 0.0
    """However small it is."""
    kept_bytes_per_s: Bandwidth | None = None
    """Rate at which a member copies what it keeps of its tensor to where the result is; default: it stays in place."""
    assembled_bytes_per_s: Bandwidth | None = None
    """Rate at which a member puts a result together whose pieces do not follow one another in memory, such as the rows
    of an image with several channels; of AllGather only. Default: no more than if they do."""

    @model_validator(mode="after")
    def _gathers(self) -> OverheadEntry:
        if self.assembled_bytes_per_s is not None and self.ops != ("AllGather",):
            raise ValueError("assembled_bytes_per_s is for ops ['AllGather'] alone")
        return self


class CollectivesEntry(Sourced):
    """How collectives run on the pool."""

    chunks: Annotated[Count, Field(le=1024)] = 1
    """Into how many pieces a collective is cut, which follow each other; each pays the latencies."""
    endpoint_latency_s: Latency = 0.0
    """From a member's memory into the network, or back; beside the latency of links."""
    reduction_bytes_per_s: Bandwidth | None = None
    """Received bytes that a member adds to its own in a second; default: as fast as they come."""
    reductions: Literal["serial", "overlapped"] = "serial"
    """Whether sums are made one after the other before the next message, or beside each other and beside messages."""
    algorithms: AlgorithmsEntry = AlgorithmsEntry()
    """Per collective those to choose from."""
    overheads: Annotated[tuple[OverheadEntry, ...], Field(max_length=8)] = ()
    """What software adds to collectives; default: nothing."""

    @model_validator(mode="after")
    def _named_once(self) -> CollectivesEntry:
        named = [op for entry in self.overheads for op in entry.ops]
        if len(named) != len(set(named)):
            raise ValueError("the overhead of an operator is given more than once")
        return self


class OverlapEntry(Sourced):
    """What happens at the same time in a run, and what the simulation counts. Without it: the additive cost."""

    communication_with_compute: Flag = False
    """Whether an accelerator communicates while it computes; either kind of work keeps its own order."""
    double_buffering: Flag = False
    """Whether an accelerator fetches the next node's weights while a node runs and leaves its memory port free."""
    prefetch_bytes: Bytes | None = None
    """The most that is fetched ahead, the size of the buffer on the chip; by default there is no limit."""
    contention: Flag = True
    """Whether communications that run at the same time share the links that they have in common."""
    local_moves: Flag = True
    """Whether slices, joins and sums of parts, which the partitions have and the model has not, take time."""


class PoolFile(Sourced):
    """A pool of accelerators with its links."""

    editor_schema: str | None = Field(None, alias="$schema", exclude=True)
    """For editors only: where the JSON Schema lies."""
    format: Literal["mars-onnx/pool/1"] = Field(alias="schema")
    """Format and version of this file."""
    name: Name
    """How plans and reports call the pool."""
    title: Text
    """What it is, in a few words."""
    designs: Annotated[tuple[DesignEntry, ...], Field(max_length=256)] = ()
    """Designs of this pool alone; others are looked up in `designs/` beside the file, then among the shipped ones."""
    accelerators: Annotated[tuple[AcceleratorEntry, ...], Field(min_length=1, max_length=MAX_ACCELERATORS)]
    """In rank order."""
    hosts: Annotated[tuple[NodeEntry, ...], Field(max_length=MAX_NODES)] = ()
    """Machines that the accelerators are plugged into."""
    switches: Annotated[tuple[NodeEntry, ...], Field(max_length=MAX_NODES)] = ()
    """Switches between links."""
    links: Annotated[tuple[LinkEntry, ...], Field(max_length=MAX_LINKS)] = ()
    """What connects them."""
    collectives: CollectivesEntry | None = None
    """How collectives run; default: whole, by the fastest algorithm, with no cost but that of the links."""
    inputs_at: str | None = None
    """Host or accelerator where model inputs start. Default: the host if there is one, else the first accelerator."""
    outputs_at: str | None = None
    """Host or accelerator where model outputs end. Default: as for inputs."""
    overlap: OverlapEntry | None = None
    """What happens at the same time. Default: nothing does, and local moves are free."""
