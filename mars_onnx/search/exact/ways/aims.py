"""What makes a way through the sets hopeless, and how time goes on when a set hands over to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.communication.moves import BoolArray, FloatArray
from mars_onnx.search.exact.ways.rest import Order, Rest, order_of
from mars_onnx.search.exact.ways.sets import Sets, State

#: One gate or several, and seconds until then.
Gates = int | IntArray
Seconds = float | FloatArray


class Aim(Protocol):
    """An objective with a limit that ways have to stay below."""

    limit: float
    alone: bool

    def hopeless(self, state: State, index: Gates, seconds: Seconds) -> BoolArray:
        """Whether a set that starts a segment after so many seconds cannot stay below the limit."""
        ...

    def hopeless_each(self, used: tuple[int, ...], index: IntArray, seconds: FloatArray) -> BoolArray:
        """The same of each of the sets that can take over when these accelerators are used, ``[sets, gates]``."""
        ...

    def hopeless_after(self, used: tuple[int, ...], index: Gates, seconds: Seconds) -> BoolArray:
        """The same for every set that could take over when these accelerators are used."""
        ...

    def hand_over(self, reached: FloatArray, crossing: FloatArray) -> FloatArray:
        """Seconds of the set that takes over.

        Args:
            reached: Seconds before, ``[..., columns, 1]``.
            crossing: Seconds between them, ``[columns, layouts]``.
        """
        ...

    def handed_over(self, least: FloatArray, crossing: FloatArray) -> FloatArray:
        """The same without layouts, ``[sets, gates]``, from seconds before by gate, and seconds between them by set."""
        ...


#: So many times as many segments as kinds of them make a chain long.
_LONG = 3

#: Of what other sets say, the part that a look at some segments alone may be expected to add to the bound.
_EXPECTED = 0.85

#: Which sets can follow which depends on the pool and the first sets only.
_ORDERS: WeakKeyDictionary[Sets, dict[tuple[object, ...], Order]] = WeakKeyDictionary()


def order_from(sets: Sets, start: tuple[State, ...], alone: bool) -> Order:
    """Which sets can follow some first sets, or nothing if each of them is alone."""
    known = _ORDERS.setdefault(sets, {})
    if (start, alone) not in known:
        known[start, alone] = order_of(sets, start, alone)
    return known[start, alone]


class LeastLatency:
    """Seconds add up from the start to the end."""

    def __init__(
        self, sets: Sets, states: Sequence[State] | None, limit: float, start: Sequence[State] | None = None
    ) -> None:
        """With a limit of seconds; each of some states alone, or all that there are, one after the other.

        Args:
            sets: Of the pool.
            states: Look at these only.
            limit: Seconds.
            start: Sets that can be the first; by default all.
        """
        self.limit, self.alone = limit, states is not None
        self._sets = sets
        self._order = order_from(sets, tuple(start or (sets.start() if states is None else states)), self.alone)
        self._rest = Rest(sets, self._order, self.alone)

    @property
    def least_s(self) -> float:
        """What every way takes at least."""
        return float(self._rest.after[0, 0])

    def unknown(self, enough: float = float("inf")) -> list[tuple[State, int]]:
        """Sets and segments at which nobody has looked, on what looks like the best way; none if that is hopeless.

        If one set does all of it, also those of all others that could do everything in time: theirs are the next ways.

        Args:
            enough: Seconds that the best way has to take at least for others to look better, if that is known.
        """
        if self.least_s >= self.limit:
            return []
        way = self._rest.best()
        wanted = dict.fromkeys(self._wanted(self.least_s, min(enough, self.limit), way))
        every = range(len(self._sets.chain.alike))
        for state, seconds in self._rest.single() if len(way) == 1 and not self.alone else ():
            if seconds < self.limit:
                wanted |= dict.fromkeys(self._wanted(seconds, self.limit, [(state, every)]))
        return list(wanted)

    def _wanted(self, least: float, limit: float, way: Sequence[tuple[State, range]]) -> list[tuple[State, int]]:
        """Of a way, as many as will probably do to bring it to a limit: those first that other sets say take long.

        Of a long chain of few kinds of segments, of all kinds: to look at them takes less than to find a way.
        """
        found: dict[tuple[int, int], tuple[State, int]] = {}
        gains: dict[tuple[int, int], float] = {}
        alike = self._sets.chain.alike
        kinds = dict.fromkeys(alike)
        long = len(alike) > _LONG * len(kinds)
        for state, segments in way:
            surplus = self._sets.surplus(state)
            for index in kinds if long else segments:
                if self._sets.known(state, index) is None:
                    key = (self._sets.key(state), alike[index])
                    found.setdefault(key, (state, index))
                    gains.setdefault(key, 0.0)
            for index in segments:
                key = (self._sets.key(state), alike[index])
                if key in found:
                    gains[key] += float(surplus[index])
        wanted: list[tuple[State, int]] = []
        for key in sorted(found, key=lambda key: -gains[key]):
            if least >= limit:
                break
            wanted.append(found[key])
            least += _EXPECTED * gains[key]
        return wanted

    def hopeless(self, state: State, index: Gates, seconds: Seconds) -> BoolArray:
        """Whether what is left takes too long at least."""
        return np.asarray(seconds + self._rest.left(state, index) >= self.limit)

    def hopeless_each(self, used: tuple[int, ...], index: IntArray, seconds: FloatArray) -> BoolArray:
        """Whether what is left takes each other set too long."""
        return np.asarray(seconds + self._rest.left_each(used, index) >= self.limit)

    def hopeless_after(self, used: tuple[int, ...], index: Gates, seconds: Seconds) -> BoolArray:
        """Whether what is left takes every other set too long."""
        return np.asarray(seconds + self._rest.left_after(used, index) >= self.limit)

    def hand_over(self, reached: FloatArray, crossing: FloatArray) -> FloatArray:
        """The crossing comes after all that was before."""
        total: FloatArray = reached + crossing
        return total

    def handed_over(self, least: FloatArray, crossing: FloatArray) -> FloatArray:
        """The same without layouts."""
        total: FloatArray = least + crossing[:, None]
        return total
