"""canonicalize: inputs and expected outputs side by side, and the same numbers from both."""

import textwrap

import numpy as np
import onnx_ir as ir
import pytest

from mars_onnx.errors import InputError, UsageError
from mars_onnx.stages.canonical import opaque_values, verify_canonical
from mars_passes.canonicalize import Canonicalize
from tests.passes.onnx_text import Shapes, model, run, text

NORMALIZATION: Shapes = {"s": (4,), "b": (4,), "m": (4,), "v": (4,)}


def check(found: ir.Model, expected: str | None = None, tolerance: float = 1e-5, **options: object) -> ir.Model:
    """Canonicalize; compare text and numbers; canonicalize again, which must change nothing."""
    original = found.clone(deep_copy=True)
    pass_ = Canonicalize(**options)  # type: ignore[arg-type]
    assert pass_(found).modified
    assert verify_canonical(found) == []
    if expected is not None:
        assert text(found) == textwrap.dedent(expected).strip()
    feeds, wanted = run(found)
    _, outputs = run(original, feeds)
    for one, other in zip(wanted, outputs, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
    before = ir.to_proto(found).SerializeToString()
    assert not pass_(found).modified
    assert ir.to_proto(found).SerializeToString() == before
    return found


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
    assert [value.name for value in opaque_values(found)] == ["n", "y"]


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


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({}, InputError, "the input 'x' has the shape [N, 3, H, H] with the symbolic dimensions N, H, but partitions "),
        ({}, InputError, "static shapes; give, with the sizes that you want, --dim N=1 --dim H=1 or --"),
        ({"dim": ("N=2",)}, InputError, "--dim H=1"),
        ({"dim": ("B=2",)}, UsageError, "dim B=2: no input of the model has a dimension 'B'; there are: N, H"),
        ({"dim": ("N",)}, UsageError, "dim 'N': expected NAME=VALUE"),
        ({"dim": ("N=0",)}, UsageError, "dim 'N=0': expected NAME=VALUE with a positive whole number"),
        ({"dim": ("N=2", "N=3")}, UsageError, "the dimension 'N' is 2 already and cannot be 3 too"),
        ({"input_shape": ("x",)}, UsageError, "input-shape 'x': expected NAME:SIZES"),
        ({"input_shape": ("z:1",)}, UsageError, "the model has no input 'z'"),
        ({"input_shape": ("x:1,3",)}, UsageError, "the model has [N, 3, H, H] there, of another rank"),
        ({"input_shape": ("x:1,4,2,2",)}, UsageError, "the model has [N, 3, H, H] there, which is fixed"),
        ({"input_shape": ("x:1,3,2,4",)}, UsageError, "the dimension 'H' is 2 already and cannot be 4 too"),
    ],
)  # fmt: skip
def test_symbolic_dimensions_that_stay_are_refused(
    options: dict[str, tuple[str, ...]], kind: type[Exception], message: str
) -> None:
    found = model("(float[N,3,H,H] x) => (float[N,3,H,H] y) { y = Relu (x) }")
    with pytest.raises(kind) as caught:
        Canonicalize(**options)(found)
    assert message in str(caught.value)


def test_unnamed_dimensions_ask_for_the_input_shape() -> None:
    found = model("(float[?,3] x) => (float[?,3] y) { y = Relu (x) }")
    with pytest.raises(InputError, match=r"sizes that you want, --input-shape x:1,3$"):
        Canonicalize()(found)


def test_a_bound_dimension_may_be_given_again_but_not_changed() -> None:
    found = model("(float[N,3] x) => (float[N,3] y) { y = Relu (x) }")
    Canonicalize(dim=("N=2",))(found)
    assert not Canonicalize(dim=("N=2",))(found).modified
    with pytest.raises(UsageError, match="dim N=3: this dimension was bound to 2 before"):
        Canonicalize(dim=("N=3",))(found)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ("r = RandomNormalLike (x) y = Add (x, r)", "RandomNormalLike node '.*' gives other values on every run"),
        ("y = Dropout (x, , yes)", "Dropout node '.*' is in training mode; export the model for inference"),
        ("y = Dropout (x, , asked)", "Dropout node '.*' trains if 'asked', which is not a constant"),
        ("y, a, b = BatchNormalization <training_mode = 1> (x, s, s, s, s)", "BatchNormalization .* in training mode"),
    ],
)
def test_what_is_not_repeatable_is_refused(nodes: str, message: str) -> None:
    found = model(
        f"(float[2,2] x, bool asked) => (float[2,2] y) <bool yes = {{1}}, float[2] s = {{1, 1}}> {{ {nodes} }}"
    )
    with pytest.raises(InputError, match=message):
        Canonicalize()(found)


def test_partitions_are_refused() -> None:
    found = model("(float[2] x) => (float[2] y) { y = Relu (x) }")
    (node,) = found.graph
    node.domain, node.op_type = "org.mars_onnx.comm", "AllReduce"
    with pytest.raises(InputError, match="is a communication operator, so this model is a partition"):
        Canonicalize()(found)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ("y = Reshape (x, s)", r"would make the shape \[2, 3\] of \[4, 3\], which has another number of elements"),
        ("y = Add (x, two)", "with the dimensions N=4, shapes in the model do not fit together: .*Add"),
    ],
)
def test_bound_sizes_that_the_model_cannot_take_are_refused(nodes: str, message: str) -> None:
    found = model(f"(float[N,3] x) => (float[N,3] y) <int64[2] s = {{2, 3}}> {{ {nodes} }}", {"two": (2, 3)})
    with pytest.raises(InputError, match=message):
        Canonicalize(dim=("N=4",))(found)


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


def test_cycle_is_refused() -> None:
    found = model("(float[2] x) => (float[2] y) { a = Add (x, x) b = Relu (a) y = Neg (b) }")
    add, relu, _ = found.graph
    add.replace_input_with(1, relu.outputs[0])
    with pytest.raises(InputError, match="cycle"):
        Canonicalize()(found)


def test_nodes_are_sorted() -> None:
    found = model("(float[2] x) => (float[2] y) { a = Relu (x) y = Neg (a) }")
    relu, neg = found.graph
    found.graph.remove(relu)
    found.graph.insert_after(neg, relu)
    Canonicalize()(found)
    assert [node.op_type for node in found.graph] == ["Relu", "Neg"]
