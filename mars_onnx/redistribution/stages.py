"""Redistribution of whole values: as a sequence of regular steps over axes, or in the last resort piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mars_onnx.geometry import Box, contains, intersect, volume
from mars_onnx.redistribution.patterns import Boxes, Step, exchange, extend, shift, widened
from mars_onnx.redistribution.plan import Collective
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


def plan_values(held: Boxes, needs: Boxes, distance: Distance) -> list[Collective]:
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
    collectives = _among_holders(held, early, distance) if len(late) < len(missing) else []
    if late:
        gained = [
            (rank, output.box)
            for collective in collectives
            for rank, output in zip(collective.group, collective.outputs, strict=True)
            if output
        ]
        holders = Holders([*held.items(), *gained], distance)
        collectives += sends({rank: holders.tile(rank, need) for rank, need in late.items()})
    return collectives


def _among_holders(held: Boxes, needs: Boxes, distance: Distance) -> list[Collective]:
    """The same, where all who need something hold something."""
    regular = _regular(held, needs)
    if regular is not None:
        return regular
    tiles = direct_tiles(held, needs, distance)
    components = _components(tiles)
    collectives: list[Collective] = []
    irregular: dict[int, list[Piece]] = {}
    for component in components:
        inside = {rank: need for rank, need in needs.items() if rank in component}
        # Alone, a component may well be regular; if it is all there is, that has just been refuted.
        part = None if component == held.keys() else _regular({rank: held[rank] for rank in component}, inside)
        if part is None:
            irregular |= {rank: tiles[rank] for rank in inside if rank in tiles}
        else:
            collectives += part
    return collectives + sends(irregular)


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


def _regular(held: Boxes, needs: Boxes) -> list[Collective] | None:
    """Shifts, or the best sequence of steps over axes; ``None`` if there is none that is not too expensive."""
    return shift(held, needs) or _decomposed(held, needs)


@dataclass(slots=True)
class _Search:
    """The search for the sequence of steps that moves least, and of those the one with the fewest collectives."""

    wants: Boxes
    least: int
    limit: int
    widening: bool = False
    best: tuple[int, int] | None = None
    steps: list[Step] = field(default_factory=list)
    tried: int = 0

    def run(self, current: Boxes, done: list[Step], received: int, count: int, widened_axes: frozenset[int]) -> None:
        """Try all steps from here. An axis is widened once at most, or the search might go in circles."""
        axes = sorted({axis for rank, want in self.wants.items() for axis in _differing(current[rank], want)})
        if not axes:
            if self.best is None or (received, count) < self.best:
                self.best, self.steps = (received, count), list(done)
            return
        options: list[tuple[int, int | None, bool]] = [
            (axis, split, False) for axis in axes for split in axes if split != axis
        ]
        options += [(axis, None, False) for axis in axes]
        if self.widening:
            fresh = [axis for axis in axes if axis not in widened_axes]
            options += [(axis, split, True) for axis in fresh for split in (*axes, None) if split != axis]
        for axis, split, wide in options:
            if self.tried >= MAX_STEPS_TRIED or self._settled():
                return
            self.tried += 1
            wants = widened(axis, current, self.wants) if wide else self.wants
            step = extend(axis, current, wants) if split is None else exchange(axis, split, current, wants)
            if step is None or received + step.received > self.limit:
                continue
            done.append(step)
            after = widened_axes | {axis} if wide else widened_axes
            self.run(step.after, done, received + step.received, count + len(step.collectives), after)
            done.pop()

    def _settled(self) -> bool:
        return self.best is not None and self.best[0] == self.least


def _decomposed(held: Boxes, needs: Boxes) -> list[Collective] | None:
    least = missing_volume(held, needs)
    # Widening multiplies the possibilities and is seldom needed, hence only after all else.
    for widening in (False, True):
        search = _Search(wants=needs, least=least, limit=MAX_EXCESS * least, widening=widening)
        search.run(held, [], 0, 0, frozenset())
        if search.best is not None:
            return [collective for step in search.steps for collective in step.collectives]
    return None


def _differing(one: Box, other: Box) -> list[int]:
    return [axis for axis, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
