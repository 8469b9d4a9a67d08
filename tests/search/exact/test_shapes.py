"""Which accelerators can be a set, and in which order shares are dealt out to them."""

from __future__ import annotations

from mars_onnx.search.exact.ways.shapes import Shapes
from tests.search.networks import adaptive_pool


def test_sets_that_differ_in_groups_that_can_be_exchanged_are_alike() -> None:
    """Two of one group and three of the other: whichever group it is, and whoever is used already."""
    shapes = Shapes(adaptive_pool(3, 3))
    found = {
        (used, place.counts): place.members
        for used in ((0, 0), (1, 0), (0, 1))
        for place in shapes.placed(used)
        if sorted(place.counts) == [2, 3]
    }
    assert found == {
        ((0, 0), (3, 2)): (0, 1, 2, 3, 4),
        ((1, 0), (2, 3)): (3, 4, 5, 1, 2),
        ((0, 1), (3, 2)): (0, 1, 2, 4, 5),
    }
    assert len({shapes.likeness(members) for members in found.values()}) == 1
    assert {shapes.levels(members) for members in found.values()} == {(5,)}


def test_groups_of_different_size_stay_in_the_pool_s_order() -> None:
    shapes = Shapes(adaptive_pool(2, 3))
    assert [place.members for place in shapes.placed((0, 0)) if place.counts == (1, 3)] == [(0, 2, 3, 4)]


def test_equal_parts_of_groups_stay_in_the_pool_s_order() -> None:
    shapes = Shapes(adaptive_pool(3, 3))
    (place,) = (place for place in shapes.placed((1, 0)) if place.counts == (2, 2))
    assert place.members == (1, 2, 3, 4)
    assert shapes.levels(place.members) == (2, 2)
