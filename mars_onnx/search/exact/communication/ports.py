"""How fast data can come to accelerators, at best: what bounds of communication are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations

import numpy as np

from mars_onnx.pool.clusters import clusterings, distance_s
from mars_onnx.pool.topology import Pool, Route
from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.strategies.space import FloatArray

#: Algorithms in which a member has one message coming in at a time.
_ONE_PORT = {"ring", "halving_doubling", "hierarchical", "pairwise", "tree", "chain"}
#: Of these, those that run on any number of members. Where none is allowed, another one may have to stand in.
_ALWAYS = {"ring", "pairwise", "tree", "chain"}


@dataclass(frozen=True, eq=False)
class Ports:
    """How fast data can come to the members of a set, at best.

    Attributes:
        one_port: Whether a member takes one message at a time, so that rounds and bytes add up.
        chunks: In how many pieces a collective goes.
        endpoint_latency_s: What a message takes at either end.
        group: Per member the number of its cluster: of those that are nearer to each other than to the others.
        first_hand: Whether in an exchange of everyone with everyone nobody passes on to members of its own cluster what
            comes from another one.
        near_s_per_byte: From a member of its own cluster, at best; where it is alone, as ``far_s_per_byte``.
        far_s_per_byte: From a member of another cluster, at best; where there is none, as ``near_s_per_byte``.
        all_s_per_byte: From everywhere at once.
        far_bytes_per_s: From all members of other clusters at once; infinite where nobody can say.
        near_latency_s: Of a message inside a cluster.
        far_latency_s: Of a message from another cluster.
    """

    one_port: bool
    chunks: int
    endpoint_latency_s: float
    group: IntArray
    first_hand: bool
    near_s_per_byte: FloatArray
    far_s_per_byte: FloatArray
    all_s_per_byte: FloatArray
    far_bytes_per_s: FloatArray
    near_latency_s: FloatArray
    far_latency_s: FloatArray

    @cached_property
    def groups(self) -> tuple[IntArray, ...]:
        """Places of the members of every cluster."""
        return tuple(np.flatnonzero(self.group == number) for number in np.unique(self.group))

    @cached_property
    def further_s(self) -> FloatArray:
        """How much longer a message from another cluster takes, to any member of a member's own, than the quickest."""
        latency_s = np.empty(len(self.group))
        for inside in self.groups:
            latency_s[inside] = self.far_latency_s[inside].min()
        return latency_s - self.least_latency_s

    @property
    def straight(self) -> bool:
        """Whether what comes from another cluster comes to the member that lacks it, where everyone keeps its place."""
        return len(self.groups) > 1 and self.one_port and self.first_hand

    @cached_property
    def fastest_s_per_byte(self) -> FloatArray:
        """From anywhere, at best."""
        return np.minimum(self.near_s_per_byte, self.far_s_per_byte)

    @cached_property
    def crossing_latency_s(self) -> FloatArray:
        """Of a message from another cluster to any member of each, at best, ``[clusters, 1]``."""
        return np.asarray([[self.far_latency_s[inside].min()] for inside in self.groups])

    @cached_property
    def crossing_s_per_byte(self) -> FloatArray:
        """From another cluster to any member of each, at best, ``[clusters, 1]``."""
        return np.asarray([[self.far_s_per_byte[inside].min()] for inside in self.groups])

    @cached_property
    def dearer_s_per_byte(self) -> FloatArray:
        """How much longer that takes than what comes from anywhere to any other one, if it does, ``[clusters, 1]``."""
        slowest = np.asarray([[self.fastest_s_per_byte[inside].max()] for inside in self.groups])
        dearer: FloatArray = np.maximum(self.crossing_s_per_byte - slowest, 0.0)
        return dearer

    @cached_property
    def least_latency_s(self) -> float:
        """Of any message."""
        return float(np.minimum(self.near_latency_s, self.far_latency_s).min())


@lru_cache(maxsize=4096)
def ports(pool: Pool, members: tuple[int, ...]) -> Ports:
    """How fast data can come to these accelerators from each other."""
    columns: list[tuple[float, ...]] = []
    clusters = next(iter(clusterings(pool, members)), (members,))
    group_of = {rank: number for number, cluster in enumerate(clusters) for rank in cluster}
    for rank in members:
        others = [other for other in members if other != rank]
        inside = [pool.route(o, rank) for o in others if group_of[o] == group_of[rank]]
        outside = [pool.route(o, rank) for o in others if group_of[o] != group_of[rank]]
        near = max((route.bandwidth_bytes_per_s for route in inside), default=0.0)
        far = max((route.bandwidth_bytes_per_s for route in outside), default=0.0)
        everywhere = _together([*inside, *outside])
        columns.append(
            (
                1 / (near or far or np.inf),
                1 / (far or near or np.inf),
                1 / everywhere if everywhere else 0.0,
                _together(outside) or np.inf,
                min((route.latency_s for route in inside or outside), default=0.0),
                min((route.latency_s for route in outside or inside), default=0.0),
            )
        )
    return Ports(
        one_port(pool),
        pool.collectives.chunks,
        pool.collectives.endpoint_latency_s,
        np.asarray([group_of[rank] for rank in members]),
        _first_hand(pool, clusters),
        *np.asarray(columns, np.float64).T,
    )


def _first_hand(pool: Pool, clusters: Sequence[Sequence[int]]) -> bool:
    """Whether data of an exchange comes from outside of a cluster right to who needs it.

    Round a ring it comes by the way. Level by level it is passed on by members of a cluster that the sender is in, too:
    of any members these are not among those of the receiver's cluster if all of this are nearer to each other than to
    anybody else.
    """
    if "ring" in pool.collectives.algorithms["all_to_all"]:
        return False
    ranks = {rank for cluster in clusters for rank in cluster}
    for cluster in clusters:
        inside = [distance_s(pool, *pair) for pair in combinations(cluster, 2)]
        outside = [distance_s(pool, one, other) for one in cluster for other in ranks.difference(cluster)]
        if inside and outside and max(inside) >= min(outside):
            return False
    return True


def _together(routes: Sequence[Route]) -> float:
    """Bytes per second that several routes to one accelerator bring at most; infinite if some link is not shared."""
    links = {link.index: link for route in routes for link in route.links[-1:]}
    # What is there already has no link to come by.
    if any(not link.shared for link in links.values()) or any(not route.links for route in routes):
        return np.inf
    return sum(link.bandwidth_bytes_per_s for link in links.values())


@lru_cache(maxsize=16)
def one_port(pool: Pool) -> bool:
    """Whether a member never takes two messages at a time: of different chunks it may."""
    rules = pool.collectives
    names = rules.algorithms.values()
    return rules.chunks == 1 and all(_ONE_PORT.issuperset(own) and _ALWAYS.intersection(own) for own in names)


@lru_cache(maxsize=65536)
def crossing(pool: Pool, sources: tuple[int, ...], targets: tuple[int, ...]) -> tuple[float, float]:
    """Latency, and seconds per byte, of what goes from a set to another, at best: all members at once."""
    single = one_port(pool)
    rate = 0.0
    for target in targets:
        routes = [pool.route(source, target) for source in sources]
        rate += max(route.bandwidth_bytes_per_s for route in routes) if single else _together(routes)
    latency_s = min(pool.latency(source, target) for source in sources for target in targets)
    ends = 0.0 if set(sources) & set(targets) else 2 * pool.collectives.endpoint_latency_s
    return latency_s + ends, 1 / rate
