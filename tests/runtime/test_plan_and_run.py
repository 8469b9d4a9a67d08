"""plan.json as something anybody may have written, and the command line on a folder."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from mars_onnx.errors import InputError
from mars_onnx.run import main
from mars_onnx.runtime.compare import compare, compare_array
from mars_onnx.runtime.plan_file import dump_plan, file_sha256, load_plan
from mars_onnx.runtime.random_inputs import random_inputs
from mars_onnx.runtime.runner import load_folder, run_partitions
from tests.runtime.hand_written import boxes, partition, plan, ramp


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two partitions that each scale their half of x by their (external) weights and add up the halves."""
    weights = ", ".join(["2.0"] * 512)
    text = f"""g (float[512] x) => (float[512] y) <float[512] w = {{{weights}}}> {{
        p = Mul (x, w)  y, token = @AllReduce <group = [0, 1], reduce_op = "sum", tag = 0> (p, start) }}"""
    held = {0: "0:512", 1: "512:1024"}
    content = plan(2, [boxes("x", (1024,), held)], [boxes("y", (512,), 0)])
    entries = []
    for entry in content.partitions:
        ir.save(partition(text), tmp_path / entry.file, external_data=f"{entry.file}.data")
        data = tmp_path / f"{entry.file}.data"
        assert data.stat().st_size >= 2048
        hashes = {"sha256": file_sha256(tmp_path / entry.file), "data_sha256": file_sha256(data)}
        entries.append(replace(entry, data_file=data.name, **hashes))
    (tmp_path / "plan.json").write_text(dump_plan(replace(content, partitions=tuple(entries))))
    return tmp_path


def test_a_plan_survives_its_file(folder: Path) -> None:
    loaded = load_plan(folder)
    assert dump_plan(loaded) == (folder / "plan.json").read_text()
    keys = ["schema", "mars_onnx", "model", "pool", "mapping", "partitions", "inputs", "outputs", "communication"]
    assert list(json.loads(dump_plan(loaded))) == keys


def test_partitions_with_external_data_run_from_their_files(folder: Path) -> None:
    loaded, files = load_folder(folder)
    x = ramp(1024)
    result = run_partitions(files, loaded, {"x": x}, deep=True)
    np.testing.assert_allclose(result.outputs["y"], 2 * (x[:512] + x[512:]), rtol=1e-6)


def edit(folder: Path, *path: str | int, value: object) -> None:
    content = json.loads((folder / "plan.json").read_text())
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (folder / "plan.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("partitions", 0, "file"), "../other.onnx", "partitions[0]: '../other.onnx' is not the plain name of a file"),
        (("partitions", 0, "file"), "/etc/passwd", "is not the plain name"),
        (("partitions", 0, "file"), "..", "is not the plain name"),
        (("partitions", 0, "file"), "C:\\x.onnx", "is not the plain name"),
        (("partitions", 0, "data_file"), "a/../../b", "is not the plain name"),
        (("partitions", 0, "sha256"), "0", "its SHA-256 differs"),
        (("partitions", 1, "rank"), 0, "rank 0 has two partitions"),
        (("partitions", 1, "rank"), 10**9, "rank should be an integer from 0 to 4095, is 1000000000"),
        (("partitions",), {}, "partitions should be a list, is an object"),
        (("schema",), "mars-onnx/plan/9", "this version reads 'mars-onnx/plan/1'"),
        (("inputs", 0, "dtype"), "object", "'object' is no element type"),
        (("inputs", 0, "shape"), [2**40, 2**40], "has more than"),
        (("inputs", 0, "boxes", 0, "box"), [[0, 2000]], "the box 0:2000 of rank 0 is not inside 0:1024"),
        (("inputs", 0, "boxes", 0, "box"), [[5, 3]], "the box 5:3 of rank 0 is not inside"),
        (("inputs", 0, "boxes", 0, "box"), [[0]], "should be a pair"),
        (("inputs", 0, "boxes", 0, "rank"), True, "rank should be an integer"),
        (("inputs", 0, "boxes", 1, "rank"), 0, "accelerator 0 has two boxes of it"),
        (("inputs", 0, "boxes", 1, "rank"), 2, "rank 2 has no partition"),
        (("outputs", 0, "boxes", 0, "box"), [[0, 100]], "the boxes do not cover its shape [512]"),
        (("outputs", 0, "boxes"), [{"rank": r, "box": [[0, 512]]} for r in (0, 1)], "0:512 and 0:512 overlap"),
    ],
)
def test_a_plan_that_is_not_one(folder: Path, path, value, message: str) -> None:
    edit(folder, *path, value=value)
    with pytest.raises(InputError) as caught:
        load_plan(folder)
    assert message in str(caught.value)
    assert "plan.json" in str(caught.value)


@pytest.mark.timeout(20)  # every pair of 200,000 boxes would take hours
def test_a_flood_of_boxes_is_cheap(folder: Path) -> None:
    edit(folder, "outputs", 0, "boxes", value=[{"rank": 0, "box": [[0, 1]]}] * 200_000)
    with pytest.raises(InputError, match="accelerator 0 has two boxes of it"):
        load_plan(folder)


def test_changed_corrupt_and_missing_files(folder: Path, tmp_path: Path) -> None:
    file = folder / "fpga1.onnx"
    file.write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match=r"fpga1.onnx: not the file that .*plan.json was written with"):
        load_plan(folder)
    with pytest.raises(InputError, match=r"fpga1.onnx: not an ONNX file"):
        run_partitions(load_folder(folder, check_hashes=False)[1], load_plan(folder, False), {"x": ramp(1024)})
    file.unlink()
    with pytest.raises(InputError, match=r"fpga1.onnx: No such file"):
        load_plan(folder)
    for text, message in (
        ("{", "not JSON"),
        (f'{{"schema": {"1" * 5000}}}', "not JSON"),
        ("[]", "should be an object"),
    ):
        (folder / "plan.json").write_text(text)
        with pytest.raises(InputError, match=rf"plan.json: {message}"):
            load_plan(folder)
    (folder / "plan.json").unlink()
    os.mkfifo(folder / "plan.json")  # reading it would never end
    with pytest.raises(InputError, match=r"plan.json: no such file"):
        load_plan(folder)
    with pytest.raises(InputError, match=r"plan.json: no such file"):
        load_plan(tmp_path / "nowhere")


def test_weights_from_outside_the_folder_or_cut_short(folder: Path) -> None:
    loaded, files = load_folder(folder)
    data = folder / "fpga0.onnx.data"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(InputError, match=r"fpga0.onnx.data: too short to hold initializer w"):
        run_partitions(files, loaded, {"x": ramp(1024)})
    data.unlink()
    data.symlink_to("/etc/passwd")
    with pytest.raises(InputError, match="outside the folder"):
        run_partitions(files, loaded, {"x": ramp(1024)})
    with pytest.raises(InputError, match=r"fpga0.onnx.data leads out of the folder"):
        load_plan(folder)


def test_command_line(folder: Path, tmp_path: Path, capsys) -> None:
    np.save(tmp_path / "x.npy", ramp(1024))
    output = tmp_path / "y.npz"
    arguments = [str(folder), "--input", str(tmp_path / "x.npy"), "--output", str(output), "--repeat", "3"]
    assert main([*arguments, "--warm-up", "1"]) == 0
    assert "512" in capsys.readouterr().out
    np.testing.assert_allclose(np.load(output)["y"], 2 * (ramp(1024)[:512] + ramp(1024)[512:]), rtol=1e-6)
    assert main([str(folder), "--random", "1", "-q", "--rendezvous"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "input 'x' is not given; use --input x=FILE.npy, or --random SEED"),
        (["--random", "1", "--output", "y.txt"], 2, "should end in .npz"),
        (["--input", "nowhere.npy"], 1, "--input nowhere.npy: No such file"),
        (["--input", "z=X"], 1, "the model has no input 'z'"),
        (["--input", "PLAN"], 1, "not a .npy or .npz file of plain arrays"),
        (["--input", "X", "--input", "x=X"], 2, "'x' is given twice"),
    ],
)
def test_command_line_errors(folder: Path, capsys, arguments: list[str], code: int, message: str) -> None:
    np.save(folder / "x.npy", ramp(1024))
    paths = [a.replace("X", str(folder / "x.npy")).replace("PLAN", str(folder / "plan.json")) for a in arguments]
    if message.startswith("the model"):
        paths += ["--random", "0"]
    assert main([str(folder), *paths]) == code
    assert message in capsys.readouterr().err


def test_arrays_that_nobody_should_load(folder: Path, capsys) -> None:
    np.savez(folder / "objects.npz", x=np.array([{}], dtype=object))
    (folder / "cut.npz").write_bytes((folder / "objects.npz").read_bytes()[:50])
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }".ljust(117).encode() + b"\n"
    (folder / "huge.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    for name in ("objects.npz", "cut.npz", "huge.npy"):
        assert main([str(folder), "--input", str(folder / name)]) == 1
        assert f"{name}: not a .npy or .npz file of plain arrays" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--random", "--warm-up", "--repeat"])
def test_negative_numbers_are_wrong_usage(folder: Path, capsys, option: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([str(folder), option, "-1"])
    assert exit_.value.code == 2
    assert f"{option}: must" in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, mars_onnx.run as r; r._parser().format_help(); print({'onnx', 'numpy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_random_inputs_are_seeded_and_small() -> None:
    model = partition("g (float[2,3] x, int64[5] i, bool[4] b, float16[2] h) => (float[2,3] y) { y = Relu (x) }")
    first, second = random_inputs(model, 1), random_inputs(model, 1)
    assert {name: (str(a.dtype), a.shape) for name, a in first.items()} == {
        "x": ("float32", (2, 3)), "i": ("int64", (5,)), "b": ("bool", (4,)), "h": ("float16", (2,)),
    }  # fmt: skip
    assert set(first["i"]) <= {0, 1}
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not np.array_equal(first["x"], random_inputs(model, 2)["x"])


@pytest.mark.parametrize(
    ("reference", "actual", "passed"),
    [
        ([1.0, 2.0], [1.0, 2.0001], True),
        ([1.0, 2.0], [1.0, 2.001], False),
        ([1e6, 0.0], [1e6, 5.0], True),  # What is left where summands of a million cancel.
        ([1e6, 0.0], [1e6, 50.0], False),
        ([np.nan, np.inf, 1], [np.nan, np.inf, 1], True),
        ([np.nan, np.inf, 1], [np.nan, -np.inf, 1], False),
        ([np.nan, 1.0], [1.0, 1.0], False),
        ([1.0], [np.nan], False),
        ([], [], True),
    ],
)
def test_tolerance(reference, actual, passed: bool) -> None:
    arrays = np.array(reference, np.float32), np.array(actual, np.float32)
    assert compare_array("t", *arrays).passed is passed


def test_integers_are_exact_and_small_floats_are_not() -> None:
    assert not compare_array("t", np.array([1000000]), np.array([1000001])).passed
    assert compare_array("t", np.array([1], np.float16), np.array([1.01], np.float16)).passed
    assert not compare_array("t", np.array([1], np.float16), np.array([1.1], np.float16)).passed
    assert compare_array("t", np.array(1, np.float32), np.array(1, np.float32)).passed
    assert "element type" in compare_array("t", np.zeros(1), np.zeros(1, np.float32)).status
    statuses = {c.name: c.status for c in compare({"a": np.zeros(1)}, {"b": np.zeros(1)})}
    assert statuses == {"a": "missing", "b": "not in the reference"}
