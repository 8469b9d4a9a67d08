"""Search methods by name."""

from __future__ import annotations

from collections.abc import Callable

from mars_onnx.errors import UsageError
from mars_onnx.pool.topology import Pool
from mars_onnx.search.problem import Problem
from mars_onnx.search.simple import simple_mapping
from mars_onnx.sharding.mapping import Mapping

Method = Callable[[Problem, Pool], Mapping]

METHODS: dict[str, Method] = {"simple": simple_mapping}


def chosen_by(name: str) -> Method:
    """The search method of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in METHODS:
        raise UsageError(f"no search method is called {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]
