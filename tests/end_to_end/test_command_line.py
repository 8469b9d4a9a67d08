"""What the command line says to bad input: one clear message with a place, the right exit code, and nothing left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from mars_onnx.__main__ import main
from mars_onnx.emission.local_graph import LocalGraphBuilder
from mars_onnx.geometry import Reduction
from tests.pool_factory import pool_document


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model of known layers, a pool of four, and a mapping."""
    monkeypatch.chdir(tmp_path)
    onnx.save(small_model(), "model.onnx")
    write("pool.json", pool_document((2, 2)))
    write("mapping.json", mapping_document())
    return tmp_path


def small_model(batch: int | str = 4) -> onnx.ModelProto:
    text = f"""<ir_version: 8, opset_import: ["": 17]>
    small (float[{batch},8] x) => (float[{batch},4] y) {{
        [first] h = Relu (x)
        [second] m = MatMul (h, w)
        [third] y = Softmax (m)
    }}"""
    model = onnx.parser.parse_model(text)
    weights = [0.1 * ((7 * i) % 11) - 0.5 for i in range(32)]
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT, (8, 4), weights))
    return model


def mapping_document() -> dict[str, Any]:
    ids = ["a0", "a1", "b0", "b1"]
    layers = {"first": "ES(N=4)", "second": "ES(K=4)", "third": "whole"}
    return {"schema": "mars-onnx/mapping/1", "sets": [{"accelerators": ids, "layers": layers}]}


def write(name: str, content: object) -> None:
    text = content if isinstance(content, str) else json.dumps(content, indent=1)
    Path(name).write_text(text, encoding="utf-8")


def refused(capsys: pytest.CaptureFixture[str], code: int, *parts: str, options: tuple[str, ...] = ()) -> str:
    """Run in the current folder; what was there before, and nothing else, is there afterwards."""
    before = {path: path.is_dir() or path.read_bytes() for path in Path().rglob("*")}
    arguments = ["model.onnx", "--hw", "pool.json", "-o", "out", *options]
    assert main(arguments) == code
    output = capsys.readouterr()
    message = output.err
    assert message.startswith("mars-onnx: "), message
    assert "Traceback" not in message
    assert output.out == ""
    for part in parts:
        assert part in message, message
    assert before == {path: path.is_dir() or path.read_bytes() for path in Path().rglob("*")}
    return message


def test_the_good_case(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--mapping", "mapping.json", "--verify", "--deep", "-v", "--timing", "--print-ir-after", "canonicalize"]
    assert main(["model.onnx", "--hw", "pool.json", "-o", "out", *options]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    for part in ("compared with the original: equal", "AllReduce", "ES(K=4)", "# after canonicalize", "total"):
        assert part in output.out
    models = {f"{name}.onnx" for name in ("annotated", "a0", "a1", "b0", "b1")}
    files = {"plan.json", "report.json", "report.html", "trace.json", *models, *(f"{name}.data" for name in models)}
    assert files == {path.name for path in Path("out").iterdir()}
    # Over our own folder it may write again, as a whole.
    Path("out/old.onnx").write_bytes(b"of an earlier run")
    assert main(["model.onnx", "--hw", "pool.json", "-o", "out", "-q"]) == 0
    assert capsys.readouterr().out == ""
    assert not Path("out/old.onnx").exists()
    assert sorted(path.name for path in place.iterdir()) == ["mapping.json", "model.onnx", "out", "pool.json"]


def cut_off(path: str) -> None:
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])


def invalid_model() -> None:
    model = small_model()
    model.graph.node[1].op_type = "MathMul"
    onnx.save(model, "model.onnx")


def wrong_shapes() -> None:
    model = small_model()
    model.graph.initializer[0].dims[:] = [4, 8]
    onnx.save(model, "model.onnx")


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (lambda: Path("model.onnx").unlink(), ["model.onnx: there is no such file"]),
        (lambda: cut_off("model.onnx"), ["model.onnx: not a"]),
        (lambda: write("model.onnx", "graph {}"), ["model.onnx: not an ONNX model: it is text"]),
        (lambda: write("model.onnx", ""), ["model.onnx: the file is empty"]),
        (lambda: (Path("model.onnx").unlink(), Path("model.onnx").mkdir()), ["model.onnx: this is a folder"]),
        (invalid_model, ["model.onnx: not a valid ONNX model", "MathMul"]),
        (wrong_shapes, ["do not fit together", "MatMul"]),
        (lambda: onnx.save(small_model("batch"), "model.onnx"), ["batch", "--dim"]),
    ],
)
def test_bad_models(spoil: Callable[[], None], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    spoil()
    refused(capsys, 1, *parts)


def changed(document: dict[str, Any], *path: Any, to: Any) -> dict[str, Any]:
    at: Any = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = to
    return document


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("path", "to", "parts"),
    [
        (["acelerators"], [], ["acelerators", "did you mean"]),
        (["accelerators", 0, "kynd"], "npu", ["kynd"]),
        (["accelerators", 0, "designs"], ["cpu_avx"], ["cpu_avx", "cpu_avx2"]),
        (["accelerators", 0, "memory_bytes"], 0, ["memory_bytes"]),
        (["links", 0, "bandwidth_bytes_per_s"], -1, ["bandwidth_bytes_per_s"]),
        (["links", 0, "between", 0], ["a0", "a7"], ["a7"]),
        (["links"], [], ["a0"]),
        (["schema"], "mars-onnx/pool/9", ["mars-onnx/pool/1"]),
    ],
)
def test_bad_pools(path: list[Any], to: Any, parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    write("pool.json", changed(pool_document((2, 2)), *path, to=to))
    refused(capsys, 1, "pool.json", *parts)


@pytest.mark.usefixtures("place")
def test_no_pool(capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, 1, "no such pool file", "fpga_pool", options=("--hw", "fpga_pol"))
    write("pool.json", "{")
    refused(capsys, 1, "pool.json")


LAYERS = ["sets", 0, "layers"]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("path", "to", "parts"),
    [
        (LAYERS, {"first": "whole", "second": "whole"}, ["no set computes third"]),
        ([*LAYERS, "secnod"], "whole", ["no layer is called 'secnod'", "did you mean 'second'"]),
        ([*LAYERS, "conv*"], "whole", ["layers.conv*: the pattern fits no layer"]),
        ([*LAYERS, "second"], "ES(K4)", ["layers.second", "a split is AXIS=COUNT"]),
        ([*LAYERS, "second"], "ES(Cout=2)", ["layer 'second'", "has no axis Cout", "M, N, K"]),
        ([*LAYERS, "second"], "ES(K=3)", ["layer 'second'", "do not divide a set of 4"]),
        ([*LAYERS, "second"], "SS(wieght)", ["layer 'second'", "no operand wieght", "weight"]),
        ([*LAYERS, "second"], "ES(K=4) reduce-scatter(K)", ["layer 'second'", "needs a parallel axis"]),
        ([*LAYERS, "second"], 4, ["layers.second", "a strategy is text such as"]),
        (["sets", 0, "accelerators", 3], "b11", ["'b11'", "did you mean"]),
        (["sets", 0, "accelerators", 3], "a0", ["'a0' is in a set already"]),
        (["sets", 0, "design"], "superlip", ["cannot take the design 'superlip'", "cpu_avx2"]),
        (["sets"], [], ["sets", "is empty"]),
        (["schema"], "mars-onnx/mapping/2", ["mars-onnx/mapping/1"]),
        (["seets"], [], ["seets: unknown key"]),
    ],
)
def test_bad_mappings(path: list[Any], to: Any, parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    write("mapping.json", changed(mapping_document(), *path, to=to))
    refused(capsys, 1, "mapping.json", *parts, options=("--mapping", "mapping.json"))


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("text", ["{", "[]", "", '{"schema": 1, "schema": 2}', "[" * 100000])
def test_mappings_that_are_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("mapping.json", text)
    refused(capsys, 1, "mapping.json:", options=("--mapping", "mapping.json"))
    refused(capsys, 1, "none.json", options=("--mapping", "none.json"))


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: write("out", "a file"), "there is a file of this name"),
        (lambda: (Path("out").mkdir(), write("out/thesis.txt", "years of work")), "has no plan.json of mars_onnx"),
        (lambda: (Path("out").mkdir(), write("out/plan.json", "{}")), "has no plan.json of mars_onnx"),
        (
            lambda: (
                Path("out").mkdir(),
                write("out/plan.json", {"schema": "mars-onnx/plan/1"}),
                write("out/thesis.txt", "years of work"),
            ),
            "'thesis.txt', which mars_onnx did not write",
        ),
    ],
)
def test_what_is_not_ours_is_not_overwritten(
    make: Callable[[], None], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make()
    refused(capsys, 2, "out", part)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--pass-pipeline", "canonicalise"], ["canonicalise", "canonicalize"]),
        (["--pass-pipeline", "canonicalize{dims=4}"], ["dims", "dim"]),
        (["--pass-pipeline", "canonicalize,"], ["pipeline"]),
        (["--print-ir-after", "nothing"], ["--print-ir-after nothing"]),
        (["--stop-after", "emit"], ["--stop-after emit", "emit-partitions"]),
        (["--stop-after", "canonicalize", "-o", "none/model.onnx"], ["existing folder"]),
        (["--search", "magic"], ["magic", "greedy"]),
        (["--deep"], ["--verify"]),
        (["--verify", "--seed", "-1"], ["--seed -1"]),
        (["-o", "none/out"], ["none"]),
    ],
)
def test_bad_options(options: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, 2, *parts, options=tuple(options))


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("options", [["--no-such-option"], ["--seed", "many"], ["-q", "-v"]])
def test_bad_syntax(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["model.onnx", "--hw", "pool.json", *options])
    assert exit_.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("dim", ["batch=0", "batch", "btach=2", "batch=x"])
def test_bad_dimensions(dim: str, capsys: pytest.CaptureFixture[str]) -> None:
    onnx.save(small_model("batch"), "model.onnx")
    arguments = ["model.onnx", "--hw", "pool.json", "-o", "out", "--dim", dim]
    assert main(arguments) in (1, 2)
    message = capsys.readouterr().err
    assert "batch" in message
    assert "Traceback" not in message
    assert main([*arguments[:-2], "--dim", "batch=2", "-q", "--verify"]) == 0


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(("method", "what"), [("exact", "model"), ("greedy", "partitions")])
def test_what_does_not_fit(method: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("pool.json", pool_document((2, 2), memory_bytes=100))
    wanted = (f"model.onnx: the {what}", "not fit the pool 'pool_2_2'", "a0: ")
    message = refused(capsys, 3, *wanted, options=("--search", method))
    assert "are missing: it has 100 and needs" in message


@pytest.mark.usefixtures("place")
def test_a_wrong_result(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: the output of a split product is the largest summand."""
    write("mapping.json", changed(mapping_document(), "sets", 0, "layers", "second", to="SS(weight@K)"))
    right = LocalGraphBuilder.combine
    monkeypatch.setattr(LocalGraphBuilder, "combine", lambda self, values, _: right(self, values, Reduction.MAX))
    options = ["--mapping", "mapping.json", "--verify"]
    assert main(["model.onnx", "--hw", "pool.json", "-o", "out", "-q", *options]) == 4
    message = capsys.readouterr().err
    assert "the partitions do not compute what the original computes: y" in message
    assert not list(Path().glob(".*"))


@pytest.mark.usefixtures("place")
def test_a_full_disk_leaves_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def crash(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mars_onnx.compiler.dump_plan", crash)
    before = sorted(Path().iterdir())
    assert main(["model.onnx", "--hw", "pool.json", "-o", "out", "-q"]) == 1
    assert "cannot be written: No space left on device" in capsys.readouterr().err
    assert sorted(Path().iterdir()) == before


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--help", "--version"):
        with pytest.raises(SystemExit) as exit_:
            main([option])
        assert exit_.value.code == 0
    assert "exit codes" in capsys.readouterr().out
    assert main(["--list-passes"]) == 0
    assert "emit-partitions" in capsys.readouterr().out
