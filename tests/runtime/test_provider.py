"""The execution provider of an accelerator: from the pool file to the session, unless the command line says another."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from mars_onnx.__main__ import main as compile_main
from mars_onnx.data import data_folder
from mars_onnx.errors import InputError, UsageError
from mars_onnx.pool import load_pool
from mars_onnx.run import main
from mars_onnx.runtime import sessions
from mars_onnx.runtime.deployment import load
from mars_onnx.runtime.plan_file import load_plan
from mars_onnx.runtime.sessions import FASTEST, check_accelerators, with_providers

ABSENT = "Imaginary"
PLACES = ("a", "b")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model over two accelerators, of which the second asks for a provider that there is not."""
    base = tmp_path_factory.mktemp("provider")
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["h"], name="relu"), helper.make_node("Neg", ["h"], ["y"], name="neg")],
        "two",
        [info("x", TensorProto.FLOAT, [4, 6])],
        [info("y", TensorProto.FLOAT, [4, 6])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), base / "m.onnx")
    pool = {
        "schema": "mars-onnx/pool/1", "name": "p", "title": "t", "source": "made up",
        "accelerators": [
            {"id": name, "kind": "cpu", "designs": ["cpu_avx2"], "memory_bytes": 2**24,
             "memory_bandwidth_bytes_per_s": 1e9, "source": "made up",
             **({"provider": ABSENT} if name == "b" else {})}
            for name in PLACES
        ],
        "links": [{"between": [list(PLACES)], "bandwidth_bytes_per_s": 1e9, "latency_s": 1e-6, "source": "made up"}],
        "inputs_at": "a", "outputs_at": "a",
    }  # fmt: skip
    (base / "p.json").write_text(json.dumps(pool))
    sets = [{"accelerators": list(PLACES), "layers": {"*": "ES(D0=2)"}}]
    (base / "mapping.json").write_text(json.dumps({"schema": "mars-onnx/mapping/1", "sets": sets}))
    arguments = [base / "m.onnx", "--hw", base / "p.json", "--mapping", base / "mapping.json", "-o", base / "m.mars"]
    # Verification runs everywhere, also where what the pool asks for is not installed.
    assert compile_main([*map(str, arguments), "-q", "--verify"]) == 0
    return base / "m.mars"


def test_pool_and_plan_say_it(folder: Path) -> None:
    pool = load_pool(folder.parent / "p.json")
    assert [own.provider for own in pool.accelerators] == [None, ABSENT]
    assert [entry.provider for entry in load_plan(folder).partitions] == [None, ABSENT]
    assert all(own.provider is None for own in load_pool(data_folder("hwdb") / "fpga_pool.json").accelerators)


def test_what_is_not_installed_is_refused_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--random", "0", "-q"]) == UsageError.exit_code
    assert f"error: b: provider {ABSENT}: the installed onnxruntime has" in (said := capsys.readouterr().err)
    assert "--provider b=NAME" in said
    with pytest.raises(UsageError, match=f"b: provider {ABSENT}"):
        load(folder)


@pytest.mark.parametrize("given", ["CPU", "b=CPU"])
def test_the_command_line_wins(folder: Path, tmp_path: Path, given: str) -> None:
    x = np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    arguments = [folder, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npz", "-q", "--provider", given]
    assert main([*map(str, arguments)]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "y.npz")["y"], -np.maximum(x, 0))


def test_every_accelerator_gets_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[str]] = []

    def session(source: object, settings: object, providers: list[str]) -> ort.InferenceSession:
        made.append(providers)
        return real(source, settings, providers=["CPUExecutionProvider"])

    real = ort.InferenceSession
    monkeypatch.setattr(sessions.ort, "InferenceSession", session)
    monkeypatch.setattr(
        sessions.ort, "get_available_providers", lambda: ["CPUExecutionProvider", f"{ABSENT}ExecutionProvider"]
    )
    assert main([str(folder), "--random", "0", "-q"]) == 0
    assert sorted(set(map(tuple, made))) == [
        ("CPUExecutionProvider",),
        (f"{ABSENT}ExecutionProvider", "CPUExecutionProvider"),
    ]
    made.clear()
    # For all: also for those of which the plan says something else.
    assert main([str(folder), "--random", "0", "-q", "--provider", "CPU", "--provider", f"a={ABSENT}"]) == 0
    assert sorted(set(map(tuple, made)), key=len) == [
        ("CPUExecutionProvider",),
        (f"{ABSENT}ExecutionProvider", "CPUExecutionProvider"),
    ]


def test_an_accelerator_that_there_is_not() -> None:
    with pytest.raises(UsageError, match="c=CPU: there is no accelerator c; a, b"):
        check_accelerators(with_providers(FASTEST, ["c=CPU"]), PLACES)


@pytest.mark.parametrize("wrong", ["", "../CUDA", "CUDA ", 7])
def test_a_plan_with_something_else(folder: Path, tmp_path: Path, wrong: object) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    plan["partitions"][1]["provider"] = wrong
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(InputError, match=r"plan.json: partitions\[1\]: provider should be"):
        load_plan(tmp_path, check_hashes=False)
