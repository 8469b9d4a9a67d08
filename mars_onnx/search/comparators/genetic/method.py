"""The two levels together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mars_onnx.cost.shares import member_kinds
from mars_onnx.errors import InputError
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.base import Signature
from mars_onnx.search.comparators.genetic.settings import Settings
from mars_onnx.search.comparators.genetic.strategies import Herd, Strategies
from mars_onnx.search.comparators.genetic.structures import Breeder, Plan
from mars_onnx.search.comparators.options import options as strategies_of
from mars_onnx.search.comparators.pricer import Options, Pricer
from mars_onnx.search.comparators.structure import Structure
from mars_onnx.search.comparators.trials import Best, Stopwatch
from mars_onnx.search.method import Ending, SearchOptions, SearchResult
from mars_onnx.search.problem import Problem
from mars_onnx.search.runs import relative_speeds, whole_seconds
from mars_onnx.sharding.mapping import AcceleratorSet
from mars_onnx.sharding.strategy import Strategy

SPACE = (
    "sets of neighbouring accelerators, a design and a contiguous run of layers each; per layer exclusive shards along "
    "one or two axes, shared shards of what they replicate, partial sums reduced or reduce-scattered"
)
#: Chance that a new individual of the first level has two parents; how many individuals of the second it inherits.
_TWO_PARENTS = 0.4
_INHERITED = 6
#: A new structure may at first cost so many times as much as the best.
_STEPPING_STONE = 1.2


def genetic(problem: Problem, pool: Pool, options: SearchOptions, settings: Settings | None = None) -> SearchResult:
    """Evolve sets, designs and runs, and for each of these strategies.

    Args:
        problem: What to map.
        pool: Where to.
        options: Equal seeds give equal answers, as long as no time limit strikes.
        settings: Sizes of populations; the default ones are those that docs/comparators.md gives reasons for.

    Raises:
        InputError: No design can run all layers.
    """
    search = _Search(problem, pool, options, settings or Settings())
    ending = Ending.HEURISTIC
    try:
        search.run()
        if search.stopwatch.over:
            ending = Ending.TIME_LIMIT
    except KeyboardInterrupt:
        if not search.best.found:
            raise
        ending = Ending.INTERRUPTED
    return search.best.result(ending, SPACE)


@dataclass(slots=True)
class _Individual:
    """Of the first level, with its population of the second."""

    plan: Plan
    herd: Herd
    strategies: Strategies

    @property
    def cost_s(self) -> float:
        return float(self.strategies.costs[0])


class _Search:
    def __init__(self, problem: Problem, pool: Pool, options: SearchOptions, settings: Settings) -> None:
        self.settings = settings
        self.objective = options.objective
        self.rng = np.random.Generator(np.random.PCG64(options.seed))
        self.stopwatch = Stopwatch(options)
        self.best = Best(problem, pool, options)
        self.breeder = Breeder(problem, pool, settings.bias, self.rng)
        self.pricer = Pricer(problem, pool, _offers(pool))
        self.layers = len(problem.layers)
        self.seen: set[Plan] = set()
        self.living: list[_Individual] = []

    def run(self) -> None:
        """All generations of the first level, and more of the second for the best."""
        settings = self.settings
        for plan in self.by_promise(self.breeder.start(settings.structures)):
            self.try_out(plan, None)
        for _ in range(settings.rounds):
            for _ in range(settings.born):
                parent = self.pick()
                plan = parent.plan
                if self.rng.random() < _TWO_PARENTS:
                    plan = self.breeder.crossed(plan, self.pick().plan)
                if plan in self.seen or self.rng.random() < 0.5:
                    plan = self.breeder.mutated(plan)
                self.try_out(plan, parent)
                if self.stopwatch.over:
                    return
        for individual in self.living[: settings.finalists]:
            self.evolve(individual, settings.final, settings.patience)
            if self.stopwatch.over:
                return

    def pick(self) -> _Individual:
        """The better of two."""
        return self.living[int(self.rng.integers(len(self.living), size=2).min())]

    def by_promise(self, plans: list[Plan]) -> list[Plan]:
        """Those with the least compute time first: they make short work of the others."""
        known: list[tuple[float, int, Plan]] = []
        for number, plan in enumerate(plans):
            try:
                known.append((self.herd(plan).least, number, plan))
            except InputError:
                # A design that cannot run one of these layers; the breeder has seen to it that others can.
                self.seen.add(plan)
        return [plan for _, _, plan in sorted(known, key=lambda own: own[:2])]

    def herd(self, plan: Plan) -> Herd:
        """Breeders of strategies for a plan."""
        structure = Structure(self.pricer, self.breeder.sets(plan), plan.places(self.layers), self.objective)
        return Herd(structure, self.settings, self.rng)

    def try_out(self, plan: Plan, parent: _Individual | None) -> None:
        """A new individual of the first level; only if it is among the best does it live."""
        if plan in self.seen or (self.stopwatch.over and self.living):
            return
        self.seen.add(plan)
        try:
            herd = self.herd(plan)
            if self.living:
                herd.ceiling = _STEPPING_STONE * self.living[0].cost_s
                if herd.least >= self.living[0].cost_s:
                    return
            inherited = np.zeros((0, self.layers), np.intp)
            if parent is not None:
                inherited = herd.translated(parent.herd, parent.strategies.genes[:_INHERITED])
            individual = _Individual(plan, herd, herd.begin(inherited))
        except InputError:
            return  # as above
        if not len(individual.strategies.costs):
            return
        self.living.append(individual)
        self.evolve(individual, self.settings.trial, self.settings.trial)
        self.living = sorted(self.living, key=lambda own: own.cost_s)[: self.settings.structures]

    def evolve(self, individual: _Individual, generations: int, patience: int) -> None:
        """Breed strategies, and offer the best if nothing was better."""
        known = min((own.cost_s for own in self.living if own is not individual), default=float("inf"))
        self.offer(individual, known if generations == self.settings.trial else float("inf"))
        individual.strategies = individual.herd.evolve(individual.strategies, generations, patience, self.stopwatch)
        self.offer(individual, known)

    def offer(self, individual: _Individual, known: float) -> None:
        if not self.best.found or individual.cost_s < known:
            mapping = individual.herd.structure.mapping(individual.strategies.genes[0])
            self.best.offer(mapping, f"genetic, {len(mapping.sets)} sets")


def _offers(pool: Pool) -> Options:
    """What the second level chooses from; where members are unequal, also shares in proportion to their speeds."""

    def offered(signature: Signature, own: AcceleratorSet) -> tuple[Strategy, ...]:
        speeds = (1,) * len(own.members)
        if len(set(member_kinds(pool, own.members, own.designs))) > 1:
            seconds = [whole_seconds(pool, *each, signature) for each in zip(own.members, own.designs, strict=True)]
            speeds = relative_speeds(seconds)
        return strategies_of(signature, len(own.members), speeds)

    return offered
