"""Rules for reductions, and for other operators that work along one axis: ArgMax, ArgMin, TopK, CumSum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from mars_onnx.geometry import Reduction
from mars_onnx.rules.axes import Along, Axis, DimMap, Whole
from mars_onnx.rules.base import Dims, LocalGraph, OpRule, Share, Signature, attributes_without
from mars_onnx.rules.common import (
    along_except,
    axes_except,
    dimension_names,
    empty,
    normal_axes,
    reducible,
    result_types,
    whole_work,
)
from mars_onnx.rules.registry import rule

#: Reductions whose partial results combine to the whole, and how.
_COMBINING = {
    "ReduceSum": Reduction.SUM,
    "ReduceMean": Reduction.SUM,
    "ReduceMax": Reduction.MAX,
    "ReduceMin": Reduction.MIN,
    "ReduceSumSquare": Reduction.SUM,
    "ReduceL1": Reduction.SUM,
}


@dataclass(frozen=True)
class ReduceRule(OpRule):
    """One axis per dimension of the input; where partial results combine, the reduced ones are reduction axes."""

    reduced: tuple[int, ...] = ()

    def local(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        signature = self.signature
        results = result_types(signature, share)
        attributes = attributes_without(signature, "axes")
        operands = [inputs[0]]
        if signature.version >= (13 if signature.op_type == "ReduceSum" else 18):
            operands.append(graph.constant(np.asarray(self.reduced, np.int64)))
        else:
            attributes["axes"] = self.reduced
        partial = graph.op(signature.op_type, operands, attributes, results)
        weight = prod(share.extent(axis.name) / axis.size for axis in self.axes if axis.reduction)
        if signature.op_type != "ReduceMean" or weight == 1:
            return partial
        # Partial means count by their share of the elements.
        scale = graph.constant(np.asarray(weight, signature.output().dtype.numpy()))
        return graph.op("Mul", [*partial, scale], {}, results)


@rule(*_COMBINING, "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd", parameters=(1,))
def reduce(signature: Signature) -> OpRule | None:
    """Reductions with known axes, given as attribute (before opset 13 or 18) or as input."""
    kind = signature.input(0)
    rank = len(kind.shape)
    axes: tuple[int, ...] | None = signature.integers("axes", ())
    if signature.has_input(1):
        axes = signature.constant(1)
    if axes is None or empty(signature) or not rank:
        return None
    if not axes and signature.integer("noop_with_empty_axes", 0):
        return None
    reduced = normal_axes(axes or range(rank), rank)
    names = dimension_names(rank)
    combining = signature.op_type in _COMBINING and reducible(kind.dtype)
    if signature.op_type == "ReduceMean" and not kind.dtype.is_floating_point():
        combining = False
    whole = () if combining else reduced
    kept = tuple(dim for dim in range(rank) if dim not in reduced)
    result: list[DimMap] = [Along(names[dim]) for dim in kept]
    if signature.integer("keepdims", 1):
        result = [Whole(1) if dim in reduced else Along(names[dim]) for dim in range(rank)]
    return ReduceRule(
        signature,
        axes=(
            *(Axis(names[dim], kind.shape[dim]) for dim in kept),
            *(Axis(names[dim], kind.shape[dim], reduction=True) for dim in reduced if combining),
        ),
        inputs=(along_except(kind.shape, names, whole), None)[: len(signature.inputs)],
        outputs=(tuple(result),),
        reduction=_COMBINING.get(signature.op_type, Reduction.SUM),
        work=whole_work(kind.shape, whole),
        reduced=reduced,
    )


@dataclass(frozen=True)
class AlongOneAxisRule(OpRule):
    """One axis per dimension of the input except the operator's own."""

    #: A parameter operand after the data, written anew; empty if there is none.
    parameter: tuple[int, ...] = ()

    def local(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        operands = [inputs[0]]
        if self.parameter:
            kind = self.signature.input(1)
            operands.append(graph.constant(np.asarray(self.parameter, kind.dtype.numpy()).reshape(kind.shape)))
        results = result_types(self.signature, share)
        return graph.op(self.signature.op_type, operands, dict(self.signature.attributes), results)


def _along_one_axis(signature: Signature, axis: int, parameter: tuple[int, ...] = ()) -> OpRule | None:
    shape = signature.input(0).shape
    names = dimension_names(len(shape))
    outputs: list[Dims | None] = []
    for kind in signature.outputs:
        if kind is None:
            outputs.append(None)
        elif len(kind.shape) == len(shape):
            outputs.append(along_except(kind.shape, names, [axis]))
        else:
            outputs.append(tuple(Along(name) for dim, name in enumerate(names) if dim != axis))
    return AlongOneAxisRule(
        signature,
        axes=axes_except(shape, names, [axis]),
        inputs=(along_except(shape, names, [axis]), None)[: len(signature.inputs)],
        outputs=tuple(outputs),
        work=shape[axis],
        parameter=parameter,
    )


@rule("ArgMax", "ArgMin")
def arg_extreme(signature: Signature) -> OpRule | None:
    """Whole along the axis in which positions count."""
    rank = len(signature.input(0).shape)
    if empty(signature) or not rank:
        return None
    return _along_one_axis(signature, signature.integer("axis", 0) % rank)


@rule("TopK")
def top_k(signature: Signature) -> OpRule | None:
    """The static output shape says how many; K is an attribute before opset 10, then an input."""
    rank = len(signature.input(0).shape)
    if empty(signature) or not rank or None in signature.outputs:
        return None
    axis = signature.integer("axis", -1) % rank
    return _along_one_axis(signature, axis, (signature.output().shape[axis],) if signature.has_input(1) else ())


@rule("CumSum", parameters=(1,))
def cumulative_sum(signature: Signature) -> OpRule | None:
    """Whole along its axis, which is an input and has to be constant."""
    axis = signature.constant(1)
    if empty(signature) or axis is None or len(axis) != 1:
        return None
    return _along_one_axis(signature, axis[0] % len(signature.input(0).shape), axis)
