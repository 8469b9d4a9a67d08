"""Min-plus elimination of variables from a sum of tables.

A *table* is an array over the domains of some variables. The least value of a sum of tables over all assignments
comes from eliminating one variable after another (bucket elimination: Dechter, Artificial Intelligence 113, 1999); on
graphs of small treewidth the intermediate tables stay small. In which order is settled once. When a table changes,
only what depends on it is worked out again.

A variable may be bound to two others: for each pair of their values only a few of its own are possible. As a table this
would be large and nearly all of it infinite. So it is a list of these values, and such a variable is eliminated before
the two others are.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp, inf, prod
from typing import NamedTuple

import numpy as np

from mars_onnx.search.exact.sums.minimum import FloatArray, IntArray, least_of_whole, least_sum, least_sum_again
from mars_onnx.search.exact.work import DECISION, ENTRY, FACTOR, spend

#: Entries of the largest intermediate table; wider graphs are not for this method.
MOST_ENTRIES = 20_000_000

#: Orders that are tried where variables are bound, and the first one has more entries than these.
_TRIES = 40
_MANY = 3_000_000


#: With as many entries or more, tables are added up for one value of the variable after the other, ...
_MANY_AT_ONCE = 200_000
#: ... if there are as many entries for each.
_FEW_AT_ONCE = 2_000


class TooWideError(Exception):
    """An intermediate table would be too large."""


@dataclass(frozen=True, eq=False)
class Bond:
    """What values a variable can have, as two others have theirs.

    Attributes:
        others: The two others.
        values: ``[first, second, values]``, some of them several times if there are fewer.
    """

    others: tuple[int, int]
    values: IntArray


class _Bound(NamedTuple):
    """What of a bond matters for an order.

    Attributes:
        variable: The bound one.
        others: The two others.
        values: How many it can have for each pair of theirs.
    """

    variable: int
    others: tuple[int, int]
    values: int


@dataclass(frozen=True, slots=True)
class _Step:
    """One variable that is eliminated.

    Attributes:
        variable: It takes the value at which the sum of the tables is least.
        tables: The tables in which it occurs, by number.
        scope: The other variables of these, and those that it is bound to.
        made: The number of the table that is left.
        inner: The other variables of the tables, where it is bound.
    """

    variable: int
    tables: tuple[int, ...]
    scope: tuple[int, ...]
    made: int
    inner: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Order:
    """In which order variables are eliminated.

    Attributes:
        steps: One after the other.
        entries: Of all tables together; infinite if one is too large.
        largest: Entries of the largest one.
    """

    steps: tuple[_Step, ...]
    entries: float
    largest: int


def _ordered(
    sizes: Sequence[int],
    scopes: Sequence[tuple[int, ...]],
    keep: Sequence[int],
    bonds: tuple[_Bound, ...],
    most: int,
    left_behind: bool,
    chance: random.Random | None = None,
) -> _Order:
    """First of all the variable whose table is smallest: the one that is summed up, or the one that is left behind.

    With some chance for others.
    """
    every = list(scopes)
    neighbours: dict[int, set[int]] = {variable: {variable} for variable in range(len(sizes))}
    touching: dict[int, set[int]] = {variable: set() for variable in range(len(sizes))}
    for number, scope in enumerate(scopes):
        for variable in scope:
            neighbours[variable].update(scope)
            touching[variable].add(number)
    #: By how many variables that are bound to it each one is held back.
    held = dict.fromkeys(range(len(sizes)), 0)
    bound = {bond.variable: bond for bond in bonds}
    for bond in bonds:
        together = (bond.variable, *bond.others)
        for name in together:
            neighbours[name].update(together)
        for other in bond.others:
            held[other] += 1
    left = set(range(len(sizes))) - set(keep)

    def inner(variable: int) -> set[int]:
        return {name for number in touching[variable] for name in every[number]} - {variable}

    def entries(variable: int) -> int:
        """What is worked out; of a variable that is bound, less than all."""
        if variable not in bound:
            return prod(sizes[other] for other in neighbours[variable])
        made = prod(sizes[other] for other in neighbours[variable] if other != variable)
        return made * bound[variable].values + prod(sizes[other] for other in (variable, *inner(variable)))

    def size(variable: int) -> float:
        exact = prod(sizes[other] for other in neighbours[variable] if other != variable or not left_behind)
        return exact * exp(chance.gauss(0.0, 1.0)) if chance else exact

    cost = {variable: size(variable) for variable in left}
    steps: list[_Step] = []
    total = largest = 0
    while left:
        _, variable = min((cost[candidate], candidate) for candidate in left if not held[candidate])
        own_entries = entries(variable)
        total, largest = total + own_entries, max(largest, own_entries)
        if largest > most:
            return _Order((), inf, largest)
        left.remove(variable)
        within = tuple(sorted(inner(variable))) if variable in bound else ()
        own = tuple(sorted(touching.pop(variable)))
        scope = tuple(sorted(neighbours[variable] - {variable}))
        steps.append(_Step(variable, own, scope, len(every), within))
        if variable in bound:
            for other in bound[variable].others:
                held[other] -= 1
        for other in scope:
            touching[other].difference_update(own)
            touching[other].add(len(every))
            neighbours[other].discard(variable)
            neighbours[other].update(scope)
        every.append(scope)
        for other in left.intersection(scope):
            cost[other] = size(other)
    return _Order(tuple(steps), total, largest)


@lru_cache(maxsize=4096)
def _best_order(
    sizes: tuple[int, ...],
    scopes: tuple[tuple[int, ...], ...],
    keep: tuple[int, ...],
    bonds: tuple[_Bound, ...],
    most: int,
) -> _Order:
    """A good order. Where variables are bound, orders differ much, and several are tried if that can be worth it."""
    best = _ordered(sizes, scopes, keep, bonds, most, left_behind=False)
    if best.entries > _MANY and bonds:
        chance = random.Random(0)
        others = [_ordered(sizes, scopes, keep, bonds, most, left_behind=True)]
        others += [_ordered(sizes, scopes, keep, bonds, most, True, chance) for _ in range(_TRIES)]
        best = min((best, *others), key=lambda order: order.entries)
    return best


class Elimination:
    """Tables, of which a sum is minimised over all variables but some that are kept."""

    def __init__(
        self,
        sizes: Sequence[int],
        scopes: Sequence[tuple[int, ...]],
        keep: Sequence[int],
        bonds: Mapping[int, Bond] | None = None,
    ) -> None:
        """Settle in which order variables are eliminated.

        Args:
            sizes: Of the domains of the variables.
            scopes: Per table its variables, in the order of the array's dimensions.
            keep: Variables of the answer, in the order of its dimensions.
            bonds: Of variables that are bound. These are not kept, and others are not bound to them.

        Raises:
            TooWideError: An intermediate table would be too large.
        """
        spend(FACTOR, len(scopes))
        self.keep = tuple(keep)
        self._sizes = tuple(sizes)
        self._bonds = dict(bonds or {})
        bound = tuple(_Bound(name, bond.others, bond.values.shape[-1]) for name, bond in self._bonds.items())
        best = _best_order(self._sizes, tuple(scopes), self.keep, bound, MOST_ENTRIES)
        if best.largest > MOST_ENTRIES:
            raise TooWideError(f"a table of {best.largest} entries")
        self._steps = best.steps
        self._scopes = [*scopes, *(step.scope for step in best.steps)]
        eliminated = {number for step in self._steps for number in step.tables}
        self._rest = tuple(number for number in range(len(self._scopes)) if number not in eliminated)
        self._arrays: list[FloatArray] = [np.zeros(())] * len(self._scopes)
        self._stale = [True] * len(self._scopes)
        #: Of stale tables, what is in the tables that have been made of them.
        self._before: dict[int, FloatArray] = {}
        self._least: FloatArray | None = None

    def put(self, number: int, array: FloatArray) -> None:
        """Give a table its values. The array stays as it is from then on."""
        self._replace(number, array)
        self._least = None

    def _replace(self, number: int, array: FloatArray) -> None:
        if not self._stale[number]:
            self._before[number] = self._arrays[number]
        self._arrays[number] = array
        self._stale[number] = True

    def least(self) -> FloatArray:
        """The least sum, for all values of the variables that are kept."""
        if self._least is None:
            for step in self._steps:
                if not step.tables or any(self._stale[number] for number in step.tables):
                    made = self._eliminated(step)
                    if made is not self._arrays[step.made]:
                        self._replace(step.made, made)
            self._stale = [False] * len(self._scopes)
            self._before = {}
            shape = tuple(self._sizes[variable] for variable in self.keep)
            self._least = np.broadcast_to(self._sum(self._rest, self.keep), shape)
        return self._least

    def _eliminated(self, step: _Step) -> FloatArray:
        """The table that is left of a step."""
        bond = self._bonds.get(step.variable)
        if bond is None:
            return self._least_of(step)
        before = [other for other in bond.others if other in step.inner]
        rest = tuple(other for other in step.inner if other not in before)
        # The values come first, and those of the two others if the tables have these already.
        scope = (step.variable, *before, *rest)
        total = np.broadcast_to(self._sum(step.tables, scope), tuple(self._sizes[name] for name in scope))
        rows = total.reshape(prod(total.shape[: 1 + len(before)]), -1)
        first, second = np.ogrid[: bond.values.shape[0], : bond.values.shape[1]]
        found: FloatArray | None = None
        for place in np.moveaxis(bond.values, -1, 0):
            for other in before:
                place = place * self._sizes[other] + (first if other == bond.others[0] else second)
            own = rows.take(place, axis=0)
            found = own if found is None else np.minimum(found, own, out=found)
        if found is None:
            raise ValueError("a bound variable has some value")
        found = found.reshape(*found.shape[:2], *(self._sizes[name] for name in rest))
        return _spread(found, (*bond.others, *rest), step.scope)

    def _least_of(self, step: _Step) -> FloatArray:
        """The least sum of a step's tables over its variable."""
        scope = (step.variable, *step.scope)
        parts = [_spread(self._arrays[number], self._scopes[number], scope) for number in step.tables]
        shape = np.broadcast_shapes(*(part.shape for part in parts)) if parts else ()
        if prod(shape) < _MANY_AT_ONCE or prod(shape[1:]) < _FEW_AT_ONCE:
            spend(ENTRY, len(parts) * prod(self._sizes[variable] for variable in scope))
            return least_of_whole(parts) if parts else np.zeros((1,) * len(step.scope))
        made = self._arrays[step.made]
        if made.shape != shape[1:] or any(self._stale[own] and own not in self._before for own in step.tables):
            return least_sum(parts)
        before = [
            _spread(self._before[own], self._scopes[own], scope) if own in self._before else part
            for own, part in zip(step.tables, parts, strict=True)
        ]
        return least_sum_again(made, before, parts)

    def _sum(self, tables: Sequence[int], scope: tuple[int, ...]) -> FloatArray:
        spend(ENTRY, len(tables) * prod(self._sizes[variable] for variable in scope))
        total: FloatArray | None = None
        for number in tables:
            spread = _spread(self._arrays[number], self._scopes[number], scope)
            total = spread if total is None else total + spread
        if total is None:
            return np.zeros((1,) * len(scope))
        # A variable that no table of a kept sum has, or that this one does not cost anything, has all its values.
        if total.shape[-1] != self._sizes[scope[-1]]:
            total = np.broadcast_to(total, (*total.shape[:-1], self._sizes[scope[-1]]))
        return total

    def assignment(self, given: dict[int, int]) -> dict[int, int]:
        """Values of all variables at the least sum, for given values of those that are kept."""
        self.least()
        spend(DECISION, 1 + len(self._steps))
        values = dict(given)
        for step in reversed(self._steps):
            total: FloatArray | float = 0.0
            for number in step.tables:
                index = tuple(slice(None) if name == step.variable else values[name] for name in self._scopes[number])
                total = total + self._arrays[number][index]
            bond = self._bonds.get(step.variable)
            if bond is None:
                values[step.variable] = int(np.argmin(total))
            else:
                possible = bond.values[values[bond.others[0]], values[bond.others[1]]]
                own = np.broadcast_to(total, (self._sizes[step.variable],))[possible]
                values[step.variable] = int(possible[np.argmin(own)])
        return values


def _spread(array: FloatArray, variables: tuple[int, ...], scope: tuple[int, ...]) -> FloatArray:
    """An array with its dimensions where the scope has them."""
    if variables == scope:
        return array
    order = sorted(range(len(variables)), key=lambda index: scope.index(variables[index]))
    moved = array.transpose(order)
    shape = [1] * len(scope)
    for index in order:
        shape[scope.index(variables[index])] = array.shape[index]
    return moved.reshape(shape)
