"""Who only gives to a collective gets a piece of extent zero; the file still loads and runs alone."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from mars_onnx.comm.attributes import AllToAll, token_start
from mars_onnx.comm.functions import add_functions


@pytest.mark.parametrize("opset", [8, 9, 12, 13, 17, 21])
def test_member_that_gets_nothing(opset: int) -> None:
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2, 3]))
    token = token_start()
    exchange = AllToAll(
        tag=0,
        group=(0, 1),
        shape=(4, 0),
        dtype=ir.DataType.FLOAT,
        split_axis=1,
        concat_axis=0,
        split_sizes=(3, 0),
        concat_sizes=(2, 2),
    )
    node = exchange.to_node(x, token, name="exchange", output="y", token_output="mars.token")
    graph = ir.Graph([x, token], node.outputs, nodes=[node], initializers=[token], opset_imports={"": opset}, name="g")
    model = ir.Model(graph, ir_version=10)
    add_functions(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    y, _ = session.run(None, {"x": np.zeros((2, 3), np.float32)})
    assert y.shape == (4, 0)
