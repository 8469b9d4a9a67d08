"""Search methods by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mars_onnx.errors import UsageError
from mars_onnx.pool.topology import Pool
from mars_onnx.search.problem import Problem
from mars_onnx.search.simple import simple_mapping
from mars_onnx.sharding.mapping import Mapping


@dataclass(frozen=True, slots=True)
class Method:
    """A way to choose a mapping.

    Attributes:
        choose: From a problem and a pool to a mapping.
        space: In words, what it looks at.
    """

    choose: Callable[[Problem, Pool], Mapping]
    space: str


METHODS: dict[str, Method] = {
    "simple": Method(
        simple_mapping,
        "the whole pool as one set or one set per group; per layer the cheapest strategy given those before it",
    )
}


def search_method(name: str) -> Method:
    """The search method of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in METHODS:
        raise UsageError(f"no search method is called {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]
