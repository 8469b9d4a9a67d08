"""From graphs under construction to models: outputs, token, metadata, function bodies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mars_onnx.comm.domain import DOMAIN, TOKEN_NAME, VERSION
from mars_onnx.comm.functions import add_functions
from mars_onnx.emission.emitter import Emitted
from mars_onnx.emission.local_graph import type_of
from mars_onnx.emission.partition import PartitionBuilder
from mars_onnx.emission.transcribe import Event
from mars_onnx.geometry import Box
from mars_onnx.pool.topology import Pool
from mars_onnx.sharding.mapping import Mapping as AcceleratorMapping
from mars_onnx.version import __version__

#: The oldest IR version that knows metadata on values; the most widely loadable one that can say all we have to say.
_IR_VERSION = 10


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """The model of one accelerator.

    Attributes:
        rank: Which accelerator.
        accelerator: Its id.
        set_index: Its set in the mapping.
        design: What it is configured as.
        model: What it computes.
        inputs: Per model input that enters here, its box.
        outputs: Per model output that leaves here, its box.
    """

    rank: int
    accelerator: str
    set_index: int
    design: str
    model: ir.Model
    inputs: Mapping[str, Box]
    outputs: Mapping[str, Box]


@dataclass(frozen=True, slots=True, eq=False)
class Partitions:
    """All partitions of a model, by rank, and the communication between them in its global order."""

    partitions: tuple[Partition, ...]
    events: tuple[Event, ...]


def finish(emitted: Emitted, model: ir.Model, mapping: AcceleratorMapping, pool: Pool) -> Partitions:
    """Make a model of every graph."""
    where = {
        rank: (index, design)
        for index, own in enumerate(mapping.sets)
        for rank, design in zip(own.members, own.designs, strict=True)
    }
    partitions = tuple(
        _partition(builder, emitted, model, pool, *where[rank]) for rank, builder in emitted.builders.items()
    )
    return Partitions(partitions, emitted.events)


def _partition(
    builder: PartitionBuilder, emitted: Emitted, model: ir.Model, pool: Pool, set_index: int, design: str
) -> Partition:
    accelerator = pool.accelerators[builder.rank].id
    leaving: dict[str, Box] = {}
    outputs: list[ir.Value] = []
    for step, (value, holders) in enumerate(emitted.outputs, emitted.steps):
        if builder.rank in holders:
            box, local = holders[builder.rank]
            name = value.name or ""
            builder.begin_output(name, step)
            leaving[name] = box
            outputs.append(_output(builder, local, name, taken=local in outputs))
            outputs[-1].metadata_props["mars.step"] = str(step)
    if builder.token is not None:
        outputs.append(_named(builder, builder.token, TOKEN_NAME))
    elif not outputs:
        # A graph without outputs is no model: an accelerator without work gives an empty token.
        builder.begin_output(TOKEN_NAME, None)
        outputs.append(_identity(builder, builder.constant(np.zeros(1, np.int64)), TOKEN_NAME))
    entering = {value.name or "": box for value, (box, local) in builder.held.items() if local in builder.inputs}
    name = f"{model.graph.name or 'model'}.{accelerator}.set{set_index}.{design}"
    graph = builder.graph(builder.inputs, outputs, name)
    for domain, version in model.graph.opset_imports.items():
        if domain != DOMAIN and any(node.domain == domain for node in graph.all_nodes()):
            graph.opset_imports[domain] = version
    if builder.token is not None:
        graph.opset_imports[DOMAIN] = VERSION
    finished = ir.Model(
        graph,
        ir_version=max(_IR_VERSION, model.ir_version),
        producer_name="mars_onnx",
        producer_version=__version__,
        metadata_props={
            "mars.accelerator": accelerator,
            "mars.rank": str(builder.rank),
            "mars.set": str(set_index),
            "mars.design": design,
            "mars.model": model.graph.name or "",
            "mars.version": __version__,
        },
    )
    if builder.token is not None:
        add_functions(finished)
    return Partition(builder.rank, accelerator, set_index, design, finished, entering, leaving)


def _output(builder: PartitionBuilder, local: ir.Value, name: str, *, taken: bool) -> ir.Value:
    """The local value under the model output's name; what has a name or a role already gets it by an Identity."""
    if taken or local.is_graph_input() or local.is_initializer() or local in builder.inputs:
        return _identity(builder, local, name)
    return _named(builder, local, name)


def _named(builder: PartitionBuilder, value: ir.Value, name: str) -> ir.Value:
    """Outputs must have exactly their names: a value that has it already (of an output's partial sums) is renamed."""
    for other in (output for node in builder.nodes for output in node.outputs):
        if other.name == name and other is not value:
            other.name = builder.unique(name)
    value.name = name
    return value


def _identity(builder: PartitionBuilder, value: ir.Value, name: str) -> ir.Value:
    (copy,) = builder.op("Identity", [value], {}, [type_of(value)])
    copy.metadata_props.update(value.metadata_props)
    return _named(builder, copy, name)
