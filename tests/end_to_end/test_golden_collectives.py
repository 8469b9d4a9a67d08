"""A small model, a mapping, and the communication that a person who knows the subject expects, read from the files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from mars_onnx.comm import Communication, communication_of, is_communication
from mars_onnx.comm.domain import DOMAIN
from mars_onnx.compiler import compile
from mars_onnx.geometry import parse_box
from mars_onnx.pool.topology import Pool
from mars_onnx.runtime.segments import communication_order
from tests.passes.onnx_text import model
from tests.pool_factory import pool_of

TWO_CONVOLUTIONS = (
    """(float[1,8,8,8] x) => (float[1,8,8,8] z) {
    [first] y = Conv <pads = [1,1,1,1]> (x, w)
    [second] z = Conv <pads = [1,1,1,1]> (y, v)
}""",
    {"w": (8, 8, 3, 3), "v": (8, 8, 3, 3)},
)
TWO_PRODUCTS = (
    """(float[8,16] x) => (float[8,16] z) {
    [first] y = MatMul (x, w)
    [second] z = MatMul (y, v)
}""",
    {"w": (16, 16), "v": (16, 16)},
)


@dataclass
class Files:
    """An output folder."""

    folder: Path
    pool: Pool

    def __getitem__(self, name: str) -> ir.Model:
        return ir.load(self.folder / f"{name}.onnx")

    @cached_property
    def models(self) -> dict[str, ir.Model]:
        return {accelerator.id: self[accelerator.id] for accelerator in self.pool.accelerators}

    def json(self, name: str) -> dict[str, object]:
        return json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))

    def communication(self) -> dict[int, dict[int, Communication]]:
        """Per tag, per rank, the operator in its file; tags in ascending order."""
        found: dict[int, dict[int, Communication]] = {}
        for rank, partition in enumerate(self.models.values()):
            for node in communication_order(partition.graph):
                operator = communication_of(node)
                found.setdefault(operator.tag, {})[rank] = operator
        return dict(sorted(found.items()))

    def kinds(self) -> list[str]:
        """The communication in its order, as ``AllGather(0,1,2,3)``; a Send and its Recv as ``Send(0) Recv(1)``."""
        lines = []
        for members in self.communication().values():
            operators = list(members.items())
            if operators[0][1].op_type in ("Send", "Recv"):
                lines.append(" ".join(f"{operator.op_type}({rank})" for rank, operator in operators))
            else:
                (text,) = {f"{o.op_type}({','.join(map(str, o.ranks(rank)))})" for rank, o in operators}
                lines.append(text)
        return lines


def compiled(
    tmp_path: Path, written: tuple[str, dict[str, tuple[int, ...]]], pool: Pool, *sets: tuple[Sequence[int], dict]
) -> Files:
    """Compile a model with the strategies given per set of ranks, verify deeply, and save."""
    entries = [
        {"accelerators": [pool.accelerators[rank].id for rank in ranks], "layers": layers} for ranks, layers in sets
    ]
    mapping = tmp_path / "mapping.json"
    mapping.write_text(json.dumps({"schema": "mars-onnx/mapping/1", "sets": entries}), encoding="utf-8")
    compilation = compile(model(*written), pool, mapping=mapping)
    compilation.verify(deep=True).raise_if_failed()
    compilation.save(tmp_path / "out")
    return Files(tmp_path / "out", pool)


FOUR = (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("written", "first", "second", "expected"),
    [
        # A 3x3 window reaches one row into the neighbours.
        (TWO_CONVOLUTIONS, "ES(H=4)", "ES(H=4)", ["HaloExchange(0,1,2,3)"]),
        # On a mesh, each dimension on its own: first along the rows, then along the columns, corners included.
        (TWO_CONVOLUTIONS, "ES(H=2,W=2)", "ES(H=2,W=2)", ["HaloExchange"] * 4),
        # Every output channel needs all input channels.
        (TWO_CONVOLUTIONS, "ES(Cout=4)", "ES(Cout=4)", ["AllGather(0,1,2,3)"]),
        # Column-parallel, then row-parallel: nothing between, one reduction at the end.
        (TWO_PRODUCTS, "ES(N=4)", "ES(K=4)", ["AllReduce(0,1,2,3)"]),
        (TWO_CONVOLUTIONS, "ES(Cout=4)", "ES(Cin=4)", ["AllReduce(0,1,2,3)"]),
        # Reduced, and each keeps a piece.
        (TWO_PRODUCTS, "ES(K=4) reduce-scatter(N)", "ES(K=4)", ["ReduceScatter(0,1,2,3)", "AllReduce(0,1,2,3)"]),
        # Partial sums that are left to who needs them in pieces.
        (TWO_PRODUCTS, "ES(K=4) deferred", "ES(M=4)", ["ReduceScatter(0,1,2,3)"]),
        # From rows to columns.
        (TWO_PRODUCTS, "ES(M=4)", "ES(K=4)", ["AllToAll(0,1,2,3)", "AllReduce(0,1,2,3)"]),
        # Shared shards: three phases of passing on, in both layers.
        (TWO_PRODUCTS, "ES(M=4) SS(weight)", "ES(M=4)", ["Shift(0,1,2,3)"] * 3),
        # Two rings of two.
        (TWO_PRODUCTS, "ES(M=2,N=2) SS(weight)", "ES(M=2,N=2)", ["Shift(0,2)", "Shift(1,3)", "AllGather", "AllGather"]),
        # One has it, all need it.
        (TWO_PRODUCTS, "single", "ES(N=4)", ["Broadcast(0,1,2,3)"]),
        # Nothing to do.
        (TWO_PRODUCTS, "ES(M=4)", "ES(M=4)", []),
        (TWO_PRODUCTS, "whole", "ES(N=4)", []),
        # A tensor of partial sums on a mesh: only the rows reduce.
        (TWO_PRODUCTS, "ES(M=2,K=2)", "ES(M=2,N=2)", ["AllReduce(0,1)", "AllReduce(2,3)"]),
    ],
)
def test_the_expected_collectives(tmp_path: Path, written, first: str, second: str, expected: list[str]) -> None:
    files = compiled(tmp_path, written, pool_of(4), (FOUR, {"first": first, "second": second}))
    kinds = files.kinds()
    assert len(kinds) == len(expected)
    assert all(kind.startswith(wanted) for kind, wanted in zip(kinds, expected, strict=True)), kinds


def test_batch_to_channels_is_all_to_all(tmp_path: Path) -> None:
    text = """(float[4,8,5,5] x) => (float[4,8,5,5] z) {
    [first] y = Relu (x)
    [second] z = Conv <group = 8> (y, v)
}"""
    files = compiled(
        tmp_path, (text, {"v": (8, 1, 1, 1)}), pool_of(4), (FOUR, {"first": "ES(N=4)", "second": "ES(Cout=4)"})
    )
    assert files.kinds() == ["AllToAll(0,1,2,3)"]


def test_between_sets_there_are_messages(tmp_path: Path) -> None:
    """Rows stay rows: each member of the first set sends its rows to one of the second."""
    files = compiled(
        tmp_path, TWO_PRODUCTS, pool_of(2, 2), ((0, 1), {"first": "ES(M=2)"}), ((2, 3), {"second": "ES(M=2)"})
    )
    assert files.kinds() == ["Send(0) Recv(2)", "Send(1) Recv(3)"]
    assert [entry["bytes"] for entry in files.json("plan")["communication"]] == [4 * 16 * 4] * 2


def test_bytes_of_the_usual_collectives(tmp_path: Path) -> None:
    """8 rows of 8 x 8 floats: a halo of one row each way at three borders; an all-reduce as a ring does it."""
    layers = {"first": "ES(H=4)", "second": "ES(H=4)"}
    halo = compiled(tmp_path, TWO_CONVOLUTIONS, pool_of(4), (FOUR, layers)).json("plan")["communication"]
    assert [entry["bytes"] for entry in halo] == [2 * 3 * 8 * 8 * 4]
    layers = {"first": "whole", "second": "ES(Cin=4)"}
    other = tmp_path / "other"
    other.mkdir()
    reduced = compiled(other, TWO_CONVOLUTIONS, pool_of(4), (FOUR, layers)).json("plan")["communication"]
    assert [entry["bytes"] for entry in reduced] == [2 * 3 * 8 * 8 * 8 * 4]


NETWORK = (
    """(float[2,6,9,9] x) => (float[2,10] z, float[2,8,9,9] b) {
    [stem] a = Conv <pads = [1,1,1,1]> (x, w)
    [relu] b = Relu (a)
    [left] c = Conv <pads = [1,1,1,1]> (b, v)
    [right] d = Conv (b, u)
    [join] e = Concat <axis = 1> (c, d)
    [pool] f = GlobalAveragePool (e)
    [flat] g = Flatten (f)
    [fc] z = Gemm (g, m, n)
}""",
    {"w": (8, 6, 3, 3), "v": (4, 8, 3, 3), "u": (4, 8, 1, 1), "m": (8, 10), "n": (10,)},
)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A network with two branches over two sets, one of them with rings."""
    return compiled(
        tmp_path_factory.mktemp("network"),
        NETWORK,
        pool_of(3, 2),
        ((0, 1, 2), {"stem": "ES(H=3)", "relu": "ES(H=3)", "left": "ES(H=3) SS(weight)", "join": "ES(C=3)"}),
        ((3, 4), {"right": "ES(Cin=2) deferred", "pool": "ES(N=2)", "flat": "ES(D0=2)", "fc": "ES(K=2)"}),
    )


def moved_bytes(members: dict[int, Communication], sizes: dict[int, int]) -> int:
    """Bytes that reach all members of one communication together, from the files alone."""
    rank, operator = next(iter(members.items()))
    count = len(operator.ranks(rank))
    match operator.op_type:
        case "Send" | "Recv":
            return max(sizes.values())
        case "AllReduce":
            # As a ring does it: a member gets all but its own piece of the sums, then of the results.
            return sum(2 * (count - 1) * size // count for size in sizes.values())
        case "AllToAll":
            sizes_given = operator.concat_sizes  # type: ignore[attr-defined]
            own = (size * given // sum(sizes_given) for size, given in zip(sizes.values(), sizes_given, strict=True))
            return sum(sizes.values()) - sum(own)
        case "ReduceScatter":
            return (count - 1) * sum(sizes.values())
        case "AllGather":
            return (count - 1) * next(iter(sizes.values()))
        case "Shift":
            return sum(sizes.values())
        case "Broadcast":
            return (count - 1) * next(iter(sizes.values()))
        case "HaloExchange":
            held, need = operator.held, operator.need  # type: ignore[attr-defined]
            rows = operator.shape[operator.axis]  # type: ignore[attr-defined]
            lacking = 0
            for i in range(count):
                start, stop = max(held[2 * i], need[2 * i]), min(held[2 * i + 1], need[2 * i + 1])
                lacking += need[2 * i + 1] - need[2 * i] - max(0, stop - start)
            return lacking * (next(iter(sizes.values())) // rows)
    raise AssertionError(f"count {operator.op_type} too")


def received_sizes(files: Files, tag: int) -> dict[int, int]:
    """Per member of a communication the bytes of its result (of a Send: none)."""
    sizes: dict[int, int] = {}
    for rank, partition in enumerate(files.models.values()):
        for node in communication_order(partition.graph):
            if communication_of(node).tag == tag:
                y = node.outputs[0]
                given = communication_of(node).gives_data
                sizes[rank] = prod(y.shape.numpy()) * y.dtype.bitwidth // 8 if given else 0
    return {rank: sizes[rank] for rank in files.communication()[tag][min(sizes)].ranks(min(sizes))}


def test_plan_and_report_say_what_the_files_do(network: Files) -> None:
    plan, report = network.json("plan"), network.json("report")
    files = network.communication()
    names = [accelerator.id for accelerator in network.pool.accelerators]
    assert [entry["tag"] for entry in plan["communication"]] == list(files)
    for entry, reported, members in zip(plan["communication"], report["communication"], files.values(), strict=True):
        rank, operator = next(iter(members.items()))
        assert entry["op"] == {"Send": "SendRecv", "Recv": "SendRecv"}.get(operator.op_type, operator.op_type)
        assert sorted(entry["group"]) == sorted(operator.ranks(rank)) == sorted(members)
        assert reported["group"] == [names[rank] for rank in entry["group"]]
        assert (reported["op"], reported["tensor"]) == (entry["op"], entry["tensor"])
        counted = moved_bytes(members, received_sizes(network, entry["tag"]))
        assert reported["bytes"] == entry["bytes"] == counted, entry


def test_one_global_order_and_one_chain_of_tokens(network: Files) -> None:
    for partition in network.models.values():
        nodes = [node for node in partition.graph if is_communication(node)]
        tags = [communication_of(node).tag for node in nodes]
        assert tags == sorted(tags)
        token = "mars.token.start"
        for node in nodes:
            assert node.inputs[-1].name == token
            token = node.outputs[-1].name
        assert partition.graph.outputs[-1].name == token == "mars.token"


def test_nodes_and_values_say_where_they_come_from(network: Files) -> None:
    canonical = ir.load(network.folder / "annotated.onnx").graph
    layers = {node.name: node for node in canonical}
    shapes = {v.name: v.shape.numpy() for n in canonical for v in n.outputs} | {"x": (2, 6, 9, 9)}
    for rank, (name, partition) in enumerate(network.models.items()):
        facts = partition.metadata_props
        assert (facts["mars.accelerator"], facts["mars.rank"]) == (name, str(rank))
        assert (facts["mars.set"], facts["mars.design"]) == ("0" if rank < 3 else "1", "cpu_avx2")
        assert partition.graph.name == f"graph.{name}.set{facts['mars.set']}.cpu_avx2"
        for node in partition.graph:
            origin = node.metadata_props.get("mars.source")
            if origin is not None:
                assert node.metadata_props["mars.strategy"] == layers[origin].metadata_props["mars.strategy"]
            else:
                assert node.metadata_props["mars.tensor"] in (*shapes, *canonical.initializers), node.name
            for value in node.outputs:
                box = value.metadata_props.get("mars.box")
                if box is not None:
                    extents = tuple(stop - start for start, stop in parse_box(box) or ())
                    assert extents == value.shape.numpy()
                    assert len(extents) == len(shapes[value.metadata_props["mars.source"]])


def test_every_edge_has_type_and_shape_in_the_file(network: Files) -> None:
    for name in network.models:
        proto = onnx.load(network.folder / f"{name}.onnx")
        known = {info.name for info in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output)}
        made = {value for node in proto.graph.node for value in node.output if value}
        assert made <= known
        assert {function.domain for function in proto.functions} == {DOMAIN}
