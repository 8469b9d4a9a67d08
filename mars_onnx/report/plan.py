"""plan.json: what a deployment needs to know, made from the partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from mars_onnx.emission.finish import Partition, Partitions
from mars_onnx.errors import InvariantError
from mars_onnx.pool.topology import Accelerator, Pool
from mars_onnx.rules.signature import tensor_type
from mars_onnx.runtime.plan_file import (
    CommunicationEntry,
    NamedHash,
    PartitionEntry,
    PlanFile,
    RankBox,
    TensorBoxes,
)
from mars_onnx.sharding.mapping import Mapping as AcceleratorMapping
from mars_onnx.version import __version__


@dataclass(frozen=True, slots=True)
class Written:
    """The files of one partition and their SHA-256."""

    file: str = ""
    data_file: str | None = None
    sha256: str = ""
    data_sha256: str | None = None


def plan_of(
    partitions: Partitions,
    inputs: Sequence[ir.Value],
    outputs: Sequence[ir.Value],
    mapping: AcceleratorMapping,
    pool: Pool,
    model: NamedHash,
    written: Mapping[int, Written] | None = None,
) -> PlanFile:
    """The plan of some partitions.

    Args:
        partitions: All of them.
        inputs: The model's inputs.
        outputs: The model's outputs.
        mapping: What was decided.
        pool: The accelerators.
        model: Name and hash of the original.
        written: Per rank its files; ``None`` while there are none.
    """
    files = written or {}
    return PlanFile(
        partitions=tuple(
            _entry(p, files.get(p.rank, Written()), pool.accelerators[p.rank]) for p in partitions.partitions
        ),
        inputs=tuple(_boxes(value, {p.rank: p.inputs for p in partitions.partitions}) for value in inputs),
        outputs=tuple(_boxes(value, {p.rank: p.outputs for p in partitions.partitions}) for value in outputs),
        model=model,
        pool=NamedHash(pool.name, pool.sha256),
        mapping=mapping.to_json(tuple(accelerator.id for accelerator in pool.accelerators)),
        communication=tuple(
            CommunicationEntry(event.tag, event.op, event.tensor, event.group, event.received_bytes)
            for event in partitions.events
        ),
        mars_onnx=__version__,
    )


def _entry(partition: Partition, written: Written, accelerator: Accelerator) -> PartitionEntry:
    return PartitionEntry(
        rank=partition.rank,
        accelerator=partition.accelerator,
        set=partition.set_index,
        design=partition.design,
        file=written.file,
        data_file=written.data_file,
        sha256=written.sha256,
        data_sha256=written.data_sha256,
        provider=accelerator.provider,
    )


def _boxes(value: ir.Value, held: Mapping[int, Mapping[str, tuple[tuple[int, int], ...]]]) -> TensorBoxes:
    kind = tensor_type(value)
    name = value.name or ""
    if kind is None:
        raise InvariantError(f"{name!r} has no static shape")
    boxes = tuple(RankBox(rank, own[name]) for rank, own in held.items() if name in own)
    return TensorBoxes(name, kind.dtype.numpy().name, kind.shape, boxes)
