"""Tensors that enter a set in one stated layout, from which all its layers are served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from mars_onnx.compiler import Compilation, compile
from mars_onnx.errors import InputError
from mars_onnx.models import load_builder
from mars_onnx.sharding.mapping import Entry, Mapping
from mars_onnx.sharding.mapping_file import parse_mapping
from mars_onnx.sharding.strategy import parse_strategy
from mars_onnx.stages import attachments
from mars_onnx.stages.sharded import canonical_name, entry_problems, is_redistribute
from mars_passes.insert_sharding import InsertSharding
from tests.end_to_end.checking import canonical, check_global_graph, compile_with
from tests.passes.onnx_text import model
from tests.pool_factory import pool_of

FIRST = {
    "accelerators": ["fpga0", "fpga1", "fpga2"],
    "layers": {"conv1": "ES(H=3)", "relu": "ES(H=3)", "maxpool": "ES(C=3)", "layer1.*": "ES(D1=3)"},
}
SECOND = {
    "accelerators": ["fpga4", "fpga5", "fpga6", "fpga7"],
    "layers": {
        "layer2.0.conv1": "ES(H=4)",
        "layer2.0.downsample.0": "ES(W=2,H=2)",
        "layer2.*": "auto",
        "layer3.*": "ES(D1=4)",
        "layer4.*": "whole",
        "avgpool": "whole",
        "flatten": "whole",
        "fc": "ES(K=4)",
    },
}
#: What both layers named above take, in different boxes.
BRANCHING = "layer1.1.relu.output"


def resnet18(folder: Path, **enters: str) -> Compilation:
    path = folder / "mapping.json"
    sets = [FIRST, SECOND | {"enters": enters}]
    path.write_text(json.dumps({"schema": "mars-onnx/mapping/1", "sets": sets}), encoding="utf-8")
    return compile(ir.from_proto(load_builder().build("resnet18")), "fpga_pool", mapping=path)


def crossings(graph: ir.Model) -> dict[str, int]:
    """Per tensor how often it is moved from one set to another."""
    sets = [set(own.members) for own in attachments.get_mapping(graph).sets]
    found: dict[str, int] = {}
    for node in graph.graph:
        value = node.inputs[0]
        if is_redistribute(node) and value is not None:
            source, target = (set(attachments.get_layout(v).members) for v in (value, node.outputs[0]))
            if sum(bool(own & (source | target)) for own in sets) > 1:
                found[canonical_name(value)] = found.get(canonical_name(value), 0) + 1
    return found


@pytest.mark.parametrize("strategy", ["ES(D2=4)", "ES(D1=2,D3=2)", "ES(D2=3:1:2:2)", "whole", "single", "ES(D1=2)"])
def test_resnet18_with_an_entry_is_the_original(tmp_path: Path, strategy: str) -> None:
    made = resnet18(tmp_path, **{BRANCHING: strategy})
    made.verify(deep=True).raise_if_failed()
    assert crossings(made.model) == {BRANCHING: 1}
    assert made.simulation.latency_s == pytest.approx(made.price.latency_s, rel=1e-12)


def test_without_an_entry_every_need_crosses(tmp_path: Path) -> None:
    assert crossings(resnet18(tmp_path).model) == {BRANCHING: 2}


def test_a_plan_holds_the_entries(tmp_path: Path) -> None:
    made = resnet18(tmp_path, **{BRANCHING: "ES(D2=2,D3=2)"})
    assert made.mapping.entries == (Entry(BRANCHING, 1, parse_strategy("ES(D2=2,D3=2)")),)
    made.save(tmp_path / "out")
    plan = json.loads((tmp_path / "out" / "plan.json").read_text(encoding="utf-8"))
    assert [own.get("enters") for own in plan["mapping"]["sets"]] == [None, {BRANCHING: "ES(D2=2,D3=2)"}]
    again = compile(made.source, "fpga_pool", mapping=tmp_path / "out" / "plan.json")
    assert again.mapping == made.mapping
    again.save(tmp_path / "again")
    for partition in made.partitions.partitions:
        name = f"{partition.accelerator}.onnx"
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_partial_sums_and_captured_tensors_enter(tmp_path: Path) -> None:
    # Partial sums are added up on the way; what a body uses of the graph around it comes from the entry too.
    text = """(float[4,8] x, bool[1] c) => (float[4,4] u, float[4,4] v) {
        [parts] y = MatMul (x, w)
        [left] u = Relu (y)
        [right] v = If (c) <
            then_branch = yes () => (float[4,4] a) { a = Neg (y) },
            else_branch = no () => (float[4,4] b) { b = Abs (y) }
        >
    }"""
    pool = pool_of(2, 2)
    graph = canonical(model(text, {"w": (8, 4)}), pool)
    mapping = two_sets({"parts": "ES(K=2) deferred"}, {"left": "ES(D1=2)", "right": "whole"}, graph, y="ES(D0=2)")
    made = compile_with(model(text, {"w": (8, 4)}), graph, mapping, pool)
    check_global_graph(made, 0)
    made.verify().raise_if_failed()
    assert crossings(made.sharded) == {"y": 1}


def test_a_model_input_lands_in_a_layout_and_a_tensor_changes_its_layout_on_its_own_set() -> None:
    text = """(float[8,8] x) => (float[8,8] z) {
        [left] a = Relu (x)
        [right] b = Neg (x)
        [both] y = Add (a, b)
        [up] u = MatMul (y, w)
        [down] v = Exp (y)
        [end] z = Mul (u, v)
    }"""
    pool = pool_of(4)
    graph = canonical(model(text, {"w": (8, 8)}), pool)
    own = {"left": "ES(D0=4)", "right": "ES(D1=4)", "both": "ES(D0=4)", "up": "ES(N=4)", "down": "ES(D0=2,D1=2)"}
    mapping = read(graph, {"layers": own | {"end": "whole"}, "enters": {"x": "ES(D0=4)", "y": "whole"}})
    made = compile_with(model(text, {"w": (8, 8)}), graph, mapping, pool)
    check_global_graph(made, 0)
    made.verify().raise_if_failed()
    # The quarter of x that each holds is all that comes from outside; the columns for Neg come from the others.
    layouts = {value.name: attachments.get_layout(value) for value in made.sharded.graph.inputs}
    assert layouts["x"].boxes == tuple(((row, row + 2), (0, 8)) for row in (0, 2, 4, 6))
    moved = [node.inputs[0].name for node in made.sharded.graph if node.op_type == "Redistribute" and node.inputs[0]]
    assert moved.count("y") == 1


def two_sets(first: dict[str, str], second: dict[str, str], graph: ir.Model, **enters: str) -> Mapping:
    """Sets of the groups of a pool with two."""
    return read(graph, {"layers": first}, {"layers": second, "enters": enters})


def read(graph: ir.Model, *sets: dict[str, Any]) -> Mapping:
    pool = attachments.get_pool(graph)
    ids = [[pool.accelerators[rank].id for rank in group] for group in pool.groups()]
    entries = [{"accelerators": own} | fields for own, fields in zip(ids, sets, strict=True)]
    text = json.dumps({"schema": "mars-onnx/mapping/1", "sets": entries})
    return parse_mapping(text, Path("m.json"), pool, [node.name or "" for node in graph.graph])


@pytest.mark.parametrize(
    ("index", "enters", "message"),
    [
        (1, {"layer1.1.relu.outptu": "whole"}, "no tensor is called 'layer1.1.relu.outptu'; did"),
        (1, {"image": "whole"}, "sets[1].enters.image: no layer of the set takes the tensor"),
        (1, {"maxpool.output": "whole"}, "sets[1].enters.maxpool.output: no layer of the set takes the tensor"),
        (1, {BRANCHING: "ES(Cout=4)"}, "has no axis Cout (its axes: N, C, H, W)"),
        (1, {BRANCHING: "ES(D1=3)"}, "3 shares do not divide a set of 4 accelerators"),
        (1, {BRANCHING: "SS(input)"}, "has no operand input to rotate"),
        (1, {BRANCHING: "auto"}, "the strategy 'auto' stands for another one"),
        (1, {BRANCHING: "ES(D1)"}, f"mapping.json:1: sets[1].enters.{BRANCHING}: strategy 'ES(D1)': a split is"),
        (1, {BRANCHING: 3}, "a strategy is text such as 'ES(H=2)'; this is a number"),
        (1, [BRANCHING], "sets[1].enters: this should be an object, and is a list"),
    ],
)
def test_what_is_wrong(tmp_path: Path, index: int, enters: object, message: str) -> None:
    sets: list[dict[str, Any]] = [dict(FIRST), dict(SECOND)]
    sets[index]["enters"] = enters
    path = tmp_path / "mapping.json"
    path.write_text(json.dumps({"schema": "mars-onnx/mapping/1", "sets": sets}), encoding="utf-8")
    with pytest.raises(InputError) as error:
        compile(ir.from_proto(load_builder().build("resnet18")), "fpga_pool", mapping=path)
    assert message in str(error.value)
    assert "mapping.json" in str(error.value)


def test_insert_sharding_refuses_entries_that_nobody_has_checked() -> None:
    pool = pool_of(2, 2)
    text = "(float[4,8] x) => (float[4,4] z) { [a] y = Relu (x) [b] z = MatMul (y, w) }"
    graph = canonical(model(text, {"w": (8, 4)}), pool)
    mapping = two_sets({"a": "ES(D0=2)"}, {"b": "whole"}, graph, y="whole")
    twice = Mapping(mapping.sets, mapping.layers, mapping.entries * 2)
    attachments.set_mapping(graph, Mapping(mapping.sets, mapping.layers, (Entry("q", 1, parse_strategy("whole")),)))
    with pytest.raises(InputError, match=r"the mapping: sets\[1\].enters.q: no tensor is called 'q'"):
        InsertSharding()(graph)
    assert entry_problems(graph, twice) == ["sets[1].enters.y: the tensor enters the set twice"]
