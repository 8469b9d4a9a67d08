"""Rules for normalisations: each keeps the dimensions whole whose elements it compares, and splits the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from mars_onnx.rules.axes import Along, Window
from mars_onnx.rules.base import Dims, LocalGraph, OpRule, Share, Signature, TensorType
from mars_onnx.rules.common import (
    SameNode,
    aligned_dims,
    along_except,
    axes_except,
    dimension_names,
    empty,
    normal_axes,
    whole_dims,
    whole_work,
)
from mars_onnx.rules.registry import rule


def rows_whole(
    signature: Signature, whole: Sequence[int], others: Sequence[Dims | None] = (), names: tuple[str, ...] = ()
) -> OpRule | None:
    """A rule for a node that keeps the shape of its first input, with axes along all dimensions except some.

    Args:
        signature: The node.
        whole: Dimensions without an axis.
        others: Maps of the inputs after the first.
        names: Names of the dimensions, if not the usual ones.
    """
    shape = signature.input(0).shape
    if empty(signature) or any(kind is not None and kind.shape != shape for kind in signature.outputs):
        return None
    names = names or dimension_names(len(shape))
    maps = along_except(shape, names, whole)
    return SameNode(
        signature,
        axes=axes_except(shape, names, whole),
        inputs=(maps, *others),
        outputs=tuple(None if kind is None else maps for kind in signature.outputs),
        work=whole_work(shape, whole),
    )


def _channel_names(rank: int) -> tuple[str, ...]:
    """Names where the second dimension is known to be the channels."""
    return ("N", "C", "W") if rank == 3 else dimension_names(rank)


@rule("BatchNormalization")
def batch_normalization(signature: Signature) -> OpRule | None:
    """With given statistics, so every element stands alone. The form for training has more outputs."""
    rank = len(signature.input(0).shape)
    single = all(kind is None for kind in signature.outputs[1:])
    if rank < 2 or not single or signature.integer("training_mode", 0) or not signature.integer("spatial", 1):
        return None
    names = _channel_names(rank)
    return rows_whole(signature, (), [(Along(names[1]),)] * 4, names)


@rule("InstanceNormalization")
def instance_normalization(signature: Signature) -> OpRule | None:
    """Axes N and C."""
    rank = len(signature.input(0).shape)
    names = _channel_names(rank)
    return rows_whole(signature, range(2, rank), [(Along(names[1]),)] * 2, names)


@rule("GroupNormalization")
def group_normalization(signature: Signature) -> OpRule | None:
    """Axis N."""
    rank = len(signature.input(0).shape)
    others = [whole_dims(kind) for kind in signature.inputs[1:]]
    return rows_whole(signature, range(1, rank), others, _channel_names(rank))


@dataclass(frozen=True)
class LocalResponseRule(OpRule):
    """Axes N, C, H, W: neighbouring channels come along, and their own results are cut off."""

    def local(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        source, target = share.inputs[0], share.outputs[0]
        if source is None or target is None:
            raise ValueError("a share of LRN without data")
        kind = TensorType(self.signature.output().dtype, tuple(stop - start for start, stop in source))
        (wide,) = graph.op("LRN", inputs, dict(self.signature.attributes), [kind])
        cut = [(0, stop - start) for start, stop in source]
        cut[1] = (target[1][0] - source[1][0], target[1][1] - source[1][0])
        return (graph.slice(wide, tuple(cut)),)


@rule("LRN")
def local_response(signature: Signature) -> OpRule | None:
    """Normalisation over a window of channels."""
    shape = signature.input(0).shape
    size = signature.integer("size", 1)
    if empty(signature) or len(shape) < 2:
        return None
    names = _channel_names(len(shape))
    maps = tuple(map(Along, names))
    window = Window(names[1], None, size, 1, 1, (size - 1) // 2, shape[1])
    return LocalResponseRule(
        signature,
        axes=axes_except(shape, names, ()),
        inputs=((maps[0], window, *maps[2:]),),
        outputs=(maps,),
        work=size,
    )


@rule("LayerNormalization", "RMSNormalization")
def layer_normalization(signature: Signature) -> OpRule | None:
    """Axes along the dimensions before the normalised ones; scale and bias are broadcast."""
    shape = signature.input(0).shape
    if empty(signature):
        return None
    axis = signature.integer("axis", -1) % len(shape)
    whole = range(axis, len(shape))
    names = dimension_names(len(shape))
    maps = along_except(shape, names, whole)
    inputs: list[Dims | None] = [maps]
    for kind in signature.inputs[1:]:
        dims = None if kind is None else aligned_dims(kind.shape, shape, maps)
        if kind is not None and dims is None:
            return None
        inputs.append(dims)
    outputs: list[Dims | None] = []
    for kind in signature.outputs:
        # Mean and InvStdDev have extent 1 where rows are normalised.
        outputs.append(None if kind is None else along_except(kind.shape, names, whole))
    return SameNode(
        signature,
        axes=axes_except(shape, names, whole),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        work=whole_work(shape, whole),
    )


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(signature: Signature) -> OpRule | None:
    """Before opset 13 all dimensions from ``axis`` on are one row; since, only ``axis`` is."""
    rank = len(signature.input(0).shape)
    if rank == 0:
        return None
    if signature.version < 13:
        axis = signature.integer("axis", 1)
        return rows_whole(signature, range(axis + rank if axis < 0 else axis, rank))
    return rows_whole(signature, [signature.integer("axis", -1) % rank])


@rule("LpNormalization")
def power_normalization(signature: Signature) -> OpRule | None:
    """Whole along its axis."""
    rank = len(signature.input(0).shape)
    return rows_whole(signature, [signature.integer("axis", -1) % rank]) if rank else None


@rule("MeanVarianceNormalization")
def mean_variance_normalization(signature: Signature) -> OpRule | None:
    """Whole along its axes."""
    rank = len(signature.input(0).shape)
    axes = signature.integers("axes", (0, 2, 3))
    if not rank or max(axes, default=0) >= rank:
        return None
    return rows_whole(signature, normal_axes(axes, rank))


@rule("Trilu")
def triangle(signature: Signature) -> OpRule | None:
    """Whole in the two dimensions of the matrices."""
    rank = len(signature.input(0).shape)
    others = [whole_dims(kind) for kind in signature.inputs[1:]]
    return rows_whole(signature, [rank - 2, rank - 1], others)
