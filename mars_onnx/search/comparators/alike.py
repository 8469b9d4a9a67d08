"""Which sets of accelerators cost the same, whatever they compute: so that each kind is priced once."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

from mars_onnx.cost.shares import twin
from mars_onnx.pool.topology import Pool

Kind = tuple[object, ...]


@lru_cache(maxsize=4096)
def kind_of(pool: Pool, *sets: tuple[int, ...]) -> Kind:
    """Equal for sequences of sets between which an order-preserving renaming of accelerators keeps every cost.

    Everything that a price depends on is in it, with nodes and channels renamed in order of first appearance: what
    computes as fast as what, groups, ranks' order, and all routes among members and to where inputs and outputs are.

    Args:
        pool: The pool.
        sets: Members of one set or several, by rank.
    """
    members = [rank for own in sets for rank in own]
    ends = list(dict.fromkeys((pool.inputs_at, pool.outputs_at)))
    nodes: dict[int, int] = {}
    channels: dict[int, int] = {}
    routes: list[object] = []
    for first in (*members, *ends):
        for second in (*members, *ends):
            if first == second:
                continue
            route = pool.route(first, second)
            routes.append(
                tuple(
                    (
                        channels.setdefault(link.channel(*step), len(channels)),
                        nodes.setdefault(step[1], len(nodes)),
                        step[1] in pool.stores,
                        link.bandwidth_bytes_per_s,
                        link.latency_s,
                        link.shared,
                    )
                    for link, step in zip(route.links, pairwise(route.nodes), strict=True)
                )
            )
    groups = sorted({pool.group_of[rank] for rank in members})
    order = sorted(range(len(members)), key=lambda place: members[place])
    return (
        tuple(map(len, sets)),
        tuple(twin(pool, rank) for rank in members),
        tuple(groups.index(pool.group_of[rank]) for rank in members),
        tuple(order),
        tuple(end in members for end in ends),
        tuple(routes),
    )
