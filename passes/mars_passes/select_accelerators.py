"""select-accelerators: sets, designs, layers per set, and a strategy per layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir

from mars_onnx.errors import InputError
from mars_onnx.search.find import Watch, check_options, find_mapping, given_mapping, unwatched
from mars_onnx.search.greedy import fill_in
from mars_onnx.search.method import Objective, SearchOptions
from mars_onnx.search.names import DEFAULT, DEFAULT_WORK_LIMIT
from mars_onnx.search.problem import Problem, problem_of
from mars_onnx.sharding.lowering import lower
from mars_onnx.sharding.mapping import Mapping
from mars_onnx.sharding.mapping_file import load_mapping
from mars_onnx.sharding.strategy import Placement
from mars_onnx.stages import attachments
from mars_onnx.stages.sharded import entry_problems

#: More faults of one mapping than this are counted, not listed.
_MOST_SHOWN = 10


@dataclass(frozen=True)
class SelectAccelerators(ir.passes.InPlacePass):
    """Choose accelerator sets, a design per set, the layers of each set, and a strategy per layer.

    Contract: takes a canonical graph. Leaves the graph as it is, with the mapping attached to it and a set and a
    strategy attached to every node.

    Before::

        y = Conv (x, w)

    After::

        y = Conv (x, w)          # mars.set: 0, mars.strategy: ES(H=4)

    Options:
        search: Which method chooses.
        objective: What is to be small: the latency of one inference, or the time between two of a stream.
        work_limit: Units of work, about a second each, after which exact search takes the best mapping so far.
        time_limit: Seconds after which the best mapping so far is taken.
        seed: Of methods that draw random numbers.
        mapping: A file with a mapping to use instead; where it says ``auto``, the cheapest strategy is chosen.
        watch: Whom the search reports to; from Python only.
    """

    stage: ClassVar[str] = "mapped"

    search: str = DEFAULT
    objective: Objective = Objective.LATENCY
    work_limit: float | None = DEFAULT_WORK_LIMIT
    time_limit: float | None = None
    seed: int = 0
    mapping: str = ""
    watch: Watch = field(default=unwatched, compare=False, repr=False)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        pool = attachments.get_pool(model)
        problem = problem_of(model)
        options = SearchOptions(self.objective, self.time_limit, self.seed, self.work_limit)
        check_options(options)
        if self.mapping:
            names = [layer.name for layer in problem.layers]
            written = load_mapping(Path(self.mapping), pool, names)
            self._check(model, problem, written)
            found = given_mapping(problem, pool, fill_in(problem, pool, written), self.objective)
        else:
            found = find_mapping(problem, pool, self.search, options, self.watch)
        attachments.set_mapping(model, found.result.mapping)
        attachments.set_found(model, found)
        attachments.set_stage(model, self.stage)
        return ir.passes.PassResult(model, modified=True)

    def _check(self, model: ir.Model, problem: Problem, written: Mapping) -> None:
        """Refuse strategies that cannot be applied, all at once, with the file that they are from."""
        problems: list[str] = []
        for layer, choice in zip(problem.layers, written.layers, strict=True):
            if choice.strategy.placement is Placement.AUTO:
                continue
            try:
                lower(layer.signature, choice.strategy, written.sets[choice.set_index].members)
            except InputError as error:
                problems.append(f"{self.mapping}: layer {layer.name!r}: {error}")
        problems += [f"{self.mapping}: {own}" for own in entry_problems(model, written)]
        if problems:
            shown = problems[:_MOST_SHOWN] + [f"and {len(problems) - _MOST_SHOWN} more"] * (len(problems) > _MOST_SHOWN)
            raise InputError("\n".join(shown))
