"""Loading models that nobody vouches for: one clear message each, and no weight is read."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from mars_onnx.errors import InputError
from mars_onnx.loading import load_model
from mars_passes.canonicalize import Canonicalize


def small() -> onnx.ModelProto:
    return onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 20]>
        small (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }""")


def with_weights(path: Path, elements: int = 300_000) -> onnx.ModelProto:
    """Write a model whose weight and batch normalization lie in an external file."""
    random = np.random.default_rng(0)
    shapes = {"w": (elements // 3, 3, 1, 1), **dict.fromkeys("sbmv", (elements // 3,))}
    weights = [onnx.numpy_helper.from_array(random.uniform(1, 2, s).astype("f"), n) for n, s in shapes.items()]
    proto = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["": 20]>
        heavy (float[N,3,1,1] x) => (float[N,{elements // 3},1,1] y) {{
            c = Conv (x, w)
            y = BatchNormalization (c, s, b, m, v)
        }}""")
    proto.graph.initializer.extend(weights)
    onnx.save(proto, path, save_as_external_data=True, location="heavy.data", size_threshold=0)
    return onnx.load(path, load_external_data=False)


def save(proto: onnx.ModelProto) -> bytes:
    data: bytes = proto.SerializeToString()
    return data


def changed(change: Callable[[onnx.ModelProto], object]) -> bytes:
    proto = small()
    change(proto)
    return save(proto)


def add_sparse_constant(proto: onnx.ModelProto) -> None:
    values, indices = (onnx.numpy_helper.from_array(np.array(data)) for data in ([5.0], [1]))
    sparse = onnx.helper.make_sparse_tensor(values, indices, [2])
    proto.graph.node.append(onnx.helper.make_node("Constant", [], ["c"], sparse_value=sparse))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"hello, I am no model\n" * 9, "not an ONNX model: it is text"),
        (bytes(range(255, 0, -1)) * 9, "not an ONNX model: it is another format, or cut off"),
        (save(small())[:-40], "not an ONNX model: it is another format, or cut off"),
        (save(onnx.ModelProto(ir_version=10)), "not an ONNX model: it has no graph"),
        (changed(lambda m: m.graph.ClearField("node")), "the graph 'small' has no nodes"),
        (changed(lambda m: m.graph.ClearField("output")), "the graph 'small' has no outputs"),
        (changed(lambda m: setattr(m, "ir_version", 99)), "ONNX IR version 99; the newest that is supported here is"),
        (changed(lambda m: setattr(m.opset_import[0], "version", 99)), "uses opset 99; supported are 7 to"),
        (changed(lambda m: setattr(m.opset_import[0], "version", 6)), "uses opset 6; supported are 7 to"),
        (changed(lambda m: m.ClearField("opset_import")), "does not say which opset of ONNX it uses"),
        (
            changed(lambda m: setattr(m.graph.node[0], "op_type", "Ad")),
            "not a valid ONNX model: No Op registered for Ad",
        ),
        (changed(lambda m: m.graph.node[0].input.append("z")), "not a valid ONNX model: "),
        (changed(lambda m: m.graph.node[0].input.__setitem__(1, "z")), "not a valid ONNX model: "),
        (changed(lambda m: setattr(m.graph.initializer[0], "data_type", 77)), "not a valid ONNX model: "),
        (changed(lambda m: m.graph.initializer[0].dims.append(5)), "not a valid ONNX model: "),
        (changed(lambda m: m.graph.sparse_initializer.add()), "sparse initializers are not supported"),
        (changed(add_sparse_constant), "uses what is not supported: "),
    ],
)
def test_bad_files_are_named_with_what_is_wrong(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b"a node", "graph.node[0].name"),
        (b"a weight", "graph.node[0].input[1]"),
        (b"an axis", "graph.input[0].type.tensor_type.shape.dim[0].dim_param"),
        (b"a spare", "graph.initializer[1].name"),
    ],
)
def test_damaged_names_are_found(tmp_path: Path, text: bytes, place: str) -> None:
    add = onnx.helper.make_node("Add", ["x", "a weight"], ["y"], name="a node")
    x, y = (onnx.helper.make_tensor_value_info(name, 1, ["an axis", 2]) for name in "xy")
    weights = [onnx.helper.make_tensor(name, 1, [2], [1.0, 2.0]) for name in ("a weight", "a spare")]
    model = onnx.helper.make_model(onnx.helper.make_graph([add], "g", [x], [y], weights), ir_version=10)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString().replace(text, text[:-1] + b"\x96"))
    with pytest.raises(InputError, match=re.escape(place)) as error:
        load_model(path)
    assert str(path) in str(error.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        load_model(tmp_path / "none.onnx")
    onnx.save(small(), tmp_path / "inside.onnx")
    with pytest.raises(InputError, match=r"this is a folder; give the \.onnx file itself, for example .*inside\.onnx"):
        load_model(tmp_path)


def test_files_over_two_gigabytes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(InputError, match="larger than the 2 GB that one protobuf file may have; save the model with"):
        load_model(path)


def test_every_cut_of_a_file_is_an_input_error(tmp_path: Path) -> None:
    data = save(small())
    path = tmp_path / "model.onnx"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(InputError):
            load_model(path)


def relocate(proto: onnx.ModelProto, key: str, value: str) -> None:
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == key:
            entry.value = value


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("location", "other.data", "is missing; it belongs beside the model"),
        ("location", "../heavy.data", "lies outside the model's folder"),
        ("location", "/etc/passwd", "lies outside the model's folder"),
        ("location", "link.data", "lies outside the model's folder"),
        ("location", "double.data", "has several hard links"),
        ("location", "folder", "is not a file"),
        ("offset", "10000000", "but the file has only"),
        ("length", "12", "is 12 bytes long, but its type and shape need"),
    ],
)
def test_external_data_is_checked(tmp_path: Path, key: str, value: str, message: str) -> None:
    folder = tmp_path / "models"
    (folder / "folder").mkdir(parents=True)
    (tmp_path / "outside.data").write_bytes(b"secret" * 1000)
    (folder / "link.data").symlink_to(tmp_path / "outside.data")
    os.link(tmp_path / "outside.data", folder / "double.data")
    path = folder / "heavy.onnx"
    proto = with_weights(path)
    relocate(proto, key, value)
    path.write_bytes(save(proto))
    with pytest.raises(InputError) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: the data of the tensor 'w', in the file ")
    assert message in str(caught.value)


def test_external_weights_are_not_read_until_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "heavy.onnx"
    with_weights(path)
    reads: list[str] = []
    load = ir.ExternalTensor._load

    def spy(tensor: ir.ExternalTensor) -> None:
        reads.append(tensor.name)
        load(tensor)

    monkeypatch.setattr(ir.ExternalTensor, "_load", spy)
    model = load_model(path)
    Canonicalize(dim=("N=1",))(model)
    assert [node.op_type for node in model.graph] == ["Conv"]
    assert reads == []
    weight = model.graph.initializers["w"].const_value
    assert weight is not None
    weight.numpy()
    assert set(reads) == {"w", "s", "v"}


def test_a_pipe_is_no_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(InputError, match="no regular file"):
        load_model(tmp_path / "pipe.onnx")
