"""Models with things that are cut seldom or never: bodies, sequences, quantisation, half precision, odd names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

import mars_onnx
from mars_onnx.errors import InputError

RNG = np.random.default_rng(7)
WEIGHTS: dict[str, npt.NDArray[np.generic]] = {
    "w": RNG.standard_normal((6, 6)).astype(np.float32),
    "kernel": (RNG.standard_normal((8, 8, 3, 3)) / 8).astype(np.float32),
    "crop": RNG.standard_normal((3, 2, 3, 3)).astype(np.float32),
    "half_kernel": (RNG.standard_normal((8, 8, 3, 3)) / 8).astype(np.float16),
    "w[0:6,0:3]": RNG.standard_normal((6, 6)).astype(np.float32),
    "scale": np.float32(0.05),
    "zero": np.int8(0),
}
MODELS = {
    "a loop whose body uses a value and a weight from outside": """
        g (float[4,6] x) => (float[4,6] y) {
            n = Constant <value = int64 {3}> ()
            go = Constant <value = bool {1}> ()
            a = Relu (x)
            l = Loop (n, go, a) <body = b (int64 i, bool on, float[4,6] s) => (bool still, float[4,6] t) {
                still = Identity (on)
                m = MatMul (s, w)
                u = Tanh (m)
                t = Add (u, a)
            }>
            y = Sigmoid (l)
        }""",
    "a condition that is computed": """
        g (float[4,6] x) => (float[4,6] y) {
            s = ReduceSum <keepdims = 0> (x)
            none = Constant <value = float {0.0}> ()
            c = Greater (s, none)
            r = Relu (x)
            i = If (c) <then_branch = t () => (float[4,6] o) { o = Neg (r) },
                        else_branch = e () => (float[4,6] p) { p = Exp (r) }>
            y = Mul (i, x)
        }""",
    "a shape that depends on data, inside": """
        g (float[4,6] x) => (float[4,6] y) {
            r = Relu (x)
            where = NonZero (r)
            n = Size (where)
            f = Cast <to = 1> (n)
            y = Mul (x, f)
        }""",
    "a sequence": """
        g (float[4,6] x) => (float[8,6] y) {
            r = Relu (x)
            s = SequenceConstruct (r, x)
            c = ConcatFromSequence <axis = 0> (s)
            y = Neg (c)
        }""",
    "quantised neighbours of a convolution": """
        g (float[1,8,16,16] x) => (float[1,8,16,16] y) {
            q = QuantizeLinear (x, scale, zero)
            d = DequantizeLinear (q, scale, zero)
            c = Conv <pads = [1, 1, 1, 1]> (d, kernel)
            r = QuantizeLinear (c, scale, zero)
            y = DequantizeLinear (r, scale, zero)
        }""",
    "half precision": """
        g (float16[1,8,16,16] x) => (float16[1,8,16,16] y) {
            c = Conv <pads = [1, 1, 1, 1]> (x, half_kernel)
            y = Relu (c)
        }""",
    "outputs that are inputs, weights, or one another": """
        g (float[4,6] x) => (float[4,6] x, float[6,6] w, float[4,6] y, float[4,6] z) {
            y = Relu (x)
            z = Identity (y)
        }""",
    "scalars": """
        g (float[4,6] x, float a) => (float y) {
            r = Mul (x, a)
            y = ReduceMean <keepdims = 0> (r)
        }""",
    "a cache that is empty yet": """
        g (float[2,3,6] x, float[2,0,6] past) => (float[2,3,3] y, float[2,3,6] present) {
            k = MatMul (x, w)
            present = Concat <axis = 1> (past, k)
            t = Transpose <perm = [0, 2, 1]> (present)
            y = MatMul (x, t)
        }""",
    "an input and an output without elements": """
        g (float[0,6] x, float[4,6] z) => (float[0,6] none, float[4,6] y) {
            none = MatMul (x, w)
            r = Relu (none)
            y = Concat <axis = 0> (r, z)
        }""",
    "a sum over nothing": """
        g (float[4,0] x, float[0,6] k, float[6] b) => (float[4,6] y, float[4,6] z) {
            y = MatMul (x, k)
            z = Add (y, b)
        }""",
    "an empty part beside one that is not": """
        g (float[4,6] x) => (float[4,6] y) {
            sizes = Constant <value = int64[2] {0, 6}> ()
            none, all = Split <axis = 1> (x, sizes)
            r = Relu (none)
            y = Concat <axis = 1> (r, all)
        }""",
    "text on the way": """
        g (float[4,6] x) => (float[4,6] y) {
            r = Relu (x)
            t = Cast <to = 8> (r)
            n = Cast <to = 1> (t)
            y = MatMul (n, w)
        }""",
    "nothing but tensors without elements": "g (float[0,6] x) => (float[0,6] y) { y = Relu (x) }",
    "an output that is given twice": """
        g (float[4,6] x) => (float[4,6] y, float[4,6] x, float[4,6] y) {
            y = MatMul (x, w)
        }""",
    "a transposed convolution that crops more than its kernel": """
        g (float[1,3,5,5] x) => (float[1,2,6,4] y) {
            y = ConvTranspose <strides = [2, 2], pads = [3, 4, 2, 3]> (x, crop)
        }""",
    "a contributed operator": """
        g (float[4,16] x) => (float[4,16] y) {
            a = Relu (x)
            b = com.microsoft.FastGelu (a)
            y = Neg (b)
        }""",
}


def model_of(text: str) -> ir.Model:
    header = '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>'
    model = onnx.parser.parse_model(header + text)
    used = {name for node in model.graph.node for name in node.input} | {o.name for o in model.graph.output}
    bodies = [a.g for node in model.graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    used |= {name for body in bodies for node in body.node for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in WEIGHTS.items() if name in used)
    return ir.from_proto(model)


@pytest.mark.parametrize("pool", ["fpga_pool", "mixed_pool", "edge_pool"])
@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_is_right(name: str, pool: str) -> None:
    compilation = mars_onnx.compile(model_of(MODELS[name]), pool)
    verification = compilation.verify(deep=True)
    verification.raise_if_failed()
    assert verification.deep is not None
    assert verification.deep.boxes > 0 or name == "nothing but tensors without elements"


def test_names_that_no_file_could_have() -> None:
    model = model_of("g (float[4,6] x) => (float[4,6] y) { y = Relu (x) }")
    model.graph.name = '../../n"ame\n'
    model.graph.inputs[0].name = "in put/é"
    model.graph[0].name = 'no/de\n"x"'
    mars_onnx.compile(model, "edge_pool").verify(deep=True).raise_if_failed()


def test_output_of_unknown_shape_is_refused() -> None:
    model = model_of("g (float[4,6] x) => (int64[2,n] y) { r = Relu (x)  y = NonZero (r) }")
    with pytest.raises(InputError, match=r"the model output 'y' has no static shape .*\[2,n\]"):
        mars_onnx.compile(model, "edge_pool")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("g (float[4,6] x) => (string[4,6] y) { y = Cast <to = 8> (x) }", "the model output 'y' is text"),
        ("g (string[4,6] x) => (float[4,6] y) { y = Cast <to = 1> (x) }", "the input 'x' is text"),
        (
            """g (float[1] x) => (float[2] y) {
                a = Constant <value = string[1] {"1"}> ()
                t = Cast <to = 8> (x)
                c = Concat <axis = 0> (a, t)
                y = Cast <to = 1> (c)
            }""",
            "the constant 'a' is text",
        ),
    ],
)
def test_text_that_would_be_cut_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mars_onnx.compile(model_of(text), "edge_pool")


def test_a_file_that_gives_an_output_twice(tmp_path: Path) -> None:
    path = tmp_path / "twice.onnx"
    ir.save(model_of(MODELS["an output that is given twice"]), path)
    verification = mars_onnx.compile(path, "edge_pool").verify(deep=True)
    verification.raise_if_failed()
    assert len(verification.outputs) == 3


def test_a_negative_dimension_has_to_be_given() -> None:
    model = model_of("g (float[4,6] x) => (float[4,6] y) { y = MatMul (x, w) }")
    for value in (model.graph.inputs[0], model.graph.outputs[0]):
        value.shape = ir.Shape([-1, 6])
    with pytest.raises(InputError, match=r"the input 'x' has the shape \[\?, 6\].*--input-shape x:1,6"):
        mars_onnx.compile(model, "edge_pool")
    mars_onnx.compile(model, "edge_pool", input_shapes=["x:3,6"]).verify(deep=True).raise_if_failed()


def test_names_that_partitions_would_give(tmp_path: Path) -> None:
    """A weight that is called like a slice of another, and a value called like a token."""
    text = """g (float[4,6] x) => (float[4,6] y) {
        "token_0" = MatMul (x, w)
        t = MatMul ("token_0", "w[0:6,0:3]")
        y = Relu (t)
    }"""
    model = model_of(text)
    model.graph[2].name = "last"
    own = {"accelerators": ["board0", "board1"], "layers": {"last": "whole", "*": "ES(N=2)"}}
    path = tmp_path / "mapping.json"
    path.write_text(json.dumps({"schema": "mars-onnx/mapping/1", "sets": [own]}), encoding="utf-8")
    mars_onnx.compile(model, "edge_pool", mapping=path).verify(deep=True).raise_if_failed()
