"""Partitions to simulate."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import onnx_ir as ir

from mars_onnx.compiler import Compilation, compile
from mars_onnx.pipeline import parse_pipeline, run_pipeline
from mars_onnx.pool.loader import load_pool
from mars_onnx.pool.topology import Pool
from mars_onnx.simulation import Conditions, Simulation, simulate
from mars_onnx.stages import attachments
from tests.end_to_end.checking import Compiled
from tests.passes.onnx_text import model
from tests.pool_factory import MADE_UP, pool_document

#: Everything on.
EVERYTHING = Conditions(overlap=True, double_buffering=True, contention=True, local_moves=True)


def pool_with(groups: tuple[int, ...], **overlap: Any) -> Pool:
    """A pool of the factory, with numbers that are easy to add up in the head, and what it declares of overlap.

    A link within a group takes 1 us and 1 GB/s, one to the host 2 us and 0.5 GB/s.
    """
    document = pool_document(groups)
    document["designs"] = [
        {
            "name": "plain",
            "title": "1 GHz, one operation per cycle, nothing else",
            "model": "roofline",
            "parameters": {"clock_hz": 1e9, "macs_per_cycle": 1},
            "source": MADE_UP,
        }
    ]
    for accelerator in document["accelerators"]:
        accelerator["designs"] = ["plain"]
    if overlap:
        document["overlap"] = {"source": MADE_UP, **overlap}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pool.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return load_pool(path)


def from_text(
    text: str, weights: dict[str, tuple[int, ...]], pool: Pool, folder: Path, layers: dict[str, str]
) -> Compilation:
    """A model as text on all accelerators of a pool as one set, with a strategy per layer."""
    ids = [accelerator.id for accelerator in pool.accelerators]
    content = {"schema": "mars-onnx/mapping/1", "sets": [{"accelerators": ids, "layers": layers}]}
    path = folder / "mapping.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return compile(model(text, weights), pool, mapping=path)


def simulated(compiled: Compiled, conditions: Conditions) -> Simulation:
    """A run of partitions that a test has compiled step by step."""
    return simulate(compiled.models.values(), compiled.pool, compiled.canonical, conditions)


def models_of(compilation: Compilation) -> list[ir.Model]:
    return [partition.model for partition in compilation.partitions.partitions]


def simulated_latency(done: Compilation, mapping: Any, pool: Pool) -> float:
    """Of a mapping as somebody gives it in a file, step by step."""
    work = done.canonical.clone()
    attachments.set_pool(work, pool)
    attachments.set_mapping(work, mapping)
    run_pipeline(work, parse_pipeline("insert-sharding,emit-partitions").passes)
    return simulate((own.model for own in attachments.get_partitions(work).partitions), pool, done.canonical).latency_s
