"""The front door to running: a folder as a function, streams, and profiles."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest

import mars_onnx
from mars_onnx.errors import InputError, RunError
from mars_onnx.run import main
from tests.runtime.mpi import folder

N = 3


@pytest.fixture(scope="module")
def partitions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder.write(tmp_path_factory.mktemp("deployment") / "model.mars", N)


def sets(count: int) -> list[dict[str, np.ndarray]]:
    given = [folder.inputs(N, number % 3) for number in range(count)]
    for number, each in enumerate(given):
        each["x"] = each["x"] * np.float32(number + 1)
    return given


def test_run(partitions: Path) -> None:
    deployment = mars_onnx.load(partitions)
    assert [tensor.tensor for tensor in deployment.plan.inputs] == ["i", "x"]
    results = [deployment.run(given)["y"] for given in sets(3)]
    for given, result in zip(sets(3), results, strict=True):
        np.testing.assert_array_equal(result, folder.expected(given))
    with pytest.raises(InputError, match="input 'i' is not given"):
        deployment.run({})


@pytest.mark.parametrize("depth", [1, 2, None, 50])
def test_stream(partitions: Path, depth: int | None) -> None:
    deployment = mars_onnx.load(partitions)
    results = list(deployment.run_stream(sets(20), depth))
    for given, result in zip(sets(20), results, strict=True):
        np.testing.assert_array_equal(result["y"], folder.expected(given))
    assert list(deployment.run_stream([])) == []


def test_a_stream_takes_inputs_as_it_needs_them(partitions: Path) -> None:
    taken = []

    def source():
        for number, given in enumerate(sets(20)):
            taken.append(number)
            yield given

    stream = mars_onnx.load(partitions).run_stream(source(), 3)
    next(stream)
    assert len(taken) == 3
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "stream"]


def test_a_stream_with_a_wrong_set(partitions: Path) -> None:
    stream = mars_onnx.load(partitions).run_stream([*sets(4), {}, *sets(1)])
    assert len([next(stream) for _ in range(4)]) == 4
    with pytest.raises(InputError, match="input 'i' is not given"):
        next(stream)


def test_a_stream_with_a_set_that_fails(partitions: Path) -> None:
    deployment = mars_onnx.load(partitions)
    given = sets(6)
    given[3]["i"][1] = 99
    with pytest.raises(RunError, match=r"accelerator fpga1 \(rank 1\).*out of data bounds"):
        list(deployment.run_stream(given))
    np.testing.assert_array_equal(deployment.run(given[0])["y"], folder.expected(given[0]))


def spans(path: Path) -> list[dict]:
    return [event for event in json.loads(path.read_text())["traceEvents"] if event["ph"] == "X"]


def check_profile(path: Path, members: int, runs: int) -> None:
    """As a trace.json: named processes and threads; every accelerator computes, then takes part in the reduction."""
    events = json.loads(path.read_text())["traceEvents"]
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {rank: f"fpga{rank}" for rank in range(members)}
    found = spans(path)
    assert min(event["ts"] for event in found) == 0
    for rank in range(members):
        own = [event for event in found if event["pid"] == rank]
        numbers = [event["args"]["run"] for event in own]
        assert numbers == sorted(numbers)
        for run in range(runs):
            kinds = [event["cat"] for event in own if event["args"]["run"] == run]
            # How a sum is put together, in the reduction or after it, is for the executor to choose.
            assert kinds in (["compute", "communication"], ["compute", "communication", "compute"])
        assert {event["cat"]: event["tid"] for event in own} == {"compute": 1, "communication": 2}
        ends = [event["ts"] + event["dur"] for event in own]
        starts = [event["ts"] for event in own[1:]]
        assert all(end <= start + 1e-3 for end, start in zip(ends, starts, strict=False))
    # On one clock: nobody has the sum before the last has begun to compute its part. (When it begins to wait for the
    # others, they may have the sum already.)
    for run in range(runs):
        of_run = [event for event in found if event["args"]["run"] == run]
        reductions = [event for event in of_run if event["cat"] == "communication"]
        assert len(reductions) == members
        parts = [min(e["ts"] for e in of_run if e["pid"] == rank and e["cat"] == "compute") for rank in range(members)]
        assert all(event["ts"] + event["dur"] >= max(parts) - 1e-3 for event in reductions)


@pytest.mark.parametrize("extra", [[], ["--segments"]], ids=["fastest", "segments"])
def test_profile(partitions: Path, tmp_path: Path, extra: list[str]) -> None:
    path = tmp_path / "profile.json"
    arguments = ["--random", "0", "--repeat", "2", "--warm-up", "3", "--profile", str(path), "-q", *extra]
    assert main([str(partitions), *arguments]) == 0
    check_profile(path, N, 2)


def test_stream_of_the_command(partitions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = folder.inputs(N)
    np.savez(tmp_path / "in.npz", **given)
    arguments = ["--input", str(tmp_path / "in.npz"), "--stream", "7", "--output", str(tmp_path / "out.npz")]
    assert main([str(partitions), *arguments]) == 0
    assert "a pipeline of 7" in capsys.readouterr().out
    with np.load(tmp_path / "out.npz") as archive:
        np.testing.assert_array_equal(archive["y"], folder.expected(given))
