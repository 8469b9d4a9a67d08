"""Small networks with random weights, and pools with a choice of designs, for tests of search methods."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from mars_onnx.pool.loader import load_pool
from mars_onnx.pool.topology import Pool
from mars_onnx.search.problem import Problem, problem_of
from tests.end_to_end.checking import canonical, check, compile_with
from tests.pool_factory import MADE_UP, pool_document

HEADER = '<ir_version: 8, opset_import: ["": 17]>\n'

#: A residual block, then a classifier.
RESIDUAL = """
residual (float[1,8,12,12] x) => (float[1,10] z) {
    [stem] a = Conv <pads = [1,1,1,1]> (x, w16x8x3x3)
    [act] b = Relu (a)
    [left] c = Conv <pads = [1,1,1,1]> (b, w16x16x3x3)
    [sum] d = Add (b, c)
    [out] e = Relu (d)
    [pool] f = GlobalAveragePool (e)
    [flat] g = Flatten (f)
    [fc] z = Gemm <transB = 1> (g, w10x16)
}"""

#: Three trunks that are joined, as in CASIA-SURF.
BRANCHES = """
branches (float[1,4,16,16] x, float[1,4,16,16] y, float[1,4,16,16] v) => (float[1,8,16,16] z) {
    [conv_x] a = Conv <pads = [1,1,1,1]> (x, w16x4x3x3)
    [relu_x] b = Relu (a)
    [conv_y] c = Conv <pads = [1,1,1,1]> (y, w16x4x3x3)
    [relu_y] d = Relu (c)
    [conv_v] e = Conv <pads = [1,1,1,1]> (v, w16x4x3x3)
    [relu_v] f = Relu (e)
    [join] g = Concat <axis = 1> (b, d, f)
    [tail] z = Conv (g, w8x48x1x1)
}"""

#: A chain of two convolutions with much to compute.
CHAIN = """
chain (float[1,16,32,32] x) => (float[1,32,32,32] z) {
    [first] a = Conv <pads = [1,1,1,1]> (x, w32x16x3x3)
    [middle] b = Relu (a)
    [last] z = Conv <pads = [1,1,1,1]> (b, w32x32x3x3)
}"""


def network(text: str, seed: int = 0) -> ir.Model:
    """A network from its text: operands called w and a shape become random weights."""
    rng = np.random.default_rng(seed)
    model = onnx.parser.parse_model(HEADER + text.strip())
    names = sorted({name for node in model.graph.node for name in node.input if name.startswith("w")})
    for name in names:
        shape = tuple(map(int, name[1:].split("x")))
        scale = np.sqrt(shape[0] / np.prod(shape))
        values = (rng.standard_normal(shape) * scale).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def problem(text: str, pool: Pool) -> Problem:
    """The problem that a network poses."""
    return problem_of(canonical(network(text), pool))


@cache
def adaptive_pool(*groups: int) -> Pool:
    """FPGAs that take one of three designs, in groups of some sizes; only a host connects groups."""
    document = pool_document(groups)
    for accelerator in document["accelerators"]:
        accelerator["designs"] = ["superlip", "systolic", "winograd"]
        accelerator["source"] = MADE_UP
    document["hosts"] = [{"id": "host"}]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pool.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return load_pool(path)


def check_end_to_end(text: str, pool: Pool, method: str) -> None:
    """What a method finds compiles, and its partitions compute what the original computes."""
    from mars_onnx.search.evaluate import evaluate
    from mars_onnx.search.method import SearchOptions
    from mars_onnx.search.registry import search_method

    source = network(text)
    graph = canonical(source, pool)
    posed = problem_of(graph)
    result = search_method(method).choose(posed, pool, SearchOptions())
    assert evaluate(posed, pool, result.mapping).latency_s == result.cost_s
    check(compile_with(source, graph, result.mapping, pool))
