"""``mpiexec -n N python -m mars_onnx.run``: right results, the same as of threads, and clear refusals."""

from pathlib import Path

import numpy as np
import pytest

from mars_onnx.errors import UsageError
from mars_onnx.run import main
from mars_onnx.runtime.mpi.rank_map import rank_map
from tests.runtime.mpi import folder
from tests.runtime.mpi.launch import PROGRAMS, Launcher, each_mpi
from tests.runtime.test_deployment import check_profile

N = 4
RUN = ("-m", "mars_onnx.run")


@pytest.fixture(scope="module")
def partitions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("mpi")
    np.savez(base / "in.npz", **folder.inputs(N))
    return folder.write(base / "model.mars", N)


def refusal(mpi: Launcher, processes: int, *arguments: object) -> str:
    process = mpi.start(processes, *arguments)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Traceback" not in err
    return err


@each_mpi
def test_command(mpi: Launcher, partitions: Path, tmp_path: Path) -> None:
    given = partitions.parent / "in.npz"
    out = mpi.run(
        N, *RUN, partitions, "--input", given, "--output", tmp_path / "y.npz", "--repeat", 3, "--warm-up", 1,
        "--rank-map", "fpga3,2,fpga0,fpga1",
    )  # fmt: skip
    assert "3 run(s)" in out
    assert "4 MPI processes" in out
    with np.load(tmp_path / "y.npz") as archive:
        y = archive["y"]
    np.testing.assert_array_equal(y, folder.expected(folder.inputs(N)))
    assert main([str(partitions), "--input", str(given), "--output", str(tmp_path / "t.npz"), "-q"]) == 0
    with np.load(tmp_path / "t.npz") as archive:
        np.testing.assert_array_equal(archive["y"], y)


@each_mpi
def test_a_provider_of_one_accelerator(mpi: Launcher, partitions: Path, tmp_path: Path) -> None:
    run = (*RUN, partitions, "--random", 0, "-q", "--provider")
    mpi.run(N, *run, "fpga1=CPU")
    said = refusal(mpi, N, *run, "fpga1=Imaginary")
    assert said.count("error: accelerator fpga1 (rank 1) on") == N
    assert said.count("fpga1: provider Imaginary: the installed onnxruntime has") == N
    assert refusal(mpi, N, *run, "other=CPU").count("there is no accelerator other; fpga0, fpga1, fpga2, fpga3") == 1


@each_mpi
def test_in_a_program_of_ones_own(mpi: Launcher, partitions: Path) -> None:
    assert mpi.run(N + 1, PROGRAMS / "own.py", partitions).split() == ["ok"]


@each_mpi
def test_another_number_of_processes(mpi: Launcher, partitions: Path) -> None:
    text = refusal(mpi, 2, *RUN, partitions, "--random", 0)
    assert text.count("error: there are 2 MPI processes and 4 partitions; use mpiexec -n 4") == 1


@each_mpi
def test_wrong_inputs(mpi: Launcher, partitions: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "wrong.npz", i=np.zeros(3, np.int64), x=np.zeros((N, folder.COLUMNS), np.float32))
    text = refusal(mpi, N, *RUN, partitions, "--input", tmp_path / "wrong.npz")
    assert "input 'i' is int64[3]; the model takes int64[4]" in text


def test_rank_maps(tmp_path: Path) -> None:
    assert rank_map("a, b,c") == ("a", "b", "c")
    (tmp_path / "map").write_text("fpga1  # first\n\nfpga0\n", encoding="utf-8")
    assert rank_map(str(tmp_path / "map")) == ("fpga1", "fpga0")


def test_rank_maps_are_for_mpi(partitions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(partitions), "--random", "0", "--rank-map", "0,1,2,3"]) == UsageError.exit_code
    assert "mpiexec" in capsys.readouterr().err


@each_mpi
def test_profile_and_stream(mpi: Launcher, partitions: Path, tmp_path: Path) -> None:
    given = partitions.parent / "in.npz"
    path = tmp_path / "profile.json"
    out = mpi.run(
        N, *RUN, partitions, "--input", given, "--stream", 9, "--profile", path, "--output", tmp_path / "y.npz",
    )  # fmt: skip
    assert "a pipeline of 9" in out
    check_profile(path, N, 9)
    with np.load(tmp_path / "y.npz") as archive:
        np.testing.assert_array_equal(archive["y"], folder.expected(folder.inputs(N)))
