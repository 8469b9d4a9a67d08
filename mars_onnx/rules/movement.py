"""Rules for operators that move whole dimensions about: Transpose, Concat, Split, Expand, Tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import onnx_ir as ir

from mars_onnx.rules.axes import Along, DimMap, Whole
from mars_onnx.rules.base import Dims, LocalGraph, OpRule, Share, Signature
from mars_onnx.rules.common import SameNode, aligned_dims, axes_except, dimension_names, empty, result_types
from mars_onnx.rules.registry import rule


@rule("Transpose")
def transpose(signature: Signature) -> OpRule | None:
    """One axis per output dimension."""
    source, result = signature.input(0).shape, signature.output().shape
    if empty(signature):
        return None
    names = dimension_names(len(result))
    permutation = signature.integers("perm", tuple(reversed(range(len(source)))))
    return SameNode(
        signature,
        axes=axes_except(result, names, ()),
        inputs=(tuple(Along(names[permutation.index(dim)]) for dim in range(len(source))),),
        outputs=(tuple(map(Along, names)),),
    )


@dataclass(frozen=True)
class ConcatRule(OpRule):
    """One axis per output dimension; a range along the joint reaches into some of the operands only."""

    def local(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        axis = self.signature.integer("axis", 0) % len(self.signature.output().shape)
        return (graph.concat([value for value in inputs if value is not None], axis),)


@rule("Concat")
def concat(signature: Signature) -> OpRule | None:
    """Concat of opset 4 and later."""
    result = signature.output().shape
    if empty(signature) or not result:
        return None
    names = dimension_names(len(result))
    axis = signature.integer("axis", 0) % len(result)
    extents = [signature.input(index).shape[axis] for index in range(len(signature.inputs))]
    starts = [0, *accumulate(extents)]
    return ConcatRule(
        signature,
        axes=axes_except(result, names, ()),
        inputs=tuple(_part(names, axis, start, extent) for start, extent in zip(starts, extents, strict=False)),
        outputs=(tuple(map(Along, names)),),
    )


def _part(names: Sequence[str], axis: int, start: int, extent: int) -> Dims:
    """Maps of a tensor that is rows ``start:start+extent``, along ``axis``, of the tensor with axes ``names``."""
    return tuple(Along(name, -start, extent) if dim == axis else Along(name) for dim, name in enumerate(names))


@dataclass(frozen=True)
class SplitRule(OpRule):
    """One axis per input dimension; a range along the cut reaches into some of the outputs only."""

    def local(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        signature = self.signature
        data = inputs[0]
        if data is None:
            raise ValueError("a share of Split without data")
        touched = [index for index, box in enumerate(share.outputs) if box is not None]
        if len(touched) == 1:
            # The share lies inside one output, so its data is that output's box already.
            return tuple(data if index in touched else ir.Value(name="") for index in range(len(share.outputs)))
        axis = signature.integer("axis", 0) % len(signature.input(0).shape)
        sizes = tuple(share.output_shape(index)[axis] for index in touched)
        results = [kind for kind in result_types(signature, share) if kind is not None]
        if signature.version >= 13:
            pieces = graph.op("Split", [data, graph.constant(np.asarray(sizes, np.int64))], {"axis": axis}, results)
        else:
            pieces = graph.op("Split", [data], {"axis": axis, "split": sizes}, results)
        values = dict(zip(touched, pieces, strict=True))
        return tuple(values.get(index) or ir.Value(name="") for index in range(len(share.outputs)))


@rule("Split")
def split(signature: Signature) -> OpRule | None:
    """The output shapes say where the cuts are, whether the model gives them as attribute, input or number."""
    source = signature.input(0).shape
    if empty(signature) or None in signature.outputs:
        return None
    names = dimension_names(len(source))
    axis = signature.integer("axis", 0) % len(source)
    extents = [signature.output(index).shape[axis] for index in range(len(signature.outputs))]
    starts = [0, *accumulate(extents)]
    absent: tuple[Dims | None, ...] = (None,) * (len(signature.inputs) - 1)
    return SplitRule(
        signature,
        axes=axes_except(source, names, ()),
        inputs=(tuple(map(Along, names)), *absent),
        outputs=tuple(_part(names, axis, start, extent) for start, extent in zip(starts, extents, strict=False)),
    )


@dataclass(frozen=True)
class ExpandRule(OpRule):
    """One axis per output dimension; the target shape becomes that of the local output."""

    def local(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        shape = graph.constant(np.asarray(share.output_shape(), np.int64))
        return graph.op("Expand", [inputs[0], shape], {}, result_types(self.signature, share))


@rule("Expand")
def expand(signature: Signature) -> OpRule | None:
    """Expand of opset 8 and later; the target shape may be computed, the static shapes say all."""
    result = signature.output().shape
    names = dimension_names(len(result))
    maps = tuple(map(Along, names))
    dims = aligned_dims(signature.input(0).shape, result, maps)
    if empty(signature) or dims is None:
        return None
    return ExpandRule(signature, axes=axes_except(result, names, ()), inputs=(dims, None), outputs=(maps,))


@dataclass(frozen=True)
class TileRule(OpRule):
    """One axis per dimension that is not repeated, or that repeats a single element."""

    def local(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        source = share.inputs[0] or ()
        repeats = [extent // (stop - start) for extent, (start, stop) in zip(share.output_shape(), source, strict=True)]
        operand = graph.constant(np.asarray(repeats, np.int64))
        return graph.op("Tile", [inputs[0], operand], {}, result_types(self.signature, share))


@rule("Tile")
def tile(signature: Signature) -> OpRule | None:
    """Tile of opset 6 and later; the static shapes say how often."""
    source, result = signature.input(0).shape, signature.output().shape
    if empty(signature):
        return None
    names = dimension_names(len(result))
    repeated = [dim for dim, extent in enumerate(source) if extent not in (1, result[dim])]
    source_maps: list[DimMap] = []
    result_maps: list[DimMap] = []
    for dim, name in enumerate(names):
        whole = dim in repeated
        result_maps.append(Whole(result[dim]) if whole else Along(name))
        source_maps.append(Along(name) if source[dim] == result[dim] else Whole(source[dim]))
    return TileRule(
        signature,
        axes=axes_except(result, names, repeated),
        inputs=(tuple(source_maps), None),
        outputs=(tuple(result_maps),),
    )
