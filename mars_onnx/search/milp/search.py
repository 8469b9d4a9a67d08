"""``--search ilp``: the integer program of the whole problem, solved by HiGHS."""

from __future__ import annotations

from time import monotonic

from mars_onnx.errors import UsageError
from mars_onnx.pool.topology import Pool
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.exact.capacity import fits
from mars_onnx.search.exact.strategies.cuts import strategies
from mars_onnx.search.exact.ways.shapes import Shapes
from mars_onnx.search.greedy import greedy_mapping
from mars_onnx.search.method import Ending, Progress, SearchOptions, SearchResult
from mars_onnx.search.milp.model import Model
from mars_onnx.search.milp.offers import Prices
from mars_onnx.search.milp.runs import Runs
from mars_onnx.search.milp.symmetry import Family
from mars_onnx.search.problem import Problem
from mars_onnx.sharding.mapping import Mapping

SPACE = (
    "all sets of accelerators in the pool's order, one design each, a run of layers each, changed where one tensor "
    "carries all data; per layer exclusive shards of all axes, several at a time, partial sums all-reduced or "
    "reduce-scattered; tensors that several layers take, and model inputs, in one layout per set; memory does not count"
)
#: Larger pools have too many sets.
_MOST_ACCELERATORS = 5
#: Strategies of all layers on all sets: with more, pricing all moves and solving take too long.
_MOST_STRATEGIES = 20_000
#: Seconds between two reports of where the search is.
_REPORT_S = 0.2
#: The bound is met if it leaves no more, relatively: this much lies in the tolerances of HiGHS.
_SAME = 1e-7


class _LateError(Exception):
    """Time is up before the program is there."""


def ilp(problem: Problem, pool: Pool, options: SearchOptions) -> SearchResult:
    """The best mapping, proven by HiGHS; or the best so far when time is up.

    Raises:
        UsageError: The problem is too large, sets could overlap in time, or memory binds.
    """
    started = reported = monotonic()

    def tick() -> None:
        nonlocal reported
        now = monotonic()
        if options.time_limit_s is not None and now - started > options.time_limit_s:
            raise _LateError
        if now - reported > _REPORT_S:
            reported = now
            options.report(Progress(stage))

    runs = Runs.of_problem(problem)
    if pool.size > 1:
        runs.check_in_order(problem)
    family = _family(problem, pool)
    greedy = greedy_mapping(problem, pool)
    best = [(evaluate(problem, pool, greedy).latency_s, greedy)]
    bound, ending = 0.0, Ending.PROVEN
    stage = "pricing all moves"
    try:
        model = Model(problem, Prices(problem, pool, family), runs, tick)
        bound = model.least_s
        stage = f"HiGHS on {model.program.columns} variables"
        left = None if options.time_limit_s is None else options.time_limit_s - (monotonic() - started)
        solution = model.program.solve(left, options.seed, lambda: options.report(Progress(stage, best[0][0], bound)))
        bound = max(bound, solution.bound)
        if solution.values is not None:
            mapping = _fitting(problem, pool, model.mapping(solution.values))
            found = evaluate(problem, pool, mapping).latency_s, mapping
            # The greedy mapping may be better where it is outside the space; nothing can be proven of it.
            best = [found] if solution.optimal else [*best, found]
        if not solution.optimal:
            ending = Ending.INTERRUPTED if solution.interrupted else Ending.TIME_LIMIT
    except _LateError:
        ending = Ending.TIME_LIMIT
    except KeyboardInterrupt:
        ending = Ending.INTERRUPTED
    cost_s, mapping = min(best, key=lambda entry: entry[0])
    if ending is Ending.PROVEN and bound < cost_s * (1 - _SAME):
        ending = Ending.GAP
    others = tuple(other for _, other in best if other != mapping)
    return SearchResult(mapping, cost_s, min(bound, cost_s), ending, SPACE, others)


def _fitting(problem: Problem, pool: Pool, mapping: Mapping) -> Mapping:
    """The mapping, if it fits.

    Raises:
        UsageError: It does not.
    """
    if fits(problem, pool, mapping):
        return mapping
    raise UsageError(
        f"--search ilp: its mapping takes more memory than the pool {pool.name!r} has, which the integer program does "
        "not count; use --search exact"
    )


def _family(problem: Problem, pool: Pool) -> Family:
    """The sets, if the program does not become too large.

    Raises:
        UsageError: It does.
    """
    if pool.size > _MOST_ACCELERATORS:
        raise UsageError(
            f"--search ilp: the pool {pool.name!r} has {pool.size} accelerators, and an integer program of all sets is "
            f"too large above {_MOST_ACCELERATORS}; use --search exact"
        )
    family = Family.of(pool)
    shapes = Shapes(pool)
    levels = [shapes.levels(members) for members in family.sets]
    count = sum(len(strategies(layer.signature, own)) for layer in problem.layers for own in levels)
    if count > _MOST_STRATEGIES:
        raise UsageError(
            f"--search ilp: the layers have {count} strategies on all sets, and an integer program is too large above "
            f"{_MOST_STRATEGIES}; use --search exact"
        )
    return family
