"""Lower bounds of a sum of tables where elimination would need too large ones, and good assignments.

The sum is that of a pairwise graphical model. Sequential tree-reweighted message passing (Kolmogorov, Convergent
tree-reweighted message passing for energy minimization, IEEE Transactions on Pattern Analysis and Machine Intelligence
28, 2006) moves costs between tables without changing their sum, until the sum of their least entries is as large as it
gets: the dual of the linear relaxation. Where the relaxation is tight, the bound is the least sum.

After a pass over the variables the sum is a constant and tables without negative entries. So the constant is a bound,
and with what is left in the tables of the variables that are kept it is one for each of their values. Such a bound can
be raised for single values by fixing these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mars_onnx.search.exact.communication.moves import FloatArray
from mars_onnx.search.exact.work import DECISION, ENTRY, FACTOR, spend

IntArray = npt.NDArray[np.int64]

#: In place of what is impossible: seconds that are far above any sum.
_IMPOSSIBLE = 1e3
#: In place of what a fixed variable has for other values: far above everything impossible together.
_OTHER = 1e7
#: Passes over all variables, at most; and the relative growth of the bound below which they end.
_MOST_PASSES = 60
_GROWTH = 1e-7
#: An assignment whose sum is above the bound by no more, relatively, is the best.
_TIGHT = 1e-12
#: Costs that shrink by less, relatively, do so by rounding.
_ROUNDING = 1e-9
#: Of a good assignment, times that every variable is looked at again.
_MOST_ROUNDS = 30


@dataclass(frozen=True, slots=True)
class _Fixed:
    """What is known of the sum where the variables that are kept are fixed.

    Attributes:
        bound: The sum is not less.
        values: A good assignment of all variables.
        version: Of the tables, when it was found.
    """

    bound: float
    values: tuple[int, ...]
    version: int


class Relaxation:
    """Tables of one or two variables, of whose sum a bound is known for all values of the variables that are kept."""

    def __init__(self, sizes: Sequence[int], scopes: Sequence[tuple[int, ...]], keep: Sequence[int]) -> None:
        """Take in the structure.

        Args:
            sizes: Of the domains of the variables.
            scopes: Per table its variables, in the order of the array's dimensions; two at most.
            keep: Variables of the answer, in the order of its dimensions; two different ones.
        """
        spend(FACTOR, len(scopes))
        self.keep = tuple(keep)
        self._sizes = tuple(sizes)
        self._scopes = tuple(scopes)
        self._arrays: list[FloatArray | None] = [None] * len(scopes)
        pairs = sorted({(min(scope), max(scope)) for scope in scopes if len(set(scope)) == 2})
        self._number = {pair: number for number, pair in enumerate(pairs)}
        count = len(sizes)
        #: Per variable the pairs with later ones and with earlier ones, and who these are.
        self._later: list[list[tuple[int, int]]] = [[] for _ in range(count)]
        self._earlier: list[list[tuple[int, int]]] = [[] for _ in range(count)]
        for number, (first, second) in enumerate(pairs):
            self._later[first].append((number, second))
            self._earlier[second].append((number, first))
        most = (max(len(later), len(earlier)) for later, earlier in zip(self._later, self._earlier, strict=True))
        self._share = [1.0 / max(1, own) for own in most]
        self._forth = [np.zeros(sizes[second]) for _, second in pairs]
        self._back = [np.zeros(sizes[first]) for first, _ in pairs]
        self._version = 0
        self._stale: set[int] = set(range(len(scopes)))
        self._alone: list[FloatArray] = [np.zeros(size) for size in sizes]
        self._pair: list[FloatArray] = [np.zeros((sizes[first], sizes[second])) for first, second in pairs]
        self._turned: list[FloatArray] = [own.T for own in self._pair]
        self._entries = sum(own.size for own in self._pair)
        self._fixed: dict[tuple[int, int], _Fixed] = {}
        self._least: FloatArray | None = None

    def put(self, number: int, array: FloatArray) -> None:
        """Give a table its values."""
        before = self._arrays[number]
        if before is not None and (array < before - _ROUNDING * np.abs(before)).any():
            # Bounds hold as long as costs only grow; by rounding they may shrink.
            self._fixed.clear()
            self._least = None
        # The caller may change its array later on; what is compared with is what was seen.
        self._arrays[number] = np.where(np.isinf(array), _IMPOSSIBLE, array)
        self._stale.add(number)

    def least(self) -> FloatArray:
        """The sum is not less, for all values of the variables that are kept.

        Of costs that have grown since, the bounds know when somebody asks for an assignment.
        """
        return self._bounded() if self._least is None else self._least

    def assignment(self, given: dict[int, int]) -> dict[int, int]:
        """Good values of all variables for given values of those that are kept; raises bounds, there most of all."""
        spend(DECISION, len(self._sizes))
        row, column = (given[variable] for variable in self.keep)
        table = self._bounded() if self._stale or self._least is None else self._least
        known = self._fixed.get((row, column))
        if known is None or known.version != self._version:
            known = self._fixed[row, column] = self._fix(row, column, float(table[row, column]))
            if known.bound > table[row, column]:
                # Whoever has the table sees it as it was.
                self._least = table.copy()
                self._least[row, column] = known.bound
        return dict(enumerate(known.values))

    def _bounded(self) -> FloatArray:
        """The bounds, as good as they get for all values at once."""
        self._refresh()
        self._pass_messages(self._alone)
        table = self._bounds(self._alone, backward=True)
        np.maximum(table, self._bounds(self._alone, backward=False), out=table)
        if self._least is not None:
            np.maximum(table, self._least, out=table)
        table[table > _IMPOSSIBLE / 2] = np.inf
        self._least = table
        return table

    def _fix(self, row: int, column: int, bound: float) -> _Fixed:
        """The bound for single values of the variables that are kept, and a good assignment."""
        alone = list(self._alone)
        for variable, value in zip(self.keep, (row, column), strict=True):
            alone[variable] = np.full(self._sizes[variable], _OTHER)
            alone[variable][value] = self._alone[variable][value]
        values = self._improved(alone, self._assigned(alone))
        if self._sum(values) > bound * (1 + _TIGHT):
            saved = list(self._forth), list(self._back)
            bound = max(bound, self._pass_messages(alone))
            values = min(values, self._improved(alone, self._assigned(alone)), key=self._sum)
            self._forth, self._back = saved
        return _Fixed(bound, tuple(values), self._version)

    def _sum(self, values: Sequence[int]) -> float:
        """The sum of all tables."""
        alone = sum(float(own[value]) for own, value in zip(self._alone, values, strict=True))
        return alone + sum(float(self._pair[n][values[a], values[b]]) for (a, b), n in self._number.items())

    def _refresh(self) -> None:
        """Take in tables that are new."""
        if not self._stale:
            return
        self._version += 1
        touched = {tuple(sorted(set(self._scopes[number]))) for number in self._stale}
        self._stale.clear()
        alone = {pair[0]: np.zeros(self._sizes[pair[0]]) for pair in touched if len(pair) == 1}
        paired = {pair: np.zeros((self._sizes[pair[0]], self._sizes[pair[1]])) for pair in touched if len(pair) == 2}
        for scope, array in zip(self._scopes, self._arrays, strict=True):
            if array is None:
                continue
            pair = tuple(sorted(set(scope)))
            if len(pair) == 1 and pair[0] in alone:
                alone[pair[0]] += array
            elif pair in paired:
                paired[pair] += array if scope[0] < scope[1] else array.T
        for variable, own in alone.items():
            self._alone[variable] = own
        for pair, both in paired.items():
            number = self._number[pair[0], pair[1]]
            self._pair[number] = np.ascontiguousarray(both)
            self._turned[number] = np.ascontiguousarray(both.T)

    def _held(self, alone: Sequence[FloatArray], variable: int) -> FloatArray:
        """What a variable's own table holds, with all that has been moved there."""
        held = alone[variable].copy()
        for number, _ in self._earlier[variable]:
            held += self._forth[number]
        for number, _ in self._later[variable]:
            held += self._back[number]
        return held

    def _pass_messages(self, alone: Sequence[FloatArray]) -> float:
        """Move costs until the bound hardly grows; returns it."""
        bound, slow = -np.inf, 0
        for _ in range(_MOST_PASSES):
            self._sweep(alone, backward=False)
            before, bound = bound, self._sweep(alone, backward=True)
            slow = slow + 1 if bound - before < _GROWTH * abs(bound) else 0
            if slow == 2:
                break
        return bound

    def _sweep(self, alone: Sequence[FloatArray], backward: bool) -> float:
        """Every variable in turn gives of what it holds to its later neighbours, or backward to its earlier ones."""
        given, tables = (self._earlier, self._pair) if backward else (self._later, self._turned)
        taken, made = (self._forth, self._back) if backward else (self._back, self._forth)
        variables = range(len(self._sizes))
        spend(ENTRY, self._entries)
        bound = 0.0
        for variable in reversed(variables) if backward else variables:
            held = self._held(alone, variable)
            least = float(held.min())
            bound += least
            held = (held - least) * self._share[variable]
            for number, _ in given[variable]:
                message = (tables[number] + (held - taken[number])).min(axis=1)
                least = float(message.min())
                bound += least
                made[number] = message - least
        return bound

    def _bounds(self, alone: Sequence[FloatArray], backward: bool) -> FloatArray:
        """The bound for all values of the variables that are kept, after a pass in one direction.

        After a backward pass the sum is the constant, of every variable what it has not given to its earlier
        neighbours, and of every pair its table with what the later one gave and without what has been moved out: no
        entry of these is negative. Of each table that has a kept variable, the least entry per value can be added.
        """
        bound = self._sweep(alone, backward)
        given = self._earlier if backward else self._later
        total = np.full(tuple(self._sizes[variable] for variable in self.keep), bound)
        rest: dict[int, FloatArray] = {}
        for variable in self.keep:
            held = self._held(alone, variable)
            rest[variable] = (held - held.min()) * (1.0 - self._share[variable] * len(given[variable]))
        done: set[int] = set()
        for variable in self.keep:
            for number, other in (*self._later[variable], *self._earlier[variable]):
                first, second = min(variable, other), max(variable, other)
                giver = second if backward else first
                held = self._held(alone, giver)
                held = (held - held.min()) * self._share[giver]
                table = self._pair[number] - self._back[number][:, None] - self._forth[number][None]
                table = table + (held[None] if backward else held[:, None])
                table = table - table.min()  # which is in the bound
                if {first, second} == set(self.keep):
                    if number not in done:
                        total = total + (table if (first, second) == self.keep else table.T)
                    done.add(number)
                else:
                    rest[variable] = rest[variable] + table.min(axis=1 if variable == first else 0)
        first, second = self.keep
        found: FloatArray = total + rest[first][:, None] + rest[second][None]
        return found

    def _assigned(self, alone: Sequence[FloatArray]) -> list[int]:
        """One variable after the other takes what is best with those before it and the messages of those behind."""
        values: list[int] = []
        for variable, own in enumerate(alone):
            total = own.copy()
            for number, other in self._earlier[variable]:
                total += self._pair[number][values[other]]
            for number, _ in self._later[variable]:
                total += self._back[number]
            values.append(int(total.argmin()))
        return values

    def _improved(self, alone: Sequence[FloatArray], values: list[int]) -> list[int]:
        """Change single variables as long as that helps."""
        for _ in range(_MOST_ROUNDS):
            changed = False
            for variable, own in enumerate(alone):
                total = own.copy()
                for number, other in self._earlier[variable]:
                    total += self._pair[number][values[other]]
                for number, other in self._later[variable]:
                    total += self._turned[number][values[other]]
                best = int(total.argmin())
                if total[best] < total[values[variable]] * (1 - 1e-12):
                    values[variable], changed = best, True
            if not changed:
                break
        return values
