"""Rules for indexed reads and writes: Gather, GatherElements, GatherND, ScatterElements, ScatterND."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mars_onnx.rules.axes import Along, Axis, DimMap, Whole
from mars_onnx.rules.base import Dims, LocalGraph, OpRule, Share, Signature, TensorType
from mars_onnx.rules.common import SameNode, axes_except, dimension_names, empty, reducible, result_types, whole_dims
from mars_onnx.rules.registry import rule


@dataclass(frozen=True)
class GatherRule(OpRule):
    """One axis per output dimension, and the reduction V over the rows of the table.

    With V split, a member looks up what lies in its rows and gives zeros for the rest.
    """

    def local(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        data, indices = inputs[:2]
        attributes = dict(self.signature.attributes)
        (result,) = result_types(self.signature, share)
        table = self.axis("V")
        if indices is None or result is None:
            raise ValueError("a share of Gather without indices")
        if table is None or share.extent("V") == table.size:
            return graph.op("Gather", [data, indices], attributes, [result])
        dtype = self.signature.input(1).dtype
        kind = TensorType(dtype, tuple(stop - start for start, stop in share.inputs[1] or ()))
        truth = TensorType(ir.DataType.BOOL, kind.shape)
        low, high = share.ranges["V"]

        def number(value: int) -> ir.Value:
            return graph.constant(np.asarray(value, dtype.numpy()))

        (negative,) = graph.op("Less", [indices, number(0)], {}, [truth])
        (wrapped,) = graph.op("Add", [indices, number(table.size)], {}, [kind])
        (rows,) = graph.op("Where", [negative, wrapped, indices], {}, [kind])
        (below,) = graph.op("Less", [rows, number(low)], {}, [truth])
        (within,) = graph.op("Less", [rows, number(high)], {}, [truth])
        (reached,) = graph.op("Not", [below], {}, [truth])
        (mine,) = graph.op("And", [reached, within], {}, [truth])
        (moved,) = graph.op("Sub", [rows, number(low)], {}, [kind])
        (safe,) = graph.op("Where", [mine, moved, number(0)], {}, [kind])
        (found,) = graph.op("Gather", [data, safe], attributes, [result])
        # The mask lines up with the dimensions of the indices, which others of the table may follow.
        axis = self.signature.integer("axis", 0) % len(self.signature.input(0).shape)
        following = len(self.signature.input(0).shape) - axis - 1
        shape = kind.shape + (1,) * following
        operand = graph.constant(np.asarray(shape, np.int64))
        (mask,) = graph.op("Reshape", [mine, operand], {}, [TensorType(ir.DataType.BOOL, shape)])
        zero = graph.constant(np.zeros((), result.dtype.numpy()))
        return graph.op("Where", [mask, found, zero], {}, [result])


@rule("Gather")
def gather(signature: Signature) -> OpRule | None:
    """Gather along one axis, with indices of any rank, constant or not."""
    data, indices, result = signature.input(0), signature.input(1), signature.output()
    if empty(signature):
        return None
    axis = signature.integer("axis", 0) % len(data.shape)
    names = dimension_names(len(result.shape))
    inner = axis + len(indices.shape)
    maps = tuple(map(Along, names))
    # Comparing and selecting integers came with opset 9.
    splits = signature.version >= 9 and reducible(result.dtype)
    rows: DimMap = Along("V") if splits else Whole(data.shape[axis])
    table = (Axis("V", data.shape[axis], reduction=True),) if splits else ()
    return GatherRule(
        signature,
        axes=axes_except(result.shape, names, ()) + table,
        inputs=((*maps[:axis], rows, *maps[inner:]), maps[axis:inner]),
        outputs=(maps,),
        operands={0: "weight"},
    )


@rule("GatherElements")
def gather_elements(signature: Signature) -> OpRule | None:
    """One axis per output dimension; the data is whole along the axis of the operator."""
    data, result = signature.input(0).shape, signature.output().shape
    if empty(signature):
        return None
    axis = signature.integer("axis", 0) % len(data)
    names = dimension_names(len(result))
    maps = tuple(map(Along, names))
    return SameNode(
        signature,
        axes=axes_except(result, names, ()),
        inputs=((*maps[:axis], Whole(data[axis]), *maps[axis + 1 :]), maps),
        outputs=(maps,),
    )


@rule("GatherND")
def gather_nd(signature: Signature) -> OpRule | None:
    """One axis per output dimension; the data is whole along the dimensions that an index tuple addresses."""
    data, indices, result = signature.input(0).shape, signature.input(1).shape, signature.output().shape
    if empty(signature):
        return None
    batches = signature.integer("batch_dims", 0)
    names = dimension_names(len(result))
    maps = tuple(map(Along, names))
    addressed = data[batches : batches + indices[-1]]
    outer = len(indices) - 1
    return SameNode(
        signature,
        axes=axes_except(result, names, ()),
        inputs=((*maps[:batches], *map(Whole, addressed), *maps[outer:]), (*maps[:outer], Whole(indices[-1]))),
        outputs=(maps,),
    )


@rule("Scatter", "ScatterElements")
def scatter_elements(signature: Signature) -> OpRule | None:
    """Axes along the dimensions in which the updates are as large as the data, except the operator's own."""
    data, indices = signature.input(0).shape, signature.input(1).shape
    if empty(signature):
        return None
    axis = signature.integer("axis", 0) % len(data)
    names = dimension_names(len(data))
    whole = [dim for dim, extent in enumerate(data) if dim == axis or indices[dim] != extent]
    updates: Dims = tuple(Whole(indices[d]) if d in whole else Along(names[d]) for d in range(len(data)))
    maps: Dims = tuple(Whole(data[d]) if d in whole else Along(names[d]) for d in range(len(data)))
    return SameNode(signature, axes=axes_except(data, names, whole), inputs=(maps, updates, updates), outputs=(maps,))


@rule("ScatterND")
def scatter_nd(signature: Signature) -> OpRule | None:
    """Axes along the dimensions that the index tuples do not address."""
    data, indices = signature.input(0).shape, signature.input(1).shape
    if empty(signature):
        return None
    names = dimension_names(len(data))
    addressed = indices[-1]
    maps: Dims = (*map(Whole, data[:addressed]), *map(Along, names[addressed:]))
    return SameNode(
        signature,
        axes=axes_except(data, names, range(addressed)),
        inputs=(maps, whole_dims(signature.input(1)), (*map(Whole, indices[:-1]), *maps[addressed:])),
        outputs=(maps,),
    )
