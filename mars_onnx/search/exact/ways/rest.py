"""The least that is left: bounds on what comes after a gate, by which a search sees early what is hopeless.

A set that somebody has looked at goes on to the end in the least seconds that its tables say, layouts included. If it
hands over at a later gate ``b`` instead, it has taken at least what it takes to the end, less the most that it can take
from ``b`` to the end. What comes after a hand-over counts without layouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from mars_onnx.pool.topology import Pool
from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.communication.moves import FloatArray
from mars_onnx.search.exact.communication.ports import one_port
from mars_onnx.search.exact.one_set.runs import runs_at_least
from mars_onnx.search.exact.ways.sets import Sets, State
from mars_onnx.search.exact.work import STATE, spend

#: Of more sets than these, which can follow which is not looked at.
_MOST_STATES = 20_000


@dataclass(frozen=True, eq=False)
class Order:
    """Which sets can follow which.

    Attributes:
        states: Everything that can be at work.
        number: Of each state among them.
        kinds: One state of every kind; those of a kind have the same tables.
        alike: By what they have in common, the number of the one state of each kind.
        kind: Per state the number of its kind.
        place: Of what is used, its number.
        first: Per number of what is used, the states that can start then.
        after: Per state the number of what is used when it has started.
        loose: Whether there are too many to tell them apart: then there is one of each kind, and any can follow any.
        unknown: Whether there may be other kinds: then there is one more, as good as any.
        found: Of loose ones, what has been asked for.
    """

    states: tuple[State, ...]
    number: dict[State, int]
    kinds: tuple[State, ...]
    alike: dict[int, int]
    kind: IntArray
    place: dict[tuple[int, ...], int]
    first: tuple[IntArray, ...]
    after: IntArray
    loose: bool = False
    unknown: bool = False
    found: dict[tuple[int, ...], IntArray] = field(default_factory=dict)

    def number_of(self, sets: Sets, state: State) -> int:
        """The number of a state; of loose ones, that of one of its kind, or of the one that is as good as any."""
        number = self.number.get(state)
        return self.alike.get(sets.key(state), -1) if number is None else number

    def starting(self, sets: Sets, used: tuple[int, ...]) -> IntArray:
        """The numbers of all sets that can start when something is used, in the order in which they are found."""
        if not self.loose:
            return self.first[self.place[used]]
        if used not in self.found:
            self.found[used] = np.asarray([self.number_of(sets, state) for state in sets.states(used)], np.int64)
        return self.found[used]


def order_of(sets: Sets, start: Sequence[State], alone: bool) -> Order:
    """All that can follow some first sets, or nothing if each of them is alone."""
    number: dict[State, int] = {}
    first: dict[tuple[int, ...], IntArray] = {}
    pending = [((0,) * len(sets.shapes.cells), list(start))]
    while pending:
        used, found = pending.pop()
        if used in first:
            continue
        spend(STATE, len(found))
        if len(number) > _MOST_STATES:
            return _loose(sets)
        first[used] = np.asarray([number.setdefault(state, len(number)) for state in found], np.int64)
        if not alone:
            pending += [(state.place.used, sets.states(state.place.used)) for state in found]
    kinds: dict[int, int] = {}
    examples: list[State] = []
    kind = np.empty(len(number), np.int64)
    for state, place in number.items():
        key = sets.key(state)
        if key not in kinds:
            kinds[key] = len(examples)
            examples.append(state)
        kind[place] = kinds[key]
    places = {used: place for place, used in enumerate(first)}
    after = np.asarray([places.get(state.place.used, 0) for state in number], np.int64)
    alike = {sets.key(state): number[state] for state in examples}
    return Order(tuple(number), number, tuple(examples), alike, kind, places, tuple(first.values()), after)


def _loose(sets: Sets) -> Order:
    """Any set can follow any."""
    states = tuple(sets.kinds())
    number = {state: place for place, state in enumerate(states)}
    alike = {sets.key(state): place for state, place in number.items()}
    unknown = not sets.shapes.uniform
    every = np.arange(len(states) + unknown)
    nothing = (0,) * len(sets.shapes.cells)
    return Order(states, number, states, alike, every, {nothing: 0}, (every,), np.zeros_like(every), True, unknown)


@lru_cache(maxsize=16)
def at_best(pool: Pool) -> tuple[float, float]:
    """Seconds at least until anything comes to another accelerator, and per byte that one accelerator takes in."""
    pairs = [(a, b) for a in range(pool.size) for b in range(pool.size) if a != b]
    if not pairs:
        return 0.0, 0.0
    fastest = max(pool.route(*pair).bandwidth_bytes_per_s for pair in pairs)
    return min(pool.latency(*pair) for pair in pairs), 1 / fastest if one_port(pool) else 0.0


class Rest:
    """The least that is left, by state and by what is used, and by gate.

    Attributes:
        own: Where a state is at work, ``[states, gates]``.
        after: Where another one is to take over, crossing included, ``[used, gates]``.
    """

    def __init__(self, sets: Sets, order: Order, alone: bool) -> None:
        """With what the tables of the sets say by now; alone, no state hands over."""
        count = len(sets.chain.segments)
        runs = [sets.runs(state) for state in order.kinds]
        if order.unknown:
            runs.append(runs_at_least(sets.least_of_any()))
        end = np.stack([own.end for own in runs])[order.kind]
        self._sets, self._order, self._end = sets, order, end
        self._least = np.stack([own.own for own in runs])[order.kind]
        self.own = end
        self.after = np.full((len(order.first), count + 1), np.inf)
        if not alone:
            self._hand_over(sets, order, np.stack([own.most for own in runs])[order.kind])
        else:
            for number, states in enumerate(order.first):
                self.after[number] = end[states].min(axis=0) if len(states) else np.inf

    def left(self, state: State, index: int | IntArray) -> FloatArray:
        """Where a set is at work at a gate, or at each of several."""
        found: FloatArray = self.own[self._order.number_of(self._sets, state), index]
        return found

    def left_each(self, used: tuple[int, ...], index: IntArray) -> FloatArray:
        """Where each of those is at work that can start when something is used, ``[sets, gates]``."""
        found: FloatArray = self.own[self._order.starting(self._sets, used)[:, None], index]
        return found

    def left_after(self, used: tuple[int, ...], index: int | IntArray) -> FloatArray:
        """Where another one is to take over when some accelerators are used."""
        found: FloatArray = self.after[0 if self._order.loose else self._order.place[used], index]
        return found

    def single(self) -> list[tuple[State, float]]:
        """One set of each kind that can be the first, and what it takes at least without handing over."""
        first = dict.fromkeys(int(number) for number in self._order.first[0] if number < len(self._order.states))
        kinds = {int(self._order.kind[number]): number for number in first}
        return [(self._order.states[number], float(self._end[number, 0])) for number in kinds.values()]

    def best(self) -> list[tuple[State, range]]:
        """The way that looks best from here, as states and their segments; layouts at hand-overs are left out."""
        order, count = self._order, self._least.shape[1]
        found: list[tuple[State, range]] = []
        used, index = 0, 0
        while index < count and len(order.first[used]):
            states = order.first[used]
            number = int(states[self.own[states, index].argmin()])
            if number == len(order.states):
                break  # Nobody knows what that is.
            following = count
            if self.own[number, index] < self._end[number, index]:
                used = int(order.after[number])
                gates = np.arange(index + 1, count)
                following = int(gates[(np.cumsum(self._least[number, index:-1]) + self.after[used, gates]).argmin()])
            found.append((order.states[number], range(index, following)))
            index = following
        return found

    def _hand_over(self, sets: Sets, order: Order, most: FloatArray) -> None:
        least, end = self._least, self._end
        count = least.shape[1]
        latency_s, s_per_byte = at_best(sets.pool)
        members = np.asarray([len(state.place.members) for state in order.states] + [sets.pool.size] * order.unknown)
        # The states that can start when something is used, one after the other.
        starting = np.concatenate(order.first)
        some = np.asarray([len(states) > 0 for states in order.first])
        starts = np.cumsum([0, *(len(states) for states in order.first if len(states))][:-1])
        handed, shorter = np.full((2, len(members)), np.inf)
        # Gate by gate: these are quicker to go through in a row.
        least, end, most = (np.ascontiguousarray(of_states.T) for of_states in (least, end, most))
        own, every = end.copy(), np.ascontiguousarray(self.after.T)
        # Who cannot get to the end alone is bound by the next set only; what is no number then does not count.
        alone = np.where(np.isfinite(end), end, -np.inf)
        with np.errstate(invalid="ignore"):
            for index in reversed(range(count)):
                # Who starts at this gate hands over at a later one: after this segment, or after more of them.
                handed = least[index] + handed
                best = np.minimum(end[index], np.fmax(handed, alone[index] + shorter))
                own[index] = best
                if index:
                    best = best + (latency_s + sets.needed(index) * s_per_byte / members)
                if len(starts):
                    every[index, some] = np.minimum.reduceat(best.take(starting), starts)
                after = every[index].take(order.after)
                handed = np.minimum(handed, after)
                # Where no other set can take over, nothing is shorter.
                shorter = np.fmin(shorter, after - most[index])
        self.own, self.after = np.ascontiguousarray(own.T), np.ascontiguousarray(every.T)
