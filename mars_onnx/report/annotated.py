"""annotated.onnx: the whole model with ONNX's own multi-device annotation (IR version 11).

The annotation says on which devices a node runs and along which axes its tensors are cut, in equal parts. It has no
words for offsets, unequal parts or partial sums: it is a summary of the mapping, which stands whole in the metadata.
"""

from __future__ import annotations

import onnx_ir as ir

from mars_onnx.geometry import Layout
from mars_onnx.pool.topology import Pool
from mars_onnx.sharding.mapping import Mapping
from mars_onnx.stages import attachments
from mars_onnx.stages.sharded import sharding_of

_IR_VERSION = 11


def annotate(model: ir.Model, mapping: Mapping, pool: Pool) -> ir.Model:
    """A copy of the canonical model, annotated.

    Args:
        model: Canonical graph with a set and a strategy on every node (after select-accelerators).
        mapping: The mapping that these are from.
        pool: The devices.
    """
    annotated = model.clone()
    annotated.ir_version = max(_IR_VERSION, model.ir_version)
    devices = tuple(accelerator.id for accelerator in pool.accelerators)
    configuration = annotated.add_device_configuration(pool.name, num_devices=len(devices), device_names=devices)
    for node in annotated.graph:
        stage = attachments.get_set(node)
        node.set_pipeline_stage(configuration, stage)
        sharding = sharding_of(node, mapping)
        done: set[ir.Value] = set()
        pairs = [*zip(node.inputs, sharding.needs, strict=False), *zip(node.outputs, sharding.produced, strict=False)]
        for value, layout in pairs:
            if value is None or layout is None or value in done:
                continue
            done.add(value)
            for axis, shards in enumerate(_shards(layout)):
                if shards > 1:
                    node.shard(
                        value,
                        configuration=configuration,
                        axis=axis,
                        num_shards=shards,
                        device_indices=sharding.members,
                        pipeline_stage=stage,
                    )
    return annotated


def _shards(layout: Layout) -> tuple[int, ...]:
    """Per dimension into how many different ranges the members cut it."""
    boxes = [box for box in layout.boxes if box is not None]
    return tuple(len({box[dim] for box in boxes}) for dim in range(len(layout.shape)))
