"""Strategies as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_onnx.errors import InputError
from mars_onnx.sharding.strategy import (
    AUTO,
    SINGLE,
    WHOLE,
    Placement,
    Resolution,
    Ring,
    Split,
    Strategy,
    parse_strategy,
)


@pytest.mark.parametrize(
    ("text", "strategy"),
    [
        ("whole", WHOLE),
        ("single", SINGLE),
        (" auto ", AUTO),
        ("ES(H=4)", Strategy(Placement.SHARDED, (Split("H", (1, 1, 1, 1)),))),
        ("ES(Cout=2,H=3:2:2)", Strategy(Placement.SHARDED, (Split("Cout", (1, 1)), Split("H", (3, 2, 2))))),
        ("ES(*=2,H=4)", Strategy(Placement.SHARDED, (Split("*", (1, 1)), Split("H", (1, 1, 1, 1))))),
        ("SS(weight)", Strategy(Placement.SHARDED, ring=Ring("weight"))),
        ("SS(weight@Cin)", Strategy(Placement.SHARDED, ring=Ring("weight", "Cin"))),
        (
            "ES(K=2) reduce-scatter(M)",
            Strategy(Placement.SHARDED, (Split("K", (1, 1)),), None, Resolution.REDUCE_SCATTER, "M"),
        ),
        (
            "ES(K=2) SS(input) deferred",
            Strategy(Placement.SHARDED, (Split("K", (1, 1)),), Ring("input"), Resolution.DEFERRED),
        ),
    ],
)
def test_what_a_text_means(text: str, strategy: Strategy) -> None:
    assert parse_strategy(text) == strategy
    assert str(strategy) == text.strip()


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("ES( H = 2 , W=2)", "ES(H=2,W=2)"),
        ("SS(weight)  ES(H=2)", "ES(H=2) SS(weight)"),
        ("ES(K=2) all-reduce", "ES(K=2)"),
        ("ES(H=5:5)", "ES(H=2)"),
        ("all-reduce", "whole"),
        ("ES(Cout=4,*=2)", "ES(Cout=4)"),
        ("ES(Cout=4,*=2) SS(weight)", "ES(Cout=4) SS(weight)"),
        ("ES(*=1,Cout=4)", "ES(Cout=4)"),
        ("ES(*=2)", "whole"),
        ("ES(*=2) SS(weight)", "SS(weight)"),
        ("ES(*=2) deferred", "deferred"),
    ],
)
def test_ways_to_write_the_same(text: str, same: str) -> None:
    assert str(parse_strategy(text)) == same


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        ("ES", "unknown term"),
        ("ES()", "AXIS=COUNT"),
        ("ES(H)", "AXIS=COUNT"),
        ("ES(H=)", "AXIS=COUNT"),
        ("ES(H=-1)", "AXIS=COUNT"),
        ("ES(H=2,H=2)", "axis H is split twice"),
        ("ES(H=2) ES(W=2)", "ES stands twice"),
        ("ES(*=2,H=2,*=2)", "* stands twice"),
        ("ES(*=2:1,H=2)", "replicas have no shares"),
        ("ES(*=0,H=2)", "between 1 and"),
        ("ES(**=2)", "AXIS=COUNT"),
        ("ES(H=2) reduce-scatter(*)", "unknown term"),
        ("SS(*)", "SS takes an operand"),
        ("ES(H=0)", "between 1 and"),
        ("ES(H=0:0)", "between 1 and"),
        ("ES(H=99999)", "between 1 and"),
        ("ES(H=12345678901)", "too large"),
        ("ES(H=²)", "AXIS=COUNT"),
        ("SS(weight@)", ""),
        ("SS()", "SS takes an operand"),
        ("SS(weight@Cin@H)", "SS takes an operand"),
        ("ES(H=2", "cannot read"),
        ("ES(H=2)SS(weight)", "cannot read"),
        ("all-reduce deferred", "stands twice"),
        ("reduce-scatter", "unknown term"),
        ("whole ES(H=2)", "unknown term"),
    ],
)
def test_what_is_no_strategy(text: str, why: str) -> None:
    if text == "SS(weight@)":
        assert str(parse_strategy(text)) == "SS(weight)"
        return
    with pytest.raises(InputError, match="a strategy is whole, single, auto") as error:
        parse_strategy(text)
    assert why in str(error.value)


names = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,5}", fullmatch=True)
cuts = st.builds(Split, names, st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(any).map(tuple))
splits = cuts | st.integers(1, 4).map(lambda count: Split("*", (1,) * count))


@given(
    st.lists(splits, max_size=3, unique_by=lambda split: split.axis).map(tuple),
    st.none() | st.builds(Ring, names, st.none() | names),
    st.sampled_from(list(Resolution)),
    names,
)
def test_text_and_back(cuts: tuple[Split, ...], ring: Ring | None, resolution: Resolution, axis: str) -> None:
    scatter = axis if resolution is Resolution.REDUCE_SCATTER else None
    strategy = Strategy(Placement.SHARDED, cuts, ring, resolution, scatter)
    text = str(strategy)
    assert str(parse_strategy(text)) == text
    assert parse_strategy(text).ways == strategy.ways


def test_of_replicas_one_way_to_write_them_is_kept() -> None:
    once, twice = Split("*", (1,)), Split("*", (1, 1))
    rows = Split("H", (1, 1))
    assert Strategy(Placement.SHARDED, (once, rows, twice)) == parse_strategy("ES(H=2)")
    assert Strategy(Placement.SHARDED, (twice, rows)).ways == 4
    assert Strategy(Placement.SHARDED, (twice,)) == WHOLE


@given(st.text(max_size=30))
def test_any_text_is_a_strategy_or_a_clear_error(text: str) -> None:
    try:
        parsed = parse_strategy(text)
    except InputError:
        return
    assert parse_strategy(str(parsed)) == parsed
