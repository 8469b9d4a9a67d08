"""What sets for all branches take at least: quickly said, and never too much."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import prod

import numpy as np

from mars_onnx.search.exact.communication.moves import FloatArray
from mars_onnx.search.exact.communication.ports import crossing
from mars_onnx.search.exact.joined.behind import Behind
from mars_onnx.search.exact.joined.choices import Choice, Choices, Placing
from mars_onnx.search.exact.joined.split import Split
from mars_onnx.search.exact.joined.together import until_joined
from mars_onnx.search.exact.ways.crossings import Members
from mars_onnx.search.exact.ways.shapes import Counts, Place
from mars_onnx.search.exact.work import ASSIGNMENT, PLACING, spend


@lru_cache(maxsize=64)
def _along(axes: int, own: int) -> tuple[int, ...]:
    """The shape of an array along one of some axes."""
    return tuple(-1 if axis == own else 1 for axis in range(axes))


class Estimates:
    """What each of the sets has to do by itself, as far as is known.

    The set that goes on does its branches and takes in the others; another one does its branches and sends them, after
    which those that come later still have to arrive.
    """

    def __init__(self, split: Split, choices: Choices) -> None:
        """Of branches, and of what they can have."""
        self._split, self._choices = split, choices
        self._behind = Behind(split.tail)
        self._ports: dict[tuple[Members, Members], tuple[float, float]] = {}
        self._fastest: dict[tuple[int, Place], float] = {}
        self._quickest: dict[tuple[Place, Counts], float] = {}

    def of_places(self, placing: Placing) -> float:
        """Seconds on some accelerators, whatever the designs, as far as was known when somebody first asked."""
        spend(PLACING)
        branches = list(enumerate(placing.groups))
        home = placing.places[placing.home]
        alone = [self._branch(branch, placing.places[group]) for branch, group in branches]
        moved = [self._crossing(branch, placing.places[group], home) for branch, group in branches]
        key = (home, placing.used)
        if key not in self._quickest:
            after = (self._choices.after(state, placing.used) for state in self._choices.states(home))
            self._quickest[key] = min(float(self._behind.left(state)[0]) for state in after)
        return float(until_joined(placing.groups, placing.home, alone, moved)) + self._quickest[key]

    def _branch(self, branch: int, place: Place) -> float:
        """Seconds of a branch in the best design."""
        key = (branch, place)
        if key not in self._fastest:
            self._fastest[key] = min(map(self._split.parts[branch].least, self._choices.states(place)))
        return self._fastest[key]

    def of_designs(self, placing: Placing) -> FloatArray:
        """Seconds on some accelerators, ``[designs of one set, designs of the next, ...]``."""
        every, home = [self._choices.states(place) for place in placing.places], placing.home
        spend(ASSIGNMENT, prod(map(len, every)))

        def along(group: int, seconds: Iterable[float]) -> FloatArray:
            """Seconds that depend on the design of one set."""
            return np.fromiter(seconds, np.float64, len(every[group])).reshape(_along(len(every), group))

        branches = list(enumerate(placing.groups))
        alone = [along(group, map(self._split.parts[branch].least, every[group])) for branch, group in branches]
        moved = [self._crossing(branch, placing.places[group], placing.places[home]) for branch, group in branches]
        after = (self._choices.after(state, placing.used) for state in every[home])
        until: FloatArray = np.asarray(until_joined(placing.groups, home, alone, moved))
        return until + along(home, (float(self._behind.left(state)[0]) for state in after))

    def of(self, choice: Choice) -> float:
        """Seconds on some sets."""
        branches = list(enumerate(choice.groups))
        alone = [self._split.parts[branch].least(choice.states[group]) for branch, group in branches]
        moved = [self._crossing(branch, choice.states[group].place, choice.own.place) for branch, group in branches]
        return float(until_joined(choice.groups, choice.home, alone, moved) + self._behind.left(choice.after)[0])

    def behind(self, choice: Choice) -> float:
        """Seconds behind the join."""
        return float(self._behind.left(choice.after)[1])

    def _crossing(self, branch: int, place: Place, home: Place) -> float:
        """Seconds until the end of a branch is where it is joined."""
        if place.members == home.members:
            return 0.0
        key = (place.members, home.members)
        if key not in self._ports:
            self._ports[key] = crossing(self._split.pool, *key)
        latency_s, s_per_byte = self._ports[key]
        return latency_s + self._split.needed[branch] * s_per_byte
