"""Processes that die, fail, or find other files: all end, and say which accelerator, where, and why."""

import os
import re
import shutil
import signal
import subprocess
import time
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


def has_ended(number: int) -> bool:
    """Whether a process is gone; a zombie is: it waits for whoever has taken it over from the launcher."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            status = Path(f"/proc/{number}/stat").read_text()
        except OSError:
            return True
        if status.rpartition(")")[2].split()[0] in "ZX":
            return True
        time.sleep(0.05)
    return False


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
    assert all(map(has_ended, numbers.values()))


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


@each_mpi
def test_a_plan_that_is_not_the_hosts(mpi: Launcher, partitions: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(partitions, tmp_path / "copy"))
    plan = copy / "plan.json"
    plan.write_text(plan.read_text().replace('"name": ""', '"name": "another"', 1))
    err = finish(mpi.start(N, PROGRAMS / "own_folder.py", partitions, copy, 2))
    assert len(re.findall(r"error: accelerator fpga2 \(rank 2\) on \S+: .*plan.json: not the plan", err)) == N


@each_mpi
def test_a_plan_that_only_one_process_cannot_read(mpi: Launcher, partitions: Path, tmp_path: Path) -> None:
    err = finish(mpi.start(N, PROGRAMS / "own_folder.py", partitions, tmp_path, 3))
    assert len(re.findall(r"error: accelerator fpga3 \(rank 3\) on \S+: .*plan.json: no such file", err)) == N


@each_mpi
@pytest.mark.slow
def test_a_process_that_runs_out_of_memory(mpi: Launcher, tmp_path: Path) -> None:
    partitions = folder.write(tmp_path / "model.mars", N, large=1)
    arguments = (PROGRAMS / "little_memory.py", partitions, 1)
    mpi.run(N, *arguments, 2**40)
    err = finish(mpi.start(N, *arguments, folder.LARGE_BYTES * 2))
    assert len(re.findall(r"error: accelerator fpga1 \(rank 1\) on \S+: .*memory", err)) == N
