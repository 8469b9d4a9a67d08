"""select-accelerators, insert-sharding and emit-partitions on short texts, with what comes out beside it."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import onnx_ir as ir
import pytest

from mars_onnx.errors import InputError, UsageError
from mars_onnx.sharding.mapping_file import parse_mapping
from mars_onnx.sharding.strategy import parse_strategy
from mars_onnx.stages import attachments
from mars_onnx.stages.sharded import verify_sharded
from mars_passes.emit_partitions import EmitPartitions
from mars_passes.insert_sharding import InsertSharding
from mars_passes.select_accelerators import SelectAccelerators
from tests.end_to_end.checking import Compiled, canonical, compile_with
from tests.passes.onnx_text import Shapes, model, text
from tests.pool_factory import pool_of


def sharded(written: str, weights: Shapes, *sets: dict[str, str], groups: tuple[int, ...] = (2,)) -> Compiled:
    """Compile with one strategy per layer; the i-th set is the i-th group of the pool."""
    pool = pool_of(*groups)
    source = model(written, weights)
    graph = canonical(source, pool)
    ids = [accelerator.id for accelerator in pool.accelerators]
    entries = [
        {"accelerators": [ids[rank] for rank in ranks], "layers": layers}
        for ranks, layers in zip(pool.groups(), sets, strict=True)
    ]
    document = json.dumps({"schema": "mars-onnx/mapping/1", "sets": entries})
    mapping = parse_mapping(document, Path("test"), pool, [node.name or "" for node in graph.graph])
    compiled = compile_with(source, graph, mapping, pool)
    compiled.verify().raise_if_failed()
    return compiled


def same(found: ir.Model, expected: str) -> None:
    assert text(found).splitlines() == textwrap.dedent(expected).strip().splitlines()


def test_a_halo() -> None:
    compiled = sharded(
        """(float[1,2,8,4] x) => (float[1,2,8,4] z) {
            [first] y = Conv <pads = [1,1,1,1]> (x, w)
            [second] z = Conv <pads = [1,1,1,1]> (y, v)
        }""",
        {"w": (2, 2, 3, 3), "v": (2, 2, 3, 3)},
        {"*": "ES(H=2)"},
    )
    same(
        compiled.sharded,
        """
        (float[1,2,8,4] x) => (float[1,2,8,4] z) {
            # w [2, 2, 3, 3]
            # v [2, 2, 3, 3]
            [first] y = Conv <pads: ints = [1, 1, 1, 1]> (x, w)
            ["to_y.halo-exchange"] "y.halo-exchange" = org.mars_onnx.comm.Redistribute <kind: string = "halo-exchange"> (y)
            [second] z = Conv <pads: ints = [1, 1, 1, 1]> ("y.halo-exchange", v)
        }""",  # noqa: E501
    )
    # Five rows of the image enter, four leave; the padding is only where the image ends.
    same(
        compiled.models[1],
        """
        (float[1,2,5,4] x, int64[1] mars.token.start) => (float[1,2,4,4] z, int64[1] mars.token) {
            # w [2, 2, 3, 3]
            # mars.token.start [1]
            # v [2, 2, 3, 3]
            [first] y = Conv <kernel_shape: ints = [3, 3], pads: ints = [0, 1, 1, 1]> (x, w)
            [HaloExchange_0] "y.2", "mars.token" = org.mars_onnx.comm.HaloExchange <tag: int = 0, group: ints = [0, 1], shape: ints = [1, 2, 5, 4], dtype: int = 1, axis: int = 2, held: ints = [0, 4, 4, 8], need: ints = [0, 5, 3, 8]> (y, "mars.token.start")
            [second] z = Conv <kernel_shape: ints = [3, 3], pads: ints = [0, 1, 1, 1]> ("y.2", v)
        }""",  # noqa: E501
    )


def test_partial_sums_and_a_bias_that_counts_once() -> None:
    compiled = sharded(
        """(float[4,6] x) => (float[4,4] z) {
            [first] y = Gemm (x, w, b)
            [second] z = Relu (y)
        }""",
        {"w": (6, 4), "b": (4,)},
        {"first": "ES(K=2) reduce-scatter(M)", "second": "ES(N=2)"},
    )
    same(
        compiled.sharded,
        """
        (float[4,6] x) => (float[4,4] z) {
            # w [6, 4]
            # b [4]
            [first] y = Gemm (x, w, b)
            ["to_y.reduce-scatter"] "y.reduce-scatter" = org.mars_onnx.comm.Redistribute <kind: string = "reduce-scatter"> (y)
            [second] z = Relu ("y.reduce-scatter")
        }""",  # noqa: E501
    )
    first, second = (text(compiled.models[rank]) for rank in (0, 1))
    assert '[first] y = Gemm (x, "w[0:3,0:4]", b)' in first
    assert '[first] y = Gemm (x, "w[3:6,0:4]")' in second
    assert "sizes: ints = [2, 2]" in first
    parts = [compiled.models[rank].graph.node("first").outputs[0].metadata_props for rank in (0, 1)]
    assert [(own["mars.part"], own["mars.reduce"], own["mars.box"]) for own in parts] == [
        ("0/2", "sum", "0:4,0:4"),
        ("1/2", "sum", "0:4,0:4"),
    ]


def test_a_ring() -> None:
    """Half of the weights each; pieces are joined in their own order, not in that of time."""
    compiled = sharded(
        "(float[4,6] x) => (float[4,4] y) {\n [first] y = MatMul (x, w)\n}", {"w": (6, 4)}, {"*": "ES(M=2) SS(weight)"}
    )
    same(
        compiled.models[1],
        """
        (float[2,6] x, int64[1] mars.token.start) => (float[2,4] y, int64[1] mars.token) {
            # w[0:6,2:4] [6, 2]
            # mars.token.start [1]
            [first] MatMul_0 = MatMul (x, "w[0:6,2:4]")
            [Shift_0] "w.0", "mars.token" = org.mars_onnx.comm.Shift <tag: int = 0, group: ints = [0, 1], shape: ints = [6, 2], dtype: int = 1, offset: int = -1> ("w[0:6,2:4]", "mars.token.start")
            ["first.2"] MatMul_1 = MatMul (x, "w.0")
            ["first.Concat"] y = Concat <axis: int = 1> (MatMul_1, MatMul_0)
        }""",  # noqa: E501
    )
    phases = [node.metadata_props.get("mars.phase") for node in compiled.models[1].graph]
    assert phases == ["0", "0", "1", None]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ES(*=2,H=2)", "ES(H=2)"),
        ("ES(*=2,Cout=2,H=2)", "ES(*=4,Cin=2)"),
        ("ES(*=2,Cin=2) reduce-scatter(H)", "ES(H=2,*=2,Cout=2)"),
        ("ES(*=2,Cin=2) deferred", "ES(*=2,W=3:1)"),
        ("ES(*=2,Cout=2) SS(weight)", "ES(*=2,H=4) SS(input)"),
        ("ES(*=2,Cin=2,H=2) SS(weight)", "ES(Cout=2,*=2,Cin=2) reduce-scatter(W)"),
    ],
)
def test_replicas_at_an_outer_digit(first: str, second: str) -> None:
    compiled = sharded(
        """(float[1,4,8,8] x) => (float[1,4,8,8] z) {
            [first] y = Conv <pads = [1,1,1,1]> (x, w, b)
            [second] z = Conv <pads = [1,1,1,1]> (y, v)
        }""",
        {"w": (4, 4, 3, 3), "v": (4, 4, 3, 3), "b": (4,)},
        {"first": first, "second": second},
        groups=(8,),
    )
    compiled.verify(deep=True).raise_if_failed()
    assert compiled.mapping.choice("first").strategy == parse_strategy(first)


def test_partial_sums_behind_an_output() -> None:
    """The output has its name in every file; the partial sums say that they are of it."""
    compiled = sharded(
        "(float[4,6] x) => (float[4,4] y) {\n [first] y = MatMul (x, w)\n}", {"w": (6, 4)}, {"*": "ES(K=2) deferred"}
    )
    same(
        compiled.sharded,
        """
        (float[4,6] x) => (float[4,4] y) {
            # w [6, 4]
            [first] "y.partial" = MatMul (x, w)
            ["to_y.all-reduce"] y = org.mars_onnx.comm.Redistribute <kind: string = "all-reduce"> ("y.partial")
        }""",
    )
    for partition in compiled.models.values():
        first = partition.graph.node("first").outputs[0]
        assert first.metadata_props["mars.source"] == "y"
        assert "mars.part" in first.metadata_props


def test_two_layers_with_the_same_need_share_a_redistribution() -> None:
    compiled = sharded(
        """(float[4,4] x) => (float[4,4] a, float[4,4] b) {
            [first] y = Relu (x)
            [left] a = MatMul (y, w)
            [right] b = MatMul (y, v)
        }""",
        {"w": (4, 4), "v": (4, 4)},
        {"first": "ES(N=2)", "left": "ES(N=2)", "right": "ES(N=2)"},
    )
    assert [node.op_type for node in compiled.sharded.graph] == ["Relu", "Redistribute", "MatMul", "MatMul"]


def test_an_input_that_one_layer_reads_in_halves_and_another_whole_enters_as_a_whole() -> None:
    compiled = sharded(
        "(float[4,4] x) => (float[4,4] a, float[4,4] b) {\n [r] a = Relu (x)\n [s] b = Softmax <axis = 0> (x)\n}",
        {},
        {"r": "ES(N=2)", "s": "single"},
    )
    boxes = {box.rank: box.box for box in compiled.plan.inputs[0].boxes}
    assert boxes == {0: ((0, 4), (0, 4)), 1: ((2, 4), (0, 4))}
    assert "= Slice (x, " in text(compiled.models[0])


def test_an_input_that_nobody_reads_enters_nowhere() -> None:
    compiled = sharded("(float[4] x, float[3] idle) => (float[4] y) {\n [a] y = Relu (x)\n}", {}, {"a": "whole"})
    assert [(tensor.tensor, tensor.boxes) for tensor in compiled.plan.inputs if not tensor.boxes] == [("idle", ())]
    assert attachments.get_layout(compiled.sharded.graph.inputs[1]).members == ()


def test_an_input_that_is_an_output_leaves_under_another_name() -> None:
    """A value has one name only. Who compares with the original has to know that it is the same output."""
    compiled = sharded("(float[4] x) => (float[4] y, float[4] x) {\n [a] y = Relu (x)\n}", {}, {"*": "ES(D0=2)"})
    assert [tensor.tensor for tensor in compiled.plan.outputs] == ["y", "x_output"]


def test_a_replica_whose_result_nobody_reads_runs() -> None:
    compiled = sharded(
        "(float[4,6] x) => (float[4,4] z) {\n [a] y = MatMul (x, w)\n [b] z = Relu (y)\n}",
        {"w": (6, 4)},
        {"a": "ES(K=2)", "b": "whole"},
    )
    assert [len(partition.outputs) for partition in compiled.partitions.partitions] == [1, 0]
    compiled.verify(deep=False).raise_if_failed()


def test_names_of_the_model_are_not_taken() -> None:
    """Exporters name values as the emission would; every value still has a name of its own."""
    compiled = sharded(
        """(float[4,6] x) => (float[4,4] z) {
            [a] Slice_0 = Relu (x)
            [b] const_0 = Neg (Slice_0)
            [c] token_0 = MatMul (const_0, w)
            [d] MatMul_0 = MatMul (token_0, v)
            [e] z = Neg (MatMul_0)
        }""",
        {"w": (6, 4), "v": (4, 4)},
        {"a": "ES(N=2)", "b": "ES(C=2)", "c": "ES(K=2) deferred", "d": "ES(N=2) SS(input)", "e": "ES(C=2)"},
    )
    for partition in compiled.models.values():
        values = [*partition.graph.inputs, *(value for node in partition.graph for value in node.outputs)]
        names = [value.name for value in values if value.name]
        assert len(names) == len(set(names))


def test_sharding_computes_what_it_did_before_and_is_verified() -> None:
    compiled = sharded(
        "(float[4,4] x) => (float[4,4] z) {\n [a] y = Relu (x)\n [b] z = Softmax <axis = 0> (y)\n}",
        {},
        {"a": "ES(N=2)"},
        {"b": "ES(C=2)"},
        groups=(2, 2),
    )
    assert verify_sharded(compiled.sharded) == []
    moved = next(node for node in compiled.sharded.graph if node.op_type == "Redistribute")
    consumer = next(node for node in compiled.sharded.graph if node.name == "b")
    # Who skips the redistribution is found out.
    consumer.replace_input_with(0, moved.inputs[0])
    (problem,) = verify_sharded(compiled.sharded)
    assert "node 'b' needs 'y'" in problem


def test_select_accelerators_fills_in_what_is_open(tmp_path: Path) -> None:
    pool = pool_of(2, 2)
    graph = canonical(model("(float[64,64] x) => (float[64,64] y) {\n [a] y = MatMul (x, w)\n}", {"w": (64, 64)}), pool)
    path = tmp_path / "mapping.json"
    sets = [{"accelerators": ["b0", "b1"], "layers": {"*": "auto"}}]
    path.write_text(json.dumps({"schema": "mars-onnx/mapping/1", "sets": sets}), encoding="utf-8")
    SelectAccelerators(mapping=str(path))(graph)
    (node,) = graph.graph
    assert attachments.get_stage(graph) == "mapped"
    assert (attachments.get_set(node), attachments.get_mapping(graph).sets[0].members) == (0, (2, 3))
    assert str(attachments.get_strategy(node)) != "auto"


def test_passes_say_what_they_need() -> None:
    pool = pool_of(2)
    source = model("(float[4,4] x) => (float[4,4] y) {\n [a] y = Relu (x)\n}")
    with pytest.raises(UsageError, match="needs a pool"):
        SelectAccelerators()(source.clone())
    graph = canonical(source, pool)
    with pytest.raises(UsageError, match="run select-accelerators before it"):
        InsertSharding()(graph)
    with pytest.raises(UsageError, match="run select-accelerators before it"):
        EmitPartitions()(graph)
    with pytest.raises(UsageError, match="run emit-partitions first"):
        attachments.get_partitions(graph)


def test_what_has_no_static_shape_stays_on_its_set() -> None:
    written = """(float[4] x) => (int64[] y) {
        [find] n = NonZero (x)
        [turn] y = ReduceSum <keepdims = 0> (n)
    }"""
    sharded(written, {}, {"find": "whole", "turn": "whole"})
    sharded(written, {}, {"find": "single", "turn": "single"})
    with pytest.raises(InputError, match="map both layers to the same set"):
        sharded(written, {}, {"find": "whole"}, {"turn": "whole"}, groups=(2, 2))
    with pytest.raises(InputError, match="the model output 'n' has no static shape"):
        sharded("(float[4] x) => (int64[1, N] n) {\n [find] n = NonZero (x)\n}", {}, {"find": "whole"})


def test_what_is_not_everywhere_is_not_used_everywhere() -> None:
    """Without a shape it cannot be sent, so a member that did not compute it cannot use it."""
    written = """(float[4] x) => (int64[] y) {
        [find] n = NonZero (x)
        [turn] y = ReduceSum <keepdims = 0> (n)
    }"""
    with pytest.raises(InputError, match="'find'"):
        sharded(written, {}, {"find": "single", "turn": "whole"})
