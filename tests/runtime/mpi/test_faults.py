"""Processes that die, fail, or find other files: all end, and say which accelerator, where, and why."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.mpi import folder
from tests.runtime.mpi.launch import PROGRAMS, Launcher, each_mpi

N = 4
RUN = ("-m", "mars_onnx.run")
#: A limit against hanging, not a measurement: benchmarks/mpi.py measures.
PATIENCE_S = 60


@pytest.fixture(scope="module")
def partitions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("faults")
    np.savez(base / "in.npz", **folder.inputs(N))
    return folder.write(base / "model.mars", N)


def finish(process: subprocess.Popen[str]) -> str:
    try:
        _, err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        pytest.fail("some processes hang")
    assert process.returncode != 0
    assert "Traceback" not in err
    return err


def endings(err: str) -> dict[int, str]:
    """The messages by the rank that says them."""
    return {int(found[1]): found[0] for found in re.finditer(r"error: accelerator \w+ \(rank (\d+)\).*", err)}


@each_mpi
@pytest.mark.parametrize("victim", [0, 2])
def test_a_killed_process(mpi: Launcher, partitions: Path, victim: int) -> None:
    process = mpi.start(N, PROGRAMS / "forever.py", partitions)
    numbers = dict(tuple(map(int, process.stdout.readline().split())) for _ in range(N))
    os.kill(numbers[victim], signal.SIGKILL)
    said = endings(finish(process))
    assert set(said) == set(range(N))
    for text in said.values():
        assert re.search(rf"accelerator fpga{victim} \(rank {victim}\) on \S+ has died \(.*\) (at \w+|between)", text)
    for number in numbers.values():
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


@each_mpi
def test_a_killed_watcher(mpi: Launcher, partitions: Path) -> None:
    process = mpi.start(N, PROGRAMS / "forever.py", partitions)
    numbers = dict(tuple(map(int, process.stdout.readline().split())) for _ in range(N))
    (watcher,) = Path(f"/proc/{numbers[1]}/task/{numbers[1]}/children").read_text().split()
    os.kill(int(watcher), signal.SIGKILL)
    err = finish(process)
    assert "error: accelerator fpga1 (rank 1): its watcher has died" in err
    others = {rank: text for rank, text in endings(err).items() if rank != 1}
    assert set(others) == {0, 2, 3}
    assert all("accelerator fpga1 (rank 1) on" in text for text in others.values())


@each_mpi
def test_a_partition_that_fails(mpi: Launcher, partitions: Path, tmp_path: Path) -> None:
    given = folder.inputs(N)
    given["i"][2] = 99
    np.savez(tmp_path / "in.npz", **given)
    said = endings(finish(mpi.start(N, *RUN, partitions, "--input", tmp_path / "in.npz")))
    assert set(said) == set(range(N))
    for text in said.values():
        assert re.search(r"accelerator fpga2 \(rank 2\).*indices element out of data bounds", text)


@each_mpi
@pytest.mark.parametrize(
    "damage", ["other", *(pytest.param(damage, marks=pytest.mark.slow) for damage in ("missing", "cut"))]
)
def test_a_damaged_file(mpi: Launcher, partitions: Path, tmp_path: Path, damage: str) -> None:
    copy = Path(shutil.copytree(partitions, tmp_path / "copy"))
    path = copy / "fpga1.onnx"
    content = path.read_bytes()
    match damage:
        case "missing":
            path.unlink()
        case "other":
            path.write_bytes((copy / "fpga2.onnx").read_bytes())
        case "cut":
            path.write_bytes(content[: len(content) // 2])
    err = finish(mpi.start(N, *RUN, copy, "--random", 0))
    assert len(re.findall(r"error: .*fpga1\.onnx", err)) == N
    assert len(re.findall(r"error: .*accelerator fpga1 \(rank 1\) on ", err)) == N


@each_mpi
def test_a_missing_plan_is_said_once(mpi: Launcher, tmp_path: Path) -> None:
    err = finish(mpi.start(N, *RUN, tmp_path))
    assert err.count("plan.json: no such file") == 1
