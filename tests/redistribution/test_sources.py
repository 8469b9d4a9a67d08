"""Who gives which piece to whom, and in which order."""

from __future__ import annotations

import random
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_onnx.geometry import Layout
from mars_onnx.redistribution import Collective, Fragment, Pattern, direct_plan
from mars_onnx.redistribution.sources import Holders, in_rounds, index_distance


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


@pytest.mark.parametrize("count", [2, 4, 8])
def test_messages_between_all_keep_everyone_busy(count: int) -> None:
    """Everyone sends to and receives from all others, one message at a time: no order can take fewer rounds."""
    source = Layout((count,), tuple(range(count)), tuple(((rank, rank + 1),) for rank in range(count)))
    plan = direct_plan(source, Layout.replicated((count,), tuple(range(count))))
    split = [
        Collective(Pattern.SEND_RECV, (root, rank), (piece, None), (None, piece))
        for root, piece in enumerate(fragment for c in plan.collectives for fragment in c.inputs if fragment)
        for rank in range(count)
        if rank != root
    ]
    assert len(split) == count * (count - 1)
    assert rounds_of(in_rounds(split)) == 2 * (count - 1)
    assert sorted(in_rounds(split), key=repr) == sorted(split, key=repr)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**40))
def test_messages_are_not_later_than_whoever_they_wait_for(seed: int) -> None:
    """A message is in the first round in which its ranks are free, so there are fewer than twice the rounds needed."""
    chooser = random.Random(seed)
    piece = Fragment(((0, 1),))
    pairs = [tuple(chooser.sample(range(9), 2)) for _ in range(chooser.randint(1, 40))]
    messages = [Collective(Pattern.SEND_RECV, pair, (piece, None), (None, piece)) for pair in pairs]
    busiest = max(sum(rank in pair for pair in pairs) for rank in range(9))
    assert busiest <= rounds_of(in_rounds(messages)) <= 2 * busiest - 1


def rounds_of(messages: list[Collective]) -> int:
    """When the last message is done if each takes one unit of time, and every rank does one after the other."""
    free: dict[int, int] = {}
    for message in messages:
        end = 1 + max(free.get(rank, 0) for rank in message.group)
        free |= dict.fromkeys(message.group, end)
    return max(free.values())
