"""Whole runs of hand-written partitions: segments, bodies with captured values, faults, and the deep check."""

import ml_dtypes
import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from mars_onnx.errors import InputError, InvariantError, RunError, UsageError, VerificationError
from mars_onnx.runtime.runner import PartitionRunner, run_partitions
from mars_onnx.runtime.segments import CommunicationStep, Segment, cut
from mars_onnx.runtime.sessions import ExecutorOptions
from mars_onnx.runtime.verify import verify
from tests.runtime.hand_written import boxes, partition, plan, ramp


def original(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 17]>{text}'))


# y = softmax((relu(x) cut by columns) @ w cut by rows), partial products reduced.
ORIGINAL = """g (float[3,4] x) => (float[3,2] y) <float[4,2] w = {1.,2.,3.,4.,5.,6.,7.,8.}> {
    a = Relu (x)  b = MatMul (a, w)  c = Mul (b, b)  y = Softmax <axis = 1> (c) }"""


def member(rank: int, relu: str = "Relu") -> ir.Model:
    columns, weights = (("0:1", "1.,2."), ("1:4", "3.,4.,5.,6.,7.,8."))[rank]
    extent = (1, 3)[rank]
    text = f"""g (float[3,{extent}] x) => (float[3,2] y) <float[{extent},2] w = {{{weights}}}> {{
        a = {relu} (x)  p = MatMul (a, w)
        b, token = @AllReduce <group = [0, 1], reduce_op = "sum", tag = 0> (p, start)
        c = Mul (b, b)  y = Softmax <axis = 1> (c) }}"""
    claims = {
        "x": f"x[0:3,{columns}]", "a": f"a[0:3,{columns}]", "p": f"b[0:3,0:2] {rank}/2 sum",
        "b": "b[0:3,0:2]", "c": "c[0:3,0:2]", "y": "y[0:3,0:2]",
    }  # fmt: skip
    return partition(text, claims)


PLAN = plan(2, [boxes("x", (3, 4), {0: "0:3,0:1", 1: "0:3,1:4"})], [boxes("y", (3, 2), {0: "0:2,0:2", 1: "2:3,0:2"})])


def test_deep_check_counts_what_it_compares() -> None:
    # Replicated outputs are cropped by the partitions themselves; here both give everything, so one owns it.
    whole = plan(2, list(PLAN.inputs), [boxes("y", (3, 2), 0)])
    model = original(ORIGINAL)
    report = verify(model, [member(0), member(1)], whole, seed=3, deep=True, canonical_model=model)
    report.raise_if_failed()
    assert report.passed
    assert (report.deep.boxes, report.deep.partial_boxes, report.deep.tensors) == (10, 2, 5)


def test_deep_check_catches_what_the_output_hides() -> None:
    whole = plan(2, list(PLAN.inputs), [boxes("y", (3, 2), 0)])
    model = original(ORIGINAL)
    x = np.full((3, 4), 50, np.float32)
    x[0, 0] = -1  # Identity in place of Relu differs here only, and the softmax is saturated.
    wrong = [member(0, relu="Identity"), member(1)]
    assert verify(model, wrong, whole, inputs={"x": x}).passed
    report = verify(model, wrong, whole, inputs={"x": x}, deep=True, canonical_model=model)
    assert all(c.passed for c in report.outputs)
    assert not report.passed
    assert "a on fpga0 (rank 0), a[0:3,0:1]" in {c.name for c in report.failures}
    with pytest.raises(VerificationError, match=r"a on fpga0 \(rank 0\), a\[0:3,0:1\]: 1 of 3 elements differ"):
        report.raise_if_failed()


def test_a_partial_sum_that_is_no_part() -> None:
    # The bias on both parts: reduced, it is twice too much.
    model = original("g (float[2,2] x) => (float[2,2] y) { y = Add (x, x) }")
    text = """g (float[2,2] x) => (float[2,2] y) {
        p = Add (x, x) y, token = @AllReduce <group = [0, 1], reduce_op = "sum", tag = 0> (p, start) }"""
    parts = [partition(text, {"p": f"y[0:2,0:2] {rank}/2 sum"}) for rank in range(2)]
    everything = plan(2, [boxes("x", (2, 2), {0: "0:2,0:2", 1: "0:2,0:2"})], [boxes("y", (2, 2), 0)])
    report = verify(model, parts, everything, deep=True, canonical_model=model)
    assert {c.name.split(",")[0] for c in report.failures} >= {"y", "p on fpga0 (rank 0)", "p on fpga1 (rank 1)"}


def test_a_missing_part_and_unequal_replicas() -> None:
    model = original("g (float[2] x) => (float[2] y) { a = Identity (x) y = Identity (a) }")
    text = "g (float[2] x) => (float[2] y) { a = OP (x) y = Identity (x) }"
    everything = plan(2, [boxes("x", (2,), {0: "0:2", 1: "0:2"})], [boxes("y", (2,), 0)])
    x = {"x": np.array([1, 2], np.float32)}
    parts = [partition(text.replace("OP", op), {"a": "a[0:2] 0/2 sum"}) for op in ("Identity", "Neg")]
    report = verify(model, parts, everything, inputs=x, deep=True, canonical_model=model)
    texts = [f"{c.name}: {c.status}" for c in report.failures]
    assert any("against its replicas: 2 of 2" in text for text in texts)
    assert any("nobody holds part 1" in text for text in texts)


def test_deep_check_cannot_pass_without_comparing() -> None:
    model = original("g (float[2] x) => (float[2] y) { y = Relu (x) }")
    single = plan(1, [boxes("x", (2,), 0)], [boxes("y", (2,), 0)])
    text = "g (float[2] x) => (float[2] y) { y = Relu (x) }"
    with pytest.raises(VerificationError, match="found nothing to compare"):
        verify(model, [partition(text)], single, deep=True, canonical_model=model)
    with pytest.raises(VerificationError, match="has no tensor 'gone' to compare"):
        verify(model, [partition(text, {"y": "gone[0:2]"})], single, deep=True, canonical_model=model)
    with pytest.raises(UsageError, match="canonical"):
        verify(model, [partition(text)], single, deep=True)
    report = verify(model, [partition(text, {"y": "y[0:1]"})], single, deep=True, canonical_model=model)
    assert "shape [2], expected [1]" in report.failures[0].status


def test_outputs_gathered_from_boxes() -> None:
    text = """g (float[ROWS,4] x) => (float[ROWS,4] y) { y = Relu (x) }"""
    parts = [partition(text.replace("ROWS", str(rows))) for rows in (1, 3)]
    held = {0: "0:1,0:4", 1: "1:4,0:4"}
    rows = plan(2, [boxes("x", (4, 4), held)], [boxes("y", (4, 4), held)])
    x = ramp(4, 4)
    np.testing.assert_array_equal(run_partitions(parts, rows, {"x": x}).outputs["y"], np.maximum(x, 0))


def test_segments_share_weights_and_pass_values_over_communications() -> None:
    weights = ", ".join(["0.5"] * 400)
    first = partition(f"""g (float[2,20] x) => (float[2,20] y) <float[20,20] w = {{{weights}}}> {{
        shape = Constant <value = int64[2] {{2, 20}}> ()
        a = MatMul (x, w)
        t = @Send <dst = 1, tag = 0> (a, start)
        b, token = @Recv <src = 1, tag = 1, shape = [40], dtype = 1> (t)
        c = Reshape (b, shape)
        d = MatMul (c, w)
        y = Add (d, a) }}""")
    second = partition("""g () => () {
        shape = Constant <value = int64[1] {-1}> ()
        a, t = @Recv <src = 0, tag = 0, shape = [2, 20], dtype = 1> (start)
        b = Reshape (a, shape)
        token = @Send <dst = 0, tag = 1> (b, t) }""")
    steps = cut(first)
    assert [step.name if isinstance(step, Segment) else step.operator.op_type for step in steps] == [
        "segment0", "Send", "Recv", "segment2",
    ]  # fmt: skip
    assert isinstance(steps[1], CommunicationStep)
    assert [node.op_type for node in steps[3].nodes] == ["Constant", "Reshape", "MatMul", "Add"]
    runner = PartitionRunner(
        [first, second], plan(2, [boxes("x", (2, 20), 0)], [boxes("y", (2, 20), 0)]), rendezvous=True
    )
    x, w = ramp(2, 20), np.full((20, 20), 0.5, np.float32)
    for _ in range(3):
        np.testing.assert_allclose(runner.run({"x": x}).outputs["y"], x @ w @ w + x @ w, rtol=1e-5)


def test_bodies_that_capture_outer_values() -> None:
    text = """g (float[2] x, bool cond) => (float[2] y) {
        a = Relu (x)
        b, token = @AllReduce <group = [0], reduce_op = "sum", tag = 0> (x, start)
        y = If (cond) <
            then_branch = t () => (float[2] u) { u = Add (a, b) },
            else_branch = e () => (float[2] v) { v = Sub (a, b) }
        > }"""
    single = plan(1, [boxes("x", (2,), 0), boxes("cond", (), 0, "bool")], [boxes("y", (2,), 0)])
    x = np.array([1, -2], np.float32)
    for cond, expected in ((True, [2, -2]), (False, [0, 2])):
        result = run_partitions([partition(text)], single, {"x": x, "cond": np.array(cond)})
        np.testing.assert_array_equal(result.outputs["y"], expected)


@pytest.mark.parametrize(("name", "dtype"), [("bfloat16", ml_dtypes.bfloat16), ("float16", np.float16)])
def test_small_floats(name, dtype) -> None:
    text = f"""g ({name}[3] x) => ({name}[3] y) {{
        a = Identity (x)
        b, token = @AllReduce <group = [0, 1], reduce_op = "sum", tag = 0> (a, start)
        f = Cast <to = 1> (b)  h = Relu (f)  y = Cast <to = {int(ir.DataType.from_numpy(np.dtype(dtype)))}> (h) }}"""
    x = np.array([1, -2, 0.5], dtype)
    both = plan(2, [boxes("x", (3,), {0: "0:3", 1: "0:3"}, name)], [boxes("y", (3,), 1, name)])
    result = run_partitions([partition(text)] * 2, both, {"x": x})
    np.testing.assert_array_equal(result.outputs["y"].astype(np.float32), [2, 0, 1])


def test_shapes_that_depend_on_data() -> None:
    text = """g (float[4] x) => (int64[1] y) {
        a = NonZero (x)
        b, token = @AllReduce <group = [0], reduce_op = "sum", tag = 0> (x, start)
        s = Size (a) one = Constant <value = int64[1] {-1}> ()  y = Reshape (s, one) }"""
    single = plan(1, [boxes("x", (4,), 0)], [boxes("y", (1,), 0, "int64")])
    result = run_partitions([partition(text)], single, {"x": np.array([1, 0, 2, 0], np.float32)})
    assert result.outputs["y"].tolist() == [2]


def test_outputs_that_are_inputs_or_initializers() -> None:
    part = partition("g (float[2] x) => (float[2] y) <float[1] w = {3.0}> { y = Add (x, w) }")
    part.graph.outputs.extend([part.graph.inputs[0], part.graph.initializers["w"]])
    single = plan(1, [boxes("x", (2,), 0)], [boxes("y", (2,), 0), boxes("x", (2,), 0), boxes("w", (1,), 0)])
    outputs = run_partitions([part], single, {"x": np.ones(2, np.float32)}).outputs
    assert {name: array.tolist() for name, array in outputs.items()} == {"y": [4, 4], "x": [1, 1], "w": [3]}


def test_a_fault_in_one_partition_ends_the_others_with_its_name() -> None:
    bad = partition("""g (int64[1] i) => () <float[2] w = {1., 2.}> {
        [lookup] a = Gather (w, i)
        token = @Send <dst = 1, tag = 0> (a, start) }""")
    good = partition("g () => (float[1] y) { y, token = @Recv <src = 0, tag = 0, shape = [1], dtype = 1> (start) }")
    both = plan(2, [boxes("i", (1,), 0, "int64")], [boxes("y", (1,), 1)])
    runner = PartitionRunner([bad, good], both)
    with pytest.raises(
        RunError, match=r"accelerator fpga0 \(rank 0\): segment0 \(nodes lookup\): .*out of data bounds"
    ):
        runner.run({"i": np.array([7])})
    # A runner survives a failed run.
    assert runner.run({"i": np.array([1])}).outputs["y"].tolist() == [2]


def test_a_segment_that_the_runtime_refuses() -> None:
    bad = partition("g (float[2] x) => (float[2] y) { y = Relu (x) }")
    next(iter(bad.graph)).op_type = "Rellu"
    with pytest.raises(RunError, match=r"accelerator fpga0 \(rank 0\): segment0 .*ONNX Runtime refuses it: .*Rellu"):
        run_partitions([bad], plan(1, [boxes("x", (2,), 0)], [boxes("y", (2,), 0)]), {"x": np.ones(2, np.float32)})


CROSSED = """g (float[2] x) => (float[2] y) {
    t = @Send <dst = OTHER, tag = OWN> (x, start)
    y, token = @Recv <src = OTHER, tag = THEIRS, shape = [2], dtype = 1> (t) }"""


def crossed() -> list[ir.Model]:
    texts = [
        CROSSED.replace("OTHER", str(1 - r)).replace("OWN", str(r)).replace("THEIRS", str(1 - r)) for r in range(2)
    ]
    return [partition(text) for text in texts]


EXCHANGE = plan(2, [boxes("x", (4,), {0: "0:2", 1: "2:4"})], [boxes("y", (4,), {0: "0:2", 1: "2:4"})])


def test_sends_before_receives_run_with_buffers_and_deadlock_without() -> None:
    x = {"x": ramp(4)}
    assert run_partitions(crossed(), EXCHANGE, x).outputs["y"].tolist() == [*x["x"][2:], *x["x"][:2]]
    with pytest.raises(RunError, match="deadlock: fpga0 waits for fpga1 to receive tag 0; fpga1 waits for fpga0 to"):
        run_partitions(crossed(), EXCHANGE, x, rendezvous=True)


def test_a_receive_that_nobody_sends_to_does_not_hang() -> None:
    lonely = partition("g () => (float[2] y) { y, token = @Recv <src = 1, tag = 5, shape = [2], dtype = 1> (start) }")
    other = partition("g (float[2] x) => (float[2] z) { z = Relu (x) }")
    two = plan(2, [boxes("x", (2,), 1)], [boxes("y", (2,), 0), boxes("z", (2,), 1)])
    with pytest.raises(RunError, match=r"deadlock: fpga0 waits for tag 5 from fpga1 \(fpga1 has ended\)"):
        run_partitions([lonely, other], two, {"x": ramp(2)})


def test_wrong_inputs_are_named() -> None:
    parts, x = crossed(), ramp(4)
    with pytest.raises(InputError, match="input 'x' is not given"):
        run_partitions(parts, EXCHANGE, {})
    with pytest.raises(InputError, match="no input 'z'; it has x"):
        run_partitions(parts, EXCHANGE, {"x": x, "z": x})
    with pytest.raises(InputError, match=r"'x' is float64\[4\]; the model takes float32\[4\]"):
        run_partitions(parts, EXCHANGE, {"x": x.astype(np.float64)})
    with pytest.raises(InputError, match="2 partitions, 1 are given"):
        run_partitions(parts[:1], EXCHANGE, {"x": x})
    with pytest.raises(InvariantError, match=r"fpga0 \(rank 0\): input x is in the partition, not in the plan"):
        run_partitions(parts, plan(2, [boxes("x", (4,), {1: "2:4"})], list(EXCHANGE.outputs)), {"x": x})


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("t = @Send <dst=1, tag=0> (x, start) token = @Send <dst=1, tag=1> (x, start)", "take the same token"),
        ("token = @Send <dst=1, tag=0> (x, start) z = Neg (token)", "reads the token"),
    ],
)
def test_tokens_that_do_not_order(lines: str, message: str) -> None:
    part = partition(f"g (float[2] x) => (float[2] y) {{ y = Relu (x) {lines} }}")
    with pytest.raises(InvariantError, match=message):
        cut(part)


def test_metadata_that_is_malformed() -> None:
    part = partition("g (float[2] x) => (float[2] y) { y = Relu (x) }", {"y": "y[0-2]"})
    with pytest.raises(InvariantError, match="metadata of y: ValueError"):
        run_partitions([part], plan(1, [boxes("x", (2,), 0)], [boxes("y", (2,), 0)]), {"x": ramp(2)})


@pytest.mark.parametrize("prepack", [False, True])
def test_large_weights_in_a_file_are_used_in_place_and_stay_right(prepack: bool, tmp_path) -> None:
    # ONNX Runtime moves the Transposes through the Add by transposing w, which it must not do in the caller's memory.
    extent = 300
    part = partition(f"""g (float[{extent},{extent}] x) => (float[{extent},{extent}] y) <float[1] w = {{1.}}> {{
        a = Transpose <perm = [1, 0]> (x)  b = Add (a, w)  y = Transpose <perm = [1, 0]> (b) }}""")
    w = ramp(extent, extent)
    part.graph.initializers["w"].const_value = ir.tensor(w, name="w")
    part.graph.initializers["w"].shape = ir.Shape(w.shape)
    for value in (v for node in part.graph for v in node.outputs):
        value.shape = ir.Shape((extent, extent))
    ir.save(part, tmp_path / "p.onnx", external_data="p.onnx.data")
    single = plan(1, [boxes("x", w.shape, 0)], [boxes("y", w.shape, 0)])
    options = ExecutorOptions(prepack=prepack, optimization="all")
    result = run_partitions([tmp_path / "p.onnx"], single, {"x": np.zeros_like(w)}, options=options)
    np.testing.assert_array_equal(result.outputs["y"], w.T)
    np.testing.assert_array_equal(ir.load(tmp_path / "p.onnx").graph.initializers["w"].const_value.numpy(), w)
