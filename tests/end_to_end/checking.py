"""Compile with a mapping, and everything that has to hold after it."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from mars_onnx.emission.finish import Partitions
from mars_onnx.errors import MarsError
from mars_onnx.pool.topology import Pool
from mars_onnx.report.plan import plan_of
from mars_onnx.runtime.plan_file import NamedHash, PlanFile
from mars_onnx.runtime.random_inputs import random_inputs
from mars_onnx.runtime.schedule import check_schedule
from mars_onnx.runtime.verify import Verification, verify
from mars_onnx.sharding.mapping import Mapping
from mars_onnx.stages import attachments
from mars_onnx.stages.sharded import verify_sharded
from mars_passes.canonicalize import Canonicalize
from mars_passes.emit_partitions import EmitPartitions
from mars_passes.insert_sharding import InsertSharding

Feeds = MappingType[str, np.ndarray]


@dataclass
class Compiled:
    """A model with a mapping, after all passes."""

    source: ir.Model
    canonical: ir.Model
    sharded: ir.Model
    pool: Pool
    mapping: Mapping

    @property
    def partitions(self) -> Partitions:
        return attachments.get_partitions(self.sharded)

    @property
    def models(self) -> dict[int, ir.Model]:
        return {partition.rank: partition.model for partition in self.partitions.partitions}

    @property
    def plan(self) -> PlanFile:
        graph = self.sharded.graph
        name = NamedHash("model", "")
        return plan_of(self.partitions, graph.inputs, graph.outputs, self.mapping, self.pool, name)

    def verify(self, seed: int = 0, *, deep: bool = True) -> Verification:
        """Run with rendezvous semantics and compare outputs, and if ``deep``, every box of every tensor."""
        models = list(self.models.values())
        return verify(self.source, models, self.plan, seed=seed, deep=deep, canonical_model=self.canonical)


def canonical(model: ir.Model, pool: Pool) -> ir.Model:
    """The canonical graph of a model, with the pool attached."""
    result: ir.Model = Canonicalize()(model.clone()).model
    attachments.set_pool(result, pool)
    return result


def compile_with(source: ir.Model, graph: ir.Model, mapping: Mapping, pool: Pool) -> Compiled:
    """Shard the canonical ``graph`` as the mapping says, and emit its partitions."""
    attachments.set_mapping(graph, mapping)
    kept = graph.clone()
    attachments.set_pool(kept, pool)
    InsertSharding()(graph)
    problems = verify_sharded(graph)
    assert not problems, problems
    EmitPartitions()(graph)
    return Compiled(source, kept, graph, pool, mapping)


def check(compiled: Compiled, seed: int = 0) -> None:
    """The sharded global graph, every file for itself, the schedule, and all of them together."""
    check_global_graph(compiled, seed)
    for rank, model in compiled.models.items():
        check_file(rank, model)
    check_schedule(compiled.models)
    compiled.verify(seed).raise_if_failed()
    # Without observers, segments are cut in another way.
    compiled.verify(seed, deep=False).raise_if_failed()


def check_global_graph(compiled: Compiled, seed: int) -> None:
    """With Redistribute as the identity, the graph that holds all layouts computes what the original does."""
    feeds = random_inputs(compiled.plan, seed)
    expected, found = run(compiled.source, feeds), run(compiled.sharded, feeds)
    assert len(expected) == len(found)
    # By position: an output that is an input is renamed, for a value has one name only. Ten times the tolerances of
    # mars_onnx.runtime.compare, which scale with the tensor: here they are of single elements.
    for (name, value), other in zip(expected.items(), found.values(), strict=True):
        np.testing.assert_allclose(other, value, rtol=1e-3, atol=1e-4, err_msg=name)


def check_file(rank: int, model: ir.Model) -> None:
    """A partition is a valid model, its shapes agree with strict inference, and stock ONNX Runtime loads it."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    session(proto)
    for node in model.graph:
        for value in node.outputs:
            described = not value.name or (value.dtype is not None and value.shape is not None)
            assert described, f"rank {rank}: {value.name} has no type or shape"


def session(proto: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model: ir.Model, feeds: Feeds) -> dict[str, np.ndarray]:
    """The outputs of a model in memory."""
    ready = session(ir.to_proto(model))
    wanted = {value.name for value in ready.get_inputs()}
    names = [value.name for value in ready.get_outputs()]
    return dict(zip(names, ready.run(names, {k: v for k, v in feeds.items() if k in wanted}), strict=True))


def alarms(compiled: Compiled) -> list[str]:
    """Which of the checks that look at partitions find a fault."""
    found: list[str] = []
    try:
        check_schedule(compiled.models)
    except MarsError:
        found.append("schedule verifier")
    try:
        verification = compiled.verify()
    except MarsError:
        return [*found, "rendezvous run"]
    if not all(output.passed for output in verification.outputs):
        found.append("outputs")
    if verification.deep is not None and verification.deep.failures:
        found.append("deep check")
    return found
