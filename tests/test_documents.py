"""What the documents show is true: examples parse and compile, links lead somewhere, tables are up to date."""

import json
import re
from pathlib import Path

import onnx
import onnx.defs
import onnx_ir as ir
import pytest

import mars_onnx
from benchmarks.markdown import between_markers, table
from benchmarks.operators import operator_table
from mars_onnx.__main__ import parser
from mars_onnx.comm import DOMAIN, OPERATORS, REDISTRIBUTE, VERSION, register
from mars_onnx.errors import UsageError
from mars_onnx.models import load_builder
from mars_onnx.runtime.plan_file import dump_plan
from mars_onnx.sharding.strategy import parse_strategy

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
ARCHITECTURE = ROOT / "docs" / "architecture.md"
MAPPING = ROOT / "docs" / "mapping.md"
TABLE_ROW = re.compile(r"^\| (model|node|value) \| (.*) \|$", re.MULTILINE)


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def heading_anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def resnet18() -> ir.Model:
    return ir.from_proto(load_builder().build("resnet18"))


@pytest.mark.parametrize("text", blocks(MAPPING, "json"))
def test_mappings_can_be_used(text: str, resnet18: ir.Model, tmp_path: Path) -> None:
    file = tmp_path / "mapping.json"
    file.write_text(text, encoding="utf-8")
    compilation = mars_onnx.compile(resnet18, "fpga_pool", mapping=file)
    assert len(compilation.mapping.sets) == len(json.loads(text)["sets"])


def test_strategies_parse() -> None:
    section = MAPPING.read_text(encoding="utf-8").partition("## Strategies")[2]
    examples = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    assert len(examples) > 8
    assert [str(parse_strategy(text)) for text in examples] == examples


def test_the_grammar_is_that_of_the_code() -> None:
    from mars_onnx.sharding import strategy

    def words(text: str) -> list[str]:
        return re.sub(r"\s*:=", " :=", text).split()

    (block,) = [block for block in blocks(MAPPING, "") if ":=" in block]
    assert " ".join(words(block)) in " ".join(words(strategy.__doc__ or ""))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name) if name else path
        assert file.is_file(), target
        assert not anchor or anchor in heading_anchors(file), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_have_these_options(path: Path) -> None:
    known = {option for action in parser()._actions for option in action.option_strings}
    for line in path.read_text(encoding="utf-8").splitlines():
        command = re.match(r"^(?:mars-onnx|python -m mars_onnx) (.*)$", line)
        if command:
            used = re.findall(r"(?:^|\s)(--?[a-z][\w-]*)", command[1].partition("#")[0])
            assert set(used) <= known, line


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for path in DOCUMENTS:
        for block in blocks(path, ""):
            for line in re.findall(r"^make ([a-z-]+)", block, re.MULTILINE):
                assert line in targets, f"{path.name}: make {line}"


def test_the_table_of_operators_is_up_to_date() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert between_markers(text, "operators", operator_table()) == text, (
        "run python -m benchmarks.operators --write README.md"
    )


def test_communication_operators_are_as_the_page_says() -> None:
    register()
    section = ARCHITECTURE.read_text(encoding="utf-8").partition("## Communication operators")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) \| ([^|]*) \|$", section, re.MULTILINE)
    assert {row[0] for row in rows} == {*OPERATORS, REDISTRIBUTE}
    for name, inputs, outputs, cell in rows:
        schema = onnx.defs.get_schema(name, VERSION, DOMAIN)
        attributes = re.split(r"[;:]", re.sub(r"\([^)]*\)", "", cell))[0]
        assert {word.strip() for word in attributes.split(",")} == set(schema.attributes), name
        assert inputs.split(", ") == [formal.name for formal in schema.inputs], name
        assert outputs.split(", ") == [formal.name.replace("_out", "") for formal in schema.outputs], name


def test_metadata_of_partitions_is_as_the_page_says(resnet18: ir.Model) -> None:
    section = ARCHITECTURE.read_text(encoding="utf-8").partition("## A partition")[2].partition("\n## ")[0]
    documented = {where: set(re.findall(r"`(mars\.\w+)`", keys)) for where, keys in TABLE_ROW.findall(section)}
    for partition in mars_onnx.compile(resnet18, "edge_pool", search="greedy").partitions.partitions:
        model = partition.model
        assert set(model.metadata_props) == documented["model"]
        for node in model.graph:
            assert set(node.metadata_props) <= documented["node"], node.name
            for value in node.outputs:
                assert set(value.metadata_props) <= documented["value"], value.name


def test_plan_and_report_have_these_keys(resnet18: ir.Model) -> None:
    compilation = mars_onnx.compile(resnet18, "edge_pool", search="greedy")
    section = ARCHITECTURE.read_text(encoding="utf-8").partition("## plan.json")[2].partition("\n## ")[0]
    plan = json.loads(dump_plan(compilation.plan))
    places = [section.index(f'"{key}":') for key in plan if key != "communication"]
    assert places == sorted(places), "the keys stand in another order"
    for key in ("partitions", "inputs", "outputs", "communication"):
        assert all(f'"{name}":' in section for name in plan[key][0]), key


def test_report_has_these_keys(resnet18: ir.Model) -> None:
    def shape(value: object) -> object:
        if isinstance(value, dict):
            return {key: shape(own) for key, own in value.items()}
        return [shape(value[0])] if isinstance(value, list) and value and isinstance(value[0], dict) else None

    (block,) = blocks(ROOT / "docs" / "report.md", "json")
    documented = shape(json.loads(block))
    report = mars_onnx.compile(resnet18, "edge_pool", search="greedy", compare=["single"]).report
    found = shape(report)
    assert isinstance(documented, dict)
    assert isinstance(found, dict)
    assert documented["search"].pop("reranked") == [dict.fromkeys(("cost_s", "latency_s", "period_s", "fits", "kept"))]
    assert found["search"].pop("reranked") is None
    assert list(found) == list(documented)
    assert found == documented


def test_markers() -> None:
    assert between_markers("a <!-- x -->old<!-- /x --> b", "x", "new\n") == "a <!-- x -->\nnew\n<!-- /x --> b"
    with pytest.raises(UsageError, match="<!-- y -->"):
        between_markers("<!-- x --><!-- /x -->", "y", "")
    assert table(("a", "b"), [("1", "2")], 1) == "| a | b |\n| --- | --: |\n| 1 | 2 |\n"
