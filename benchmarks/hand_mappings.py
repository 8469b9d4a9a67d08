"""Mappings as a person would write them, for two accelerators: what the search has to be at least as good as."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx_ir as ir

from mars_onnx.cost.performance import OpClass
from mars_onnx.cost.workload import op_class
from mars_onnx.rules.base import OpRule
from mars_onnx.rules.registry import rule_for
from mars_onnx.rules.signature import signature_of

#: Layers with fewer output rows than this are cut along their channels where the cut changes on the way.
_FEW_ROWS = 28
_FOLLOWING = (OpClass.ELEMENTWISE, OpClass.POOL, OpClass.NORMALIZATION, OpClass.SOFTMAX)
Content = dict[str, object]


def hand_mappings(graph: ir.Graph, accelerators: tuple[str, str]) -> Iterator[tuple[str, Content]]:
    """Names and contents of mapping files for a canonical graph."""
    yield "one rank", _one_set(graph, accelerators[:1], lambda *_: "whole")
    yield "rows", _one_set(graph, accelerators, lambda rule, op, *_: _rows(rule, op))
    yield "columns", _one_set(graph, accelerators, lambda rule, op, *_: _split(rule, op, "W", "M", "S"))
    yield "channels", _one_set(graph, accelerators, lambda rule, op, node, _: _channels(rule, op, node))
    yield "channels in turn", _one_set(graph, accelerators, _in_turn)
    yield "rows, then channels", _one_set(graph, accelerators, _rows_then_channels)
    yield "two sets", _two_sets(graph, accelerators)


def _one_set(
    graph: ir.Graph, accelerators: tuple[str, ...], choose: Callable[[OpRule, str, ir.Node, int], str]
) -> Content:
    layers: dict[str, str] = {}
    heavy = 0
    for node in graph:
        kind = op_class(node.op_type)
        heavy += kind in (OpClass.CONV, OpClass.MATMUL)
        layers[node.name or ""] = choose(rule_for(signature_of(node)), node.op_type, node, heavy)
    return _mapping([(accelerators, layers)])


def _mapping(sets: list[tuple[tuple[str, ...], dict[str, str]]]) -> Content:
    return {
        "schema": "mars-onnx/mapping/1",
        "sets": [{"accelerators": list(members), "layers": layers} for members, layers in sets],
    }


def _split(rule: OpRule, op_type: str, image: str, rows: str, sequence: str) -> str:
    """Cut a convolution or what follows one along ``image``, a product along ``rows``, a sequence along its own."""
    kind = op_class(op_type)
    names = {axis.name: axis for axis in rule.axes}
    wanted = ""
    if kind == OpClass.CONV or (kind in _FOLLOWING and "H" in names and kind != OpClass.SOFTMAX):
        wanted = image
    elif kind == OpClass.MATMUL:
        wanted = rows
    elif kind in _FOLLOWING:
        wanted = sequence
    if wanted in names and names[wanted].size >= 2:
        return f"ES({wanted}=2)"
    return "auto"


def _rows(rule: OpRule, op_type: str) -> str:
    return _split(rule, op_type, "H", "M", "S")


def _channels(rule: OpRule, op_type: str, node: ir.Node) -> str:
    if sequence := _heads(rule, op_type, node):
        return sequence
    return _split(rule, op_type, "Cout" if op_class(op_type) == OpClass.CONV else "C", "N", "C")


def _heads(rule: OpRule, op_type: str, node: ir.Node) -> str:
    """The heads of an attention, along whichever axis they are; empty for what is no part of one."""
    sizes = {axis.name: axis.size for axis in rule.axes}
    shape = signature_of(node).output().shape
    if op_type == "MatMul" and sizes.get("B1", 1) >= 2:
        return "ES(B1=2)"
    if op_type == "Transpose" and len(shape) == 4:
        # Before the products heads are the second dimension, behind them the third.
        return "ES(H=2)" if (node.name or "").endswith("attention.transpose") else "ES(C=2)"
    if op_type in ("Softmax", "Div") and len(shape) == 4:
        return "ES(C=2)"
    if op_type == "Reshape" and "attention" in (node.name or ""):
        return "ES(H=2)" if len(shape) == 4 else "ES(C=2)"
    return ""


def _in_turn(rule: OpRule, op_type: str, node: ir.Node, heavy: int) -> str:
    """Output channels of one, input channels of the next, which needs no communication in between, then a sum."""
    kind = op_class(op_type)
    sizes = {own.name: own.size for own in rule.axes}
    name = node.name or ""
    if kind == OpClass.MATMUL and "B0" in sizes:
        # In a transformer it is known which product comes second: the one that leads back to the residual.
        if any(word in name for word in ("output_projection", "fc2")):
            return "ES(K=2)"
        return _channels(rule, op_type, node)
    if any(word in name for word in ("add1", "add2", "norm", "output_projection.add", "fc2.add")):
        return "whole"
    axis = {OpClass.CONV: "Cin", OpClass.MATMUL: "K"}.get(kind, "")
    if axis and heavy % 2 == 0 and sizes.get(axis, 0) >= 16:
        return f"ES({axis}=2)"
    if kind in _FOLLOWING and "S" not in sizes:
        return "auto"
    return _channels(rule, op_type, node)


def _rows_then_channels(rule: OpRule, op_type: str, node: ir.Node, heavy: int) -> str:
    sizes = {axis.name: axis.size for axis in rule.axes}
    if "block" in (node.name or ""):
        # A transformer: rows for the attention's projections and all else, columns for the wide layers.
        return _channels(rule, op_type, node) if "mlp" in (node.name or "") else _rows(rule, op_type)
    many = sizes.get("H", 0) >= _FEW_ROWS
    return _rows(rule, op_type) if many else _channels(rule, op_type, node)


def _two_sets(graph: ir.Graph, accelerators: tuple[str, str]) -> Content:
    """The first half of the work on one accelerator, the second on the other."""
    macs: list[tuple[str, int]] = []
    for node in graph:
        rule = rule_for(signature_of(node))
        macs.append((node.name or "", int(rule.macs(rule.whole_ranges())) if node.outputs else 0))
    half = sum(own for _, own in macs) / 2
    layers: tuple[dict[str, str], dict[str, str]] = ({}, {})
    done = 0
    for name, own in macs:
        layers[0 if done + own / 2 < half else 1][name] = "whole"
        done += own
    return _mapping([(accelerators[:1], layers[0]), (accelerators[1:], layers[1])])
