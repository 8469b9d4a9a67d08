"""plan.json, report.json and annotated.onnx of a small network, checked against what they speak of."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
from rich.console import Console

from mars_onnx.compiler import Compilation, compile
from mars_onnx.errors import UsageError
from mars_onnx.geometry import volume
from mars_onnx.report.folder import check_target, whole_folder
from mars_onnx.report.terminal import show
from mars_onnx.report.units import size_text
from mars_onnx.runtime.runner import load_folder, run_partitions
from tests.passes.onnx_text import model
from tests.pool_factory import pool_of

TEXT = """(float[4,6,8,8] x) => (float[4,10] y, float[4,8,8,8] a) {
    [stem] a = Conv <pads = [1,1,1,1]> (x, w)
    l = Constant <value = int64[8] {4,3,2,1,4,3,2,1}> ()
    [reverse] t = ReverseSequence <time_axis = 0, batch_axis = 1> (a, l)
    [pool] p = GlobalAveragePool (t)
    [flat] f = Flatten (p)
    [fc] y = MatMul (f, m)
}"""
WEIGHTS = {"w": (8, 6, 3, 3), "m": (8, 10)}
LAYERS = {"stem": "ES(H=3)", "reverse": "whole", "pool": "ES(C=3)", "flat": "whole", "fc": "ES(K=3)"}


@pytest.fixture(scope="module")
def compilation(tmp_path_factory: pytest.TempPathFactory) -> Compilation:
    path = tmp_path_factory.mktemp("mapping") / "mapping.json"
    sets = [{"accelerators": ["a0", "a1", "a2"], "layers": LAYERS}]
    path.write_text(json.dumps({"schema": "mars-onnx/mapping/1", "sets": sets}), encoding="utf-8")
    result = compile(model(TEXT, WEIGHTS), pool_of(4), mapping=path)
    result.verify(deep=True).raise_if_failed()
    return result


@pytest.fixture(scope="module")
def folder(compilation: Compilation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("output") / "out"
    compilation.save(target)
    return target


def read(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_the_plan_names_the_files_that_are_there(folder: Path) -> None:
    plan = read(folder, "plan.json")
    assert [entry["accelerator"] for entry in plan["partitions"]] == ["a0", "a1", "a2"]
    for entry in plan["partitions"]:
        for file, digest in (("file", "sha256"), ("data_file", "data_sha256")):
            if entry[file] is not None:
                assert hashlib.sha256((folder / entry[file]).read_bytes()).hexdigest() == entry[digest]
    written = {path.name for path in folder.iterdir()}
    named = {name for entry in plan["partitions"] for name in (entry["file"], entry["data_file"]) if name}
    assert written - named == {
        "plan.json",
        "report.html",
        "report.json",
        "trace.json",
        "annotated.onnx",
        "annotated.onnx.data",
    }


def test_boxes_of_an_output_tile_it_and_every_partition_gives_its_own(folder: Path) -> None:
    plan = read(folder, "plan.json")
    files = {entry["rank"]: onnx.load(folder / entry["file"]) for entry in plan["partitions"]}
    for tensor in plan["outputs"]:
        boxes = [tuple(map(tuple, own["box"])) for own in tensor["boxes"]]
        assert sum(map(volume, boxes)) == volume(tuple((0, extent) for extent in tensor["shape"]))
    for kind in ("inputs", "outputs"):
        for tensor in plan[kind]:
            for own in tensor["boxes"]:
                graph = files[own["rank"]].graph
                values = graph.input if kind == "inputs" else graph.output
                value = next(value for value in values if value.name == tensor["tensor"])
                dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
                assert dims == [stop - start for start, stop in own["box"]]


def test_a_saved_folder_runs(folder: Path, compilation: Compilation) -> None:
    from mars_onnx.runtime.random_inputs import random_inputs
    from mars_onnx.runtime.reference import run_reference

    plan, files = load_folder(folder)
    feeds = random_inputs(plan, 3)
    found = run_partitions(files, plan, feeds, rendezvous=True).outputs
    for name, value in run_reference(model(TEXT, WEIGHTS), feeds).items():
        assert abs(found[name] - value).max() < 1e-4
    assert plan.mapping == read(folder, "plan.json")["mapping"]


def test_the_report_adds_up(folder: Path) -> None:
    report = read(folder, "report.json")
    assert [layer["name"] for layer in report["layers"]] == list(LAYERS)
    assert [layer["strategy"] for layer in report["layers"]] == list(LAYERS.values())
    assert report["computed_whole"] == ["reverse"]
    ends = [layer["end_s"] for layer in report["layers"]] + [entry["end_s"] for entry in report["communication"]]
    assert report["latency_s"] >= max(ends) > 0
    assert report["throughput_per_s"] == pytest.approx(1 / report["latency_s"])
    assert report["layers"][0]["macs"] == 4 * 8 * 6 * 8 * 8 * 9
    for entry in report["accelerators"]:
        busy = entry["compute_s"] + entry["communication_s"] + entry["idle_s"]
        assert busy == pytest.approx(report["latency_s"])
    for entry in report["communication"]:
        assert 0 <= entry["start_s"] <= entry["end_s"]
    # Nothing is claimed that was not shown.
    assert (report["lower_bound_s"], report["optimality_gap"]) == (None, None)


def test_memory_is_that_of_the_files(folder: Path) -> None:
    report = read(folder, "report.json")
    for entry in report["accelerators"][:3]:
        partition = ir.load(folder / f"{entry['id']}.onnx")
        weights = sum(value.const_value.nbytes for value in partition.graph.initializers.values())
        assert entry["weight_bytes"] == weights
        assert entry["peak_memory_bytes"] >= weights + 4 * 6 * 4 * 8 * 4
    unused = report["accelerators"][3]
    assert (unused["set"], unused["design"], unused["weight_bytes"], unused["compute_s"]) == (None, None, 0, 0)


def test_verification_is_in_the_report(folder: Path) -> None:
    facts = read(folder, "report.json")["verification"]
    assert facts["status"] == "equal"
    assert [output["name"] for output in facts["outputs"]] == ["y", "a"]
    assert facts["deep"]["failures"] == []
    assert facts["deep"]["boxes"] > 10
    assert facts["deep"]["partial_boxes"] == 3
    untested = compile(model(TEXT, WEIGHTS), pool_of(2))
    assert untested.report["verification"]["status"] == "not run"


def test_the_annotated_model_is_the_model(folder: Path) -> None:
    annotated = onnx.load(folder / "annotated.onnx")
    onnx.checker.check_model(annotated)
    assert [node.name for node in annotated.graph.node] == list(LAYERS)
    assert [device for own in annotated.configuration for device in own.device] == ["a0", "a1", "a2", "a3"]
    (own,) = annotated.graph.node[0].device_configurations
    (spec,) = [spec for spec in own.sharding_spec if spec.tensor_name == "a"]
    assert [(dim.axis, dim.simple_sharding[0].num_shards) for dim in spec.sharded_dim] == [(2, 3)]


def test_what_the_terminal_shows(folder: Path) -> None:
    report = read(folder, "report.json")
    console = Console(file=io.StringIO(), width=200)
    show(report, folder, console, verbose=True)
    shown = console.file.getvalue()
    whole = "computed whole for want of a rule: reverse"
    for part in (*LAYERS, "a3", "unused", whole, "equal", "AllReduce", "predicted latency"):
        assert part in shown
    report["layers"][0]["name"] = report["computed_whole"][0] = "[bold]\x1b[31mred"
    show(report, folder, console, verbose=True)
    assert console.file.getvalue().count(r"'[bold]\x1b[31mred'") == 2
    assert "\x1b" not in console.file.getvalue()
    assert [size_text(size) for size in (1, 2048, 3 * 2**20, 2**30)] == ["1 B", "2.0 KiB", "3.0 MiB", "1.0 GiB"]


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"

    def write_and_crash() -> None:
        with whole_folder(target) as fresh:
            (fresh / "plan.json").write_text("{}", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_crash()
    assert list(tmp_path.iterdir()) == []
    with whole_folder(target) as fresh:
        (fresh / "plan.json").write_text('{"schema": "mars-onnx/plan/1"}', encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        write_and_crash()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "plan.json"]
    assert (target / "plan.json").read_text(encoding="utf-8") == '{"schema": "mars-onnx/plan/1"}'


def test_links_and_hidden_files_are_not_ours(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    check_target(target)
    (target / "plan.json").write_text('{"schema": "mars-onnx/plan/1"}', encoding="utf-8")
    check_target(target)
    (target / "inner").mkdir()
    with pytest.raises(UsageError, match="'inner'"):
        check_target(target)
    (target / "inner").rmdir()
    (target / ".git").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="git"):
        check_target(target)
