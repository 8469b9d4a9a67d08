"""canonicalize: models and options that it cannot take, and what it says."""

import onnx
import onnx_ir as ir
import pytest

from mars_onnx.errors import InputError, UsageError
from mars_passes.canonicalize import Canonicalize
from tests.passes.onnx_text import model


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({}, InputError, "the input 'x' has the shape [N, 3, H, H] with the symbolic dimensions N, H, but partitions "),
        ({}, InputError, "static shapes; give, with the sizes that you want, --dim N=1 --dim H=1 or --"),
        ({"dim": ("N=2",)}, InputError, "--dim H=1"),
        ({"dim": ("B=2",)}, UsageError, "dim B=2: no input of the model has a dimension 'B'; there are: N, H"),
        ({"dim": ("N",)}, UsageError, "dim 'N': expected NAME=VALUE"),
        ({"dim": ("N=0",)}, UsageError, "dim 'N=0': expected NAME=VALUE with a positive whole number"),
        ({"dim": ("N=9223372036854775808",)}, UsageError, "dim 'N=9223372036854775808': expected NAME=VALUE"),
        ({"dim": ("N=" + "9" * 5000,)}, UsageError, "expected NAME=VALUE with a positive whole number"),
        ({"input_shape": ("x:99999999999999999999,3,2,2",)}, UsageError, "expected NAME:SIZES"),
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
        (
            "r = RandomNormalLike (x) y = Add (x, r)",
            "RandomNormalLike node that computes 'r' gives other values",
        ),
        (
            "y = Dropout (x, , yes)",
            "Dropout node that computes '.*' is in training mode; export the model",
        ),
        ("y = Dropout (x, , asked)", "Dropout node that computes '.*' trains if 'asked', which is not a constant"),
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


def test_cycle_is_refused() -> None:
    found = model("(float[2] x) => (float[2] y) { a = Add (x, x) b = Relu (a) y = Neg (b) }")
    add, relu, _ = found.graph
    add.replace_input_with(1, relu.outputs[0])
    with pytest.raises(InputError, match="cycle"):
        Canonicalize()(found)


def test_functions_that_would_fill_the_memory() -> None:
    """Forty functions, each of which calls the one before twice: a trillion nodes from a file of a few kilobytes."""
    bodies = ["<domain: 'f', opset_import: ['': 17]> f0 (x) => (y) { y = Relu (x) }"]
    imports = "opset_import: ['': 17, 'f': 1]"
    for i in range(1, 41):
        bodies.append(f"<domain: 'f', {imports}> f{i} (x) => (y) {{ t = f.f{i - 1} (x)  y = f.f{i - 1} (t) }}")
    main = f"<ir_version: 8, {imports}> g (float[2] x) => (float[2] y) {{ y = f.f40 (x) }}\n"
    nested = ir.from_proto(onnx.parser.parse_model((main + "\n".join(bodies)).replace("'", '"')))
    with pytest.raises(InputError, match="the graph would have 1099511627776 nodes"):
        Canonicalize()(nested)
