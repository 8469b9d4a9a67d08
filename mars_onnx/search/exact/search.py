"""``--search exact``: the search, its limits, and its answer as a mapping."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property

from mars_onnx.cost.shares import twin
from mars_onnx.pool.topology import Pool
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.exact.capacity import fits, fitted
from mars_onnx.search.exact.chain.chain import Chain
from mars_onnx.search.exact.chain.joins import branches_of
from mars_onnx.search.exact.chain.segments import width_of
from mars_onnx.search.exact.claim import SAME, certain_seconds, space_of
from mars_onnx.search.exact.incumbents import first, inside, outside
from mars_onnx.search.exact.joined.branches import BranchSearch
from mars_onnx.search.exact.limits import Limits
from mars_onnx.search.exact.one_set.runs import Runs
from mars_onnx.search.exact.solid import Mappings
from mars_onnx.search.exact.ways.aims import LeastLatency
from mars_onnx.search.exact.ways.forward import Forward, Way
from mars_onnx.search.exact.ways.periods import LeastPeriod, least_period
from mars_onnx.search.exact.ways.sets import Sets, State
from mars_onnx.search.exact.ways.shapes import Shapes
from mars_onnx.search.exact.work import metered, spend_on_judging
from mars_onnx.search.method import Ending, Objective, Progress, SearchOptions, SearchResult
from mars_onnx.search.problem import Problem
from mars_onnx.sharding.mapping import Mapping

#: On more accelerators than these, a search starts from what is quickly found, and looks at sets of that size first.
_FEW = 8
#: Good mappings that are kept for a second look.
_KEPT = 4
#: Share of the work that goes into pricing ways that are not exact yet, for something to show at a limit.
_LOOKING = 0.05
#: Units of work before that begins: many searches end sooner.
_SOON = 1.0
#: On many accelerators there is something to show from the beginning: units, or part of a limit, before more of that.
_LATER = 12.0
_LATER_PART = 0.2
#: Where more tensors than this are there at once, simple mappings are not worth their time in the end.
_WIDE = 6
#: Where there are only bounds of a segment, one set of everything is left for others when the bound is this near.
_NEARLY = 0.05
#: On many accelerators: how much of the limits goes into sets that are looked at alone, ...
_ALONE = 0.5
#: ... and how far above the bound ways may be that are looked for.
_STEP = 0.03
_LEAST_STEP = 0.01
#: If it takes less than so many units to know that there are none, the next ones may be further above it, up to so far.
_QUICK = 0.1
_LONGEST_STEP = 0.25


def exact_search(problem: Problem, pool: Pool, options: SearchOptions) -> SearchResult:
    """The best mapping, with a proof, or the best so far when a limit is reached."""
    own = _Run(problem, pool, options, Limits(options))
    with metered(own.limits.meter):
        result = own.run()
    return replace(result, work=own.limits.meter.units)


class _EndError(Exception):
    """The search ends before the proof does."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(str(ending))
        self.ending = ending


@dataclass(eq=False)
class _Run:
    problem: Problem
    pool: Pool
    options: SearchOptions
    limits: Limits
    #: Units of work that went into ways that were not exact yet.
    looking: float = 0.0
    #: The best answers so far, best first.
    best: list[tuple[float, Mapping]] = field(default_factory=list)
    bound: float = 0.0
    #: Whether some sets for branches were thought better of than they are, or there is something better outside.
    doubted: bool = False
    #: Whether all of the space begins with branches, each on one set, whose tables say all there is to say.
    joined: bool = False
    #: Whether what is better was found by changing sets inside a branch, outside of that space.
    elsewhere_better: bool = False
    #: The best of what was noted before anything was looked at.
    begun: Mapping | None = None
    mappings: Mappings = field(default_factory=Mappings)

    def run(self) -> SearchResult:
        ending = Ending.PROVEN
        # A search makes many small objects and no circles: collecting these would take a good part of the time.
        collecting = gc.isenabled()
        gc.disable()
        forward = Forward(self.sets(Chain.of(self.problem)))
        try:
            if self.large:
                self.begin()
            if self.options.objective is Objective.LATENCY:
                branches = branches_of(self.problem)
                found = None if branches is None else BranchSearch(self.problem, self.pool, branches, self.check)
                if found is not None:
                    self.joined = found.whole
                    self.side_by_side(found)
                if found is not None and found.whole:
                    self.elsewhere(Forward(self.sets(forward.chain, found.floors(forward.chain))))
                else:
                    self.latency(forward)
            else:
                self.period(forward)
            if self.doubted or (self.overcounted(forward) and not self.joined):
                ending = Ending.GAP
        except _EndError as end:
            ending = end.ending
        except KeyboardInterrupt:
            ending = Ending.INTERRUPTED
        finally:
            if collecting:
                if not gc.get_freeze_count():
                    # All that is new counts as old from here on, or the next collection would look at all of it.
                    gc.freeze()
                    gc.unfreeze()
                gc.enable()
        if not self.best or (ending is not Ending.PROVEN and (self.barely if self.large else not self.wide)):
            self.start()
        beaten = self.beaten(forward) or self.elsewhere_better
        if beaten:
            ending = Ending.GAP if ending is Ending.PROVEN else ending
            self.doubted = True
        cost_s, mapping = self.best[0]
        if not fits(self.problem, self.pool, mapping):
            return fitted(self.problem, self.pool, self.options.objective, self.limits)
        bound = cost_s if ending is Ending.PROVEN else min(self.bound, cost_s)
        loose = beaten or (not self.joined and (self.doubted or self.overcounted(forward)))
        if ending is not Ending.PROVEN and (self.joined or loose):
            latency = self.options.objective is Objective.LATENCY
            certain = certain_seconds(self.problem, self.pool, latency)
            bound = min(cost_s, certain if loose else max(bound, certain))
        others = tuple(other for _, other in self.best[1:])
        return SearchResult(mapping, cost_s, bound, ending, space_of(self.options.objective, beaten), others)

    def sets(self, chain: Chain, at_least: Callable[[State], Runs] | None = None) -> Sets:
        """Sets of the pool, of which something may be known already."""
        return Sets(chain, self.pool, Shapes(self.pool), check=self.check, at_least=at_least)

    @property
    def large(self) -> bool:
        """Whether everything takes long, and the whole pool as one set the longest."""
        return self.pool.size > _FEW

    @cached_property
    def wide(self) -> bool:
        """Whether tables are going to be too wide: then the first set gives good mappings, and takes the time."""
        return width_of(self.problem) > _WIDE

    def begin(self) -> None:
        """Note the mappings that are the quickest to find."""
        for mapping in first(self.problem, self.pool, self.options.objective):
            self.note(mapping)
        self.begun = self.best[0][1]

    @property
    def barely(self) -> bool:
        """Whether the best is still what the search began with."""
        return self.best[0][1] == self.begun

    def start(self) -> None:
        """Note mappings that are quickly found."""
        for mapping in self.simple:
            self.note(mapping)

    @cached_property
    def simple(self) -> tuple[Mapping, ...]:
        """What is quickly found."""
        return tuple(inside(self.problem, self.pool, self.options.objective))

    def beaten(self, forward: Forward) -> bool:
        """Note mappings from outside the space if they are better; says whether one is."""
        before = self.best[0][0]
        unequal = len({twin(self.pool, rank) for rank in range(self.pool.size)}) > 1
        # Simple mappings may have what the space has not: unequal shares on unequal accelerators, and of a stream
        # branches on sets of their own.
        stream = self.options.objective is not Objective.LATENCY
        more = unequal or (stream and branches_of(self.problem) is not None)
        others = outside(self.problem, self.pool, self.options.objective, before, forward.sets.small)
        for mapping in (*others, *(self.simple if more else ())):
            if fits(self.problem, self.pool, mapping):
                self.note(mapping)
        return self.best[0][0] < before * (1 - SAME)

    def alone(self, forward: Forward) -> Iterator[list[State]]:
        """Sets that are looked at alone first: nearly always good, so that what is worse need not be looked at."""
        start = forward.sets.start()
        sizes = [self.pool.size]
        if self.large:
            # Those of the best known mapping, and then the small ones: on large sets everything takes much longer.
            known = {len(own.members) for own in self.best[0][1].sets}
            sizes = [*sorted(known), *sorted({len(state.place.members) for state in start} - known)]
        for size in sizes:
            yield [state for state in start if len(state.place.members) == size]

    def overcounted(self, forward: Forward) -> bool:
        """Whether the judge may find some mapping cheaper than the tables do, so that they prove nothing."""
        latency = self.options.objective is Objective.LATENCY
        return latency and self.pool.size > 1 and forward.sets.chain.overlaps

    def check(self) -> None:
        """Called in long work: ends it at a limit."""
        over = self.limits.over
        if over is not None:
            raise _EndError(over)

    def latency(self, forward: Forward) -> None:
        """The best way, until none is better than what is known."""
        self.bound = LeastLatency(forward.sets, None, float("inf")).least_s
        for states in self.alone(forward):
            try:
                self.improve_alone(forward, states)
            except _EndError as end:
                # Of one set the tables cannot say more; of all sets they may, and their bound counts.
                if end.ending is not Ending.GAP:
                    raise
        self.improve(forward)

    def side_by_side(self, search: BranchSearch) -> None:
        """Branches on sets of their own or together; those sets first that could be best."""
        floor = float("inf")
        while (least := search.least_s) < self.limit():
            self.bound = min(least, floor)
            joined = search.step(self.limit())
            if joined is not None:
                self.show(joined.sharp, map(search.mapping, [joined]))
            if joined is not None and joined.sharp and self.best[0][0] > joined.seconds * (1 + SAME):
                # Not as good as it promised: other sets may be, but there is no proof any more.
                self.doubted = True
                floor = min(floor, joined.seconds)
            self.tick(wrong=False)
        self.bound = min(floor, self.limit())

    def elsewhere(self, forward: Forward) -> None:
        """Look for what is better outside of the space, where sets change inside a branch."""
        bound, before = self.bound, self.limit()
        try:
            with suppress(_EndError):
                self.improve(forward)
        finally:
            self.bound = bound
        self.elsewhere_better = self.limit() < before

    def improve_alone(self, forward: Forward, states: Sequence[State]) -> None:
        """Look for mappings of less latency, each of one of some sets, until there are none."""
        left = list(states)
        while left and not (self.large and self.limits.spent > _ALONE):
            state = forward.sets.most_promising(left)
            aim = LeastLatency(forward.sets, [state], self.limit())
            if aim.least_s >= aim.limit:
                return
            # Until it promises less than another one does.
            others = [float(forward.sets.runs_before(other).end[0]) for other in left if other is not state]
            if self.looked(forward, aim, min(others, default=float("inf"))):
                continue
            way = forward.way(aim, [state])
            if way is None:
                left.remove(state)
                continue
            self.sharpen(forward, way)
            if way.seconds > self.limit() * (1 - _NEARLY) and forward.sets.tables(state).wide:
                # It will not be proven; whether others are better matters more by now.
                return

    def improve(self, forward: Forward) -> None:
        """Look for mappings of less latency, on all sets, until there are none."""
        aim: LeastLatency | None = None
        stamp, step = 0, _STEP
        while True:
            now = forward.sets.stamp()
            if aim is None or now != stamp:
                aim, stamp = LeastLatency(forward.sets, None, self.limit()), now
            self.bound = max(self.bound, min(aim.least_s, self.limit()))
            # On many accelerators there are very many ways: first of all, those that are nearly as good as the bound.
            goal = max(self.bound * (1 + step), self.limit() * _STEP)
            aim.limit = min(self.limit(), goal) if self.large else self.limit()
            if self.looked(forward, aim):
                aim = None
                continue
            started = self.limits.meter.units
            way = forward.way(aim, None)
            if way is not None:
                step = _STEP
                self.bound = max(self.bound, way.seconds)
                self.sharpen(forward, replace(way, room=self.limit() - way.seconds))
            elif aim.limit >= self.limit():
                return
            else:
                self.bound = aim.limit
                # Where it takes next to nothing to know that there is none, the next step may be longer.
                step = min(2 * step, _LONGEST_STEP) if self.limits.meter.units - started < _QUICK else _STEP
                self.tick(wrong=False)

    def looked(self, forward: Forward, aim: LeastLatency, enough: float = float("inf")) -> bool:
        """Look at sets on what looks like the best way; says whether there was something that nobody knew.

        Args:
            forward: Where ways are looked for.
            aim: What is to be small.
            enough: What the best way has to take longer than for the next look to be at something else.
        """
        unknown = aim.unknown(enough)
        forward.sets.look_at(unknown)
        if unknown:
            self.tick(wrong=False)
        return bool(unknown)

    def period(self, forward: Forward) -> None:
        """Look for ways with a period a little above the bound, and raise the bound by that when there are none."""
        # On one set an inference takes as long as the next one has to wait.
        for states in self.alone(forward):
            self.improve_alone(forward, states)
        self.bound, step = least_period(forward.sets, self.limit()), _STEP
        while True:
            goal = min(self.limit(), self.bound * (1 + step))
            way = forward.way(LeastPeriod(forward.sets, goal))
            if way is not None:
                # What is far above the bound may be above the best, too: nobody needs to know more of that.
                step = max(step / 2, _LEAST_STEP)
                self.sharpen(forward, way)
            elif goal >= self.limit():
                return
            else:
                self.bound, step = goal, min(2 * step, _STEP)
                self.tick(wrong=False)

    def limit(self) -> float:
        """What an answer has to be below to be better than the best so far."""
        return self.best[0][0] * (1 - 1e-12) if self.best else float("inf")

    def sharpen(self, forward: Forward, way: Way) -> None:
        """Make the costs on a way exact; note it as a mapping if it is exact, and now and then in between."""
        before = self.limit()
        sharp = not forward.sharpen(way)
        if all(forward.sets.known(step.state, index) is not None for index, step in enumerate(way.steps)):
            self.show(sharp, self.mappings.of(forward, way, sharp))
        self.tick(sharp and self.limit() >= before)

    def show(self, sharp: bool, mappings: Iterable[Mapping]) -> None:
        """Note mappings of a way that is exact; of others now and then, for something to show at a limit."""
        before = self.limits.meter.units
        if sharp or (self.late and self.looking < _LOOKING * (before - _SOON)):
            for mapping in mappings:
                self.note(mapping)
            self.looking += self.limits.meter.units - before

    @property
    def late(self) -> bool:
        """Whether it takes so long by now that somebody may want to see more than what the search began with."""
        return not self.large or self.limits.meter.units > _LATER or self.limits.spent > _LATER_PART

    def tick(self, wrong: bool) -> None:
        """Report, and look at the limits; ``wrong`` if an exact way is not as good a mapping as it promised."""
        if self.limits.due():
            self.options.report(Progress("exact search", self.best[0][0] if self.best else None, self.bound))
        if wrong:
            # The tables thought better of this mapping than it is: they cannot prove anything from here on.
            raise _EndError(Ending.GAP)
        self.check()

    def note(self, mapping: Mapping) -> None:
        """Keep a mapping if it is good."""
        if any(mapping == other for _, other in self.best):
            return
        spend_on_judging(self.problem, mapping)
        cost_s = evaluate(self.problem, self.pool, mapping).cost_s(self.options.objective)
        self.best = sorted([*self.best, (cost_s, mapping)], key=lambda entry: entry[0])[:_KEPT]
