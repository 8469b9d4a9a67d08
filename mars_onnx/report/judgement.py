"""The part of report.json that judges the mapping: latency, bound, gap, how it was found, what others find."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mars_onnx.search.compare import Comparison
from mars_onnx.search.evaluate import Evaluation
from mars_onnx.search.find import Found

#: What a bound, a gap and a comparison speak of.
COST_MODEL = "lockstep"


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a second look by simulation gave for one of the best mappings.

    Attributes:
        cost_s: As the search counts.
        latency_s: Of the simulated run.
        fits: Whether no accelerator runs out of memory.
        kept: Whether this is the mapping that was taken.
        period_s: Between two inferences of a simulated stream; ``None`` if none was simulated.
    """

    cost_s: float
    latency_s: float
    fits: bool
    kept: bool
    period_s: float | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """What another method finds.

    Attributes:
        found: Its answer.
        latency_s: Of the simulated run of its mapping; ``None`` if it has none.
        fits: Whether no accelerator runs out of memory; ``None`` likewise.
    """

    found: Comparison
    latency_s: float | None
    fits: bool | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is known of how good a mapping is.

    Attributes:
        found: How it was found.
        evaluation: What it costs, as the search counts; of the mapping that was taken in the end.
        latency_s: Of the simulated run.
        reranked: The second look, if there was one.
        comparisons: What other methods find.
    """

    found: Found
    evaluation: Evaluation
    latency_s: float
    reranked: Sequence[Simulated] = ()
    comparisons: Sequence[Compared] = ()

    @property
    def cost_s(self) -> float:
        """Of the mapping, for the objective."""
        return self.evaluation.cost_s(self.found.objective)

    @property
    def gap(self) -> float | None:
        """Which part of the cost the bound leaves open: 0 only if it is proven that nothing costs less."""
        bound_s = self.found.result.lower_bound_s
        if bound_s is None:
            return None
        if self.found.proven and math.isclose(self.cost_s, self.found.result.cost_s, rel_tol=1e-9):
            return 0.0
        gap = 1.0 - bound_s / self.cost_s if self.cost_s > 0 else 0.0
        return gap if gap > 0 else None


def judgement_facts(judged: Judgement) -> dict[str, object]:
    """The keys of report.json from ``objective`` to ``comparators``."""
    found, result = judged.found, judged.found.result
    return {
        "objective": str(found.objective),
        "latency_s": judged.latency_s,
        "throughput_per_s": _throughput(judged.evaluation.period_s, judged.latency_s),
        "lower_bound_s": result.lower_bound_s,
        "optimality_gap": judged.gap,
        "search": {
            "method": found.method,
            "cost_s": judged.cost_s,
            "cost_model": COST_MODEL,
            "seconds": found.seconds,
            "space": result.space,
            "ending": str(result.ending),
            "work": result.work,
            "work_limit": found.work_limit,
            "time_limit_s": found.time_limit_s,
            "reranked": [
                {
                    "cost_s": own.cost_s,
                    "latency_s": own.latency_s,
                    "period_s": own.period_s,
                    "fits": own.fits,
                    "kept": own.kept,
                }
                for own in judged.reranked
            ],
        },
        "comparators": {own.found.method: _comparison(own, judged) for own in judged.comparisons},
    }


def _comparison(own: Compared, judged: Judgement) -> dict[str, object]:
    found, cost = own.found, own.found.evaluation
    cost_s = None if cost is None else cost.cost_s(judged.found.objective)
    return {
        "cost_s": cost_s,
        "latency_s": own.latency_s,
        "throughput_per_s": None
        if cost is None or own.latency_s is None
        else _throughput(cost.period_s, own.latency_s),
        "reduction": 1 - judged.cost_s / cost_s if cost_s else None,
        "ending": None if found.ending is None else str(found.ending),
        "seconds": found.seconds,
        "fits": own.fits,
        "failure": found.failure or None,
    }


def _throughput(period_s: float, latency_s: float) -> float | None:
    """Inferences per second of a stream: sets side by side, or if that is faster one inference after the other."""
    least = min(period_s, latency_s)
    return 1 / least if least > 0 else None
