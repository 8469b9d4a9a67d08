"""canonicalize: normalization, scale and shift go into the weights before them."""

import pytest

from tests.passes.canonicalizing import NORMALIZATION, check
from tests.passes.onnx_text import Shapes, model


@pytest.mark.parametrize("opset", [9, 13, 15, 20])
def test_batch_normalization_goes_into_the_convolution(opset: int) -> None:
    check(
        model(
            """(float[1,3,5,5] x) => (float[1,4,5,5] y) {
                c = Conv (x, w)
                n = BatchNormalization (c, s, b, m, v)
                y = Relu (n)
            }""",
            {"w": (4, 3, 1, 1)} | NORMALIZATION,
            opset=opset,
        ),
        """
        (float[1,3,5,5] x) => (float[1,4,5,5] y) {
            # w [4, 3, 1, 1]
            # w_bias [4]
            [Conv_0] n = Conv (x, w, w_bias)
            [Relu_0] y = Relu (n)
        }""",
    )


@pytest.mark.parametrize(
    ("linear", "weights"),
    [
        ("Conv <group=2> (x, w, bias)", {"w": (4, 2, 3, 3), "bias": (4,)}),
        ("ConvTranspose (x, w, bias)", {"w": (4, 4, 3, 3), "bias": (4,)}),
    ],
)
def test_scale_and_shift_per_channel_fold_with_the_normalization(linear: str, weights: Shapes) -> None:
    found = check(
        model(
            f"""(float[1,4,8,8] x) => (float[1,4,H,W] y) {{
                c = {linear}
                n = BatchNormalization <epsilon=0.01> (c, s, b, m, v)
                k = Mul (scale, n)
                y = Add (k, shift)
            }}""",
            weights | NORMALIZATION | {"scale": (4, 1, 1), "shift": (1, 4, 1, 1)},
        )
    )
    assert [node.op_type for node in found.graph] == [linear.split(" ", maxsplit=1)[0]]
    assert list(found.graph.initializers) == ["w", "bias"]


def test_normalization_folds_into_gemm_both_ways_round() -> None:
    found = check(
        model(
            """(float[2,3] x) => (float[2,4] y) {
                c = Gemm <transB=1> (x, w)
                n = BatchNormalization (c, s, b, m, v)
                d = Gemm (n, u, bias)
                y = BatchNormalization (d, s, b, m, v)
            }""",
            {"w": (4, 3), "u": (4, 4), "bias": (4,)} | NORMALIZATION,
        )
    )
    assert [node.op_type for node in found.graph] == ["Gemm", "Gemm"]


def test_scale_and_shift_go_into_a_normalization_that_stays() -> None:
    found = check(
        model(
            """(float[1,4,2,2] x) => (float[1,4,2,2] y) {
                r = Relu (x)
                n = BatchNormalization (r, s, b, m, v)
                k = Mul (n, scale)
                y = Add (k, shift)
            }""",
            NORMALIZATION | {"scale": (4, 1, 1), "shift": (4, 1, 1)},
        )
    )
    assert [node.op_type for node in found.graph] == ["Relu", "BatchNormalization"]


@pytest.mark.parametrize(
    "nodes",
    [
        # The convolution's own output is used too.
        "c = Conv (x, w) n = BatchNormalization (c, s, b, m, v) y = Add (c, n)",
        # The weight is computed.
        "wx = Mul (w, x0) c = Conv (x, wx) y = BatchNormalization (c, s, b, m, v)",
        # Scaled per row, not per channel.
        "c = Conv (x, w) y = Mul (c, rows)",
        # Nothing linear before it.
        "c = Relu (x) y = BatchNormalization (c, s, b, m, v)",
        # Weights are scaled by a constant that widens the result.
        "c = Conv (x, w) y = Mul (c, batch)",
    ],
)
def test_what_does_not_fold_stays(nodes: str) -> None:
    found = model(
        f"(float[1,4,4,4] x, float[1] x0) => (float[N,4,4,4] y) {{ {nodes} }}",
        {"w": (4, 4, 1, 1), "rows": (4, 1), "batch": (2, 1, 1, 1)} | NORMALIZATION,
    )
    check(found)
    assert len(found.graph) == nodes.count("=")


def test_shared_weight_keeps_its_value_for_the_other_user() -> None:
    check(
        model(
            """(float[1,4,4,4] x) => (float[1,4,4,4] y) {
                c = Conv (x, w)
                n = BatchNormalization (c, s, b, m, v)
                y = Conv (n, w)
            }""",
            {"w": (4, 4, 1, 1)} | NORMALIZATION,
        ),
        """
        (float[1,4,4,4] x) => (float[1,4,4,4] y) {
            # w [4, 4, 1, 1]
            # w_scaled [4, 4, 1, 1]
            # w_bias [4]
            [Conv_0] n = Conv (x, w_scaled, w_bias)
            [Conv_1] y = Conv (n, w)
        }""",
    )
