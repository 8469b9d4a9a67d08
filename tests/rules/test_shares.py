"""Cutting axes and evaluating maps for many members at once."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_onnx.rules.axes import Along, Axis, Whole, Window
from mars_onnx.rules.shares import boxes, cut, cut_equally


@pytest.mark.parametrize(
    ("axis", "shares", "expected"),
    [
        (Axis("H", 10), [1, 1, 1], [(0, 4), (4, 7), (7, 10)]),
        (Axis("H", 2), [1, 1, 1], [(0, 1), (1, 2), (2, 2)]),
        (Axis("H", 8), [3, 1], [(0, 6), (6, 8)]),
        (Axis("H", 8), [0, 1], [(0, 0), (0, 8)]),
        (Axis("C", 12, granularity=4), [1, 1], [(0, 8), (8, 12)]),
        (Axis("C", 12, granularity=4), [1, 1, 1, 1], [(0, 4), (4, 8), (8, 12), (12, 12)]),
        (Axis("C", 8, granularity=4, divisible=True), [1, 1, 1, 1], [(0, 2), (2, 4), (4, 6), (6, 8)]),
        (Axis("C", 8, granularity=4, divisible=True), [3, 1, 1, 1], [(0, 3), (3, 4), (4, 6), (6, 8)]),
        (Axis("C", 8, granularity=4, divisible=True), [1, 1, 1], [(0, 4), (4, 8), (8, 8)]),
        (Axis("C", 10, granularity=4), [1, 1], [(0, 8), (8, 10)]),
    ],
)
def test_cut(axis: Axis, shares: list[int], expected: list[tuple[int, int]]) -> None:
    assert cut(axis, shares) == expected


def test_cut_rejects_nothing_to_divide_by() -> None:
    with pytest.raises(ValueError, match="cannot cut H"):
        cut(Axis("H", 3), [0, 0])


@given(
    size=st.integers(1, 60),
    granularity=st.integers(1, 8),
    divisible=st.booleans(),
    shares=st.lists(st.integers(0, 5), min_size=1, max_size=9).filter(any),
)
def test_cut_covers_in_order(size: int, granularity: int, divisible: bool, shares: list[int]) -> None:
    axis = Axis("X", size * granularity, granularity=granularity, divisible=divisible)
    ranges = cut(axis, shares)
    assert len(ranges) == len(shares)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == axis.size
    assert all(first[1] == second[0] for first, second in pairwise(ranges))
    assert all(low <= high for low, high in ranges)
    if size >= len(shares):
        assert all(low % granularity == 0 for low, _ in ranges)
        if len(set(shares)) == 1:
            widths = {high - low for low, high in ranges}
            assert max(widths) - min(widths) <= granularity


@given(
    sizes=st.lists(st.integers(0, 70), min_size=1, max_size=5),
    granularity=st.integers(1, 8),
    divisible=st.booleans(),
    parts=st.integers(1, 16),
)
def test_cut_equally_is_cut_for_many_at_once(sizes: list[int], granularity: int, divisible: bool, parts: int) -> None:
    axis = Axis("X", 1, granularity=granularity, divisible=divisible)
    low, high = cut_equally(axis, np.asarray(sizes)[:, None], np.asarray(parts), np.arange(parts))
    found = [list(zip(*own, strict=True)) for own in zip(low.tolist(), high.tolist(), strict=True)]
    assert found == [cut(replace(axis, size=size), [1] * parts) for size in sizes]


def test_boxes_of_a_mesh_at_once() -> None:
    dims = (Along("C"), Window("H", None, 3, 1, 1, 1, 8), Whole(5))
    rows = np.asarray([[0, 0], [4, 4]]), np.asarray([[4, 4], [8, 8]])
    channels = np.asarray([[0, 2], [0, 2]]), np.asarray([[2, 4], [2, 2]])
    assert boxes(dims, {"C": channels, "H": rows}, (2, 2)) == [
        ((0, 2), (0, 5), (0, 5)),
        ((2, 4), (0, 5), (0, 5)),
        ((0, 2), (3, 8), (0, 5)),
        None,
    ]


def test_an_empty_axis_leaves_nothing_even_where_the_window_would_reach() -> None:
    window = Window("H", None, 3, 1, 1, 1, 8)
    assert boxes((window,), {"H": (np.asarray(4), np.asarray(4))}) == [None]


def test_a_scalar_has_a_box_of_its_own() -> None:
    ranges = {"N": (np.asarray([0, 2]), np.asarray([2, 2]))}
    assert boxes((), ranges, (2,)) == [(), None]
