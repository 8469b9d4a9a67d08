"""The mapping file: patterns, designs, and what is wrong with one, with the place of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mars_onnx.errors import InputError
from mars_onnx.sharding.mapping import AcceleratorSet, LayerChoice, Mapping
from mars_onnx.sharding.mapping_file import parse_mapping
from mars_onnx.sharding.strategy import WHOLE
from mars_onnx.stages import attachments
from tests.passes.onnx_text import model
from tests.pool_factory import pool_of

LAYERS = ("stem", "block1.conv", "block1.relu", "block2.conv", "fc")


def parsed(*sets: dict[str, Any], schema: str = "mars-onnx/mapping/1") -> Mapping:
    text = json.dumps({"schema": schema, "sets": list(sets)}, indent=1)
    return parse_mapping(text, Path("m.json"), pool_of(2, 2), LAYERS)


def entry(*accelerators: str, **layers: str) -> dict[str, Any]:
    return {"accelerators": list(accelerators), "layers": layers}


def choices(mapping: Mapping) -> dict[str, str]:
    return {choice.name: f"{choice.set_index} {choice.strategy}" for choice in mapping.layers}


def test_exact_names_go_before_patterns_and_patterns_in_order() -> None:
    mapping = parsed(
        entry("a0", "a1") | {"layers": {"*.conv": "whole", "block1.*": "ES(H=2)", "stem": "single"}},
        entry("b1") | {"layers": {"block1.conv": "single", "*": "auto"}},
    )
    assert choices(mapping) == {
        "stem": "0 single",
        "block1.conv": "1 single",
        "block1.relu": "0 ES(H=2)",
        "block2.conv": "0 whole",
        "fc": "1 auto",
    }
    assert [own.members for own in mapping.sets] == [(0, 1), (3,)]


def test_a_mapping_is_written_as_it_is_read() -> None:
    mapping = parsed(entry("b1", "a0") | {"layers": {"*": "ES(H=2) SS(weight)"}})
    written = json.dumps(mapping.to_json(("a0", "a1", "b0", "b1")))
    assert parse_mapping(written, Path("again"), pool_of(2, 2), LAYERS) == mapping
    assert mapping.sets[0].members == (3, 0)
    plan = json.dumps({"schema": "mars-onnx/plan/1", "mapping": json.loads(written)})
    assert parse_mapping(plan, Path("plan"), pool_of(2, 2), LAYERS) == mapping


ALL = {"*": "whole"}


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (
            [entry("a0", **{"st?m": "whole"})],
            "m.json:3: sets: no set computes block1.conv, block1.relu, block2.conv, fc",
        ),
        (
            [entry("a0", **ALL, stam="whole")],
            "m.json:10: sets[0].layers.stam: no layer is called 'stam'; did you mean 's",
        ),
        (
            [entry("a0", **ALL, **{"x*": "whole"})],
            "m.json:10: sets[0].layers.x*: the pattern fits no layer",
        ),
        ([entry("a0", **ALL, fc="ES(2)")], "m.json:10: sets[0].layers.fc: strategy 'ES(2)': a split is AXIS=COUNT"),
        (
            [entry("a0", **ALL, fc="whole"), entry("b0", fc="whole")],
            "m.json:18: sets[1].layers.fc: the layer stands",
        ),
        ([entry("a0", **ALL), entry("a0", fc="whole")], "m.json:14: sets[1].accelerators[0]: 'a0' is in a set already"),
        ([entry("c0", **ALL)], "m.json:6: sets[0].accelerators[0]: no accelerator is called 'c0'; known are"),
        ([entry(**ALL)], "sets[0].accelerators: this is empty: a set needs accelerators"),
        ([entry("a0", **ALL) | {"design": "none"}], "a0 cannot take the design 'none'; it can take cpu_avx2"),
        (
            [entry("a0", **ALL) | {"design": ["cpu_avx2"] * 2}],
            "sets[0].design: this lists 2 designs for 1",
        ),
        ([entry("a0", **ALL) | {"desing": "x"}], "sets[0].desing: unknown key; did you mean 'design'?"),
        ([{"accelerators": ["a0"]}], "sets[0]: the key 'layers' is missing"),
        ([{"accelerators": "a0", "layers": ALL}], "sets[0].accelerators: this should be a list, and is text"),
        ([], "sets: this is empty: at least one set of accelerators is needed"),
        (["a0"], "sets[0]: this should be an object, and is text"),
    ],
)
def test_what_is_wrong(sets: list[Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        parsed(*sets)
    assert message in str(error.value)


def test_all_faults_with_names_are_told_at_once() -> None:
    with pytest.raises(InputError) as error:
        parsed(entry("a0", stam="whole", fcc="whole", **{"q*": "whole"}))
    assert [part in str(error.value) for part in ("'stam'", "'fcc'", ".q*: ", "no set computes")] == [True] * 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "m.json:1:2: not JSON"),
        ('{"schema": 1,\n "schema": 2}', "m.json:2: schema: this key is given twice"),
        ("[]", "the file should hold one object"),
        ('{"sets": []}', "the key 'schema' is missing"),
        ('{"schema": "mars-onnx/plan/1"}', "mapping: this should be an object, and is nothing"),
        ("[" * 100000, "m.json: not usable: nested too deeply"),
    ],
)
def test_what_is_no_mapping(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_mapping(text, Path("m.json"), pool_of(2, 2), LAYERS)
    assert message in str(error.value)


def test_an_attached_mapping_keeps_the_order_of_layers() -> None:
    """Also where layers of two sets stand in turn, although its text lists them set by set."""
    graph = model(
        """(float[4,4] x) => (float[4,4] y) {
        [one] a = Relu (x)
        [two] b = Tanh (a)
        [three] y = Relu (b)
    }""",
        {},
    )
    sets = (AcceleratorSet((0,), ("cpu_avx2",)), AcceleratorSet((1,), ("cpu_avx2",)))
    mapping = Mapping(sets, tuple(LayerChoice(n, i, WHOLE) for n, i in (("one", 0), ("two", 1), ("three", 0))))
    attachments.set_pool(graph, pool_of(2))
    attachments.set_mapping(graph, mapping)
    assert attachments.get_mapping(graph) == mapping
