"""Equal inputs give equal bytes; a mapping or a stage that was written to a file leads to the same partitions."""

from __future__ import annotations

import hashlib
import json
import random
import re
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from mars_onnx.__main__ import main
from tests.end_to_end.checking import canonical
from tests.end_to_end.random_graphs import random_model
from tests.mappings import random_mapping
from tests.pool_factory import pool_document, pool_of


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A model, a pool, and a random mapping, as files."""
    return write_files(tmp_path, 5)


def write_files(folder: Path, seed: int) -> Path:
    model = random_model(seed, 10)
    onnx.save(model, folder / "model.onnx")
    (folder / "pool.json").write_text(json.dumps(pool_document((3, 2))), encoding="utf-8")
    pool = pool_of(3, 2)
    mapping = random_mapping(random.Random(seed), canonical(ir.from_proto(model), pool), pool)
    ids = [accelerator.id for accelerator in pool.accelerators]
    (folder / "mapping.json").write_text(json.dumps(mapping.to_json(ids)), encoding="utf-8")
    return folder


def compile_to(folder: Path, name: str, *options: str, model: str = "model.onnx") -> Path:
    target = folder / name
    arguments = [str(folder / model), "--hw", str(folder / "pool.json"), "-o", str(target), "-q", *options]
    assert main(arguments) == 0
    return target


#: What names the file that it was made from, or the verification.
JUDGED = ("plan.json", "report.json", "report.html")


def digests(folder: Path, *without: str) -> dict[str, str]:
    """Hash of every file; measured seconds in the report count as nothing."""
    found: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        if path.name == "report.json":
            report = json.loads(content)
            report["search"]["seconds"] = 0
            content = json.dumps(report).encode()
        if path.name == "report.html":
            content = re.sub(rb"(<dt>method</dt><dd>\w+, )[0-9.]+ s", rb"\1", content)
        if path.name not in without:
            found[path.name] = hashlib.sha256(content).hexdigest()
    return found


@pytest.mark.parametrize("options", [[], ["--mapping", "mapping.json"]])
def test_twice_the_same(workplace: Path, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    first = compile_to(workplace, "first", *options)
    assert digests(first) == digests(compile_to(workplace, "second", *options))


@pytest.mark.parametrize("seed", range(4))
def test_the_mapping_of_a_plan_is_a_mapping(tmp_path: Path, seed: int) -> None:
    write_files(tmp_path, seed)
    first = compile_to(tmp_path, "first", "--mapping", str(tmp_path / "mapping.json"))
    second = compile_to(tmp_path, "second", "--mapping", str(first / "plan.json"))
    assert digests(first) == digests(second)
    given = json.loads((tmp_path / "mapping.json").read_text(encoding="utf-8"))
    assert json.loads((first / "plan.json").read_text(encoding="utf-8"))["mapping"] == given


def test_the_mapping_that_was_found_can_be_given(workplace: Path) -> None:
    first = compile_to(workplace, "first")
    second = compile_to(workplace, "second", "--mapping", str(first / "plan.json"))
    assert digests(first, "report.json", "report.html") == digests(second, "report.json", "report.html")


PASSES = ["canonicalize", "select-accelerators", "insert-sharding", "emit-partitions"]


@pytest.mark.parametrize("stage", PASSES[:3])
@pytest.mark.parametrize("seed", [3, 5])
def test_a_stage_file_leads_to_the_same_partitions(tmp_path: Path, stage: str, seed: int) -> None:
    write_files(tmp_path, seed)
    mapping = ["--mapping", str(tmp_path / "mapping.json")]
    whole = compile_to(tmp_path, "whole", *mapping)
    compile_to(tmp_path, "stage.onnx", *mapping, "--stop-after", stage)
    rest = ",".join(PASSES[PASSES.index(stage) + 1 :])
    options = mapping if stage == "canonicalize" else []
    later = compile_to(tmp_path, "later", *options, "--pass-pipeline", rest, "--verify", "--deep", model="stage.onnx")
    assert digests(whole, *JUDGED) == digests(later, *JUDGED)


def test_a_mapped_file_can_be_mapped_anew(workplace: Path) -> None:
    """Decisions of an earlier pipeline are replaced, not mixed with new ones."""
    compile_to(workplace, "stage.onnx", "--mapping", str(workplace / "mapping.json"), "--stop-after", PASSES[1])
    again = compile_to(workplace, "again", "--verify", "--deep", model="stage.onnx")
    whole = compile_to(workplace, "whole")
    assert digests(whole, *JUDGED) == digests(again, *JUDGED)


def test_a_sharded_file_is_not_sharded_again(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compile_to(workplace, "stage.onnx", "--search", "greedy", "--stop-after", PASSES[2])
    arguments = [str(workplace / "stage.onnx"), "--hw", str(workplace / "pool.json"), "-o", str(workplace / "again")]
    assert main(arguments) == 1
    assert "was sharded already; give the original model" in capsys.readouterr().err


def test_a_sharded_file_is_for_its_pool(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same accelerators in another order: layouts speak of ranks, so everything would go to the wrong ones."""
    mapping = ["--mapping", str(workplace / "mapping.json")]
    compile_to(workplace, "stage.onnx", *mapping, "--stop-after", "insert-sharding")
    pool = pool_document((3, 2))
    pool["accelerators"].reverse()
    (workplace / "pool.json").write_text(json.dumps(pool), encoding="utf-8")
    arguments = [str(workplace / "stage.onnx"), "--hw", str(workplace / "pool.json"), "-o", str(workplace / "out")]
    assert main([*arguments, "--pass-pipeline", "emit-partitions"]) == 1
    assert "sharded for another pool" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"sets": [1]}', '{"sets": []}'])
def test_a_sharded_file_with_damaged_metadata(workplace: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    compile_to(workplace, "stage.onnx", "--stop-after", "insert-sharding")
    model = onnx.load(workplace / "stage.onnx", load_external_data=False)
    next(entry for entry in model.metadata_props if entry.key == "mars.mapping").value = text
    (workplace / "stage.onnx").write_bytes(model.SerializeToString())
    arguments = [str(workplace / "stage.onnx"), "--hw", str(workplace / "pool.json"), "-o", str(workplace / "out")]
    assert main([*arguments, "--pass-pipeline", "emit-partitions"]) == 1
    assert "sharded for another pool, or changed since" in capsys.readouterr().err


def test_partitions_need_a_mapping(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(workplace / "model.onnx"), "--hw", str(workplace / "pool.json"), "-o", str(workplace / "out")]
    for rest in ("canonicalize", "emit-partitions", "canonicalize,insert-sharding"):
        assert main([*arguments, "--pass-pipeline", rest]) == 2
        message = capsys.readouterr().err
        assert "mapping" in message or "emit-partitions" in message, message
        assert not (workplace / "out").exists()
