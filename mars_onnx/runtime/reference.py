"""The reference: a whole model in one ONNX Runtime session, with any of its tensors as outputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import onnx
import onnx_ir as ir

from mars_onnx.comm import TOKEN_NAME, TOKEN_START
from mars_onnx.errors import InputError, VerificationError
from mars_onnx.runtime.segments import initializer_proto
from mars_onnx.runtime.sessions import RUNTIME_ERRORS, ExecutorOptions, Weights, as_array, make_session, run_session
from mars_onnx.runtime.transport import Array

REFERENCE_OPTIONS = ExecutorOptions(threads=2)


def run_reference(
    model: ir.Model | str | Path,
    inputs: Mapping[str, Array],
    options: ExecutorOptions = REFERENCE_OPTIONS,
) -> dict[str, Array]:
    """The outputs of a model.

    Raises:
        InputError: ONNX Runtime does not load or run it.
    """
    if isinstance(model, ir.Model):
        return run_with_tensors(model, inputs, (), options)
    try:
        session = make_session(str(model), options=options)
        given = {value.name: inputs[value.name] for value in session.get_inputs()}
        values = run_session(session, given)
    except KeyError as error:
        raise InputError(f"{model}: it has an input {error}, which is not given") from None
    except RUNTIME_ERRORS as error:
        raise InputError(f"{model}: ONNX Runtime does not run it: {error}") from error
    return {name: as_array(value, name) for name, value in values.items()}


def output_names(model: ir.Model | str | Path) -> list[str]:
    """The outputs of a model in their order; one that it gives twice is there twice."""
    if isinstance(model, ir.Model):
        return [str(value.name) for value in model.graph.outputs]
    return [value.name for value in onnx.load(model, load_external_data=False).graph.output]


def run_with_tensors(
    model: ir.Model,
    inputs: Mapping[str, Array],
    tensors: Collection[str],
    options: ExecutorOptions = REFERENCE_OPTIONS,
) -> dict[str, Array]:
    """The outputs of a model and, besides, the named tensors: inputs, initializers or values of the main graph.

    Raises:
        VerificationError: The model has no such tensor.
        InputError: ONNX Runtime does not load or run it.
    """
    graph = model.graph
    made = {str(value.name): value for node in graph for value in node.outputs if value.name}
    outputs = [str(value.name) for value in graph.outputs if value.name != TOKEN_NAME]
    known: dict[str, Array] = {}
    for name in dict.fromkeys((*outputs, *tensors)):
        initializer = graph.initializers.get(name)
        if initializer is not None and initializer.const_value is not None:
            known[name] = initializer.const_value.numpy()
        elif name in inputs:
            known[name] = inputs[name]
        elif name not in made:
            raise VerificationError(f"the model {graph.name} has no tensor {name!r} to compare with")
    wanted = [name for name in dict.fromkeys((*outputs, *tensors)) if name not in known]
    if wanted:
        known.update(_compute(model, inputs, {name: made[name] for name in wanted}, options))
    return known


def _compute(
    model: ir.Model, inputs: Mapping[str, Array], wanted: Mapping[str, ir.Value], options: ExecutorOptions
) -> dict[str, Array]:
    proto, large = _with_outputs(model, wanted)
    weights = Weights()
    initializers = set(model.graph.initializers)
    names = [str(v.name) for v in model.graph.inputs if v.name not in initializers and v.name != TOKEN_START]
    for name in names:
        if name not in inputs:
            raise InputError(f"{model.graph.name}: its input {name!r} is not given")
    try:
        session = make_session(proto, large, weights, options)
        values = run_session(session, {name: inputs[name] for name in names}, list(wanted))
    except RUNTIME_ERRORS as error:
        raise InputError(f"{model.graph.name}: ONNX Runtime does not run it: {error}") from error
    return {name: as_array(value, name) for name, value in values.items()}


def _with_outputs(
    model: ir.Model, wanted: Mapping[str, ir.Value]
) -> tuple[onnx.ModelProto, dict[str, ir.TensorProtocol]]:
    """The model in memory with other outputs, its large initializers beside it."""
    proto = onnx.ModelProto(ir_version=model.ir_version, producer_name="mars_onnx")
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.functions.extend(ir.serde.serialize_function(function) for function in model.functions.values())
    graph = proto.graph
    graph.name = model.graph.name or "reference"
    for node in model.graph:
        bare = ir.serde.serialize_node(node)
        bare.ClearField("device_configurations")
        graph.node.append(bare)
    large: dict[str, ir.TensorProtocol] = {}
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            graph.initializer.append(initializer_proto(name, value.const_value, large))
    graph.input.extend(ir.serde.serialize_value(value) for value in model.graph.inputs)
    for name, value in wanted.items():
        # Without a type the runtime infers it: an output needs only its name.
        graph.output.append(ir.serde.serialize_value(value) if value.type else onnx.ValueInfoProto(name=name))
    return proto, large
