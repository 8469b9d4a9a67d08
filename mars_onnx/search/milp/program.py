"""A mixed integer program, put together from arrays of variables, and solved by HiGHS.

HiGHS: Huangfu and Hall, Parallelizing the dual revised simplex method, Mathematical Programming Computation 10 (2018).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import highspy
import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

#: How often the caller is asked whether to go on, in seconds.
_ASK_S = 0.2
#: How far a variable may be from a whole number, and a row from its bounds.
_FEASIBILITY = 1e-9
#: What the costliest variable costs, as HiGHS sees it, and how near the bound has to come to the best solution.
_COSTLIEST = 1e4
_CLOSE = 1e-7


@dataclass(frozen=True, eq=False)
class Solution:
    """What came of a program.

    Attributes:
        values: Of the variables; ``None`` if no solution was found.
        bound: No solution has less.
        optimal: Whether the solution is the best.
        interrupted: Whether somebody stopped HiGHS.
    """

    values: FloatArray | None
    bound: float
    optimal: bool
    interrupted: bool = False


class Program:
    """Variables between 0 and 1 of which a sum is to be least."""

    def __init__(self) -> None:
        self._costs: list[FloatArray] = []
        self._whole: list[npt.NDArray[np.bool_]] = []
        self.columns = 0
        self._starts: list[int] = [0]
        self._index: list[IntArray] = []
        self._value: list[FloatArray] = []
        self._low: list[float] = []
        self._high: list[float] = []

    @property
    def rows(self) -> int:
        """How many conditions there are."""
        return len(self._low)

    def variables(self, costs: npt.ArrayLike, whole: bool = False) -> IntArray:
        """New variables of these costs.

        Args:
            costs: In any shape.
            whole: Whether they are 0 or 1.

        Returns:
            Their numbers, in the same shape.
        """
        array = np.asarray(costs, np.float64)
        numbers = np.arange(self.columns, self.columns + array.size, dtype=np.int64).reshape(array.shape)
        self._costs.append(array.ravel())
        self._whole.append(np.full(array.size, whole))
        self.columns += array.size
        return numbers

    def row(
        self, plus: Iterable[IntArray], minus: Iterable[IntArray] = (), low: float = 0.0, high: float = 0.0
    ) -> None:
        """A condition: the sum of some variables less that of others lies between two numbers."""
        added = [part.ravel() for part in plus]
        taken = [part.ravel() for part in minus]
        count = sum(map(len, added))
        index = np.concatenate([*added, *taken]) if added or taken else np.zeros(0, np.int64)
        value = np.ones(len(index))
        value[count:] = -1.0
        self._index.append(index)
        self._value.append(value)
        self._starts.append(self._starts[-1] + len(index))
        self._low.append(low)
        self._high.append(high)

    def solve(
        self, time_limit_s: float | None, seed: int, go_on: Callable[[], None], relaxed: bool = False
    ) -> Solution:
        """Find the least sum.

        Args:
            time_limit_s: When to stop; ``None`` for no limit.
            seed: For HiGHS.
            go_on: Called now and then; if it raises KeyboardInterrupt, HiGHS stops with what it has.
            relaxed: Whether variables may take any value between 0 and 1.
        """
        lp = highspy.HighsLp()
        costs = np.concatenate(self._costs)
        # Costs of about one: HiGHS has absolute tolerances.
        scale = float(costs.max(initial=0.0)) or 1.0
        lp.num_col_, lp.num_row_ = self.columns, self.rows
        lp.col_cost_ = costs / scale * _COSTLIEST
        lp.col_lower_, lp.col_upper_ = np.zeros(self.columns), np.ones(self.columns)
        lp.row_lower_, lp.row_upper_ = np.asarray(self._low), np.asarray(self._high)
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = np.asarray(self._starts)
        lp.a_matrix_.index_ = np.concatenate(self._index)
        lp.a_matrix_.value_ = np.concatenate(self._value)
        if not relaxed:
            kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
            lp.integrality_ = [kinds[int(whole)] for whole in np.concatenate(self._whole)]
        solver = _Silent()
        options = {
            "threads": 1,
            "random_seed": seed % 2**31,
            "mip_rel_gap": 0.0,
            "mip_abs_gap": _CLOSE,
            "mip_feasibility_tolerance": _FEASIBILITY,
            "primal_feasibility_tolerance": _FEASIBILITY,
            "dual_feasibility_tolerance": _FEASIBILITY,
        }
        if time_limit_s is not None:
            options["time_limit"] = max(0.0, time_limit_s)
        for name, value in options.items():
            solver.setOptionValue(name, value)
        solver.passModel(lp)
        interrupted = _interrupted(solver, go_on)
        info = solver.getInfo()
        status = solver.getModelStatus()
        optimal = status == highspy.HighsModelStatus.kOptimal
        feasible = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
        values = np.asarray(solver.getSolution().col_value) if feasible else None
        bound = info.mip_dual_bound if not relaxed else info.objective_function_value if optimal else 0.0
        return Solution(values, max(0.0, bound) * scale / _COSTLIEST, optimal, interrupted)


class _Silent(highspy.Highs):
    """HiGHS that prints nothing, not even who it is, which it does when callbacks are made ready."""

    def __init__(self) -> None:
        highspy.Highs.__init__(self)

    def enableCallbacks(self) -> None:  # noqa: N802 (HiGHS calls it so)
        """Be silent first."""
        self.silent()
        highspy.Highs.enableCallbacks(self)


def _interrupted(solver: highspy.Highs, go_on: Callable[[], None]) -> bool:
    """Solve in a thread of its own, so that somebody can stop it; says whether that happened."""
    solver.HandleUserInterrupt = True
    solver.startSolve()
    try:
        while not solver.wait(_ASK_S)[0]:
            go_on()
    except KeyboardInterrupt:
        solver.cancelSolve()
        solver.wait()
        return True
    return False
