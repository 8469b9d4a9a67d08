"""report.json: what the mapping is thought to cost, layer by layer and accelerator by accelerator."""

from __future__ import annotations

from collections.abc import Mapping

from mars_onnx.cost.price import LayerPrice, Price
from mars_onnx.emission.finish import Partitions
from mars_onnx.pool.topology import Pool
from mars_onnx.report.judgement import Judgement, judgement_facts
from mars_onnx.runtime.plan_file import PlanFile
from mars_onnx.runtime.verify import Verification
from mars_onnx.simulation import Simulation

SCHEMA = "mars-onnx/report/1"


def report_of(
    plan: PlanFile,
    partitions: Partitions,
    price: Price,
    simulation: Simulation,
    pool: Pool,
    judged: Judgement,
    verification: Verification | None,
) -> dict[str, object]:
    """The content of report.json, keys in the order in which they are written."""
    tags = {entry.event: tag for tag, entry in enumerate(price.communication)}
    return {
        "schema": SCHEMA,
        "model": {"name": plan.model.name, "sha256": plan.model.sha256, "layers": len(price.layers)},
        "pool": {"name": plan.pool.name, "sha256": plan.pool.sha256, "accelerators": pool.size},
        **judgement_facts(judged),
        "accelerators": [_accelerator(rank, simulation, partitions, pool) for rank in range(pool.size)],
        "layers": [_layer(layer, simulation, tags) for layer in price.layers],
        "computed_whole": [layer.name for layer in price.layers if layer.whole],
        "communication": [
            {
                "op": event.op,
                "tensor": event.tensor,
                "group": [pool.accelerators[rank].id for rank in event.group],
                "bytes": event.received_bytes,
                "start_s": simulation.by_tag[event.tag].start_s,
                "end_s": simulation.by_tag[event.tag].end_s,
            }
            for event in partitions.events
        ],
        "verification": verification_facts(verification),
    }


def verification_facts(verification: Verification | None) -> dict[str, object]:
    """What the comparison with the original gave; status ``not run`` if there was none."""
    if verification is None:
        return {"status": "not run", "max_abs_error": None, "max_rel_error": None, "outputs": []}
    facts: dict[str, object] = {
        "status": "equal" if verification.passed else "different",
        "max_abs_error": max((c.max_abs_error for c in verification.outputs), default=0.0),
        "max_rel_error": max((c.max_rel_error for c in verification.outputs), default=0.0),
        "outputs": [
            {
                "name": c.name,
                "status": c.status,
                "max_abs_error": c.max_abs_error,
                "max_rel_error": c.max_rel_error,
                "elements": c.elements,
            }
            for c in verification.outputs
        ],
    }
    if verification.deep is not None:
        facts["deep"] = {
            "boxes": verification.deep.boxes,
            "partial_boxes": verification.deep.partial_boxes,
            "tensors": verification.deep.tensors,
            "failures": [f"{c.name}: {c.status}" for c in verification.deep.failures],
        }
    return facts


def _accelerator(rank: int, simulation: Simulation, partitions: Partitions, pool: Pool) -> Mapping[str, object]:
    own = next((partition for partition in partitions.partitions if partition.rank == rank), None)
    use = simulation.ranks.get(rank)
    return {
        "id": pool.accelerators[rank].id,
        "set": None if own is None else own.set_index,
        "design": None if own is None else own.design,
        "compute_s": 0.0 if use is None else use.compute_s,
        "communication_s": 0.0 if use is None else use.communication_s,
        "idle_s": simulation.latency_s if use is None else use.idle_s,
        "weight_bytes": 0 if use is None else use.peak.weight_bytes,
        "peak_memory_bytes": 0 if use is None else use.peak_bytes,
        "memory_bytes": pool.accelerators[rank].memory_bytes,
    }


def _layer(layer: LayerPrice, simulation: Simulation, tags: Mapping[int, int]) -> dict[str, object]:
    """A layer's shares, and what is communicated for it.

    Args:
        layer: What is known of it.
        simulation: When everything ran.
        tags: Tags of communications by their place among the events of the price.
    """
    computed = simulation.by_layer.get(layer.name, ())
    moved = [simulation.by_tag[tags[event]] for event in layer.moves]
    own = [*moved, *computed]
    return {
        "name": layer.name,
        "op": layer.op_type,
        "set": layer.set_index,
        "strategy": layer.strategy,
        "start_s": min((task.start_s for task in own), default=0.0),
        "end_s": max((task.end_s for task in own), default=0.0),
        "compute_s": max((task.seconds for task in computed), default=0.0),
        "communication_s": sum(task.seconds for task in moved),
        "macs": layer.macs,
    }
