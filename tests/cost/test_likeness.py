"""Of groups that are alike, one is priced for all: each of them by itself has to take as long."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest

from mars_onnx.cost import Interconnect
from mars_onnx.cost.transfers import likeness
from mars_onnx.pool import Pool, load_pool
from mars_onnx.redistribution.plan import Collective, Fragment, Pattern
from tests.search.exact.random_pools import random_pool

Group = tuple[int, ...]


def collectives(group: Group, seed: int) -> list[Collective]:
    """Of every kind one, of the same pieces for all groups of one size."""
    rng = np.random.default_rng(seed)
    cuts = [0, *np.cumsum(rng.integers(1, 1000, len(group))).tolist()]
    whole, half = (0, cuts[-1]), (0, 64)
    pieces = tuple(Fragment(((low, high), half)) for low, high in pairwise(cuts))
    all_of_it = (Fragment((whole, half)),) * len(group)
    wider = tuple(Fragment(((max(0, low - 3), min(high + 5, cuts[-1])), half)) for low, high in pairwise(cuts))
    nothing = (None,) * (len(group) - 1)
    return [
        Collective(Pattern.ALL_GATHER, group, pieces, all_of_it, axis=0),
        Collective(Pattern.ALL_REDUCE, group, all_of_it, all_of_it),
        Collective(Pattern.REDUCE_SCATTER, group, all_of_it, pieces, axis=0),
        Collective(Pattern.HALO_EXCHANGE, group, pieces, wider, axis=0),
        Collective(Pattern.BROADCAST, group, (pieces[0], *nothing), (pieces[0],) * len(group)),
        Collective(Pattern.SHIFT, group, pieces, (pieces[-1], *pieces[:-1]), offset=1),
        Collective(Pattern.SEND_RECV, group[:2], (pieces[0], None), (None, pieces[0])),
    ]


def check(pool: Pool, groups: list[Group]) -> int:
    """Price groups that are alike each by itself; how many there were."""
    found: dict[object, list[float]] = {}
    alike = 0
    for group in groups:
        alone = Interconnect(pool)
        seconds = [alone.collective(own, 4) for own in collectives(group, seed=len(group))]
        key = likeness(pool, group)
        alike += key in found
        assert found.setdefault(key, seconds) == seconds, (group, key)
    return alike


def test_random_pools() -> None:
    groups = [own for count in (2, 3, 4) for own in permutations(range(4), count)]
    assert sum(check(random_pool(seed, 4), groups) for seed in range(12)) > len(groups)


@pytest.mark.parametrize("name", ["fpga_pool", "fpga_tree_pool", "large_pool"])
def test_shipped_pools(name: str) -> None:
    pool = load_pool(name)
    rng = np.random.default_rng(0)
    groups = [tuple(range(start, start + count)) for count in (2, 4) for start in range(0, 8, count)]
    groups += [tuple(rng.choice(8, count, replace=False).tolist()) for count in (2, 3, 4) for _ in range(12)]
    assert check(pool, groups) > 3


def test_what_makes_a_difference() -> None:
    """Who comes first, and what crosses between the groups of a pool; not how accelerators are numbered."""
    pool = load_pool("fpga_pool")
    keys = {likeness(pool, group) for group in ((0, 1, 2), (0, 1, 4), (0, 4, 1), (0, 4, 5))}
    assert len(keys) == 4
    assert likeness(pool, (0, 1, 2)) == likeness(pool, (5, 6, 7)) == likeness(pool, (1, 0, 2))
