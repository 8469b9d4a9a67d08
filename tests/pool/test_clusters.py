"""Which accelerators are interchangeable, checked against all permutations of small pools."""

from itertools import permutations
from pathlib import Path

import pytest

from mars_onnx.pool import Pool, load_pool, shipped_pools
from mars_onnx.pool.clusters import clusterings, interchangeable
from tests.pool_factory import pool_of

POOLS = Path(__file__).parent.parent / "pools"


def by_trying_all(pool: Pool) -> set[tuple[int, ...]]:
    """Orbits by all permutations of a small pool's nodes."""
    nodes = range(len(pool.node_ids))

    def kind(node: int) -> object:
        ends = (node == pool.inputs_at, node == pool.outputs_at)
        if node >= pool.size:
            return ends, node < pool.size + len(pool.hosts)
        each = pool.accelerators[node]
        return ends, each.kind, {d.name for d in each.designs}, each.memory_bytes, each.memory_bandwidth_bytes_per_s

    links = {
        frozenset(link.ends): (link.bandwidth_bytes_per_s, link.latency_s, link.full_duplex) for link in pool.links
    }
    orbit = {rank: {rank} for rank in range(pool.size)}
    for order in permutations(nodes):
        if all(kind(node) == kind(order[node]) for node in nodes) and all(
            links.get(frozenset(order[end] for end in ends)) == kinds for ends, kinds in links.items()
        ):
            for rank in range(pool.size):
                orbit[rank].add(order[rank])
    return {tuple(sorted(ranks)) for ranks in orbit.values()}


@pytest.mark.parametrize("groups", [(1,), (3,), (2, 2), (3, 1), (1, 2, 3), (2, 2, 1)])
def test_against_all_permutations(groups: tuple[int, ...]) -> None:
    pool = pool_of(*groups)
    assert set(interchangeable(pool)) == by_trying_all(pool)


@pytest.mark.parametrize("name", ["edge_pool", "h2h_pool", "mixed_pool", str(POOLS / "trio.json")])
def test_small_pools_against_all_permutations(name: str) -> None:
    pool = load_pool(name)
    assert set(interchangeable(pool)) == by_trying_all(pool)


def test_shipped_pools() -> None:
    sizes = {name: [len(ranks) for ranks in interchangeable(load_pool(name))] for name in shipped_pools()}
    assert sizes["fpga_pool"] == [8]
    assert sizes["fpga_tree_pool"] == [32]
    assert sizes["large_pool"] == [8, 56]  # inputs start at the first machine
    assert sizes["mixed_pool"] == [1, 1, 1]


def test_clusters() -> None:
    assert clusterings(load_pool("fpga_tree_pool"), range(32)) == [
        tuple(tuple(range(start, start + 8)) for start in range(0, 32, 8))
    ]
    assert clusterings(pool_of(3, 2), range(5)) == [((0, 1, 2), (3, 4))]
    assert clusterings(pool_of(3), range(3)) == []
