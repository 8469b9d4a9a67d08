"""emit-partitions: from the global graph to one model per accelerator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from mars_onnx.emission.emitter import Emitter
from mars_onnx.emission.finish import finish
from mars_onnx.stages import attachments


@dataclass(frozen=True)
class EmitPartitions(ir.passes.InPlacePass):
    """Write the local graph of every accelerator, with communication as explicit nodes.

    Contract: takes a graph with layouts (insert-sharding). Leaves the global graph as it is, with one model per
    accelerator attached to it (``attachments.get_partitions``): local shapes, sliced weights, and every Redistribute as
    the collectives that do it, in one global order.

    Before::

        y_halo = org.mars_onnx.comm.Redistribute <kind = "halo-exchange"> (y)

    After, on the first of two accelerators::

        y_halo, token_3 = org.mars_onnx.comm.HaloExchange <axis = 2, group = [0, 1], ...> (y, token_2)
    """

    stage: ClassVar[str] = "partitioned"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        mapping, pool = attachments.get_mapping(model), attachments.get_pool(model)
        partitions = finish(Emitter(model, mapping, pool).run(), model, mapping, pool)
        attachments.set_partitions(model, partitions)
        attachments.set_stage(model, self.stage)
        return ir.passes.PassResult(model, modified=True)
