"""Min-plus elimination of variables from a sum of tables, with everything cached by content.

A *table* is an array over the domains of some variables. The least value of a sum of tables over all assignments
comes from eliminating one variable after another (bucket elimination: Dechter, Artificial Intelligence 113, 1999); on
graphs of small treewidth the intermediate tables stay small. Tables that are equal have the same number, so that parts
of a graph that repeat are worked out once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import prod

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

#: Entries of the largest intermediate table; wider graphs are not for this method.
MOST_ENTRIES = 20_000_000


class TooWideError(Exception):
    """An intermediate table would be too large."""


@dataclass(frozen=True, slots=True)
class Factor:
    """A table over variables.

    Attributes:
        variables: In the order of the array's dimensions.
        table: Its number in the store.
    """

    variables: tuple[int, ...]
    table: int


@dataclass(frozen=True, slots=True)
class Elimination:
    """One variable that was eliminated: it takes the value at which the sum of these factors is least."""

    variable: int
    factors: tuple[Factor, ...]


class Tables:
    """Tables by number, and what has been worked out of them."""

    def __init__(self) -> None:
        self._arrays: list[FloatArray] = []
        self._numbers: dict[bytes, int] = {}
        self._eliminated: dict[tuple[object, ...], int] = {}

    def number(self, array: FloatArray) -> int:
        """The number of a table."""
        contiguous = np.asarray(array, order="C")  # unlike ascontiguousarray, this leaves a scalar a scalar
        digest = blake2b(repr(contiguous.shape).encode(), digest_size=16)
        digest.update(contiguous.reshape(-1).data)
        key = digest.digest()
        if key not in self._numbers:
            self._numbers[key] = len(self._arrays)
            self._arrays.append(contiguous)
        return self._numbers[key]

    def array(self, number: int) -> FloatArray:
        """The table of that number."""
        return self._arrays[number]

    def eliminate(self, factors: Iterable[Factor], keep: Sequence[int]) -> tuple[FloatArray, tuple[Elimination, ...]]:
        """Minimise over all variables but those to keep.

        Args:
            factors: Their sum is minimised. Every variable to keep must occur.
            keep: Variables of the answer, in the order of its dimensions.

        Returns:
            The least sum, and what :meth:`assignment` needs to find where it is.

        Raises:
            TooWideError: An intermediate table would be too large.
        """
        current = list(factors)
        sizes = {
            variable: size
            for factor in current
            for variable, size in zip(factor.variables, self._arrays[factor.table].shape, strict=True)
        }
        neighbours: dict[int, set[int]] = {variable: set() for variable in sizes}
        for factor in current:
            for variable in factor.variables:
                neighbours[variable].update(factor.variables)
        touching: dict[int, set[Factor]] = {variable: set() for variable in sizes}
        for factor in current:
            for variable in factor.variables:
                touching[variable].add(factor)
        # A factor may occur twice; sets would lose one.
        counted: dict[Factor, int] = {}
        for factor in current:
            counted[factor] = counted.get(factor, 0) + 1
        left = set(sizes) - set(keep)
        steps: list[Elimination] = []
        cost = {variable: prod(sizes[other] for other in neighbours[variable]) for variable in left}
        while left:
            variable = min(left, key=lambda candidate: (cost[candidate], candidate))
            left.remove(variable)
            own = sorted(touching.pop(variable), key=lambda factor: (factor.variables, factor.table))
            used = tuple(factor for factor in own for _ in range(counted.pop(factor)))
            # Of the neighbours, those that occur in these tables: others may be left from an edge long gone.
            scope = tuple(sorted({name for factor in own for name in factor.variables} - {variable}))
            made = Factor(scope, self._summed(used, scope, variable, sizes))
            steps.append(Elimination(variable, used))
            for factor in own:
                for other in factor.variables:
                    if other != variable:
                        touching[other].discard(factor)
            for other in scope:
                neighbours[other].discard(variable)
                neighbours[other].update(scope)
            counted[made] = counted.get(made, 0) + 1
            for other in scope:
                touching[other].add(made)
                if other in left:
                    cost[other] = prod(sizes[each] for each in neighbours[other])
            for other in {each for own_other in scope for each in neighbours[own_other]} & left:
                cost[other] = prod(sizes[each] for each in neighbours[other])
        rest = [factor for factor, count in counted.items() for _ in range(count)]
        total = np.zeros(tuple(sizes[variable] for variable in keep))
        for factor in rest:
            total = total + _spread(self._arrays[factor.table], factor.variables, tuple(keep))
        return total, tuple(steps)

    def _summed(self, factors: tuple[Factor, ...], scope: tuple[int, ...], variable: int, sizes: dict[int, int]) -> int:
        """The number of the table that is left when a variable is gone."""
        place = {name: index for index, name in enumerate((*scope, variable))}
        key = tuple((factor.table, tuple(place[name] for name in factor.variables)) for factor in factors)
        found = self._eliminated.get(key)
        if found is None:
            entries = prod(sizes[name] for name in scope) * sizes[variable]
            if entries > MOST_ENTRIES:
                raise TooWideError(f"a table of {entries} entries")
            total = np.zeros((1,) * (len(scope) + 1))
            for factor in factors:
                total = total + _spread(self._arrays[factor.table], factor.variables, (*scope, variable))
            found = self._eliminated[key] = self.number(total.min(axis=-1))
        return found

    def assignment(self, steps: Sequence[Elimination], given: dict[int, int]) -> dict[int, int]:
        """Values of all eliminated variables at the least sum, for given values of those that were kept."""
        values = dict(given)
        for step in reversed(steps):
            total: FloatArray | float = 0.0
            for factor in step.factors:
                index = tuple(slice(None) if name == step.variable else values[name] for name in factor.variables)
                total = total + self._arrays[factor.table][index]
            values[step.variable] = int(np.argmin(total))
        return values


def _spread(array: FloatArray, variables: tuple[int, ...], scope: tuple[int, ...]) -> FloatArray:
    """An array with its dimensions where the scope has them."""
    order = sorted(range(len(variables)), key=lambda index: scope.index(variables[index]))
    moved = array.transpose(order)
    shape = [1] * len(scope)
    for index in order:
        shape[scope.index(variables[index])] = array.shape[index]
    return moved.reshape(shape)
