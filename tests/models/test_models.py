"""The reference networks: published sizes, range of the activations, determinism, command line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest

from mars_onnx.errors import UsageError
from mars_onnx.models import load_builder
from mars_onnx.models import main as launch
from models.build import build, main, names, skeleton, source
from models.encoder import encoder
from models.model_size import mac_count, parameter_count
from models.random_weights import fill

QUICK = ("resnet18", "light_squeezenet", "light_shufflenet", "encoder", "facebagnet", "casia_surf")
ROOT = Path(__file__).parents[2]

# torchvision's documentation for its own networks; the papers and model zoo for the others.
PUBLISHED_PARAMETERS = {
    "alexnet": 61_100_840,
    "vgg16": 138_357_544,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "wideresnet50_2": 68_883_240,
    "light_bvlc_alexnet": 60_965_224,
    "light_vgg19": 143_667_240,
    "light_squeezenet": 1_235_496,
}
PUBLISHED_GIGA_MACS = {
    "alexnet": 0.71,
    "vgg16": 15.47,
    "resnet18": 1.81,
    "resnet34": 3.66,
    "resnet50": 4.09,
    "resnet101": 7.80,
    "wideresnet50_2": 11.40,
}


def run(model: onnx.ModelProto, tensors: list[str], seed: int = 0) -> list[npt.NDArray[np.float32]]:
    """Compute ``tensors`` of ``model`` for random normal inputs, without optimisation."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    values = {value.name: value for value in (*model.graph.value_info, *model.graph.output)}
    del exposed.graph.output[:]
    exposed.graph.output.extend(values[name] for name in tensors)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 2
    session = ort.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(seed)
    feeds = {value.name: rng.standard_normal(value.shape, np.float32) for value in session.get_inputs()}
    return session.run(tensors, feeds)  # type: ignore[no-any-return]


def activations(model: onnx.ModelProto) -> dict[str, str]:
    """Name and producing operator of every tensor that depends on an input."""
    known = {value.name for value in model.graph.input}
    found = {}
    for node in model.graph.node:
        if known.intersection(node.input):
            known.update(node.output)
            found[node.output[0]] = node.op_type
    return found


def check_range(name: str, seed: int) -> None:
    model = build(name, seed=seed)
    onnx.checker.check_model(model, full_check=True)
    operators = activations(model)
    for (tensor, operator), value in zip(operators.items(), run(model, list(operators)), strict=True):
        deviation = float(value.std())
        if operator == "Softmax":
            assert value.max() < 0.9, f"{name}: {tensor} is close to one-hot"
        else:
            assert 1e-2 < deviation < 1e2, f"{name}: {operator} output {tensor} has deviation {deviation}"
    final = next(tensor for tensor, operator in reversed(operators.items()) if operator != "Softmax")
    logits, others = run(model, [final])[0], run(model, [final], seed=1)[0]
    assert 0.1 < np.sqrt(np.mean(logits**2)) < 10
    assert np.abs(logits - others).max() > 0.01 * np.abs(logits).max(), f"{name}: blind to its input"


@pytest.mark.parametrize("name", QUICK)
def test_activations_stay_in_range(name: str) -> None:
    check_range(name, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_activations_stay_in_range_for_another_seed(name: str) -> None:
    check_range(name, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in names() if name not in QUICK])
def test_activations_stay_in_range_in_large_networks(name: str) -> None:
    check_range(name, seed=0)


@pytest.mark.parametrize(("name", "count"), PUBLISHED_PARAMETERS.items())
def test_parameter_count_is_the_published_one(name: str, count: int) -> None:
    assert parameter_count(skeleton(name)) == count


@pytest.mark.parametrize(("name", "giga_macs"), PUBLISHED_GIGA_MACS.items())
def test_mac_count_is_the_published_one(name: str, giga_macs: float) -> None:
    assert mac_count(skeleton(name)) / 1e9 == pytest.approx(giga_macs, abs=0.006)


@pytest.mark.parametrize("name", names())
def test_structure(name: str) -> None:
    """Shapes are inferred throughout, names are unique and telling, the source is stated."""
    network = skeleton(name, batch=3)
    shapes = network.infer_shapes()
    graph = network.model.graph
    assert graph.name == name
    assert source(name) in network.model.doc_string
    outputs = [output for node in graph.node for output in node.output]
    assert len(set(outputs)) == len(outputs)
    assert all(shapes[value.name][0] == 3 for value in (*graph.input, *graph.output))
    assert all(0 not in shape for shape in shapes.values())
    if not name.startswith("light_"):
        assert len({node.name for node in graph.node}) == len(graph.node)
        assert all(node.name for node in graph.node)


@pytest.mark.parametrize("name", names())
def test_no_weight_is_left_constant(name: str) -> None:
    network = skeleton(name)
    assert not any(node.op_type == "ConstantOfShape" for node in network.model.graph.node)
    floats = [t for t in network.model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert all(not tensor.dims for tensor in floats)


@pytest.mark.parametrize("name", ["light_squeezenet", "light_shufflenet", "light_inception_v1", "encoder"])
def test_same_bytes_for_the_same_seed(name: str) -> None:
    first, again, other = build(name), build(name), build(name, seed=1)
    assert first.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)
    for tensor, changed in zip(first.graph.initializer, other.graph.initializer, strict=True):
        same = tensor.raw_data == changed.raw_data
        assert same == (tensor.name in {t.name for t in skeleton(name).model.graph.initializer}), tensor.name


@pytest.mark.parametrize("name", ["light_squeezenet", "light_shufflenet", "encoder", "facebagnet"])
def test_batch_changes_neither_weights_nor_results(name: str) -> None:
    single, double = build(name), build(name, batch=2)
    tensor = single.graph.output[0].name
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    sessions = [
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for model in (single, double)
    ]
    rng = np.random.default_rng(0)
    pairs = {value.name: rng.standard_normal(value.shape, np.float32) for value in sessions[1].get_inputs()}
    together = sessions[1].run([tensor], pairs)[0]
    for row in range(2):
        alone = sessions[0].run([tensor], {name: value[row : row + 1] for name, value in pairs.items()})[0]
        np.testing.assert_allclose(alone[0], together[row], rtol=1e-4, atol=1e-5)


def test_light_model_keeps_its_target_shapes_and_opset() -> None:
    model = build("light_inception_v1")
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    assert onnx.numpy_helper.to_array(constants["OC2_DUMMY_1"]).tolist() == [1, 1024]
    assert onnx.numpy_helper.to_array(constants["OC2_DUMMY_3"]).tolist() == [1000, 1024]
    assert [value.name for value in model.graph.input] == ["data_0"]
    assert model.opset_import[0].version == 9


def test_light_model_drops_unused_initializer() -> None:
    network = skeleton("light_zfnet512")
    used = {name for node in network.model.graph.node for name in node.input}
    assert set(network.weights) <= used
    assert {tensor.name for tensor in network.model.graph.initializer} <= used


def test_encoder_computes_the_same_with_gelu_operator() -> None:
    written_out, single_node = build("encoder"), build("encoder", opset=20)
    assert "Gelu" in {node.op_type for node in single_node.graph.node}
    assert "Gelu" not in {node.op_type for node in written_out.graph.node}
    onnx.checker.check_model(single_node, full_check=True)
    a, b = (run(model, ["encoded"])[0] for model in (written_out, single_node))
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_encoder_is_parametrised() -> None:
    model = fill(encoder(batch=2, blocks=1, sequence=5, hidden=12, heads=3, inner=7), seed=0)
    onnx.checker.check_model(model, full_check=True)
    assert run(model, ["encoded"])[0].shape == (2, 5, 12)
    with pytest.raises(UsageError, match="multiple of heads"):
        encoder(hidden=10, heads=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet43"}, "did you mean resnet34"),
        ({"name": "zzz"}, "known are alexnet"),
        ({"name": "resnet18", "batch": 0}, "batch size 0"),
        ({"name": "resnet18", "seed": -1}, "seed -1"),
        ({"name": "resnet18", "opset": 7}, "opset 7"),
        ({"name": "encoder", "opset": 13}, "needs opset 17"),
        ({"name": "light_vgg19", "opset": 17}, "exists at opset 9 only"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(**arguments)  # type: ignore[arg-type]


def test_command_writes_the_named_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "models"
    assert main(["encoder", "light_squeezenet", "encoder", "-o", str(folder), "--seed", "3"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["encoder.onnx", "light_squeezenet.onnx"]
    assert (folder / "encoder.onnx").read_bytes() == build("encoder", seed=3).SerializeToString(deterministic=True)
    assert "encoder.onnx" in capsys.readouterr().out


def test_command_writes_nothing_if_one_name_is_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encoder", "squeezenet", "-o", str(tmp_path / "out")]) == 2
    assert "did you mean light_squeezenet" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_command_leaves_no_part_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, target: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", fail)
    assert main(["encoder", "-o", str(tmp_path)]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["-o", "x"], ["encoder"], ["encoder", "--all", "-o", "x"]])
def test_command_refuses_incomplete_calls(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "mars-onnx-models: give" in capsys.readouterr().err


def test_list_names_every_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *names()]


def test_launcher_runs_the_shipped_builder(tmp_path: Path) -> None:
    assert launch(["encoder", "-o", str(tmp_path)]) == 0
    assert (tmp_path / "encoder.onnx").is_file()
    assert load_builder().names() == names()


def test_builder_runs_below_another_package_as_in_a_wheel(tmp_path: Path) -> None:
    folder = tmp_path / "installed" / "_data" / "models"
    shutil.copytree(ROOT / "models", folder, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "installed._data.models.build", "encoder", "-o", "out"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert (tmp_path / "out" / "encoder.onnx").is_file()
