"""What exact search says of links in numbers is what the cost model says of them in words."""

from __future__ import annotations

from itertools import permutations

import pytest

from mars_onnx.cost.transfers import alike_routes
from mars_onnx.pool.loader import load_pool
from mars_onnx.pool.topology import Pool
from mars_onnx.search.exact.ways.routes import Routes
from tests.search.exact.random_pools import random_pool


@pytest.mark.parametrize("pool", [load_pool("fpga_pool"), *(random_pool(seed, 4) for seed in range(10))])
def test_sets_are_alike_where_their_routes_are(pool: Pool) -> None:
    """Those between members, and from and to where model inputs and outputs are."""
    routes = Routes(pool)
    told: dict[object, bytes] = {}
    for count in (1, 2, 3):
        for members in permutations(range(min(pool.size, 6)), count):
            nodes = (*members, pool.inputs_at, pool.outputs_at)
            words = alike_routes(pool, [(first, second) for first in nodes for second in nodes])
            assert told.setdefault((count, words), routes.among(members)) == routes.among(members)
    assert len(set(told.values())) == len(told)
