"""Min-plus elimination of variables from a sum of tables.

A *table* is an array over the domains of some variables. The least value of a sum of tables over all assignments
comes from eliminating one variable after another (bucket elimination: Dechter, Artificial Intelligence 113, 1999); on
graphs of small treewidth the intermediate tables stay small. In which order is settled once. When a table changes,
only what depends on it is worked out again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from mars_onnx.search.exact.work import DECISION, ENTRY, FACTOR, spend

FloatArray = npt.NDArray[np.float64]

#: Entries of the largest intermediate table; wider graphs are not for this method.
MOST_ENTRIES = 20_000_000


class TooWideError(Exception):
    """An intermediate table would be too large."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One variable that is eliminated.

    Attributes:
        variable: It takes the value at which the sum of the tables is least.
        tables: The tables in which it occurs, by number.
        scope: The other variables of these.
        made: The number of the table that is left.
    """

    variable: int
    tables: tuple[int, ...]
    scope: tuple[int, ...]
    made: int


class Elimination:
    """Tables, of which a sum is minimised over all variables but some that are kept."""

    def __init__(self, sizes: Sequence[int], scopes: Sequence[tuple[int, ...]], keep: Sequence[int]) -> None:
        """Settle in which order variables are eliminated.

        Args:
            sizes: Of the domains of the variables.
            scopes: Per table its variables, in the order of the array's dimensions.
            keep: Variables of the answer, in the order of its dimensions.

        Raises:
            TooWideError: An intermediate table would be too large.
        """
        spend(FACTOR, len(scopes))
        self.keep = tuple(keep)
        self._sizes = tuple(sizes)
        self._scopes = list(scopes)
        self._steps = self._ordered()
        eliminated = {number for step in self._steps for number in step.tables}
        self._rest = tuple(number for number in range(len(self._scopes)) if number not in eliminated)
        self._arrays: list[FloatArray] = [np.zeros(())] * len(self._scopes)
        self._stale = [True] * len(self._scopes)
        self._least: FloatArray | None = None

    def _ordered(self) -> tuple[_Step, ...]:
        """First of all the variable whose table is smallest."""
        neighbours: dict[int, set[int]] = {variable: {variable} for variable in range(len(self._sizes))}
        touching: dict[int, set[int]] = {variable: set() for variable in range(len(self._sizes))}
        for number, scope in enumerate(self._scopes):
            for variable in scope:
                neighbours[variable].update(scope)
                touching[variable].add(number)
        left = set(range(len(self._sizes))) - set(self.keep)

        def entries(variable: int) -> int:
            return prod(self._sizes[other] for other in neighbours[variable])

        cost = {variable: entries(variable) for variable in left}
        steps: list[_Step] = []
        while left:
            variable = min(left, key=lambda candidate: (cost[candidate], candidate))
            if cost[variable] > MOST_ENTRIES:
                raise TooWideError(f"a table of {cost[variable]} entries")
            left.remove(variable)
            own = tuple(sorted(touching.pop(variable)))
            scope = tuple(sorted(neighbours[variable] - {variable}))
            made = len(self._scopes)
            self._scopes.append(scope)
            steps.append(_Step(variable, own, scope, made))
            for other in scope:
                touching[other].difference_update(own)
                touching[other].add(made)
                neighbours[other].discard(variable)
                neighbours[other].update(scope)
            for other in left.intersection(scope):
                cost[other] = entries(other)
        return tuple(steps)

    def put(self, number: int, array: FloatArray) -> None:
        """Give a table its values."""
        self._arrays[number] = array
        self._stale[number] = True
        self._least = None

    def least(self) -> FloatArray:
        """The least sum, for all values of the variables that are kept."""
        if self._least is None:
            for step in self._steps:
                if not step.tables or any(self._stale[number] for number in step.tables):
                    self._arrays[step.made] = self._sum(step.tables, (*step.scope, step.variable)).min(axis=-1)
                    self._stale[step.made] = True
            self._stale = [False] * len(self._scopes)
            shape = tuple(self._sizes[variable] for variable in self.keep)
            self._least = np.broadcast_to(self._sum(self._rest, self.keep), shape)
        return self._least

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
            values[step.variable] = int(np.argmin(total))
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
