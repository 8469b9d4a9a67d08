"""Split a model of one operator with its rule, run every share alone on exactly its boxes, and compare.

Nothing here knows an operator: the harness does what emission and communication do together, in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise, product
from math import prod

import numpy as np
import numpy.typing as npt
import onnx
import onnx.checker
import onnx.helper
import onnx.numpy_helper
import onnx.parser
import onnx.shape_inference
import onnx_ir as ir
import onnxruntime as ort
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from mars_onnx.emission.local_graph import LocalGraphBuilder
from mars_onnx.geometry import Box, Range, Reduction, box_shape
from mars_onnx.rules.base import OpRule, Share, TensorType
from mars_onnx.rules.registry import rule_for
from mars_onnx.rules.shares import boxes, shares_of
from mars_onnx.rules.signature import signature_of

Array = npt.NDArray[np.generic]
Cuts = Mapping[str, Sequence[Range]]

#: The terms of a sum come in another order when it is split, so results differ by rounding. The errors seen are below
#: 2e-6 of the largest result; the tolerance is far above that and far below what a wrong row or a doubled bias makes.
#: It is relative to the largest result of the tensor, because cancellation leaves small results with the error of the
#: large terms that they come from.
RELATIVE, ABSOLUTE = 1e-4, 1e-5

IR_VERSION = 10


class RefusedError(Exception):
    """The rule says that these cuts cannot be computed."""


class UnsupportedError(Exception):
    """No runtime computes the whole operator as the standard's shape inference understands it."""


class MismatchError(AssertionError):
    """The shares together do not give what the whole operator gives."""


@dataclass
class Checked:
    """What was run, for tests that look closer."""

    rule: OpRule
    shares: list[Share] = field(default_factory=list)
    local_models: list[onnx.ModelProto] = field(default_factory=list)


def single(text: str, opset: int = 20) -> onnx.ModelProto:
    """A model from the ONNX text of one graph."""
    return onnx.parser.parse_model(f'<ir_version: {IR_VERSION}, opset_import: ["" : {opset}]> {text}')


def rule_of(model: onnx.ModelProto) -> tuple[OpRule, ir.Node]:
    """The rule and the node of a model with one operator."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    graph = ir.from_proto(inferred).graph
    (node,) = graph
    return rule_for(signature_of(node)), node


def check_rule(
    model: onnx.ModelProto | str,
    cuts: Cuts,
    rng: np.random.Generator,
    feeds: Mapping[str, Array] | None = None,
    opset: int = 20,
) -> Checked:
    """Split the operator of ``model`` over the mesh of all ``cuts`` and compare with the whole.

    Args:
        model: A model with one node.
        cuts: Per axis name the ranges of the members along it; other axes stay whole.
        rng: Source of the inputs.
        feeds: Inputs that must not be arbitrary (indices, say).
        opset: Version, for a model given as text.

    Raises:
        UnsupportedError: There is nothing to compare with.
        RefusedError: The rule has no such axis or says why the cuts do not work.
        MismatchError: It went wrong.
    """
    proto = single(model, opset) if isinstance(model, str) else model
    rule, node = rule_of(proto)
    given = dict(feeds or {})
    values: list[Array | None] = []
    for value in node.inputs:
        if value is None or value.name == "":
            values.append(None)
        elif value.const_value is not None:
            values.append(value.const_value.numpy())
        else:
            name = str(value.name)
            if name not in given:
                given[name] = random_array(_type(value), rng)
            values.append(given[name])
    reference = _reference(proto, {info.name: given[info.name] for info in proto.graph.input})
    checked = Checked(rule)
    axes = {name: rule.axis(name) for name in cuts}
    if None in axes.values():
        raise RefusedError("no such axis")
    named = {axis.name: cuts[name] for name, axis in axes.items() if axis is not None}
    _check_vectorised(rule, named)
    combined: list[dict[tuple[Range, ...], tuple[Array, npt.NDArray[np.int64]]]] = [{} for _ in node.outputs]
    for member in product(*named.values()):
        ranges = {axis.name: (0, axis.size) for axis in rule.axes} | dict(zip(named, member, strict=True))
        if any(low >= high for low, high in ranges.values()):
            continue
        problem = rule.problem(ranges)
        if problem:
            raise RefusedError(problem)
        reductions = [axis.name for axis in rule.axes if axis.reduction]
        (share,) = shares_of(rule, [ranges])
        part = tuple(ranges[name] for name in reductions)
        local, results = run_share(rule, share, values)
        checked.shares.append(share)
        checked.local_models.append(local)
        for index, (box, result) in enumerate(zip(share.outputs, results, strict=True)):
            kind = rule.signature.outputs[index]
            if box is None or kind is None or result is None:
                continue
            if part not in combined[index]:
                combined[index][part] = np.zeros(kind.shape, kind.dtype.numpy()), np.zeros(kind.shape, np.int64)
            whole, held = combined[index][part]
            where = tuple(slice(*limits) for limits in box)
            whole[where] = result
            held[where] += 1
    present = [value for value in node.outputs if value.name]
    for index, (parts, value) in enumerate(zip(combined, node.outputs, strict=True)):
        if value not in present:
            continue
        expected = reference[present.index(value)]
        for part, (_, held) in parts.items():
            if not (held == 1).all():
                raise MismatchError(f"output {index}, part {part}: not every element is computed exactly once")
        total = _reduce([whole for whole, _ in parts.values()], rule.reduction)
        compare(total, expected, f"output {index} of {rule.signature.op_type} over {dict(named)}")
    return checked


def run_share(rule: OpRule, share: Share, values: Sequence[Array | None]) -> tuple[onnx.ModelProto, list[Array | None]]:
    """Build the local model of a share, validate it, and run it on exactly the share's boxes."""
    signature = rule.signature
    builder = LocalGraphBuilder(signature.version)
    inputs: list[ir.Value | None] = []
    feeds: dict[str, Array] = {}
    for index, box in enumerate(share.inputs):
        kind, array = signature.inputs[index], values[index]
        if box is None or kind is None or array is None:
            inputs.append(None)
            continue
        name = f"in{index}"
        inputs.append(ir.Value(name=name, type=ir.TensorType(kind.dtype), shape=ir.Shape(box_shape(box))))
        feeds[name] = np.array(array[tuple(slice(*limits) for limits in box)])
    results = rule.local(builder, share, inputs)
    assert len(results) == len(share.outputs)
    outputs: list[ir.Value] = []
    for index, (box, kind) in enumerate(zip(share.outputs, signature.outputs, strict=True)):
        if box is not None and kind is not None:
            declared = TensorType(kind.dtype, box_shape(box))
            value = results[index]
            assert value.dtype == kind.dtype, f"output {index} has type {value.dtype}"
            assert value.shape is not None
            assert value.shape.numpy() == declared.shape, f"output {index} has shape {value.shape}"
            # A rule may hand on an input; a graph output has to come from a node.
            out = ir.Value(name=f"out{index}", type=value.type, shape=value.shape)
            builder.nodes.append(ir.Node("", "Identity", [value], outputs=[out]))
            outputs.append(out)
    graph = builder.graph([value for value in inputs if value is not None], outputs, "share")
    model = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION))
    _validate(model)
    found = iter(_run(model, feeds))
    arrays: list[Array | None] = []
    for box in share.outputs:
        if box is None:
            arrays.append(None)
            continue
        array = next(found)
        assert array.shape == box_shape(box), f"declared {box_shape(box)}, got {array.shape}"
        arrays.append(array)
    return model, arrays


def _validate(model: onnx.ModelProto) -> None:
    """The checker and strict shape inference accept the model, and infer the shapes that the builder declared."""
    onnx.checker.check_model(model)
    declared = {info.name: info for info in (*model.graph.value_info, *model.graph.output)}
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    # The outputs' own types would be taken over; without them inference has to find out.
    for info in bare.graph.output:
        info.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True, check_type=True)
    for info in (*inferred.graph.value_info, *inferred.graph.output):
        mine, theirs = declared[info.name].type.tensor_type, info.type.tensor_type
        assert mine.elem_type == theirs.elem_type, info.name
        if theirs.HasField("shape"):
            for own, other in zip(mine.shape.dim, theirs.shape.dim, strict=True):
                assert not other.HasField("dim_value") or own.dim_value == other.dim_value, info.name


def _check_vectorised(rule: OpRule, cuts: Cuts) -> None:
    """The boxes of all members at once are those of each alone."""
    members = list(product(*cuts.values()))
    if not members:
        return
    arrays = rule.whole_ranges()
    for position, name in enumerate(cuts):
        arrays[name] = (
            np.asarray([member[position][0] for member in members], np.int64),
            np.asarray([member[position][1] for member in members], np.int64),
        )
    alone = [
        shares_of(rule, [{axis.name: (0, axis.size) for axis in rule.axes} | dict(zip(cuts, member, strict=True))])[0]
        for member in members
    ]
    pick: Callable[[Share], tuple[Box | None, ...]]
    for pick, tensors in ((lambda s: s.inputs, rule.inputs), (lambda s: s.outputs, rule.outputs)):
        for index, dims in enumerate(tensors):
            if dims is not None:
                together = boxes(dims, arrays, (len(members),))
                assert together == [pick(share)[index] for share in alone]


def _reduce(parts: Sequence[Array], reduction: Reduction) -> Array:
    if len(parts) == 1:
        return parts[0]
    combine = {Reduction.SUM: np.add, Reduction.MAX: np.maximum, Reduction.MIN: np.minimum}[reduction]
    result = parts[0]
    for part in parts[1:]:
        result = combine(result, part)
    return result


def compare(found: Array, expected: Array, what: str) -> None:
    """Equal up to rounding; exactly, for what is not floating point."""
    if expected.dtype.kind != "f":
        if not np.array_equal(found, expected):
            raise MismatchError(what)
        return
    wide, other = found.astype(np.float64), expected.astype(np.float64)
    finite = other[np.isfinite(other)]
    scale = max(1.0, float(np.abs(finite).max())) if finite.size else 1.0
    coarse = 50.0 if expected.dtype == np.float16 else 1.0
    if not np.allclose(wide, other, rtol=RELATIVE * coarse, atol=ABSOLUTE * coarse * scale, equal_nan=True):
        with np.errstate(all="ignore"):
            raise MismatchError(f"{what}: off by {np.nanmax(np.abs(wide - other))}, scale {scale}")


def random_array(kind: TensorType, rng: np.random.Generator) -> Array:
    """Random values of a type; integers are small, so that products do not overflow."""
    dtype = np.dtype(kind.dtype.numpy())
    if dtype.kind == "f":
        return np.asarray(rng.standard_normal(kind.shape), dtype)
    if dtype.kind == "b":
        return np.asarray(rng.integers(0, 2, kind.shape), dtype)
    return np.asarray(rng.integers(0 if dtype.kind == "u" else -5, 6, kind.shape), dtype)


def cover(size: int, edges: Sequence[int]) -> list[Range]:
    """Consecutive ranges from inner edges, which may repeat."""
    bounds = [0, *sorted(edges), size]
    return list(pairwise(bounds))


def members_of(cuts: Cuts) -> int:
    """Number of members of the mesh."""
    return prod(len(ranges) for ranges in cuts.values())


def _type(value: ir.Value) -> TensorType:
    assert value.dtype is not None
    assert value.shape is not None
    return TensorType(value.dtype, value.shape.numpy())


@lru_cache(maxsize=256)
def _session(model: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    try:
        return list(_session(model.SerializeToString()).run(None, dict(feeds)))
    except ort_errors.NotImplemented:
        # An operator, or a type of it, that the runtime lacks: the slow reference has most of them.
        with np.errstate(all="ignore"):
            try:
                return list(ReferenceEvaluator(model).run(None, dict(feeds)))
            except Exception as error:
                raise UnsupportedError(str(error)) from error


def _reference(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """What the whole operator gives."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True, check_type=True)
        arrays = _run(model, feeds)
    except Exception as error:
        raise UnsupportedError(str(error)) from error
    for array, info in zip(arrays, inferred.graph.output, strict=True):
        dims = info.type.tensor_type.shape.dim
        if array.shape != tuple(dim.dim_value for dim in dims):
            raise UnsupportedError(f"shape {array.shape}, inferred {dims}")
    return arrays


def text_of(model: onnx.ModelProto) -> str:
    """The nodes of a local model, one per line, with constants written out and values numbered by node."""
    names = {info.name: info.name for info in model.graph.input}
    for tensor in model.graph.initializer:
        names[tensor.name] = str(onnx.numpy_helper.to_array(tensor).tolist())
    lines: list[str] = []
    for node in model.graph.node:
        if node.op_type == "Identity":
            continue
        for output in node.output:
            names[output] = f"v{len(names) - len(model.graph.input) - len(model.graph.initializer)}"
        listed = [(attribute.name, onnx.helper.get_attribute_value(attribute)) for attribute in node.attribute]
        shown = (f"{name}={'tensor' if isinstance(value, onnx.TensorProto) else value}" for name, value in listed)
        attributes = f"<{', '.join(shown)}>" if listed else ""
        operands = ", ".join(names.get(name, name) for name in node.input)
        lines.append(f"{', '.join(names[name] for name in node.output)} = {node.op_type}{attributes}({operands})")
    return "\n".join(lines)
