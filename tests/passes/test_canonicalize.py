"""canonicalize: inputs and expected outputs side by side, and the same numbers from both."""

import numpy as np
import onnx_ir as ir
import pytest

from mars_onnx.stages.canonical import verify_canonical
from mars_passes.canonicalize import Canonicalize
from tests.passes.canonicalizing import NORMALIZATION, check, opaque_values
from tests.passes.onnx_text import model, run, text


def test_shape_chains_fold_to_static_shapes() -> None:
    check(
        model(
            """(float[N,4,H] x) => (float[N,K] y) {
                shape = Shape (x)
                zero = Constant <value_int = 0> ()
                batch = Gather (shape, zero)
                axes = Constant <value_ints = [0]> ()
                rows = Unsqueeze (batch, axes)
                rest = Constant <value_ints = [-1]> ()
                target = Concat <axis = 0> (rows, rest)
                flat = Reshape (x, target)
                y = Relu (flat)
            }"""
        ),
        """
        (float[2,4,3] x) => (float[2,12] y) {
            # target [2]
            [Reshape_0] flat = Reshape (x, target)
            [Relu_0] y = Relu (flat)
        }""",
        dim=("N=2",),
        input_shape=("x:2,4,3",),
    )


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("", [2, 5, 7]),
        ("<start=1>", [5, 7]),
        ("<start=1, end=2>", [5]),
        ("<start=-2, end=-1>", [5]),
        ("<end=9>", [2, 5, 7]),
        ("<start=-9, end=1>", [2]),
        ("<start=2, end=1>", []),
    ],
)
def test_shape_with_start_and_end(attributes: str, expected: list[int]) -> None:
    found = check(model(f"(float[2,5,7] x) => (int64[K] y) {{ y = Shape {attributes} (x) }}"))
    _, (result,) = run(found)
    assert result.tolist() == expected


def test_large_constants_fold_lazily() -> None:
    found = check(
        model("""(float[1000] x) => (float[1000,1000] y)
            <int64[2] shape = {1000, 1000}, int64[1] flat = {-1}, int64[2] square = {1000, 1000}> {
                w = ConstantOfShape <value = float[1] {3}> (shape)
                line = Reshape (w, flat)
                again = Reshape (line, square)
                y = Mul (x, again)
            }""")
    )
    (value,) = found.graph.initializers.values()
    assert (value.name, type(value.const_value)) == ("again", ir.LazyTensor)


def test_identities_and_dropout_vanish_and_names_of_outputs_stay() -> None:
    check(
        model("""(float[2] x) => (float[2] y, float[2] z) {
            a = Identity (x)
            b = Dropout (a)
            c = Relu (b)
            d = Identity (c)
            y = Identity (d)
            e = Neg (d)
            z = Dropout (e)
        }"""),
        """
        (float[2] x) => (float[2] y, float[2] z) {
            [Relu_0] y = Relu (x)
            [Neg_0] z = Neg (y)
        }""",
    )


def test_outputs_that_nobody_computes_get_an_identity() -> None:
    found = model("""(float[2] x) => (float[2] x, float[2] c, float[2] d, float[2] e)
        <float[2] c = {1, 2}> {
            d = Dropout (x)
            e = Constant <value = float[2] {5, 6}> ()
        }""")
    Canonicalize()(found)
    assert verify_canonical(found) == []
    _, (x_output, c, d, e) = run(found, {"x": np.array([3, 4], np.float32)})
    assert [value.name for value in found.graph.outputs] == ["x_output", "c", "d", "e"]
    assert [x_output.tolist(), c.tolist(), d.tolist(), e.tolist()] == [[3, 4], [1, 2], [3, 4], [5, 6]]
    assert not Canonicalize()(found).modified


def test_initializers_that_are_inputs_become_plain() -> None:
    found = ir.from_onnx_text("""<ir_version: 3, opset_import: ["": 9]>
        g (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1, 2}> { y = Add (x, w) }""")
    Canonicalize()(found)
    assert [value.name for value in found.graph.inputs] == ["x"]
    assert found.ir_version == 10
    assert found.opset_imports == {"": 9}


def test_functions_are_inlined_and_unused_things_go() -> None:
    check(
        model(
            "(float[2] x) => (float[2] y) { a = local.twice (x) y = local.twice (a) unused = Relu (a) }",
            {"nobody": (3,)},
            functions='<opset_import: ["": 20], domain: "local"> twice (a) => (b) { b = Add (a, a) }',
        ),
        """
        (float[2] x) => (float[2] y) {
            [Add] a = Add (x, x)
            [Add_2] y = Add (a, a)
        }""",
    )


def test_if_with_a_constant_condition_is_inlined() -> None:
    check(
        model("""(float[2] x) => (float[2] y) <bool condition = {1}> {
            a = If (condition) <
                then_branch = then () => (float[2] r) { t = Relu (x) r = Neg (t) },
                else_branch = other () => (float[2] r) { t = Abs (x) r = Neg (t) }
            >
            y = Relu (a)
        }"""),
        """
        (float[2] x) => (float[2] y) {
            [Relu_0] t = Relu (x)
            [Neg_0] r = Neg (t)
            [Relu_1] y = Relu (r)
        }""",
    )


def test_if_with_a_computed_condition_stays_and_captures_work() -> None:
    found = check(
        model(
            """(float[2] x, bool c) => (float[2] y) {
                a = Identity (x)
                y = If (c) <
                    then_branch = then () => (float[2] r) { r = Add (a, w) },
                    else_branch = other () => (float[2] r) {
                        one = Constant <value = float[2] {1, 1}> ()
                        r = Add (a, one)
                    }
                >
            }""",
            {"w": (2,)},
        )
    )
    assert [node.op_type for node in found.graph] == ["If"]


def test_empty_values_become_initializers() -> None:
    check(
        model("""(float[4] x) => (float[4] y) <int64[2] sizes = {0, 4}> {
            none, all = Split <axis = 0> (x, sizes)
            r = Relu (none)
            y = Concat <axis = 0> (r, all)
        }"""),
        """
        (float[4] x) => (float[4] y) {
            # sizes [2]
            # r [0]
            [Split_0] none_computed, all = Split <axis: int = 0> (x, sizes)
            [Concat_0] y = Concat <axis: int = 0> (r, all)
        }""",
    )


def test_shapes_that_depend_on_data_are_opaque() -> None:
    found = check(
        model("""(float[4] x) => (int64[R,K] y) {
            n = NonZero (x)
            y = Neg (n)
        }""")
    )
    assert opaque_values(found) == ["n", "y"]


def test_quantized_weights_and_contributed_operators_stay() -> None:
    found = check(
        model(
            """(float[1,4] x) => (float[1,4] y)
            <int8[4,4] w = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16}, float scale = {0.5}, int8 zero = {0}> {
                d = DequantizeLinear (w, scale, zero)
                p = MatMul (x, d)
                y = com.microsoft.Gelu (p)
            }"""
        )
    )
    assert [node.op_type for node in found.graph] == ["DequantizeLinear", "MatMul", "Gelu"]


def test_names_become_unique_and_good_ones_stay() -> None:
    found = model("""(float[2] x) => (float[2] y) {
        [same] a = Relu (x)
        [same] b = Neg (a)
        [other] c = Abs (b)
        y = Abs (c)
    }""")
    for value, name in zip([*found.graph][1].outputs, ["a"], strict=True):
        value.name = name
    Canonicalize()(found)
    assert [node.name for node in found.graph] == ["same", "same_2", "other", "Abs_0"]
    assert [node.outputs[0].name for node in found.graph] == ["a", "a_2", "c", "y"]


def test_exporter_metadata_goes_unless_kept() -> None:
    for keep in (False, True):
        found = model("(float[2] x) => (float[2] y) { y = Relu (x) }")
        (node,) = found.graph
        node.metadata_props.update({"pkg.torch.onnx.stack_trace": "...", "namespace": "...", "mine": "kept"})
        node.doc_string = "line 3"
        Canonicalize(keep_metadata=keep)(found)
        assert set(node.metadata_props) == {"mine"} | ({"pkg.torch.onnx.stack_trace", "namespace"} if keep else set())
        assert bool(node.doc_string) == keep


def test_stale_shapes_in_the_file_are_inferred_anew() -> None:
    found = model("(float[1,4] x) => (float[2,4] y) { a = Relu (x) y = Neg (a) }")
    Canonicalize()(found)
    assert text(found).startswith("(float[1,4] x) => (float[1,4] y)")


@pytest.mark.parametrize("opset", [7, 9, 11, 12, 13, 15, 18, 21, 23, 28])
def test_every_opset(opset: int) -> None:
    found = check(
        model(
            """(float[1,3,5,5] x) => (float[1,N] y) {
                c = Conv (x, w)
                n = BatchNormalization (c, s, b, m, v)
                d = Dropout (n)
                shape = Shape (d)
                zero = Constant <value = int64 {0}> ()
                rows = Gather (shape, zero)
                one = Constant <value = int64[1] {1}> ()
                row = Reshape (rows, one)
                rest = Constant <value = int64[1] {-1}> ()
                target = Concat <axis = 0> (row, rest)
                r = Reshape (d, target)
                y = Softmax (r)
            }""",
            {"w": (4, 3, 3, 3)} | NORMALIZATION,
            opset=opset,
        )
    )
    assert [node.op_type for node in found.graph] == ["Conv", "Reshape", "Softmax"]
    assert found.opset_imports[""] == opset


def test_nodes_are_sorted() -> None:
    found = model("(float[2] x) => (float[2] y) { a = Relu (x) y = Neg (a) }")
    relu, neg = found.graph
    found.graph.remove(relu)
    found.graph.insert_after(neg, relu)
    Canonicalize()(found)
    assert [node.op_type for node in found.graph] == ["Relu", "Neg"]
