"""Which sets branches can have: each its own, or several one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mars_onnx.search.exact.chain.joins import groupings
from mars_onnx.search.exact.ways.sets import Sets, State
from mars_onnx.search.exact.ways.shapes import Counts, Place


@dataclass(frozen=True, eq=False)
class Placing:
    """Accelerators for all branches, whatever the designs.

    Attributes:
        groups: Per branch the number of its set.
        places: Of the sets.
        home: The number of the set that goes on behind the join.
    """

    groups: tuple[int, ...]
    places: tuple[Place, ...]
    home: int

    @property
    def used(self) -> Counts:
        """Accelerators of each cell that are taken."""
        return self.places[-1].used


@dataclass(frozen=True, eq=False)
class Choice:
    """Sets for all branches.

    Attributes:
        groups: Per branch the number of its set.
        states: The sets.
        home: The number of the set that goes on behind the join.
        after: That set when all of them are taken.
    """

    groups: tuple[int, ...]
    states: tuple[State, ...]
    home: int
    after: State

    @property
    def own(self) -> State:
        """The set that goes on."""
        return self.states[self.home]

    @property
    def apart(self) -> bool:
        """Whether no two branches share a set."""
        return len(self.states) == len(self.groups)


class Choices:
    """All that there are for some branches."""

    def __init__(self, sets: Sets, count: int, grouped: bool) -> None:
        """Of the sets of a pool, for so many branches; whether some of them may share a set."""
        self._sets = sets
        self._groupings = groupings(count) if grouped else [tuple(range(count))]
        self._states: dict[Counts, dict[Place, list[State]]] = {}
        self._after: dict[tuple[object, ...], State] = {}

    def placings(self) -> Iterator[Placing]:
        """All that there are."""
        start = (0,) * len(self._sets.shapes.cells)
        for groups in self._groupings:
            for places in self._placed(max(groups) + 1, start):
                yield from (Placing(groups, places, home) for home in range(len(places)))

    def _placed(self, count: int, used: Counts) -> Iterator[tuple[Place, ...]]:
        """So many sets, one after the other."""
        if not count:
            yield ()
            return
        for place in self._states_by_place(used):
            for others in self._placed(count - 1, place.used):
                yield (place, *others)

    def _states_by_place(self, used: Counts) -> dict[Place, list[State]]:
        """Sets that can start when some accelerators are used."""
        if used not in self._states:
            found = self._states[used] = {}
            for state in self._sets.states(used):
                found.setdefault(state.place, []).append(state)
        return self._states[used]

    def states(self, place: Place) -> list[State]:
        """What can be at a place."""
        before = tuple(used - count for used, count in zip(place.used, place.counts, strict=True))
        return self._states_by_place(before)[place]

    def after(self, state: State, used: Counts) -> State:
        """A set that goes on when others are taken, too."""
        key = (state.place.members, used, state.designs)
        if key not in self._after:
            self._after[key] = State(Place(state.place.counts, used, state.place.members), state.designs)
        return self._after[key]

    def choice(self, placing: Placing, designs: Sequence[int]) -> Choice:
        """The choice of some of the states at each place."""
        states = tuple(self.states(place)[number] for place, number in zip(placing.places, designs, strict=True))
        return Choice(placing.groups, states, placing.home, self.after(states[placing.home], placing.used))
