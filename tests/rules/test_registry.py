"""From signatures to rules."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from mars_onnx.rules.base import Signature, TensorType
from mars_onnx.rules.registry import operators, parameter_inputs, rule_for
from tests.rules.harness import RefusedError, check_rule, rule_of, single

FLOAT = ir.DataType.FLOAT


def signature(op_type: str, version: int = 20, *, opaque: bool = False) -> Signature:
    kind = TensorType(FLOAT, (4, 6))
    return Signature("", op_type, version, inputs=(kind,), outputs=(kind,), opaque=opaque)


@pytest.mark.parametrize("unknown", [signature("NoSuchOperator"), signature("Relu", 6), signature("Relu", opaque=True)])
def test_what_is_not_known_is_whole(unknown: Signature) -> None:
    rule = rule_for(unknown)
    assert rule.is_fallback
    assert rule.axes == ()


def test_parameters_are_what_rules_read() -> None:
    assert parameter_inputs("", "Slice") == (1, 2, 3, 4)
    assert parameter_inputs("", "Relu") == ()
    assert ("", "Conv") in operators()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("(float[2] x) => (float[2] y) {y = Relu(x)}", ["D0"]),
        ("(float[2,3] x) => (float[2,3] y) {y = Relu(x)}", ["N", "C"]),
        ("(float[2,3,4] x) => (float[2,3,4] y) {y = Relu(x)}", ["N", "S", "C"]),
        ("(float[2,3,4,5] x) => (float[2,3,4,5] y) {y = Relu(x)}", ["N", "C", "H", "W"]),
        ("(float[2,3,4] x, float[4,5] w) => (float[2,3,5] y) {y = MatMul(x, w)}", ["B0", "M", "N", "K"]),
        ("(float[2,3,4,5] x) => (float[2,3,1,1] y) {y = GlobalAveragePool(x)}", ["N", "C", "H", "W"]),
        ("(float[2,3,4] x) => (float[6,4] y) <int64[2] s = {6, 4}> {y = Reshape(x, s)}", ["N", "C"]),
    ],
)
def test_axis_names(text: str, names: list[str]) -> None:
    rule, _ = rule_of(single(f"g {text}"))
    assert [axis.name for axis in rule.axes] == names


def test_positions_name_axes_too() -> None:
    rule, _ = rule_of(single("g (float[2,3,4] x, float[4,5] w) => (float[2,3,5] y) {y = MatMul(x, w)}"))
    assert [axis.name for axis in map(rule.axis, ("D0", "D1", "D2")) if axis] == ["B0", "M", "N"]
    assert rule.axis("D3") is None
    assert rule.axis("Q") is None


@pytest.mark.parametrize(
    ("text", "cuts", "why"),
    [
        (
            "(float[1,4,4,4] x, float[4,2,1,1] w) => (float[1,4,4,4] y) {y = Conv<group=2>(x, w)}",
            {"Cout": [(0, 3), (3, 4)]},
            "output channels 0:3 cut groups of 2",
        ),
        (
            "(float[1,4,4,4] x, float[4,2,1,1] w) => (float[1,4,4,4] y) {y = Conv<group=2>(x, w)}",
            {"Cin": [(0, 1), (1, 2)]},
            "only within one group",
        ),
        (
            "(float[4,6] x) => (float[6,4] y) <int64[2] s = {6, 4}> {y = Reshape(x, s)}",
            {"N": [(0, 6), (6, 24)]},
            "elements 0:6 of 6x4 are no box",
        ),
    ],
)
def test_refusals_say_why(text: str, cuts: dict[str, list[tuple[int, int]]], why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        check_rule(f"g {text}", cuts, np.random.default_rng(0))
