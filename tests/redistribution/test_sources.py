"""Who gives which piece to whom."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mars_onnx.redistribution.sources import Holders, index_distance


@given(seed=st.integers(0, 2**32 - 1))
def test_boxes_apart_give_the_same_pieces(seed: int) -> None:
    """Where boxes have nothing in common, pieces are found in a shorter way."""
    rng = np.random.default_rng(seed)
    cuts = [np.unique([0, 12, *rng.integers(1, 12, 3)]).tolist() for _ in range(2)]
    boxes = list(product(*(pairwise(cut) for cut in cuts)))
    held = [(rank, boxes[rng.integers(0, len(boxes))]) for rank in range(10)] + list(enumerate(boxes, 10))
    low, high = rng.integers(0, 8, 2).tolist(), rng.integers(8, 13, 2).tolist()
    need = tuple(zip(low, high, strict=True))
    for rank in (0, 3, 99):
        short, long = Holders(held, index_distance), Holders(held, index_distance)
        long.__dict__["_apart"] = False
        assert short.tile(rank, need) == long.tile(rank, need)
