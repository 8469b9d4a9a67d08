"""Processes on one host run natively, in windows of shared memory, and give what the original gives."""

import json
from pathlib import Path

import onnx
import pytest

from mars_onnx.__main__ import main
from mars_onnx.runtime.native.lowered import block_size
from tests.pool_factory import pool_document
from tests.runtime.mpi.launch import PROGRAMS, Launcher, each_mpi
from tests.runtime.native.convolutional_graphs import residual_model


def partitioned(folder: Path, processes: int) -> tuple[Path, Path]:
    """A residual network cut by channels over as many processes."""
    model = folder / "model.onnx"
    onnx.save(residual_model(2 * processes * block_size()), model)
    pool = pool_document([processes])
    names = [accelerator["id"] for accelerator in pool["accelerators"]]
    layers = {"Conv*": f"ES(Cout={processes})", "*": f"ES(C={processes})"}
    mapping = {"schema": "mars-onnx/mapping/1", "sets": [{"accelerators": names, "layers": layers}]}
    (folder / "pool.json").write_text(json.dumps(pool), encoding="utf-8")
    (folder / "mapping.json").write_text(json.dumps(mapping), encoding="utf-8")
    arguments = ["--hw", str(folder / "pool.json"), "--mapping", str(folder / "mapping.json"), "-q"]
    assert main([str(model), *arguments, "-o", str(folder / "model.mars")]) == 0
    return folder / "model.mars", model


@each_mpi
@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_share_memory(mpi: Launcher, processes: int, tmp_path: Path) -> None:
    target, model = partitioned(tmp_path, processes)
    lines = mpi.run(processes, PROGRAMS / "native.py", target, model).splitlines()
    assert len(lines) == processes
    # All ranks have found the same places.
    assert len(set(lines)) == 1
    blocked = int(lines[0].split(" ", 1)[0])
    assert blocked > 0 if block_size() > 1 else blocked == 0
