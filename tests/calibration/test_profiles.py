import json
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from mars_onnx.calibration.foreign import samples_of_profile
from mars_onnx.calibration.measure import feeds_of, profile, session_of
from mars_onnx.calibration.networks import networks
from mars_onnx.calibration.profiles import REORDERS, nodes_of, read_profile
from mars_onnx.calibration.samples import samples_of
from mars_onnx.errors import InputError

NETWORKS = {model.graph.name: model for model in networks(0.1)}
FAMILIES = ("convolutions0", "convolutions3", "first_layers0", "depthwise0", "matrices0", "attention0", "elementwise0")
#: What ONNX Runtime computes once though it stands there twice, and sums that a normalisation takes up.
NOT_ALONE = {"attention0": {"Reshape"}, "matrices0": {"Add"}}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_node_is_in_some_kernel_that_is_found_again(name: str) -> None:
    model = NETWORKS[name]
    graph = ir.from_proto(model).graph
    found = nodes_of(profile(model, runs=2).kernels, graph)
    computed = {node.name for _, nodes in found for node in nodes}
    assert {node.op_type for node in graph if node.name not in computed} <= NOT_ALONE.get(name, set())
    leaders = [nodes[0].name for _, nodes in found]
    assert len(leaders) == len(set(leaders))


@pytest.mark.parametrize("name", ["convolutions0", "convolutions3", "first_layers0", "depthwise0"])
def test_a_profile_without_its_model_says_the_same_work(name: str, tmp_path: Path) -> None:
    model = NETWORKS[name]
    session = session_of(model, 1, str(tmp_path / "profile"))
    for _ in range(3):
        session.run(None, feeds_of(session))
    kernels = read_profile(session.end_profiling())
    known = {s.name.split("/")[1]: s for s in samples_of(kernels, ir.from_proto(model).graph)}
    guessed, skipped = samples_of_profile(kernels)
    convolutions = [s for s in guessed if int(s.work.kernel[0].prod()) > 0 and s.name in known]
    assert len(convolutions) + skipped >= sum(kernel.op_type not in REORDERS for kernel in kernels)
    for sample in convolutions:
        own = known[sample.name]
        if own.work.op_class[0] != 1:
            continue
        assert sample.work.out_spatial.tolist() == own.work.out_spatial.tolist()
        assert sample.work.kernel.tolist() == own.work.kernel.tolist()
        assert sample.work.macs[0] == pytest.approx(own.work.macs[0], rel=1e-9)
        assert sample.summand_bytes == own.summand_bytes
        assert sample.seconds == own.seconds


def test_times_are_those_of_the_events(tmp_path: Path) -> None:
    def event(name: str, spent: object, **facts: object) -> dict[str, object]:
        return {"cat": "Node", "name": name, "dur": spent, "ts": 0, "args": {"op_name": "Relu"} | facts}

    shapes = {"input_type_shape": [{"float": [2, 3]}], "output_type_shape": [{"float": [2, 3]}], "node_index": "7"}
    file = tmp_path / "profile.json"
    events: list[object] = [
        {"cat": "Session", "name": "model_run", "dur": 90, "args": {}},
        event("a_kernel_time", 10, **shapes),
        event("a_kernel_time", 12, **shapes),
        event("b_fence_before", 4, **shapes),
        event("c_kernel_time", -1),
        event("d_kernel_time", True),
        event("e_kernel_time", 1, input_type_shape=[{"float": [-1]}, 7], output_type_shape="?"),
        "nonsense",
    ]
    file.write_text(json.dumps(events), encoding="utf-8")
    first, second = read_profile(file)
    assert (first.name, first.op_type, first.inputs, first.outputs) == ("a", "Relu", ((2, 3),), ((2, 3),))
    # Whole microseconds, rounded down by ONNX Runtime.
    assert first.seconds == pytest.approx((10.5e-6, 12.5e-6))
    assert (second.name, second.inputs, second.outputs) == ("e", ((), ()), ())
    guessed, skipped = samples_of_profile([first, second])
    assert (len(guessed), skipped) == (1, 1)
    assert guessed[0].work.elements.tolist() == [6]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{", "not JSON"),
        ("{}", "should be a JSON list of events"),
        ("[]", "there is no kernel in it"),
        ('[{"cat": "Node", "name": "x", "dur": 1}]', "events whose names end in '_kernel_time'"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_profile_is_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=f"profile.json: .*{message}"):
        read_profile(file)


def test_a_missing_profile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.json: No such file"):
        read_profile(tmp_path / "nowhere.json")


def test_a_model_that_cannot_be_run_is_refused() -> None:
    open_shape = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n"])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n"])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "open", [open_shape], [result])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10)
    with pytest.raises(InputError, match=r"input 'x' has the shape \['n'\]; profiling needs a static one"):
        profile(model)
    model.graph.node[0].op_type = "Nonsense"
    with pytest.raises(InputError, match="ONNX Runtime cannot profile the model"):
        profile(model)


def test_networks_are_the_same_every_time_and_of_many_kinds() -> None:
    first, second = (list(networks(0.1)) for _ in range(2))
    assert [model.SerializeToString() for model in first] == [model.SerializeToString() for model in second]
    for model in first:
        onnx.checker.check_model(model, full_check=True)
    shapes = {tuple(weight.dims) for model in first for weight in model.graph.initializer}
    assert len(shapes) > 50
