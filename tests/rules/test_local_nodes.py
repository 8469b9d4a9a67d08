"""The local nodes of the important rules, as text beside the operator; each case is also run and compared."""

from __future__ import annotations

import numpy as np
import pytest

from tests.rules.harness import Array, Cuts, check_rule, text_of

#: What it shows, the operator, its cuts, the opset, and per member the local nodes.
CASES: list[tuple[str, str, Cuts, int, list[str]]] = [
    (
        "a convolution by rows and input channels: pads at the border only, the bias once",
        "(float[1,4,6,6] x, float[4,4,3,3] w, float[4] b) => (float[1,4,6,6] y) {y = Conv<pads=[1,1,1,1]>(x, w, b)}",
        {"H": [(0, 2), (2, 6)], "Cin": [(0, 2), (2, 4)]},
        20,
        [
            "v0 = Conv<kernel_shape=[3, 3], pads=[1, 1, 0, 1]>(in0, in1, in2)",
            "v0 = Conv<kernel_shape=[3, 3], pads=[1, 1, 0, 1]>(in0, in1)",
            "v0 = Conv<kernel_shape=[3, 3], pads=[0, 1, 1, 1]>(in0, in1, in2)",
            "v0 = Conv<kernel_shape=[3, 3], pads=[0, 1, 1, 1]>(in0, in1)",
        ],
    ),
    (
        "groups: a whole one, and parts inside one",
        "(float[1,6,6,6] x, float[6,3,1,1] w) => (float[1,6,6,6] y) {y = Conv<group=2>(x, w)}",
        {"Cout": [(0, 3), (3, 4), (4, 6)]},
        20,
        [
            "v0 = Conv<group=1, kernel_shape=[1, 1], pads=[0, 0, 0, 0]>(in0, in1)",
            "v0 = Conv<group=1, kernel_shape=[1, 1], pads=[0, 0, 0, 0]>(in0, in1)",
            "v0 = Conv<group=1, kernel_shape=[1, 1], pads=[0, 0, 0, 0]>(in0, in1)",
        ],
    ),
    (
        "the addend counts once",
        "(float[2,3] x, float[3,4] w, float[4] b) => (float[2,4] y) {y = Gemm<alpha=0.5>(x, w, b)}",
        {"K": [(0, 1), (1, 3)]},
        20,
        [
            "v0 = Gemm<alpha=0.5>(in0, in1, in2)",
            "v0 = Gemm<alpha=0.5>(in0, in1)",
        ],
    ),
    (
        "before opset 11 the addend cannot be left out",
        "(float[2,3] x, float[3,4] w, float[4] b) => (float[2,4] y) {y = Gemm(x, w, b)}",
        {"K": [(0, 1), (1, 3)]},
        9,
        [
            "v0 = Gemm(in0, in1, in2)",
            "v0 = ConstantOfShape<value=tensor>([1])\nv1 = Gemm(in0, in1, v0)",
        ],
    ),
    (
        "a flattening: whole outer rows stay together",
        "(float[5,4,6] x) => (float[5,24] y) <int64[2] s = {0, -1}> {y = Reshape(x, s)}",
        {"C": [(0, 6), (6, 24)]},
        20,
        [
            "v0 = Reshape(in0, [5, 6])",
            "v0 = Reshape(in0, [5, 18])",
        ],
    ),
    (
        "a joint: inside one operand nothing is to do",
        "(float[2,3] x, float[2,4] z) => (float[2,7] y) {y = Concat<axis=1>(x, z)}",
        {"C": [(0, 2), (2, 5), (5, 7)]},
        20,
        [
            "",
            "v0 = Concat<axis=1>(in0, in1)",
            "",
        ],
    ),
    (
        "a split: inside one output nothing is to do",
        "(float[2,7] x) => (float[2,3] y, float[2,4] z) <int64[2] s = {3, 4}> {y, z = Split<axis=1>(x, s)}",
        {"C": [(0, 2), (2, 5), (5, 7)]},
        20,
        [
            "",
            "v0, v1 = Split<axis=1>(in0, [1, 2])",
            "",
        ],
    ),
    (
        "pooling pads at the border only",
        "(float[1,2,6,6] x) => (float[1,2,3,3] y) {y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x)}",
        {"H": [(0, 1), (1, 3)]},
        20,
        [
            "v0 = MaxPool<kernel_shape=[3, 3], pads=[1, 1, 0, 0], strides=[2, 2]>(in0)",
            "v0 = MaxPool<kernel_shape=[3, 3], pads=[0, 1, 0, 0], strides=[2, 2]>(in0)",
        ],
    ),
    (
        "partial averages count by their share",
        "(float[1,2,6,4] x) => (float[1,2,1,1] y) {y = GlobalAveragePool(x)}",
        {"H": [(0, 2), (2, 6)]},
        20,
        [
            "v0 = GlobalAveragePool(in0)\nv1 = Mul(v0, 0.3333333432674408)",
            "v0 = GlobalAveragePool(in0)\nv1 = Mul(v0, 0.6666666865348816)",
        ],
    ),
    (
        "partial means count by their share",
        "(float[2,6,4] x) => (float[2,6,1] y) <int64[1] a = {2}> {y = ReduceMean(x, a)}",
        {"C": [(0, 1), (1, 4)]},
        20,
        [
            "v0 = ReduceMean(in0, [2])\nv1 = Mul(v0, 0.25)",
            "v0 = ReduceMean(in0, [2])\nv1 = Mul(v0, 0.75)",
        ],
    ),
    (
        "padding alone is a constant",
        "(float[4,4] x) => (float[7,4] y) <int64[4] p = {2, 0, 1, 0}> {y = Pad(x, p)}",
        {"N": [(0, 1), (1, 4), (4, 7)]},
        20,
        [
            "v0 = ConstantOfShape<value=tensor>([1, 4])",
            "v0 = Pad(in0, [1, 0, 0, 0])",
            "v0 = Pad(in0, [0, 0, 1, 0])",
        ],
    ),
    (
        "steps begin at the share's own first row",
        (
            "(float[9,4] x) => (float[4,4] y) <int64[1] b = {1}, int64[1] e = {9}, int64[1] a = {0}, int64[1] s = {2}> "
            "{y = Slice(x, b, e, a, s)}"
        ),
        {"N": [(0, 1), (1, 4)]},
        20,
        [
            "v0 = Slice(in0, [0], [1], [0], [2])",
            "v0 = Slice(in0, [0], [5], [0], [2])",
        ],
    ),
    (
        "neighbouring channels are cut off again",
        "(float[1,7,2,2] x) => (float[1,7,2,2] y) {y = LRN<size=3>(x)}",
        {"C": [(0, 3), (3, 7)]},
        20,
        [
            "v0 = LRN<size=3>(in0)\nv1 = Slice(v0, [0], [3], [1])",
            "v0 = LRN<size=3>(in0)\nv1 = Slice(v0, [1], [5], [1])",
        ],
    ),
    (
        "transposed convolution: rows outside are cropped",
        (
            "(float[1,2,3,3] x, float[2,2,3,3] w, float[2] b) => (float[1,2,6,6] y) "
            "{y = ConvTranspose<strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]>(x, w, b)}"
        ),
        {"H": [(0, 3), (3, 6)]},
        20,
        [
            "v0 = ConvTranspose<output_padding=[0, 0], pads=[1, 1, 1, 0], strides=[2, 2]>(in0, in1, in2)",
            "v0 = ConvTranspose<output_padding=[0, 0], pads=[2, 1, 0, 0], strides=[2, 2]>(in0, in1, in2)",
        ],
    ),
    (
        "a split table: rows of other members give zeros",
        "(float[8,4] x, int64[3] i) => (float[3,4] y) {y = Gather(x, i)}",
        {"V": [(0, 4), (4, 8)]},
        20,
        [
            (
                "v0 = Less(in1, 0)\n"
                "v1 = Add(in1, 8)\n"
                "v2 = Where(v0, v1, in1)\n"
                "v3 = Less(v2, 0)\n"
                "v4 = Less(v2, 4)\n"
                "v5 = Not(v3)\n"
                "v6 = And(v5, v4)\n"
                "v7 = Sub(v2, 0)\n"
                "v8 = Where(v6, v7, 0)\n"
                "v9 = Gather(in0, v8)\n"
                "v10 = Reshape(v6, [3, 1])\n"
                "v11 = Where(v10, v9, 0.0)"
            ),
            (
                "v0 = Less(in1, 0)\n"
                "v1 = Add(in1, 8)\n"
                "v2 = Where(v0, v1, in1)\n"
                "v3 = Less(v2, 4)\n"
                "v4 = Less(v2, 8)\n"
                "v5 = Not(v3)\n"
                "v6 = And(v5, v4)\n"
                "v7 = Sub(v2, 4)\n"
                "v8 = Where(v6, v7, 0)\n"
                "v9 = Gather(in0, v8)\n"
                "v10 = Reshape(v6, [3, 1])\n"
                "v11 = Where(v10, v9, 0.0)"
            ),
        ],
    ),
]


@pytest.mark.parametrize(("text", "cuts", "opset", "expected"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_local_nodes(text: str, cuts: Cuts, opset: int, expected: list[str]) -> None:
    feeds: dict[str, Array] = {"i": np.asarray([0, 5, -1])} if "Gather" in text else {}
    checked = check_rule(f"g {text}", cuts, np.random.default_rng(7), feeds, opset)
    assert [text_of(model) for model in checked.local_models] == expected
