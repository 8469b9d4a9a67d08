"""Rules for products of matrices: MatMul, Gemm, Einsum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import onnx_ir as ir

from mars_onnx.rules.axes import Along, Axis, DimMap, Whole
from mars_onnx.rules.base import Dims, LocalGraph, OpRule, Share, Signature
from mars_onnx.rules.common import SameNode, aligned_dims, empty, reducible, result_types
from mars_onnx.rules.registry import rule

_OPERANDS = {0: "input", 1: "weight"}


@rule("MatMul")
def matmul(signature: Signature) -> OpRule | None:
    """Axes B0, B1, ... (batch), M, N, and the reduction K; a vector has no M or N."""
    left, right = signature.input(0).shape, signature.input(1).shape
    dtype = signature.output().dtype
    if empty(signature):
        return None
    batches = [max(pair) for pair in zip_longest(reversed(left[:-2]), reversed(right[:-2]), fillvalue=1)][::-1]
    batch_maps = tuple(Along(f"B{i}") for i in range(len(batches)))
    depth: DimMap = Along("K") if reducible(dtype) else Whole(left[-1])
    axes = [Axis(f"B{i}", extent) for i, extent in enumerate(batches)]
    rows: Dims = ()
    columns: Dims = ()
    if len(left) > 1:
        axes.append(Axis("M", left[-2]))
        rows = (Along("M"),)
    if len(right) > 1:
        axes.append(Axis("N", right[-1]))
        columns = (Along("N"),)
    if reducible(dtype):
        axes.append(Axis("K", left[-1], reduction=True))
    left_batches = aligned_dims(left[:-2], batches, batch_maps)
    right_batches = aligned_dims(right[:-2], batches, batch_maps)
    if left_batches is None or right_batches is None:
        return None
    return SameNode(
        signature,
        axes=tuple(axes),
        inputs=((*left_batches, *rows, depth), (*right_batches, depth, *columns)),
        outputs=((*batch_maps, *rows, *columns),),
        operands=_OPERANDS,
        work=1 if reducible(dtype) else left[-1],
    )


@dataclass(frozen=True)
class GemmRule(OpRule):
    """Axes M, N and the reduction K. C, the addend, counts once."""

    def local(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        operands = list(inputs[:2])
        if self.signature.has_input(2):
            if share.first:
                operands.append(inputs[2])
            elif self.signature.version < 11:
                # C was not optional yet.
                operands.append(graph.zeros(self.signature.input(2).dtype, (1,)))
        return graph.op("Gemm", operands, dict(self.signature.attributes), result_types(self.signature, share))


@rule("Gemm")
def gemm(signature: Signature) -> OpRule | None:
    """Gemm of opset 7 and later, where C is broadcast."""
    if empty(signature):
        return None
    rows, depth = signature.input(0).shape[:: -1 if signature.integer("transA", 0) else 1]
    columns = signature.output().shape[1]
    m, n, k = Along("M"), Along("N"), Along("K")
    inputs: list[Dims | None] = [
        (k, m) if signature.integer("transA", 0) else (m, k),
        (n, k) if signature.integer("transB", 0) else (k, n),
    ]
    if len(signature.inputs) > 2:
        addend = aligned_dims(signature.input(2).shape, (rows, columns), (m, n)) if signature.has_input(2) else None
        if addend is None and signature.has_input(2):
            return None
        inputs.append(addend)
    dtype = signature.output().dtype
    scaled = any(signature.attribute(name) not in (None, 1.0) for name in ("alpha", "beta"))
    if not reducible(dtype) or (scaled and dtype.is_integer()):
        # A scaled sum of integers is rounded, and its parts would be rounded one by one.
        return None
    return GemmRule(
        signature,
        axes=(Axis("M", rows), Axis("N", columns), Axis("K", depth, reduction=True)),
        inputs=tuple(inputs),
        outputs=((m, n),),
        operands=_OPERANDS,
    )


@rule("Einsum")
def einsum(signature: Signature) -> OpRule | None:
    """Every letter of the equation is an axis; those that the result does not have are reductions."""
    equation = "".join(str(signature.attribute("equation") or "").split())
    if "." in equation or empty(signature) or not reducible(signature.output().dtype):
        return None
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        # The implicit form: letters that occur once, in alphabetical order.
        result = "".join(sorted(letter for letter, times in Counter("".join(terms)).items() if times == 1))
    sizes: dict[str, int] = {}
    for index, term in enumerate(terms):
        shape = signature.input(index).shape
        if len(set(term)) != len(term) or len(shape) != len(term):
            return None
        for letter, extent in zip(term, shape, strict=True):
            if sizes.setdefault(letter, extent) != extent:
                return None
    if len(terms) != len(signature.inputs) or len(set(result)) != len(result) or not set(result) <= set(sizes):
        return None
    return SameNode(
        signature,
        axes=tuple(
            Axis(letter, sizes[letter], reduction=letter not in result)
            for letter in (*result, *(letter for letter in sizes if letter not in result))
        ),
        inputs=tuple(tuple(Along(letter) for letter in term) for term in terms),
        outputs=(tuple(Along(letter) for letter in result),),
        operands=_OPERANDS if len(terms) == 2 else {},
    )
