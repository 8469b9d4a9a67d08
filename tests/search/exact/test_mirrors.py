"""Mirror images: what a part of a table of layouts says of the rest."""

from __future__ import annotations

import random

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_onnx.rules.base import TensorType
from mars_onnx.search.exact.communication.mirrors import fold, mirrors
from mars_onnx.search.exact.one_set.onset import SetLayouts
from mars_onnx.search.exact.ways.shapes import Shapes
from tests.search.exact.random_pools import random_pool
from tests.search.exact.signatures import random_signature


def test_axes_of_equal_size_can_be_exchanged() -> None:
    assert mirrors((1, 64, 8, 8)) == ((0, 1, 3, 2),)
    assert mirrors((1, 64, 8, 7)) == ()
    # Axes that nobody can cut do not count.
    assert mirrors((1, 1, 8, 4)) == ()
    assert len(mirrors((8, 8, 8))) == 5


def test_rows_that_are_images_of_rows_before_them_are_not_worked_out() -> None:
    """Layouts 0 and 1 are images of each other, as are 2 and 3; 4 is its own, and of 5 nobody knows one."""
    image = np.array([1, 0, 3, 2, 4, -1])
    sources, targets = np.array([0, 1, 4, 5, 3]), np.array([2, 5, 3, 4])
    found = fold(image, sources, targets)
    assert found is not None
    assert (found.rows.tolist(), found.of.tolist()) == ([1], [0])
    assert (found.columns.tolist(), found.images.tolist()) == ([0, 2, 3], [2, 0, 3])
    unlike = np.ones((5, 4), np.bool_)
    found.part(unlike)
    assert np.argwhere(~unlike).tolist() == [[1, 0], [1, 2], [1, 3]]
    table = np.array([[10.0, 11, 12, 13], [0, 21, 0, 0], *np.full((3, 4), 7.0)])
    found.unfold(table)
    assert table[1].tolist() == [12, 21, 10, 13]


def test_a_row_may_be_there_several_times() -> None:
    found = fold(np.array([1, 0]), np.array([0, 1, 0, 1]), np.array([0, 1]))
    assert found is not None
    # What it is an image of is worked out.
    assert (found.rows.tolist(), found.of.tolist()) == ([3], [2])


@pytest.mark.parametrize(("sources", "targets"), [([0, 2], [0, 1]), ([0, 1], [0, 2])])
def test_nothing_to_fold(sources: list[int], targets: list[int]) -> None:
    assert fold(np.array([1, 0, -1]), np.array(sources), np.array(targets)) is None


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_bounds_of_images_are_the_same_one_by_one(seed: int) -> None:
    rng = random.Random(seed)
    size = rng.choice([4, 6, 8])
    pool = random_pool(seed, size)
    members = tuple(range(size))
    on = SetLayouts(pool, members, Shapes(pool).levels(members))
    square = TensorType(ir.DataType.FLOAT, (1, rng.choice([4, 6]), *[rng.choice([6, 8])] * 2))
    signature = random_signature(rng, square)
    following = random_signature(rng, signature.outputs[0])
    kind, made, needed = signature.outputs[0], on.layer(signature).outs[0], on.needs(following, 0)
    assert kind is not None
    assert made is not None
    assert needed is not None
    moves, sources, targets = on.moves(kind), np.unique(made), np.unique(needed)
    together = moves.bounds(sources, targets)
    for _ in range(8):
        row, column = rng.randrange(len(sources)), rng.randrange(len(targets))
        alone = moves.bounds(sources[[row]], targets[[column]])
        assert alone[0, 0] == pytest.approx(together[row, column], rel=1e-12)
