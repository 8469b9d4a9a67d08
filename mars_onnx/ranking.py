"""A second look by simulation at the best few mappings of a search.

A search counts one thing after the other. Where a pool says that things happen at the same time, the mapping that is
best so need not be the fastest: so the best few are taken through the rest of the pipeline and simulated, and the
fastest stays; for throughput, the one with the least time between two inferences of a stream. This happens between two
passes, as a callback, and leaves the model as if the search had found that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from mars_onnx.pipeline.runner import PassRun, run_pipeline
from mars_onnx.pool.topology import Pool
from mars_onnx.report.capacity import overflows
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.method import Objective
from mars_onnx.search.problem import problem_of
from mars_onnx.sharding.mapping import Mapping
from mars_onnx.simulation import simulate, stream_period_s
from mars_onnx.stages import attachments
from mars_onnx.stages.sharded import without_redistribution

#: So many mappings are simulated.
MOST = 4


@dataclass(frozen=True, slots=True)
class Look:
    """A mapping that was simulated.

    Attributes:
        mapping: The mapping.
        cost_s: What it costs, as the search counts.
        latency_s: Of the simulated run.
        period_s: Between two inferences of a simulated stream; ``None`` if no stream was to be simulated.
        fits: Whether no accelerator runs out of memory.
    """

    mapping: Mapping
    cost_s: float
    latency_s: float
    fits: bool
    period_s: float | None = None


@dataclass
class SecondLook:
    """The callback; put it before those that print what a pass left.

    Attributes:
        passes: The whole pipeline.
        looks: What was simulated, best cost first; empty if there was no need or no choice.
        kept: Index of the one that stayed.
    """

    passes: Sequence[ir.passes.PassBase]
    looks: tuple[Look, ...] = field(default=(), init=False)
    kept: int = field(default=0, init=False)

    def __call__(self, run: PassRun) -> bool:
        found = attachments.get_found(run.model) if getattr(run.pass_, "stage", None) == "mapped" else None
        if found is None:
            return False
        mappings = tuple(dict.fromkeys((found.result.mapping, *found.result.others)))[:MOST]
        if len(mappings) < 2 or not overlaps(attachments.get_pool(run.model)):
            return False
        rest = self.passes[len(run.previous) + 1 :]
        self.looks = tuple(simulated_look(run.model, mapping, rest, found.objective) for mapping in mappings)
        self.kept = min(range(len(mappings)), key=lambda place: _order(self.looks[place]))
        attachments.set_mapping(run.model, mappings[self.kept])
        return False


def overlaps(pool: Pool) -> bool:
    """Whether a run on this pool is something else than one thing after the other."""
    own = pool.overlap
    return own is not None and (
        own.communication_with_compute or own.double_buffering or own.contention or own.local_moves
    )


def simulated_look(
    mapped: ir.Model,
    mapping: Mapping,
    rest: Sequence[ir.passes.PassBase],
    objective: Objective = Objective.LATENCY,
) -> Look:
    """Emit a mapping and simulate it.

    Args:
        mapped: A model to which a mapping is attached, not necessarily this one; it is not changed.
        mapping: The mapping.
        rest: The passes from there to partitions.
        objective: What is to be small; a stream is simulated where that is the time between two inferences.
    """
    pool = attachments.get_pool(mapped)
    copy = mapped.clone()
    attachments.set_pool(copy, pool)
    attachments.set_mapping(copy, mapping)
    emitted = run_pipeline(copy, rest).model
    models = [own.model for own in attachments.get_partitions(emitted).partitions]
    canonical = without_redistribution(emitted)
    run = simulate(models, pool, canonical)
    period_s = None if objective is Objective.LATENCY else stream_period_s(models, pool, canonical)
    cost_s = evaluate(problem_of(mapped), pool, mapping).cost_s(objective)
    return Look(mapping, cost_s, run.latency_s, not overflows(run, pool), period_s)


def _order(look: Look) -> tuple[bool, float, float, float]:
    return not look.fits, look.latency_s if look.period_s is None else look.period_s, look.cost_s, look.latency_s
