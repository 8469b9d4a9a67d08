"""What a simulation takes into account."""

from __future__ import annotations

from dataclasses import dataclass

from mars_onnx.pool.topology import Pool


@dataclass(frozen=True, slots=True)
class Conditions:
    """What happens at the same time, and what is counted.

    All off, an accelerator does one thing after the other and waits for others only to communicate with them.

    Attributes:
        overlap: An accelerator communicates while it computes. Either kind of work keeps its own order.
        double_buffering: Weights of the next node are fetched while a node runs and leaves the memory port free.
        prefetch_bytes: The most that is fetched ahead so; ``None`` for no limit.
        contention: Communications that run at the same time share the channels that they have in common.
        local_moves: Nodes that emission added (slices, joins, sums of parts) take time.
        lockstep: All members of the sets that take part in a step (a layer, a redistribution, a transfer of a model
            input or output) begin and end it together.
    """

    overlap: bool = False
    double_buffering: bool = False
    prefetch_bytes: int | None = None
    contention: bool = False
    local_moves: bool = False
    lockstep: bool = False


#: What the additive cost takes into account.
ADDITIVE = Conditions(lockstep=True)


def declared(pool: Pool) -> Conditions:
    """What a pool says of itself; one that says nothing runs as the additive cost has it."""
    own = pool.overlap
    if own is None:
        return ADDITIVE
    return Conditions(
        own.communication_with_compute, own.double_buffering, own.prefetch_bytes, own.contention, own.local_moves
    )
