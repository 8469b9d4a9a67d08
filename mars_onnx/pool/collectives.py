"""How collectives run on a pool: which algorithms, in how many chunks, at what cost at the ends of a message."""

from __future__ import annotations

from dataclasses import dataclass, field

#: Algorithms of every collective, in the order in which the first of several equally fast ones is taken.
ALGORITHMS: dict[str, tuple[str, ...]] = {
    "all_reduce": ("ring", "ring_both_ways", "halving_doubling", "direct", "hierarchical"),
    "all_gather": ("ring", "ring_both_ways", "halving_doubling", "direct", "hierarchical"),
    "reduce_scatter": ("ring", "ring_both_ways", "halving_doubling", "direct", "hierarchical"),
    "all_to_all": ("pairwise", "direct", "ring", "hierarchical"),
    "broadcast": ("tree", "chain", "direct", "scatter_gather", "hierarchical"),
}


@dataclass(frozen=True, slots=True)
class Collectives:
    """What a pool declares about its collectives.

    Attributes:
        chunks: Into how many pieces a collective is cut, which follow each other through the algorithm.
        endpoint_latency_s: From a member's memory into the network, or back. Of messages that wait for each other, a
            member pays it before the first and after every one.
        reduction_bytes_per_s: Received bytes that a member adds to its own in a second; ``None``: as fast as they come.
        reductions_overlap: Whether sums of messages that arrive together are made side by side, and a halving round
            waits only for the sum of what it sends next.
        algorithms: Per collective those to choose the fastest of.
        source: Where the numbers are from.
    """

    chunks: int = 1
    endpoint_latency_s: float = 0.0
    reduction_bytes_per_s: float | None = None
    reductions_overlap: bool = False
    algorithms: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict(ALGORITHMS))
    source: str = ""
