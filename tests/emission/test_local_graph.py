"""The local graph builder by itself."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from mars_onnx.emission.local_graph import LocalGraphBuilder, type_of
from mars_onnx.geometry import Reduction
from mars_onnx.rules.base import TensorType

FLOAT, BOOL = ir.DataType.FLOAT, ir.DataType.BOOL


def value(dtype: ir.DataType = FLOAT, shape: tuple[int, ...] = (4, 6)) -> ir.Value:
    return ir.Value(name="x", type=ir.TensorType(dtype), shape=ir.Shape(shape))


@pytest.mark.parametrize(("opset", "operands", "attributes"), [(9, 1, {"axes", "starts", "ends"}), (13, 4, set())])
def test_slice_in_the_form_of_the_opset(opset: int, operands: int, attributes: set[str]) -> None:
    builder = LocalGraphBuilder(opset)
    result = builder.slice(value(), ((0, 4), (1, 3)))
    assert type_of(result) == TensorType(FLOAT, (4, 2))
    (node,) = builder.nodes
    assert len(node.inputs) == operands
    assert set(node.attributes) == attributes


def test_what_changes_nothing_is_no_node() -> None:
    builder = LocalGraphBuilder(20)
    data = value()
    assert builder.slice(data, ((0, 4), (0, 6))) is data
    assert builder.concat([data], 0) is data
    assert builder.combine([data], Reduction.SUM) is data
    assert builder.nodes == []


def test_equal_constants_are_shared_and_types_keep_them_apart() -> None:
    builder = LocalGraphBuilder(20)
    first = builder.constant(np.asarray([1, 2], np.int64))
    assert builder.constant(np.asarray([1, 2], np.int64)) is first
    assert builder.constant(np.asarray([1, 2], np.int32)) is not first
    assert builder.constant(np.asarray([[1, 2]], np.int64)) is not first
    assert len(builder.initializers) == 3


@pytest.mark.parametrize(
    ("dtype", "reduction", "op_type"),
    [
        (FLOAT, Reduction.SUM, "Add"),
        (FLOAT, Reduction.MAX, "Max"),
        (BOOL, Reduction.SUM, "Or"),
        (BOOL, Reduction.MIN, "And"),
    ],
)
def test_combine(dtype: ir.DataType, reduction: Reduction, op_type: str) -> None:
    builder = LocalGraphBuilder(20)
    result = builder.combine([value(dtype)] * 3, reduction)
    assert [node.op_type for node in builder.nodes] == [op_type] * 2
    assert type_of(result) == TensorType(dtype, (4, 6))


@pytest.mark.parametrize(("opset", "nodes"), [(8, 0), (9, 1)])
def test_zeros_are_not_stored_where_the_opset_can_make_them(opset: int, nodes: int) -> None:
    builder = LocalGraphBuilder(opset)
    builder.zeros(FLOAT, (2, 3))
    assert len(builder.nodes) == nodes


def test_names_are_unique_and_every_node_is_annotated() -> None:
    class Marking(LocalGraphBuilder):
        def annotate(self, node: ir.Node) -> None:
            node.metadata_props["mark"] = "yes"

    builder = Marking(20, prefix="p/")
    data = value()
    (first,) = builder.op("Relu", [data], {}, [type_of(data)])
    (second, absent) = builder.op("Dropout", [first, None, None], {}, [type_of(data), None])
    graph = builder.graph([data], [second], "g")
    model = ir.to_proto(ir.Model(graph, ir_version=10))
    onnx.checker.check_model(model, full_check=True)
    assert first.name != second.name
    assert str(first.name).startswith("p/")
    assert absent.name == ""
    assert len(builder.nodes[1].inputs) == 1
    assert all(node.metadata_props["mark"] == "yes" for node in builder.nodes)
