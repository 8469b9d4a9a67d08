"""Whether the partitions fit their accelerators, by the simulated run: the one place that decides it."""

from __future__ import annotations

from dataclasses import dataclass

from mars_onnx.errors import CapacityError
from mars_onnx.pool.topology import Accelerator, Pool
from mars_onnx.report.units import size_text
from mars_onnx.simulation import Simulation
from mars_onnx.simulation.result import MemoryPoint


@dataclass(frozen=True, slots=True)
class Overflow:
    """An accelerator that has less memory than its partition needs.

    Attributes:
        accelerator: Which.
        peak: When most is needed, and for what.
    """

    accelerator: Accelerator
    peak: MemoryPoint

    @property
    def missing_bytes(self) -> int:
        """How much more it would have to have."""
        return self.peak.total_bytes - self.accelerator.memory_bytes


def overflows(simulation: Simulation, pool: Pool) -> tuple[Overflow, ...]:
    """The accelerators whose memory does not hold what the run needs at its peak."""
    return tuple(
        Overflow(pool.accelerators[rank], use.peak)
        for rank, use in simulation.ranks.items()
        if use.peak_bytes > pool.accelerators[rank].memory_bytes
    )


def check_capacity(simulation: Simulation, pool: Pool, source: str) -> None:
    """Refuse partitions of which one needs more memory than its accelerator has.

    Args:
        simulation: A run of them.
        pool: The accelerators.
        source: The model, for the message.

    Raises:
        CapacityError: Per accelerator what is missing, and at which layer.
    """
    found = overflows(simulation, pool)
    if found:
        lines = "\n  ".join(_line(own, simulation) for own in found)
        raise CapacityError(f"{source}: the partitions do not fit the pool {pool.name!r}:\n  {lines}")


def _line(own: Overflow, simulation: Simulation) -> str:
    peak, held = own.peak, own.accelerator.memory_bytes
    if peak.at in simulation.by_layer:
        place = f"its peak is at layer {peak.at!r}"
    else:
        place = f"its peak is where {peak.at!r} is moved" if peak.at else "its peak is at the start"
    return (
        f"{own.accelerator.id}: {own.missing_bytes} bytes ({size_text(own.missing_bytes)}) are missing: it has {held} "
        f"and needs {peak.total_bytes}; {place}: weights {peak.weight_bytes}, activations {peak.activation_bytes}, "
        f"received {peak.buffer_bytes}"
    )
