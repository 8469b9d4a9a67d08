"""Branches on given sets meet: when the join can start, in which layouts branches end for that, and how it goes on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.communication.moves import FloatArray
from mars_onnx.search.exact.joined.choices import Choice
from mars_onnx.search.exact.joined.estimates import Estimates
from mars_onnx.search.exact.joined.split import Split
from mars_onnx.search.exact.joined.together import Amount, ends_apart, ends_together, until_joined
from mars_onnx.search.exact.one_set.factors import Decision
from mars_onnx.search.exact.ways.aims import LeastLatency
from mars_onnx.search.exact.ways.answer import Assembly
from mars_onnx.search.exact.ways.crossings import Between, Crossing
from mars_onnx.search.exact.ways.forward import Forward, Way
from mars_onnx.search.exact.ways.sets import State
from mars_onnx.search.problem import Source
from mars_onnx.sharding.mapping import Mapping

#: How far ways are looked for above what is enough.
_FURTHER = 0.03
#: Seconds that differ by less, relatively, do so by rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Joined:
    """A choice of sets, and how well it does.

    Attributes:
        seconds: In all.
        choice: The sets.
        ends: Per branch the column at which it ends.
        strategy: Of the join.
        tail: The way from the join on, the join's own segment included.
        sharp: Whether all costs on it are exact.
    """

    seconds: float
    choice: Choice
    ends: tuple[int, ...]
    strategy: int
    tail: Way
    sharp: bool = False


class Meeting:
    """The best ways on sets at whose branches somebody has looked."""

    def __init__(self, split: Split, estimates: Estimates) -> None:
        """Of branches; with what is known of everything else."""
        self._split, self._parts, self._tail = split, split.parts, split.tail
        self._estimates = estimates
        self._onward = Forward(split.tail)
        self._between = Between(split.pool, split.shapes)
        self._crossings: dict[tuple[object, ...], Crossing] = {}
        self._aims: dict[State, tuple[int, LeastLatency]] = {}

    def best(self, choice: Choice, enough: float, limit: float) -> float | Joined:
        """The best way through what is known, or what it takes at least, if that is more than enough.

        Args:
            choice: The sets.
            enough: Seconds.
            limit: Seconds; ways that are no shorter are none.
        """
        tables = self._tail.tables(choice.after)
        table = tables.on.layer(self._split.join)
        first = tables.solve(0)
        outs = table.layouts.outs[0]
        if outs is None:
            return float("inf")
        own = table.own
        if Source(0, 0) in self._tail.chain.outputs:
            own = own + tables.on.layouts.outputs(self._tail.chain.kinds[Source(0, 0)], outs)
        places = np.searchsorted(first.columns, outs) if len(first.columns) > 1 else np.zeros(len(outs), np.int64)
        time = self._until_join(choice)
        # Of ways that are much longer than enough, nobody needs to know by how much.
        limit = min(limit, enough * (1 + _FURTHER))
        while True:
            total = time + own
            least = float(total.min()) + self._estimates.behind(choice)
            if least > enough:
                return least
            start = np.full(len(first.columns), np.inf)
            np.minimum.at(start, places, total)
            way = self._onward.way(self._aim(choice.after, limit), start={choice.after: start})
            if way is None:
                return limit
            unknown = self._onward.unknown(way)
            if unknown:
                self._tail.look_at(unknown)
                continue
            ending = places == way.steps[0].column
            strategy = int(np.flatnonzero(ending)[np.argmin(total[ending])])
            if choice.apart:
                break
            seconds, _ = ends_together(choice.groups, choice.home, self._arrivals(choice, strategy))
            if seconds <= time[strategy] * (1 + _ROUNDING):
                break
            # Ends that are best one by one were not best together.
            time[strategy] = seconds
        if way.seconds > enough:
            return way.seconds
        return Joined(way.seconds, choice, tuple(self._ends(choice, strategy)), strategy, way)

    def _aim(self, after: State, limit: float) -> LeastLatency:
        """What is to be small from the join on."""
        looks, found = self._aims.get(after, (-1, None))
        if found is None or looks != self._tail.looks:
            found = LeastLatency(self._tail, None, limit, [after])
            self._aims[after] = self._tail.looks, found
        found.limit = limit
        return found

    def _until_join(self, choice: Choice) -> FloatArray:
        """Seconds at least until the join can start, per strategy; exact but for costs if no two share a set."""
        arrivals = [
            (part.reached(choice.states[group])[-1], self._arrival(choice, branch).seconds())
            for branch, (part, group) in enumerate(zip(self._parts, choice.groups, strict=True))
        ]
        if choice.apart:
            least: FloatArray = ends_apart(choice.home, arrivals).min(axis=0)
            return least
        moved: list[Amount] = [arrival.min(axis=0) for _, arrival in arrivals]
        # Where a branch counts whole, its end is one that is good for both; where it only arrives, any.
        alone: list[Amount] = [
            (ended[:, None] + arrival).min(axis=0) - least
            for (ended, arrival), least in zip(arrivals, moved, strict=True)
        ]
        return np.asarray(until_joined(choice.groups, choice.home, alone, moved))

    def _arrivals(self, choice: Choice, strategy: int) -> list[tuple[FloatArray, FloatArray]]:
        """Per branch, for one strategy of the join and every end: seconds until then, and from there to the join."""
        return [
            (part.reached(choice.states[group])[-1], self._arrival(choice, branch).seconds()[:, strategy])
            for branch, (part, group) in enumerate(zip(self._parts, choice.groups, strict=True))
        ]

    def _ends(self, choice: Choice, strategy: int) -> list[int]:
        """Per branch the end that is best for one strategy of the join."""
        arrivals = self._arrivals(choice, strategy)
        if not choice.apart:
            return ends_together(choice.groups, choice.home, arrivals)[1]
        home = choice.home
        chosen = [0] * len(self._parts)
        chosen[home] = int(ends_apart(home, [(ended, moved[:, None]) for ended, moved in arrivals])[:, 0].argmin())
        now = float(arrivals[home][0][chosen[home]])
        for branch, (ended, moved) in enumerate(arrivals):
            if branch == home:
                now += float(moved[chosen[home]])
            else:
                ready = np.maximum(ended, now) + moved
                chosen[branch], now = int(ready.argmin()), float(ready.min())
        return chosen

    def _arrival(self, choice: Choice, branch: int) -> Crossing:
        """From every end of a branch to what every strategy of the join needs of it."""
        state, home = choice.states[choice.groups[branch]], choice.own
        key = (branch, self._between.likeness(state.place.members, home.place.members))
        if key not in self._crossings:
            part = self._parts[branch]
            self._crossings[key] = self._between.crossing(
                part.sets.chain.kinds[part.sets.chain.segments[-1].gate or Source(None, 0)],
                part.sets.tables(state).on.layouts,
                part.columns(state),
                self._tail.tables(home).on.layouts,
                self._needs(home)[branch],
                (state.place.members, home.place.members),
            )
        return self._crossings[key]

    def _needs(self, home: State) -> list[IntArray]:
        """Per branch the layouts that the strategies of the join need."""
        join, layouts = self._split.join, self._tail.tables(home).on.layouts
        every = (layouts.needs(join, number) for number in range(len(join.inputs)))
        return [numbers for numbers in every if numbers is not None][: len(self._parts)]

    def sharpened(self, joined: Joined) -> Joined:
        """Replace bounds on a way by exact costs; the same way, with whether there were none."""
        choice, onward = joined.choice, Way(joined.tail.seconds, joined.tail.steps)
        changed = self._tail.tables(choice.after).on.layouts.price_resolution(self._split.join, joined.strategy)
        for branch, column in enumerate(joined.ends):
            part, state = self._parts[branch], choice.states[choice.groups[branch]]
            changed |= self._arrival(choice, branch).sharpen(column, joined.strategy)
            changed |= part.forward.sharpen(part.way(state, column))
        changed |= self._onward.sharpen(onward, skip=1)
        return replace(joined, sharp=not changed)

    def mapping(self, joined: Joined) -> Mapping:
        """A way, as a mapping of the whole problem."""
        split = self._split
        assembly = Assembly(split.problem)
        for branch, column in enumerate(joined.ends):
            part, state = self._parts[branch], joined.choice.states[joined.choice.groups[branch]]
            way, layers = part.way(state, column), split.branches.layers[branch]
            assembly.add(part.forward, way, layers, inputs=split.inputs[branch])
        numbers = tuple(range(split.branches.join, len(split.problem.layers)))
        decision = Decision({0: joined.strategy}, {}, ())
        assembly.add(self._onward, joined.tail, numbers, first=decision)
        return assembly.mapping()
