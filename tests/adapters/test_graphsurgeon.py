"""To graphsurgeon and back: nothing is lost, weights are read only when touched, surgery works."""

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnx_ir as ir
import onnxruntime as ort
import pytest

from mars_onnx.adapters.graphsurgeon import from_graphsurgeon, to_graphsurgeon
from mars_onnx.errors import InputError

TEXT = """
<ir_version: 11, opset_import: ["": 20, "local": 1], producer_name: "maker", model_version: 3>
net (float[2,300] x, bool c) => (float[2,300] y)
{
    [scale] a = Mul (x, w)
    [twice] b = local.twice (a)
    [choose] y = If (c) <
        then_branch = then () => (float[2,300] r) { [inner] r = Neg (b) },
        else_branch = other () => (float[2,300] s) { s = Add (b, w) }
    >
}
<opset_import: ["": 20], domain: "local"> twice (p) => (q) { [sum] q = Add (p, p) }
"""


class Weight(ir.Tensor[Any]):
    """A tensor that counts how often it is read."""

    reads = 0

    def numpy(self) -> np.ndarray:
        type(self).reads += 1
        return super().numpy()


def model() -> ir.Model:
    proto = onnx.parser.parse_model(TEXT)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(300, dtype=np.float32), "w"))
    found = ir.from_proto(proto)
    Weight.reads = 0
    found.graph.initializers["w"].const_value = Weight(np.arange(300, dtype=np.float32), name="w")
    found.metadata_props["mars.accelerator"] = "fpga0"
    found.graph.metadata_props["part"] = "1"
    found.graph.doc_string = "a net"
    scale, twice, choose = found.graph
    scale.metadata_props["mars.source"] = "conv1"
    scale.doc_string = "scales"
    scale.outputs[0].metadata_props["mars.box"] = "0:2,0:300"
    found.graph.initializers["w"].metadata_props["mars.box"] = "0:300"
    choose.attributes["then_branch"].as_graph()[0].metadata_props["deep"] = "yes"
    (function,) = found.functions.values()
    function.metadata_props["kind"] = "stand-in"
    function[0].metadata_props["inside"] = "function"
    configuration = found.add_device_configuration(name="pool", num_devices=2)
    twice.shard(twice.outputs[0], configuration=configuration, axis=0, num_shards=2, device_indices=(0, 1))
    return found


def test_round_trip_loses_nothing_and_reads_no_weight() -> None:
    original = model()
    wanted = ir.to_proto(original)
    Weight.reads = 0
    back = from_graphsurgeon(to_graphsurgeon(original), original)
    assert Weight.reads == 0
    assert back.graph.initializers["w"].const_value is original.graph.initializers["w"].const_value
    found = ir.to_proto(back)
    for name in ("metadata_props", "configuration", "functions", "doc_string", "producer_name", "model_version"):
        assert getattr(found, name) == getattr(wanted, name), name
    for one, other in zip(found.graph.node, wanted.graph.node, strict=True):
        assert one == other
    described = {value.name: value for value in wanted.graph.value_info}
    assert {value.name: value for value in found.graph.value_info} == described
    assert found.graph.doc_string == "a net"
    onnx.checker.check_model(found, full_check=True)
    for proto in (found, wanted):
        # Their order is free; what they say was compared above.
        del proto.graph.value_info[:]
    assert onnx.printer.to_text(found) == onnx.printer.to_text(wanted)


def run(found: ir.Model, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(ir.to_proto(found).SerializeToString())
    (result,) = session.run(None, {"x": x, "c": np.array(False)})
    return np.asarray(result)


def test_surgery() -> None:
    original = model()
    graph = to_graphsurgeon(original)
    scale = next(node for node in graph.nodes if node.name == "scale")
    (a,) = scale.outputs
    raw = gs.Variable("raw", dtype=np.float32, shape=(2, 300))
    scale.outputs = [raw]
    # The new node stands last, out of order, with a new weight; an old weight is changed.
    graph.nodes.append(gs.Node("Sub", "shift", inputs=[raw, gs.Constant("one", np.ones(300, np.float32))], outputs=[a]))
    scale.inputs[1].values = scale.inputs[1].values + 1
    back = from_graphsurgeon(graph, original)
    assert [node.name for node in back.graph] == ["scale", "shift", "twice", "choose"]
    assert back.graph[0].metadata_props["mars.source"] == "conv1"
    assert not back.graph[1].metadata_props
    assert back.graph[2].device_configurations[0].sharding_specs[0].value.name == "b"
    x = np.ones((2, 300), np.float32)
    w = np.arange(300, dtype=np.float32) + 1
    np.testing.assert_allclose(run(back, x), 2 * (x * w - 1) + w)


def test_renamed_operator_does_not_inherit() -> None:
    original = model()
    graph = to_graphsurgeon(original)
    next(node for node in graph.nodes if node.name == "scale").op = "Div"
    assert not from_graphsurgeon(graph, original).graph[0].metadata_props


def test_graph_made_otherwise() -> None:
    x, y = (gs.Variable(name, dtype=np.float32, shape=(2,)) for name in "xy")
    graph = gs.Graph([gs.Node("Relu", "relu", inputs=[x], outputs=[y])], inputs=[x], outputs=[y], opset=20)
    assert from_graphsurgeon(graph).graph[0].op_type == "Relu"


def test_invalid_graphs_are_input_errors() -> None:
    x, y = gs.Variable("x", dtype=np.float32, shape=(2,)), gs.Variable("y")
    node = gs.Node("Add", "add", inputs=[x, x], outputs=[y])
    with pytest.raises(InputError, match=r"is not a valid model: .*must include dtype"):
        from_graphsurgeon(gs.Graph([node], inputs=[x], outputs=[y], opset=20, name="g"))
    y.dtype = np.dtype(np.float32)
    node.inputs[1] = y
    with pytest.raises(InputError, match="form a cycle"):
        from_graphsurgeon(gs.Graph([node], inputs=[x], outputs=[y], opset=20, name="g"))
