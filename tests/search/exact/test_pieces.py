"""The table of what an axis can be cut into."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mars_onnx.rules.axes import Axis
from mars_onnx.rules.shares import cut
from mars_onnx.search.exact.strategies.pieces import NO_PIECE, WHOLE_PIECE, pieces_of, place_of


@given(
    size=st.one_of(st.integers(0, 40), st.just(2**33 - 1)),
    granularity=st.integers(1, 5),
    divisible=st.booleans(),
    most=st.integers(1, 9),
)
def test_every_piece_is_at_its_place(size: int, granularity: int, divisible: bool, most: int) -> None:
    axis = Axis("X", size, granularity=granularity, divisible=divisible)
    pieces = pieces_of(axis, most)
    every = list(zip(pieces.low.tolist(), pieces.high.tolist(), strict=True))
    assert every[NO_PIECE] == (0, 0)
    assert every[WHOLE_PIECE] == (0, size)
    assert len(every) == 1 + most * (most + 1) // 2
    assert pieces.empty.tolist() == [low >= high for low, high in every]
    for ways in range(1, most + 1):
        places = place_of(np.asarray(ways), np.arange(ways))
        expected = cut(axis, [1] * ways)
        assert [every[place] for place in places] == expected
        filled = [low < high for low, high in expected]
        assert pieces.count[ways] == max(1, sum(filled))
        assert pieces.rank[places].tolist() == [sum(filled[:digit]) for digit in range(ways)]


def test_smaller_tables_are_how_larger_ones_begin() -> None:
    axis = Axis("X", 12, granularity=2)
    small, large = pieces_of(axis, 4), pieces_of(axis, 9)
    for few, many in ((small.low, large.low), (small.high, large.high)):
        assert many[: len(few)].tolist() == few.tolist()
