"""A folder of hand-written partitions: a sum over all accelerators, and a lookup that fails for a wrong index."""

from pathlib import Path

import numpy as np
import onnx_ir as ir

from mars_onnx.runtime.plan_file import PartitionEntry, PlanFile, dump_plan, file_sha256
from tests.runtime.hand_written import boxes, partition

COLUMNS = 5
LARGE_BYTES = 150 * 10**6


def write(folder: Path, members: int, large: int | None = None) -> Path:
    """``y`` is the sum of table rows ``i`` of all accelerators, each of which has its own table and index.

    The table of the accelerator ``large`` has ``LARGE_BYTES``.
    """
    group = list(range(members))
    entries = []
    folder.mkdir()
    for rank in group:
        table = ",".join(str(float(10 * rank + row)) for row in range(3) for _ in range(COLUMNS))
        row = f"float[1,{COLUMNS}]"
        text = f"""g (int64[1] i, {row} x) => ({row} y) <float[3,{COLUMNS}] w = {{{table}}}> {{
            g = Gather (w, i)  p = Add (g, x)
            y, token = @AllReduce <group = {group}, reduce_op = "sum", tag = 0> (p, start) }}"""
        path = folder / f"fpga{rank}.onnx"
        model = partition(text)
        if rank == large:
            table = np.zeros((LARGE_BYTES // (4 * COLUMNS), COLUMNS), np.float32)
            model.graph.initializers["w"].const_value = ir.tensor(table, name="w")
            model.graph.initializers["w"].shape = ir.Shape(table.shape)
        ir.save(model, path)
        entries.append(PartitionEntry(rank, f"fpga{rank}", 0, "", path.name, None, file_sha256(path), None))
    inputs = (
        boxes("i", (members,), {rank: f"{rank}:{rank + 1}" for rank in group}, "int64"),
        boxes("x", (members, COLUMNS), {rank: f"{rank}:{rank + 1},0:{COLUMNS}" for rank in group}),
    )
    plan = PlanFile(tuple(entries), inputs, (boxes("y", (1, COLUMNS), members - 1),))
    (folder / "plan.json").write_text(dump_plan(plan), encoding="utf-8")
    return folder


def inputs(members: int, index: int = 1) -> dict[str, np.ndarray]:
    x = np.random.default_rng(members).standard_normal((members, COLUMNS)).astype(np.float32)
    return {"i": np.full(members, index), "x": x}


def expected(given: dict[str, np.ndarray]) -> np.ndarray:
    members = len(given["i"])
    parts = [np.float32(10 * rank + given["i"][rank]) + given["x"][rank] for rank in range(members)]
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total[np.newaxis]
