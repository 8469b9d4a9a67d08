"""Mapping files as people write them, on real networks; together they use everything that a strategy can say."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import onnx_ir as ir
import pytest

from mars_onnx.compiler import Compilation, compile
from mars_onnx.rules.signature import signature_of
from mars_onnx.sharding.strategy import Placement, Resolution, parse_strategy
from mars_onnx.stages import attachments
from mars_onnx.stages.sharded import sharding_of
from models.build import build

FOLDER = Path(__file__).parent / "mappings"
MODELS = {
    "light_squeezenet": ("light_squeezenet", 1),
    "resnet18": ("resnet18", 1),
    "resnet18_batch": ("resnet18", 2),
    "light_shufflenet": ("light_shufflenet", 1),
}


def compiled(name: str) -> Compilation:
    network, batch = MODELS[name]
    return compile(ir.from_proto(build(network, batch=batch)), "fpga_pool", mapping=FOLDER / f"{name}.json")


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_is_what_the_original_computes(name: str) -> None:
    compiled(name).verify(deep=True).raise_if_failed()


@cache
def strategies(name: str) -> tuple[str, ...]:
    sets = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["sets"]
    return tuple(text for own in sets for text in own["layers"].values())


def features(text: str) -> Iterator[str]:
    """What a strategy uses, in words."""
    strategy = parse_strategy(text)
    if strategy.placement is not Placement.SHARDED:
        yield str(strategy.placement)
        return
    axes = [split.axis for split in strategy.splits]
    yield from axes
    if len(axes) == 1:
        yield f"{axes[0]} alone"
    yield from (" with ".join(pair) for pair in itertools.combinations(sorted(axes), 2))
    yield f"{len(axes)} axes"
    if any(len(set(split.shares)) > 1 for split in strategy.splits):
        yield "unequal shares"
    if strategy.ring:
        yield f"SS({strategy.ring.operand})"
        yield "SS along a named axis" if strategy.ring.axis else "SS along the axis of choice"
        yield "SS alone" if not axes else "SS with ES"
    if strategy.resolution is not Resolution.ALL_REDUCE:
        yield str(strategy.resolution)


def test_the_files_use_everything() -> None:
    used = {feature for name in MODELS for text in strategies(name) for feature in features(text)}
    axes = ["N", "Cout", "Cin", "H", "W", "Kh", "Kw"]
    wanted = {*(f"{axis} alone" for axis in axes), "2 axes", "3 axes", "SS(weight)", "SS(input)", "SS alone"}
    wanted |= {"SS with ES", "SS along a named axis", "SS along the axis of choice", "reduce-scatter", "deferred"}
    wanted |= {"unequal shares", "single", "whole", "auto", "H with W", "Cout with H", "Cin with Kh", "Cin with Cout"}
    wanted |= {"Cout with N", "H with N", "Cin with N", "Kh with Kw", "Cin with Kw", "Cin with H", "Cout with Kh"}
    assert sorted(wanted - used) == []


def test_the_files_cut_unevenly_and_leave_members_idle() -> None:
    """7 rows over 4, 1000 classes over 3, 3 kernel rows over 4 accelerators: all in the mapping of ResNet-18."""
    compilation = compiled("resnet18")
    nodes = {node.name: node for node in compilation.canonical.graph}
    mapping = compilation.mapping
    rows = [share.extent("H") for share in sharding_of(nodes["layer4.0.conv1"], mapping).shares if share]
    classes = [share.extent("N") for share in sharding_of(nodes["fc"], mapping).shares if share]
    kernel_rows = sharding_of(nodes["layer4.0.conv2"], mapping).shares
    assert rows == [2, 2, 2, 1]
    assert classes == [334, 333, 333]
    assert [share is None for share in kernel_rows] == [False, False, False, True]
    assert len({attachments.get_set(node) for node in nodes.values()}) == 3


def test_grouped_and_depthwise_convolutions_are_cut() -> None:
    compilation = compiled("light_shufflenet")
    groups = {
        (signature_of(node).integer("group", 1), attachments.get_strategy(node).ways)
        for node in compilation.canonical.graph
        if node.op_type == "Conv"
    }
    assert any(count == 4 and ways > 1 for count, ways in groups)
    assert any(count > 4 and ways > 1 for count, ways in groups)
