"""Reading a model from a file that nobody vouches for: every fault is one clear message, no weight is read."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from mars_onnx.errors import InputError

OLDEST_OPSET = 7
LARGEST_FILE_BYTES = 2**31 - 1  # what one protobuf message may have
_MESSAGE_LINES = 3


def load_model(path: Path | str) -> ir.Model:
    """Return the model in ``path``, checked; its external weights stay in their files until somebody reads them.

    Raises:
        InputError: There is no such file, it is no ONNX model or not a valid one, it needs versions that are not
            supported, or its external data is missing, cut off or outside its folder.
    """
    path = Path(path)
    data = _read(path)
    proto = _parse(path, data)
    _check_versions(path, proto)
    _check_graph(path, proto)
    damaged = next(_damaged_text(proto, ""), None)
    if damaged is not None:
        raise InputError(f"{path}: not a valid ONNX model: {damaged} is not UTF-8 text; the file is damaged")
    try:
        model = ir.from_proto(proto)
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        kind = "uses what is not supported" if isinstance(cause, NotImplementedError) else "not a valid ONNX model"
        raise InputError(f"{path}: {kind}: {_brief(cause)}") from error
    for graph in _all_graphs(model):
        ir.external_data.set_base_dir(graph, path.parent)
    external = list(_external_tensors(model))
    for tensor in external:
        _check_external(path, tensor)
    try:
        # Files are looked at from the path; where there are none, the bytes at hand are checked in half the time.
        onnx.checker.check_model(str(path) if external else data)
    except Exception as error:
        raise InputError(f"{path}: not a valid ONNX model: {_brief(error)}") from error
    return model


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            inside = sorted(each.name for each in path.iterdir() if each.suffix == ".onnx")
            hint = f", for example {path / inside[0]}" if inside else ""
            raise InputError(f"{path}: this is a folder; give the .onnx file itself{hint}")
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: this is no regular file; give an .onnx file")
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise InputError(
                f"{path}: larger than the 2 GB that one protobuf file may have; save the model with external data "
                "(onnx.save(..., save_as_external_data=True))"
            )
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if not data:
        raise InputError(f"{path}: the file is empty")
    return data


def _parse(path: Path, data: bytes) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        kind = "it is text" if _is_text(data) else "it is another format, or cut off"
        raise InputError(f"{path}: not an ONNX model: {kind}; expected a .onnx file in protobuf form") from None
    if not proto.HasField("graph"):
        raise InputError(f"{path}: not an ONNX model: it has no graph; expected a .onnx file in protobuf form")
    return proto


def _is_text(data: bytes) -> bool:
    return all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in data[:4096])


def _check_versions(path: Path, proto: onnx.ModelProto) -> None:
    newest = onnx.defs.onnx_opset_version()
    if proto.ir_version > onnx.IR_VERSION:
        raise InputError(
            f"{path}: written in ONNX IR version {proto.ir_version}; the newest that is supported here is "
            f"{onnx.IR_VERSION}: export for an older version, or update onnx and onnxruntime"
        )
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    opset = versions.get("", versions.get("ai.onnx"))
    if not versions:
        raise InputError(f"{path}: the model does not say which opset of ONNX it uses (it has no opset_import)")
    if opset is not None and not OLDEST_OPSET <= opset <= newest:
        raise InputError(
            f"{path}: uses opset {opset}; supported are {OLDEST_OPSET} to {newest}: export for one of these, "
            "or convert with onnx.version_converter"
        )


def _check_graph(path: Path, proto: onnx.ModelProto) -> None:
    if not proto.graph.node:
        raise InputError(f"{path}: the graph {proto.graph.name!r} has no nodes, so there is nothing to partition")
    if not proto.graph.output:
        raise InputError(f"{path}: the graph {proto.graph.name!r} has no outputs, so nothing would be computed")
    if proto.graph.sparse_initializer:
        raise InputError(f"{path}: sparse initializers are not supported; store the weights dense")


def _damaged_text(message: Any, place: str) -> Iterator[str]:
    """Yield the fields that should be text and are not; protobuf reads such a file, but cannot write it again."""
    # The content of a tensor is no text, and ListFields would copy it.
    fields = (
        [(message.DESCRIPTOR.fields_by_name["name"], message.name)]
        if isinstance(message, onnx.TensorProto)
        else message.ListFields()
    )
    for field, value in fields:
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        single = isinstance(value, (str, bytes)) or hasattr(value, "ListFields")
        for index, element in enumerate([value] if single else value):
            where = f"{place}{field.name}" + ("" if single else f"[{index}]")
            if isinstance(element, bytes):
                yield f"{where} ({element!r})"
            elif field.type == field.TYPE_MESSAGE:
                yield from _damaged_text(element, f"{where}.")


def _all_graphs(model: ir.Model) -> Iterator[ir.Graph]:
    yield from model.graphs()
    for function in model.functions.values():
        yield function.graph


def _external_tensors(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    for graph in _all_graphs(model):
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield value.const_value
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.type is ir.AttributeType.TENSOR and isinstance(attribute.value, ir.ExternalTensor):
                    yield attribute.value


def _check_external(path: Path, tensor: ir.ExternalTensor) -> None:
    location = os.fspath(tensor.location)
    where = f"{path}: the data of the tensor {tensor.name!r}, in the file {location!r},"
    folder = path.parent.resolve()
    if Path(location).is_absolute() or not (path.parent / location).resolve().is_relative_to(folder):
        raise InputError(
            f"{where} lies outside the model's folder; for safety only files in that folder (and no links out of it) "
            "are read: copy the file there and save the model anew"
        )
    try:
        status = (path.parent / location).stat()
    except OSError as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise InputError(f"{where} {reason}; it belongs beside the model, from where the model was exported") from None
    if not (path.parent / location).is_file():
        raise InputError(f"{where} is not a file")
    if status.st_nlink > 1:
        raise InputError(f"{where} has several hard links, and onnx_ir refuses such files for safety: make it a copy")
    offset, length = tensor.offset or 0, tensor.length
    if length is not None and length != tensor.nbytes:
        raise InputError(f"{where} is {length} bytes long, but its type and shape need {tensor.nbytes}")
    if offset < 0 or offset + tensor.nbytes > status.st_size:
        raise InputError(
            f"{where} ends at byte {offset + tensor.nbytes}, but the file has only {status.st_size}: it is cut off or "
            "belongs to another model"
        )


def _brief(error: BaseException) -> str:
    """Return the first lines of an error, without those that only say where in C++ it arose."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:_MESSAGE_LINES]) or type(error).__name__
