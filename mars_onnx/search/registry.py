"""Search methods by name."""

from __future__ import annotations

from mars_onnx.errors import UsageError
from mars_onnx.pool.topology import Pool
from mars_onnx.search.comparators.baseline import baseline
from mars_onnx.search.comparators.genetic import genetic
from mars_onnx.search.comparators.h2h import h2h, h2h_fixed
from mars_onnx.search.comparators.single import single
from mars_onnx.search.comparators.uniform import uniform
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.exact.search import exact_search
from mars_onnx.search.greedy import greedy_mapping
from mars_onnx.search.method import Ending, Method, Objective, SearchOptions, SearchResult
from mars_onnx.search.milp.search import ilp
from mars_onnx.search.names import TITLES
from mars_onnx.search.problem import Problem


def _greedy(problem: Problem, pool: Pool, options: SearchOptions) -> SearchResult:
    mapping = greedy_mapping(problem, pool)
    cost_s = evaluate(problem, pool, mapping).cost_s(options.objective)
    space = "the whole pool as one set or one set per group; per layer the cheapest strategy given those before it"
    return SearchResult(mapping, cost_s, None, Ending.HEURISTIC, space)


_BOTH = (Objective.LATENCY, Objective.THROUGHPUT)

METHODS: dict[str, Method] = {
    "exact": Method(exact_search, TITLES["exact"], _BOTH),
    "ilp": Method(ilp, TITLES["ilp"], small=True),
    "greedy": Method(_greedy, TITLES["greedy"]),
    "baseline": Method(baseline, TITLES["baseline"], _BOTH),
    "genetic": Method(genetic, TITLES["genetic"], _BOTH),
    "h2h": Method(h2h, TITLES["h2h"], _BOTH),
    "h2h-fixed": Method(h2h_fixed, TITLES["h2h-fixed"], _BOTH),
    "uniform": Method(uniform, TITLES["uniform"], _BOTH),
    "single": Method(single, TITLES["single"], _BOTH),
}


def search_method(name: str) -> Method:
    """The search method of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in METHODS:
        raise UsageError(f"no search method is called {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]
