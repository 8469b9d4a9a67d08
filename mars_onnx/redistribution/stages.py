"""Redistribution of whole values: as a sequence of regular steps over axes, or in the last resort piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import permutations
from math import prod
from operator import mul
from typing import NamedTuple

from mars_onnx.geometry import Box, contains, intersect, volume
from mars_onnx.redistribution.groups import REMEMBERED, Classes, Column, Wanted, gatherings, length, overlap
from mars_onnx.redistribution.patterns import (
    Boxes,
    Columns,
    Planned,
    Regular,
    Step,
    classes,
    collectives_of,
    exchange,
    extend,
    shift,
    spans,
)
from mars_onnx.redistribution.sources import Distance, Holders, Piece, sends

# Regular collectives may move more than single sends (the pieces of an AllToAll whose targets overlap, say) and are
# still preferred: they take fewer, larger messages, and all links at once.
MAX_EXCESS = 2

# Usual pairs take a few. Pairs that permute the axes of a mesh can take hundreds (some 12 ms) to be made regular or
# given up; a lower bound leaves more of them to sends.
MAX_STEPS_TRIED = 256


def lacking(held: Boxes, needs: Boxes) -> dict[int, Box]:
    """The needs of those who do not have all of it already."""
    return {rank: need for rank, need in needs.items() if not contains(held.get(rank), need)}


def missing_volume(held: Boxes, needs: Boxes) -> int:
    """How many elements have to be received at least, over all ranks."""
    return sum(volume(need) - volume(intersect(held.get(rank), need)) for rank, need in needs.items())


def plan_values(held: Boxes, needs: Boxes, distance: Distance) -> list[Planned]:
    """Collectives after which every rank in ``needs`` has all of its box.

    Args:
        held: The boxes that ranks have.
        needs: The boxes that ranks need.
        distance: From a source to a destination.

    Raises:
        ValueError: Nobody holds some needed element.
    """
    missing = lacking(held, needs)
    if not missing:
        return []
    # Who holds nothing cannot be in a regular group; it is served at the end, by those who have its box by then.
    early = {rank: need for rank, need in needs.items() if rank in held}
    late = {rank: need for rank, need in missing.items() if rank not in held}
    planned = _among_holders(held, early, distance) if len(late) < len(missing) else []
    if late:
        gained = [
            (rank, output.box)
            for collective in collectives_of(planned)
            for rank, output in zip(collective.group, collective.outputs, strict=True)
            if output
        ]
        holders = Holders([*held.items(), *gained], distance)
        planned += sends({rank: holders.tile(rank, need) for rank, need in late.items()})
    return planned


def _among_holders(held: Boxes, needs: Boxes, distance: Distance) -> list[Planned]:
    """The same, where all who need something hold something."""
    regular = _regular(held, needs, distance)
    if regular is not None:
        return regular
    tiles = direct_tiles(held, needs, distance)
    components = _components(tiles)
    planned: list[Planned] = []
    irregular: dict[int, list[Piece]] = {}
    for component in components:
        inside = {rank: need for rank, need in needs.items() if rank in component}
        # Alone, a component may well be regular; if it is all there is, that has just been refuted.
        part = (
            None if component == held.keys() else _regular({rank: held[rank] for rank in component}, inside, distance)
        )
        if part is None:
            irregular |= {rank: tiles[rank] for rank in inside if rank in tiles}
        else:
            planned += part
    return [*planned, *sends(irregular)]


def direct_tiles(held: Boxes, needs: Boxes, distance: Distance) -> dict[int, list[Piece]]:
    """Who sends what to those who lack something, without any regular collective."""
    holders = Holders(held.items(), distance)
    return {rank: holders.tile(rank, need) for rank, need in sorted(lacking(held, needs).items())}


def _components(tiles: Mapping[int, Iterable[Piece]]) -> list[set[int]]:
    """Sets of ranks that have nothing to do with each other."""
    components: list[set[int]] = []
    for rank, pieces in tiles.items():
        linked = {rank, *(source for source, _ in pieces)}
        apart = [component for component in components if component.isdisjoint(linked)]
        components = [*apart, linked.union(*(c for c in components if not c.isdisjoint(linked)))]
    return sorted(components, key=min)


def _regular(held: Boxes, needs: Boxes, distance: Distance) -> list[Planned] | None:
    """Shifts, or the best sequence of steps over axes; ``None`` if there is none that is not too expensive."""
    shifts = shift(held, needs)
    return [*shifts] if shifts else _decomposed(held, needs, distance)


class _Cost(NamedTuple):
    """Of a sequence of steps: elements received, and collectives. Less is better, the elements first."""

    received: int
    collectives: int


@dataclass(frozen=True, slots=True)
class _Lack:
    """How many elements everyone together lacks in a state of a search.

    Attributes:
        axes: The dimensions in which something changes.
        wanted: Per dimension what is wanted of it.
        needed: How many elements are wanted, by all together.
        unchanged: Per place how many elements are wanted per unit of length along the axes.
        common: Per axis and column how much of what is wanted everyone has.
    """

    axes: Sequence[int]
    wanted: tuple[Wanted, ...]
    needed: int
    unchanged: tuple[int, ...]
    common: dict[int, dict[Column, tuple[int, ...]]]

    @staticmethod
    def along(axes: Sequence[int], wanted: tuple[Wanted, ...]) -> _Lack:
        """Where everyone has what it wants of all other dimensions."""
        lengths = [[0 if want is None else length(want) for want in column] for column in wanted]
        unchanged = [1] * len(wanted[0])
        for axis, own in enumerate(lengths):
            if axis not in axes:
                unchanged = list(map(mul, unchanged, own))
        needed = sum(map(prod, zip(*lengths, strict=True)))
        return _Lack(axes, wanted, needed, tuple(unchanged), {axis: {} for axis in axes})

    def of(self, columns: Columns) -> int:
        """In a state."""
        elements: Iterable[int] = self.unchanged
        for axis in self.axes:
            column, known = columns[axis], self.common[axis]
            common = known.get(column)
            if common is None:
                pairs = zip(column, self.wanted[axis], strict=True)
                common = known[column] = tuple([0 if want is None else overlap(has, want) for has, want in pairs])
            elements = map(mul, elements, common)
        return self.needed - sum(elements)


@dataclass(slots=True)
class _Search:
    """The search for the sequence of steps that moves least, and of those the one with the fewest collectives.

    Attributes:
        axes: The dimensions in which something changes, in the order in which they are tried.
        wanted: Per dimension what is wanted of it.
        goal: What everyone has in the end.
        lack: How many of the wanted elements are missing.
        least: How many of them have to be received in any case.
        widening: Whether steps may bring more than is wanted.
        best: What the best sequence so far costs.
        steps: That sequence.
        tried: How many steps have been tried.
        seen: States that have been reached, with the axes that had been widened by then, and what it cost.
    """

    axes: Sequence[int]
    wanted: tuple[Wanted, ...]
    goal: Columns
    lack: _Lack
    least: int
    widening: bool = False
    best: _Cost | None = None
    steps: list[Step] = field(default_factory=list)
    tried: int = 0
    seen: dict[Columns, list[tuple[frozenset[int], _Cost]]] = field(default_factory=dict)

    def run(self, columns: Columns, done: list[Step], cost: _Cost, widened: frozenset[int]) -> None:
        """Try all steps from here. An axis is widened once at most, or the search might go in circles."""
        axes = [axis for axis in self.axes if columns[axis] != self.goal[axis]]
        if not axes:
            if self.best is None or cost < self.best:
                self.best, self.steps = cost, list(done)
            return
        if self._known(columns, cost, widened):
            return
        for step, then in self._steps(columns, axes, widened):
            self.tried += 1
            if step is not None:
                total = _Cost(cost.received + step.received, cost.collectives + len(step.groups))
                if self._promising(step.after, total):
                    done.append(step)
                    self.run(step.after, done, total, then)
                    done.pop()
            if self.tried >= MAX_STEPS_TRIED or (self.best is not None and self.best.received == self.least):
                return

    def _steps(
        self, columns: Columns, axes: Sequence[int], widened: frozenset[int]
    ) -> Iterator[tuple[Step | None, frozenset[int]]]:
        """All steps from here, and which axes have been widened then; ``None`` for one that turns out to be none."""
        alike = {axis: classes(columns, axis) for axis in axes}
        for axis in axes:
            for step in self._exchanges(axis, columns, axes, alike[axis], self.wanted[axis], self.goal[axis]):
                yield step, widened
        for axis in axes:
            yield extend(axis, columns, alike[axis], self.wanted[axis], self.goal[axis]), widened
        for axis in axes if self.widening else ():
            if axis not in widened:
                wanted, after = self._wide(axis, columns[axis], alike[axis])
                if wanted != self.wanted[axis]:
                    for step in self._exchanges(axis, columns, axes, alike[axis], wanted, after):
                        yield step, widened | {axis}
                    yield extend(axis, columns, alike[axis], wanted, after), widened | {axis}

    def _exchanges(
        self, axis: int, columns: Columns, axes: Sequence[int], alike: Classes, wanted: Wanted, after: Column
    ) -> Iterator[Step | None]:
        """Steps that gather along an axis and split along each of the others."""
        groups = gatherings(alike, columns[axis], wanted) if len(axes) > 1 else None
        if groups:
            for split in axes:
                if split != axis:
                    yield exchange(axis, split, columns, groups, after, self.wanted[split])

    def _wide(self, axis: int, column: Column, alike: Classes) -> tuple[Wanted, Column]:
        """As much as can be wanted of an axis, and what everyone has then."""
        wants = self.wanted[axis]
        wanted = tuple([None if want is None else span for want, span in zip(wants, spans(alike, column), strict=True)])
        after = tuple([has if want is None else want for has, want in zip(column, wanted, strict=True)])
        return wanted, after

    def _known(self, columns: Columns, cost: _Cost, widened: frozenset[int]) -> bool:
        """Whether this state has been reached before at no higher cost: all that follows has been tried from there."""
        before = self.seen.setdefault(columns, [])
        for axes, other in before:
            if other.received <= cost.received and other.collectives <= cost.collectives and axes <= widened:
                return True
        before.append((widened, cost))
        return False

    def _promising(self, columns: Columns, cost: _Cost) -> bool:
        """Whether something better than the best so far may follow: whatever is missing has yet to be received."""
        limit = MAX_EXCESS * self.least
        if cost.received > limit or (self.best is not None and cost >= self.best):
            return False
        least = cost.received + self.lack.of(columns)
        return least <= limit and (self.best is None or (least, cost.collectives) < self.best)


def _decomposed(held: Boxes, needs: Boxes, distance: Distance) -> list[Planned] | None:
    ranks = tuple(sorted(held))
    columns = tuple(zip(*[held[rank] for rank in ranks], strict=True))
    nothing = (None,) * len(columns)
    wanted: tuple[Wanted, ...] = tuple(zip(*[needs.get(rank, nothing) for rank in ranks], strict=True))
    goal = tuple(zip(*[needs.get(rank, held[rank]) for rank in ranks], strict=True))
    axes = _farthest_first(columns, goal, ranks, distance)
    lack = _Lack.along(axes, wanted)
    least = lack.of(columns)
    # Widening multiplies the possibilities and is seldom needed, hence only after all else. Where everyone keeps its
    # place along all axes, it is of no use.
    for widening in (False, True):
        if widening and all(map(_keeps_places, columns, goal)):
            break
        search = _Search(axes, wanted, goal, lack, least, widening)
        search.run(columns, [], _Cost(0, 0), frozenset())
        if search.best is not None:
            return [Regular(step, ranks) for step in search.steps]
    return None


def _keeps_places(has: Column, end: Column) -> bool:
    """Whether members are in the end alike in a dimension where, and only where, they have been before.

    Exact search counts on it that all of them get what they lack in such a dimension at once, each from members that
    have had it from the beginning (:mod:`mars_onnx.search.exact.communication.bounds`).
    """
    return len(set(has)) == len(set(end)) == len(set(zip(has, end, strict=True)))


def _farthest_first(columns: Columns, goal: Columns, ranks: tuple[int, ...], distance: Distance) -> list[int]:
    """The dimensions in which something changes, those first along which data may have the farthest to go.

    Of two steps that follow each other, the first one moves the smaller pieces.
    """
    axes = [axis for axis, (has, end) in enumerate(zip(columns, goal, strict=True)) if has != end]
    if len(axes) < 2:
        return axes
    farthest = {axis: _farthest(classes(columns, axis), columns[axis], ranks, distance) for axis in axes}
    known = {axis: far for axis, far in farthest.items() if far is not None}
    return [*sorted(known, key=known.__getitem__, reverse=True), *(axis for axis in axes if axis not in known)]


@lru_cache(maxsize=REMEMBERED)
def _farthest(
    alike: Classes, column: Column, ranks: tuple[int, ...], distance: Distance
) -> float | tuple[float, int] | None:
    """The distance of the two that are farthest from each other of those who only differ in one dimension."""
    apart = [
        distance(ranks[one], ranks[other])
        for one, other in permutations(range(len(ranks)), 2)
        if alike[one] == alike[other] and column[one] != column[other]
    ]
    return max(apart, default=None)
