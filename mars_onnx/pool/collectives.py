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
class Overhead:
    """What the software of a member takes for a collective, beside its messages.

    Attributes:
        latency_s: However small it is.
        kept_bytes_per_s: Rate at which a member copies what it keeps to where the result is; ``None``: it stays.
        assembled_bytes_per_s: Rate at which a member puts a result together whose pieces do not follow one another in
            memory; ``None``: that costs no more than if they do.
    """

    latency_s: float = 0.0
    kept_bytes_per_s: float | None = None
    assembled_bytes_per_s: float | None = None

    def seconds(self, kept_bytes: float, assembled_bytes: float = 0.0) -> float:
        """For the member that keeps most, and has most to put together."""
        return (
            self.latency_s
            + (kept_bytes / self.kept_bytes_per_s if self.kept_bytes_per_s else 0.0)
            + (assembled_bytes / self.assembled_bytes_per_s if self.assembled_bytes_per_s else 0.0)
        )


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
        overheads: By name of the operator.
        source: Where the numbers are from.
    """

    chunks: int = 1
    endpoint_latency_s: float = 0.0
    reduction_bytes_per_s: float | None = None
    reductions_overlap: bool = False
    algorithms: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict(ALGORITHMS))
    overheads: dict[str, Overhead] = field(default_factory=dict)
    source: str = ""
