"""The simple rule: who computes, how fast accelerators get more, and what a written mapping leaves open."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from mars_onnx.cost.shares import share_seconds
from mars_onnx.errors import UsageError
from mars_onnx.pool.loader import load_pool
from mars_onnx.rules.registry import rule_for
from mars_onnx.rules.signature import signature_of
from mars_onnx.search.candidates import candidates
from mars_onnx.search.greedy import fill_in, greedy_mapping
from mars_onnx.search.problem import Problem, Source, problem_of
from mars_onnx.search.registry import search_method
from mars_onnx.sharding.mapping import AcceleratorSet, LayerChoice, Mapping
from mars_onnx.sharding.strategy import AUTO, WHOLE, Placement, parse_strategy

TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[1,16,64,64] x, float[32,16,3,3] w, float[32,32,3,3] v) => (float[1,32,64,64] z)
{
    [first] y = Conv <pads = [1,1,1,1]> (x, w)
    [middle] r = Relu (y)
    [last] z = Conv <pads = [1,1,1,1]> (r, v)
}"""


@pytest.fixture
def problem() -> Problem:
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(TEXT)))
    return problem_of(model)


def test_problem(problem: Problem) -> None:
    assert [layer.name for layer in problem.layers] == ["first", "middle", "last"]
    assert problem.layers[0].sources[0] == Source(None, 0)
    assert problem.layers[2].sources[0] == Source(1, 0)
    assert problem.layers[0].signature.op_type == "Conv"


@pytest.mark.parametrize("name", ["fpga_pool", "mixed_pool", "edge_pool"])
def test_every_accelerator_is_in_a_set(problem: Problem, name: str) -> None:
    pool = load_pool(name)
    mapping = greedy_mapping(problem, pool)
    members = [rank for own in mapping.sets for rank in own.members]
    assert sorted(members) == list(range(pool.size))
    assert [choice.name for choice in mapping.layers] == ["first", "middle", "last"]
    assert all(choice.strategy.placement is not Placement.AUTO for choice in mapping.layers)
    assert mapping == greedy_mapping(problem, pool)


def test_faster_accelerators_get_more(problem: Problem) -> None:
    pool = load_pool("mixed_pool")
    everyone = tuple(range(pool.size))
    designs = tuple(accelerator.designs[0].name for accelerator in pool.accelerators)
    signature = problem.layers[0].signature
    alone = [share_seconds(pool, signature, WHOLE, (rank,), designs[rank : rank + 1])[0] for rank in everyone]
    open_ = Mapping((AcceleratorSet(everyone, designs),), (LayerChoice("first", 0, AUTO),))
    (choice,) = fill_in(Problem(problem.layers[:1]), pool, open_).layers
    (split,) = choice.strategy.splits
    by_speed = sorted(everyone, key=lambda rank: alone[rank])
    assert [split.shares[rank] for rank in by_speed] == sorted(split.shares, reverse=True)
    assert len(set(split.shares)) > 1
    assert max(share_seconds(pool, signature, choice.strategy, everyone, designs)) <= max(alone)


def test_what_is_written_stays(problem: Problem) -> None:
    pool = load_pool("edge_pool")
    designs = tuple(accelerator.designs[0].name for accelerator in pool.accelerators)
    written = Mapping(
        (AcceleratorSet((0, 1), designs),),
        (
            LayerChoice("first", 0, parse_strategy("ES(Cout=2)")),
            LayerChoice("middle", 0, AUTO),
            LayerChoice("last", 0, parse_strategy("ES(W=2)")),
        ),
    )
    filled = fill_in(problem, pool, written)
    assert [str(choice.strategy) for choice in filled.layers] == ["ES(Cout=2)", "ES(C=2)", "ES(W=2)"]
    assert fill_in(problem, pool, filled) is filled


def test_candidates_apply(problem: Problem) -> None:
    signature = problem.layers[0].signature
    found = [str(strategy) for strategy in candidates(signature, (0, 1, 2, 3), (1, 1, 1, 1))]
    assert found[0] == "whole"
    assert {"ES(Cout=4)", "ES(H=4)", "ES(W=4)", "ES(Cin=4)", "ES(Cout=2,H=2)"} <= set(found)
    assert "ES(N=4)" not in found  # a batch of one
    assert [str(strategy) for strategy in candidates(signature, (0,), (1,))] == ["whole"]
    names = {axis.name for axis in rule_for(signature).axes}
    assert all(split.axis in names for s in candidates(signature, (0, 1), (3, 1)) for split in s.splits)


def test_unknown_method() -> None:
    with pytest.raises(UsageError, match=r"no search method is called 'magic'; there are .*greedy"):
        search_method("magic")


def test_signature_is_read_from_the_graph() -> None:
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(TEXT)))
    assert problem_of(model).layers[1].signature == signature_of(model.graph[1])
