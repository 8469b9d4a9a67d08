"""The mapping file: patterns, designs, and what is wrong with one, with the place of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mars_onnx.errors import InputError
from mars_onnx.sharding.mapping import Mapping, parse_mapping
from tests.pool_factory import pool_of

LAYERS = ("stem", "block1.conv", "block1.relu", "block2.conv", "fc")


def parsed(*sets: dict[str, Any], schema: str = "mars-onnx/mapping/1") -> Mapping:
    text = json.dumps({"schema": schema, "sets": list(sets)}, indent=1)
    return parse_mapping(text, "m.json", pool_of(2, 2), LAYERS)


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
    assert parse_mapping(written, "again", pool_of(2, 2), LAYERS) == mapping
    assert mapping.sets[0].members == (3, 0)
    plan = json.dumps({"schema": "mars-onnx/plan/1", "mapping": json.loads(written)})
    assert parse_mapping(plan, "plan", pool_of(2, 2), LAYERS) == mapping


ALL = {"*": "whole"}


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([entry("a0", **{"st?m": "whole"})], "m.json: no set computes block1.conv, block1.relu, block2.conv, fc; name"),
        ([entry("a0", **ALL, stam="whole")], "m.json:10: the model has no layer 'stam'; did you mean 'stem'?"),
        ([entry("a0", **ALL, **{"x*": "whole"})], "m.json:10: the pattern 'x*' fits no layer of the model"),
        ([entry("a0", **ALL, fc="ES(2)")], "m.json:10: sets[0].layers['fc']: strategy 'ES(2)': a split is AXIS=COUNT"),
        ([entry("a0", **ALL, fc="whole"), entry("b0", fc="whole")], "layer 'fc' stands in sets[0] and sets[1]"),
        ([entry("a0", **ALL), entry("a0", fc="whole")], "m.json:6: sets[1].accelerators: 'a0' is in a set already"),
        ([entry("c0", **ALL)], "m.json:6: sets[0].accelerators: names 'c0', which is no accelerator of pool pool_2_2"),
        ([entry(**ALL)], "sets[0].accelerators: is empty"),
        ([entry("a0", **ALL) | {"design": "none"}], "a0 cannot take the design 'none'; it can take cpu_avx2"),
        ([entry("a0", **ALL) | {"design": ["cpu_avx2"] * 2}], "sets[0].design: lists 2 designs for 1 accelerators"),
        ([entry("a0", **ALL) | {"desing": "x"}], "has an unknown key 'desing'; did you mean 'design'?"),
        ([{"accelerators": ["a0"]}], "sets[0]: lacks the key 'layers'"),
        ([{"accelerators": "a0", "layers": ALL}], "sets[0].accelerators: is not a list but str"),
        ([], "sets: is empty: at least one set of accelerators is needed"),
        (["a0"], "sets[0]: is not an object but str"),
    ],
)
def test_what_is_wrong(sets: list[Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        parsed(*sets)
    assert message in str(error.value)


def test_all_faults_with_names_are_told_at_once() -> None:
    with pytest.raises(InputError) as error:
        parsed(entry("a0", stam="whole", fcc="whole", **{"q*": "whole"}))
    assert [part in str(error.value) for part in ("'stam'", "'fcc'", "'q*'", "no set computes")] == [True] * 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "m.json:1:2: not valid JSON"),
        ('{"schema": 1,\n "schema": 2}', "the key 'schema' stands twice"),
        ("[]", "is not an object but list"),
        ('{"sets": []}', "lacks the key 'schema'"),
        ('{"schema": "mars-onnx/plan/1"}', "is not an object but NoneType"),
        ("[" * 100000, "m.json: not valid JSON"),
    ],
)
def test_what_is_no_mapping(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_mapping(text, "m.json", pool_of(2, 2), LAYERS)
    assert message in str(error.value)
