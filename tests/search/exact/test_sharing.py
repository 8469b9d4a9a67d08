"""Hubs charge takers that share moves what the judge does, or less where more is shared than there are hubs."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from mars_onnx.search.exact.communication.moves import Moves
from mars_onnx.search.exact.one_set.onset import Edge
from mars_onnx.search.exact.one_set.sharing import SharedEdge, Sharing
from tests.search.exact.random_pools import random_pool

_LAYOUTS = 4


def _edge(rng: np.random.Generator) -> Edge:
    """Made-up seconds between layouts; some are there already."""
    moves = Moves(random_pool(0, 2), (8,), 32, (0, 1))
    boxes = [[[(0, place)], [(place, 8)]] for place in range(1, _LAYOUTS + 1)]
    numbers = moves.register(np.asarray(boxes), (0, 1))
    edge = Edge(moves, numbers, numbers, lambda: None)
    edge.seconds = rng.integers(0, 6, (_LAYOUTS, _LAYOUTS)).astype(float)
    return edge


def _charged(sharing: Sharing, taken: list[SharedEdge], entered: int, needs: tuple[int, ...]) -> float:
    """The least that the tables charge for these needs."""
    sources = sharing.bond(0, 1).values[entered]
    every = [edge.seconds[:, need] for edge, need in zip(taken, needs, strict=True)]
    return float((sharing.seconds()[entered] + sum(own[sources].min(axis=-1) for own in every)).min())


@pytest.mark.parametrize("most", [1, 2])
@pytest.mark.parametrize("takers", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("seed", range(3))
def test_what_takers_share(takers: int, most: int, seed: int) -> None:
    edge = _edge(np.random.default_rng(seed))
    layouts = np.arange(_LAYOUTS)
    sharing = Sharing(takers, layouts, layouts, edge, min(most, takers // 2))
    taken = [SharedEdge(sharing, edge, layouts) for _ in range(takers)]
    assert len(taken[0].seconds) == sharing.sources
    assert sharing.seconds().shape == (_LAYOUTS, sharing.states)
    for entered, *needs in product(range(_LAYOUTS), repeat=takers + 1):
        exact = sum(edge.seconds[entered, need] for need in set(needs))
        found = _charged(sharing, taken, entered, tuple(needs))
        if takers < 2 * (most + 1):
            assert found == exact
        else:
            assert found <= exact
            moved = [need for need in needs if edge.seconds[entered, need] > 0]
            if sharing.pairs and len(moved) < takers:
                # With somebody who has all that it needs there are not so many pairs.
                assert found == exact


def test_of_too_few_layouts_no_more_are_shared() -> None:
    edge = _edge(np.random.default_rng(0))
    sharing = Sharing(4, np.arange(_LAYOUTS), np.arange(1), edge, 1)
    assert not sharing.open
