"""How much a search has done, counted so that it is the same on every machine.

A clock gives another answer on another machine, or on the same one when it is busy. So a search decides by counts of
what it was asked for: redistributions to price, entries of tables to add up, strategies to make. Each counts for about
what it takes beside the others, and a unit of work is half a second to a second on machines of 2025. What an earlier
search of the same process left in some cache makes the work quicker and not less: what counts is what is asked.

The meter of a search holds for all that is called while :func:`metered` is open. What works outside of a search counts
nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from mars_onnx.pool.topology import Pool
from mars_onnx.search.problem import Problem
from mars_onnx.sharding.mapping import Mapping

#: Parts of a unit, in which counts are kept: whole numbers, whose sum depends on no order.
_PARTS = 10**12

# What one of each takes, in parts of a unit. Measured together, over searches of all sizes, where a part took 0.6
# picoseconds; that machine was busy with others, and slower at other times.

#: A redistribution that is planned and priced, per member and per pair of members.
PLAN = 125_000_000
PLAN_PAIR = 3_200_000
#: What a member lacks, for a pair of layouts; and as many for a table of pairs.
BOUND = 110_000
BOUND_TABLE = 8_000
#: The strategies of a layer on a set: per strategy and member, and as many for the layer.
STRATEGY = 175_000
STRATEGY_LAYER = 1_500
#: Their seconds of compute, likewise.
COMPUTE = 26_000
COMPUTE_LAYER = 1_500
#: The least compute of a kind of layer on a set, per member.
LEAST = 20_000_000
#: A table of a segment.
FACTOR = 120_000_000
#: An entry of a table that is added up or minimised.
ENTRY = 400
#: A variable of a segment whose best value is looked up.
DECISION = 18_000_000
#: Sets for all branches that are joined, one of the ways to choose them.
ASSIGNMENT = 20_000_000
#: Accelerators for all of them, whatever the designs.
PLACING = 35_000_000
#: A mapping that the judge prices: per layer, and per kind of layer and member.
JUDGED = 20_000_000
JUDGED_KIND = 60_000_000
#: A way through the sets that is looked for; on it a segment that a set does, a set that could follow another one, and
#: one that does.
WAY = 800_000_000
SEGMENT = 5_300_000
FOLLOWER = 5_800_000
ARRIVAL = 49_000_000
#: A set of all those that can follow each other.
STATE = 60_000_000
#: Mappings that are quickly found: one strategy for all layers of a set, the first of all, and whole layers on single
#: accelerators; per kind of layer and accelerator of the pool.
SIMPLE_KIND = 4_500_000_000
FIRST_KIND = 1_400_000_000
WHOLE_KIND = 450_000_000


@dataclass(eq=False)
class Meter:
    """What a search has done so far.

    Attributes:
        parts: In parts of a unit.
    """

    parts: int = 0

    @property
    def units(self) -> float:
        """What has been done."""
        return self.parts / _PARTS


_METER: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metered(meter: Meter) -> Iterator[Meter]:
    """What is done in between counts on a meter."""
    token = _METER.set(meter)
    try:
        yield meter
    finally:
        _METER.reset(token)


def spend(weight: int, count: int = 1) -> None:
    """Count work, if a search is on: so many times what one takes."""
    meter = _METER.get()
    if meter is not None:
        meter.parts += weight * count


def spend_on_plan(members: int) -> None:
    """Count that a redistribution among so many members is planned and priced."""
    spend(PLAN, members)
    spend(PLAN_PAIR, members**2)


def kinds_of(problem: Problem) -> int:
    """How many of the layers are unlike all before them: what is known of one serves all that are like it."""
    return len({layer.signature for layer in problem.layers})


def spend_on_judging(problem: Problem, mapping: Mapping) -> None:
    """Count that the judge prices a mapping."""
    spend(JUDGED, len(problem.layers))
    spend(JUDGED_KIND, kinds_of(problem) * sum(len(own.members) for own in mapping.sets))


def spend_on_simple(weight: int, problem: Problem, pool: Pool) -> None:
    """Count that mappings are looked for that are quickly found."""
    spend(weight, kinds_of(problem) * pool.size)
