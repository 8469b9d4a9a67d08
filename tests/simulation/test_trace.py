"""What is written: trace.json, and the times in report.json."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from mars_onnx.compiler import Compilation, compile
from mars_onnx.models import load_builder
from tests.simulation.partitions import from_text, pool_with
from tests.simulation.test_simulate import PRODUCT


@pytest.fixture
def made(tmp_path: Path) -> Compilation:
    return from_text(
        PRODUCT, {"w": (64, 64)}, pool_with((2,), communication_with_compute=True), tmp_path, {"only": "ES(K=2)"}
    )


def read(made: Compilation, folder: Path, name: str) -> dict[str, Any]:
    made.save(folder / "out")
    return json.loads((folder / "out" / name).read_text(encoding="utf-8"))


def test_trace(made: Compilation, tmp_path: Path) -> None:
    events = read(made, tmp_path, "trace.json")["traceEvents"]
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {0: "a0", 1: "a1"}
    threads = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert threads == {"compute", "communication", "memory"}
    bars = [event for event in events if event["ph"] == "X"]
    assert len(bars) == sum(len(task.ranks) for task in made.simulation.tasks)
    assert max(bar["ts"] + bar["dur"] for bar in bars) == pytest.approx(made.simulation.latency_s * 1e6)
    reduced = [bar for bar in bars if bar["name"] == "AllReduce z"]
    assert [bar["args"]["group"] for bar in reduced] == [["a0", "a1"]] * 2
    peaks = [max(sum(e["args"].values()) for e in events if e["ph"] == "C" and e["pid"] == rank) for rank in (0, 1)]
    assert peaks == [made.simulation.ranks[rank].peak_bytes for rank in (0, 1)]
    # Nothing on one thread of one accelerator happens twice at a time.
    for rank in (0, 1):
        for thread in (1, 2):
            own = sorted((b["ts"], b["dur"]) for b in bars if (b["pid"], b["tid"]) == (rank, thread))
            assert all(a[0] + a[1] <= b[0] * (1 + 1e-9) for a, b in pairwise(own))


def test_report(made: Compilation, tmp_path: Path) -> None:
    report = read(made, tmp_path, "report.json")
    assert report["latency_s"] == made.simulation.latency_s
    assert report["search"]["cost_s"] == pytest.approx(made.price.latency_s, rel=1e-12)
    (entry,) = report["communication"]
    assert (entry["start_s"], entry["end_s"]) == (made.simulation.by_tag[0].start_s, made.simulation.by_tag[0].end_s)
    for rank, row in enumerate(report["accelerators"]):
        use = made.simulation.ranks[rank]
        assert (row["peak_memory_bytes"], row["compute_s"], row["idle_s"]) == (
            use.peak_bytes,
            use.compute_s,
            use.idle_s,
        )
    (layer,) = report["layers"]
    assert layer["end_s"] == max(task.end_s for task in made.simulation.by_layer["only"])


def test_same_bytes_twice(tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        made = compile(ir.from_proto(load_builder().build("encoder")), "fpga_pool")
        made.save(tmp_path / name)
        texts.append((tmp_path / name / "trace.json").read_bytes())
    assert texts[0] == texts[1]
