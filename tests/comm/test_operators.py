"""Files with communication operators are accepted by every stock tool, at every opset and element type."""

import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from mars_onnx import comm
from mars_onnx.errors import InputError, InvariantError
from mars_onnx.geometry import Reduction

OPSETS = (7, 9, 10, 11, 12, 13, 14, 17, 21, 25, 28)
LEVELS = (
    ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
)


def every_operator(dtype: ir.DataType) -> list[tuple[comm.Communication, tuple[int, ...]]]:
    """One of each, with the shape of its input: what rank 0 of a group of three would have."""
    group, reduce_op = (0, 1, 2), Reduction.SUM
    return [
        (comm.Send(tag=0, dst=1), (2, 3)),
        (comm.Recv(tag=1, src=1, shape=(4, 3), dtype=dtype), ()),
        (comm.AllReduce(tag=2, group=group, reduce_op=reduce_op), (2, 3)),
        (comm.AllGather(tag=3, group=group, shape=(7, 3), dtype=dtype, axis=0, sizes=(2, 1, 4)), (2, 3)),
        (
            comm.ReduceScatter(
                tag=4, group=group, shape=(2, 3), dtype=dtype, axis=0, sizes=(2, 1, 4), reduce_op=reduce_op
            ),
            (7, 3),
        ),
        (
            comm.AllToAll(
                tag=5, group=group, shape=(7, 1), dtype=dtype, split_axis=1, concat_axis=0,
                split_sizes=(1, 1, 1), concat_sizes=(2, 1, 4),
            ),
            (2, 3),
        ),
        (comm.Broadcast(tag=6, group=group, shape=(2, 2), dtype=dtype, root=1), (0,)),
        (
            comm.HaloExchange(
                tag=7, group=group, shape=(3, 3), dtype=dtype, axis=0, held=(0, 2, 2, 3, 3, 7), need=(0, 3, 1, 4, 2, 7)
            ),
            (2, 3),
        ),
        (comm.Shift(tag=8, group=group, shape=(5,), dtype=dtype, offset=1), (2, 3)),
        (comm.Recv(tag=9, src=1, shape=(), dtype=dtype), ()),
    ]  # fmt: skip


def model_of(opset: int, dtype: ir.DataType) -> ir.Model:
    token = comm.token_start()
    graph = ir.Graph([token], [], nodes=[], initializers=[token], opset_imports={"": opset, comm.DOMAIN: 1}, name="g")
    for number, (operator, shape) in enumerate(every_operator(dtype)):
        x = None
        if operator.takes_data:
            feed = ir.Value(name=f"x{number}", type=ir.TensorType(dtype), shape=ir.Shape(shape))
            graph.inputs.append(feed)
            upstream = ir.node("Transpose", [feed], {"perm": list(range(len(shape)))}, name=f"before{number}")
            x = upstream.outputs[0]
            x.name, x.type, x.shape = f"t{number}", ir.TensorType(dtype), ir.Shape(shape)
            graph.append(upstream)
        node = operator.to_node(
            x, token, name=f"n{number}", output=f"y{number}" if operator.gives_data else None, token_output=f"k{number}"
        )
        graph.append(node)
        token = node.outputs[-1]
        if operator.gives_data:
            graph.outputs.append(node.outputs[0])
    token.name = comm.TOKEN_NAME
    graph.outputs.append(token)
    model = ir.Model(graph, ir_version=10)
    comm.add_functions(model)
    return model


def check_everywhere(model: ir.Model) -> None:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    for data_prop in (False, True):
        inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=data_prop)
        assert list(inferred.graph.output) == list(proto.graph.output)
    feeds = {}
    for value in model.graph.inputs:
        if value.name != comm.TOKEN_START:
            feeds[value.name] = np.ones(comm.static_shape(value), value.dtype.numpy())
    for level in LEVELS:
        options = ort.SessionOptions()
        options.graph_optimization_level = level
        options.log_severity_level = 4
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        values = {name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(
            feed.view(np.uint16) if feed.dtype.name == "bfloat16" else feed, ir.DataType.from_numpy(feed.dtype).value
        ) for name, feed in feeds.items()}  # fmt: skip
        results = session.run_with_ort_values(None, values)
        for value, result in zip(model.graph.outputs, results, strict=True):
            assert tuple(result.shape()) == comm.static_shape(value), value.name
            assert result.element_type() == value.dtype.value


DTYPES = [ir.DataType[n] for n in ("FLOAT", "FLOAT16", "DOUBLE", "INT64", "INT32", "INT8", "UINT8", "BOOL")]


@pytest.mark.parametrize("opset", OPSETS)
def test_a_file_with_every_operator_is_accepted(opset: int) -> None:
    check_everywhere(model_of(opset, ir.DataType.FLOAT))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("opset", [9, 13, 28])
def test_every_element_type(opset: int, dtype: ir.DataType) -> None:
    check_everywhere(model_of(opset, dtype))


@pytest.mark.parametrize("opset", [13, 17, 28])
def test_bfloat16(opset: int) -> None:
    check_everywhere(model_of(opset, ir.DataType.BFLOAT16))


@pytest.mark.parametrize("opset", [9, 11, 17, 28])
def test_stock_runtime_keeps_what_leads_to_and_follows_a_communication(opset: int, tmp_path) -> None:
    proto = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": {opset}, "org.mars_onnx.comm": 1]>
        g (float[2,3] x, int64[1] start) => (float[4] z, int64[1] end) <int64[1] start = {{0}}> {{
          a = Tanh (x)
          t0 = org.mars_onnx.comm.Send <dst = 1, tag = 0> (a, start)
          r, end = org.mars_onnx.comm.Recv <src = 1, tag = 1, shape = [4], dtype = 1> (t0)
          z = Sigmoid (r)
        }}"""
    )
    model = ir.from_proto(proto)
    comm.add_functions(model)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["x"]
    kept = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert {"Tanh", "Sigmoid"} <= kept


@pytest.mark.parametrize(
    "operator", [op for op, _ in every_operator(ir.DataType.FLOAT)], ids=lambda op: f"{op.op_type}-{op.tag}"
)
def test_attributes_survive_a_node_and_a_file(operator: comm.Communication) -> None:
    model = model_of(17, ir.DataType.FLOAT)
    for graph in (model.graph, ir.from_proto(ir.to_proto(model)).graph):
        node = next(n for n in graph if comm.is_communication(n) and n.name == f"n{operator.tag}")
        assert comm.communication_of(node) == operator


def test_empty_output_pieces() -> None:
    operator = comm.ReduceScatter(
        tag=0, group=(0, 1), shape=(2, 0), dtype=ir.DataType.FLOAT, axis=1, sizes=(0, 3), reduce_op=Reduction.MAX
    )
    token = comm.token_start()
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape((2, 3)))
    node = operator.to_node(x, token, name="n", output="y", token_output=comm.TOKEN_NAME)
    graph = ir.Graph(
        [x, token], node.outputs, nodes=[node], initializers=[token], opset_imports={"": 17, comm.DOMAIN: 1}, name="g"
    )
    model = ir.Model(graph, ir_version=10)
    comm.add_functions(model)
    check_everywhere(model)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ("group = [0, 1], tag = 3", "AllReduce n: attribute 'reduce_op' is missing"),
        ('group = [0, 1], tag = 3, reduce_op = "mean"', "cannot be 'mean' (one of sum, max, min)"),
        ('group = [0, 0], tag = 3, reduce_op = "sum"', "not a list of different ranks"),
        ('group = [0, 1], tag = -3, reduce_op = "sum"', "tag -3 is negative"),
        ('group = 1, tag = 3, reduce_op = "sum"', "attribute 'group' is of type INT, not INTS"),
        ('group = [0, 1], tag = 3, reduce_op = "sum", speed = 1', "unknown attribute 'speed'"),
    ],
)
def test_malformed_nodes_are_named(attributes: str, message: str) -> None:
    proto = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 17, "org.mars_onnx.comm": 1]>
        g (float[2] x, int64[1] t) => (float[2] y, int64[1] u) {{
          [n] y, u = org.mars_onnx.comm.AllReduce <{attributes}> (x, t)
        }}"""
    )
    with pytest.raises(InvariantError) as caught:
        comm.communication_of(next(iter(ir.from_proto(proto).graph)))
    assert message in str(caught.value)


def test_pieces_are_counted() -> None:
    operator = comm.AllGather(tag=1, group=(0, 1), shape=(4,), dtype=ir.DataType.FLOAT, axis=1, sizes=(2,))
    with pytest.raises(InvariantError, match=r"sizes has 1 numbers, not 1 for each of 2 members; axis 1"):
        operator.check("here")


def test_too_old_an_opset() -> None:
    with pytest.raises(InputError, match="opset 6 is too old"):
        comm.functions_for(6, ["Send"])


def test_redistribute_is_the_identity() -> None:
    (function,) = comm.functions_for(13, ["Redistribute"])
    assert [node.op_type for node in function] == ["Identity"]
    assert "does NOT communicate" in (function.doc_string or "")


def test_schemas_infer_shapes_without_function_bodies() -> None:
    # In a process of its own, so that the other tests see what a tool without our schemas sees.
    code = """
import onnx, onnx_ir as ir
from mars_onnx import comm
from tests_comm import model_of
comm.register(); comm.register()
proto = ir.to_proto(model_of(17, ir.DataType.FLOAT16))
onnx.checker.check_model(proto, full_check=True)
del proto.functions[:]
del proto.graph.value_info[:]
onnx.checker.check_model(proto, full_check=True)
inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
assert inferred.graph.output == proto.graph.output
proto.graph.node[1].attribute.pop()
try:
    onnx.checker.check_model(proto)
except onnx.checker.ValidationError as error:
    print(error)
"""
    loader = (
        "import importlib.util as u, sys; s = u.spec_from_file_location('tests_comm', sys.argv[1]);"
        "m = u.module_from_spec(s); sys.modules['tests_comm'] = m; s.loader.exec_module(m)\n"
    )
    done = subprocess.run([sys.executable, "-c", loader + code, __file__], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Required attribute" in done.stdout
