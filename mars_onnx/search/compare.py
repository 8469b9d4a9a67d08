"""Other search methods on the same problem and the same cost model, for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mars_onnx.errors import CapacityError
from mars_onnx.pool.topology import Pool
from mars_onnx.search.evaluate import Evaluation, evaluate
from mars_onnx.search.find import Watch, find_mapping, unwatched
from mars_onnx.search.method import Ending, Objective, SearchOptions
from mars_onnx.search.names import ALL
from mars_onnx.search.problem import Problem
from mars_onnx.search.registry import METHODS, search_method
from mars_onnx.sharding.mapping import Mapping


@dataclass(frozen=True, slots=True)
class Comparison:
    """What another method finds.

    Attributes:
        method: Its name.
        mapping: What it found; ``None`` if nothing that fits.
        evaluation: What that costs; ``None`` likewise.
        ending: Why it stopped; ``None`` likewise.
        seconds: How long it took.
        failure: Why it has no mapping.
    """

    method: str
    mapping: Mapping | None
    evaluation: Evaluation | None
    ending: Ending | None
    seconds: float
    failure: str = ""


def comparators(names: Sequence[str], chosen: str) -> tuple[str, ...]:
    """The methods to compare with.

    Args:
        names: Of methods, or ``all``.
        chosen: The method whose mapping they are compared with; ``all`` leaves it out, and those for small problems.

    Raises:
        UsageError: There is no such method.
    """
    found: dict[str, None] = {}
    for name in names:
        if name != ALL:
            search_method(name)
        every = (own for own, method in METHODS.items() if own != chosen and not method.small)
        found.update(dict.fromkeys(every) if name == ALL else {name: None})
    return tuple(found)


def compare(
    problem: Problem, pool: Pool, names: Sequence[str], options: SearchOptions, watch: Watch = unwatched
) -> tuple[Comparison, ...]:
    """Let other methods choose.

    Each may take the time limit. A method that knows latency alone looks for that, whatever the objective is.
    """
    found: list[Comparison] = []
    for name in names:
        able = options.objective in search_method(name).objectives
        own = options if able else replace(options, objective=Objective.LATENCY)
        try:
            answer = find_mapping(problem, pool, name, own, watch)
        except CapacityError as error:
            found.append(Comparison(name, None, None, None, 0.0, str(error)))
            continue
        mapping = answer.result.mapping
        cost = evaluate(problem, pool, mapping)
        found.append(Comparison(name, mapping, cost, answer.result.ending, answer.seconds))
    return tuple(found)
