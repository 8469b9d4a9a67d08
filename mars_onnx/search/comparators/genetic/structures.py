"""First level: accelerator sets, a design for each, and a contiguous run of layers for each."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mars_onnx.errors import InputError
from mars_onnx.pool.clusters import clusterings
from mars_onnx.pool.topology import Pool
from mars_onnx.search.problem import Problem
from mars_onnx.search.runs import possible_cuts, whole_seconds
from mars_onnx.sharding.mapping import AcceleratorSet

#: Chance of a split where the pool's groups meet, if there is such a place in a set; else anywhere.
_AT_GROUPS = 0.7


@dataclass(frozen=True, slots=True)
class Plan:
    """An individual of the first level.

    Attributes:
        sets: Ranks, in the order in which the sets take their runs.
        designs: Name of the design of each set; members that cannot take it take what is quickest for them.
        cuts: Where the runs of the second set and those after it begin; an empty run leaves its set idle.
    """

    sets: tuple[tuple[int, ...], ...]
    designs: tuple[str, ...]
    cuts: tuple[int, ...]

    def places(self, layers: int) -> list[int]:
        """Per layer the index of its set."""
        return [bisect_right(self.cuts, layer) for layer in range(layers)]


class Breeder:
    """Makes new plans: at random with a bias, by mutation, and from two others."""

    def __init__(self, problem: Problem, pool: Pool, bias: float, rng: np.random.Generator) -> None:
        """Profile all layers in all designs.

        Raises:
            InputError: No design can run all layers.
        """
        self.problem, self.pool, self.bias, self.rng = problem, pool, bias, rng
        self.order = tuple(rank for group in pool.groups() for rank in group)
        self.cuts = np.array([0, *possible_cuts(problem), len(problem.layers)], np.intp)
        refused: InputError | None = None
        #: Per design, on the first accelerator that can take it, the seconds of all layers before each place.
        self.before: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
        for name in pool.designs:
            rank = next(own.rank for own in pool.accelerators if own.design(name))
            try:
                seconds = [whole_seconds(pool, rank, name, layer.signature) for layer in problem.layers]
            except InputError as error:
                refused = refused or error
                continue
            self.before[name] = np.concatenate([[0.0], np.cumsum(seconds)])
        if not self.before and refused is not None:
            raise refused

    def start(self, count: int) -> list[Plan]:
        """A first population: one set, the sets that are left when the slowest links go, and random ones."""
        shapes: list[tuple[tuple[int, ...], ...]] = [(self.order,)]
        if len(self.pool.groups()) > 1:
            shapes.append(self.pool.groups())
        shapes += [tuple(inner) for inner in reversed(clusterings(self.pool, self.order))]
        found: list[Plan] = []
        for shape in dict.fromkeys(shapes):
            for design in self.by_speed(0, len(self.problem.layers)):
                found.append(self.balanced(shape, (design,) * len(shape)))
            found.append(self.balanced(shape, self.designs(shape)))
        found = list(dict.fromkeys(found))[:count]
        for _ in range(8 * count):
            if len(found) >= count:
                break
            made = self.mutated(found[int(self.rng.integers(len(found)))])
            if made not in found:
                found.append(made)
        return found

    def by_speed(self, start: int, stop: int) -> list[str]:
        """Designs, the quickest at some layers first."""
        return sorted(self.before, key=lambda name: float(self.before[name][stop] - self.before[name][start]))

    def design(self, start: int, stop: int) -> str:
        """A design for some layers: the quicker, the likelier."""
        names = list(self.before)
        seconds = np.array([self.before[name][stop] - self.before[name][start] for name in names])
        chances = np.power(np.maximum(seconds, 1e-12) / max(float(seconds.min()), 1e-12), -self.bias)
        return names[int(self.rng.choice(len(names), p=chances / chances.sum()))]

    def designs(self, shape: Sequence[Sequence[int]]) -> tuple[str, ...]:
        """For each of several sets with equal runs a design."""
        cuts = self.balanced(shape, (next(iter(self.before)),) * len(shape)).cuts
        bounds = (0, *cuts, len(self.problem.layers))
        return tuple(self.design(bounds[number], bounds[number + 1]) for number in range(len(shape)))

    def balanced(self, shape: Sequence[Sequence[int]], designs: Sequence[str]) -> Plan:
        """Sets with runs in proportion to their sizes, by profiled time."""
        least = np.min([self.before[name] for name in dict.fromkeys(designs)], axis=0)
        sizes = np.cumsum([len(members) for members in shape])[:-1] / sum(map(len, shape))
        cuts = tuple(self.cut_near(int(np.searchsorted(least, share * least[-1]))) for share in sizes)
        return Plan(tuple(tuple(sorted(members)) for members in shape), tuple(designs), cuts)

    def cut_near(self, place: int) -> int:
        """The nearest place where layers can be parted."""
        return int(self.cuts[int(np.abs(self.cuts - place).argmin())])

    def mutated(self, plan: Plan) -> Plan:
        """One thing changed: a design, a cut, two sets joined, or one parted."""
        choices = [self._redesign]
        if len(plan.sets) > 1:
            choices += [self._move_cut, self._move_cut, self._join]
        if any(len(members) > 1 for members in plan.sets):
            choices.append(self._part)
        return choices[int(self.rng.integers(len(choices)))](plan)

    def crossed(self, one: Plan, other: Plan) -> Plan:
        """The sets and cuts of one, with the designs that the other has for the same accelerators."""
        home = {rank: design for members, design in zip(other.sets, other.designs, strict=True) for rank in members}
        designs = tuple(home.get(members[0], own) for members, own in zip(one.sets, one.designs, strict=True))
        cuts = one.cuts
        if len(one.sets) == len(other.sets):
            cuts = tuple(self.cut_near((a + b) // 2) for a, b in zip(one.cuts, other.cuts, strict=True))
        return Plan(one.sets, designs, cuts)

    def _bounds(self, plan: Plan, number: int) -> tuple[int, int]:
        bounds = (0, *plan.cuts, len(self.problem.layers))
        return bounds[number], bounds[number + 1]

    def _redesign(self, plan: Plan) -> Plan:
        number = int(self.rng.integers(len(plan.sets)))
        designs = list(plan.designs)
        designs[number] = self.design(*self._bounds(plan, number))
        return replace(plan, designs=tuple(designs))

    def _move_cut(self, plan: Plan) -> Plan:
        number = int(self.rng.integers(len(plan.cuts)))
        low = plan.cuts[number - 1] if number else 0
        high = plan.cuts[number + 1] if number + 1 < len(plan.cuts) else len(self.problem.layers)
        step = int(self.rng.geometric(0.15)) * (1 if self.rng.random() < 0.5 else -1)
        place = int(np.searchsorted(self.cuts, plan.cuts[number])) + step
        cut = int(np.clip(self.cuts[int(np.clip(place, 0, len(self.cuts) - 1))], low, high))
        return replace(plan, cuts=(*plan.cuts[:number], self.cut_near(cut), *plan.cuts[number + 1 :]))

    def _join(self, plan: Plan) -> Plan:
        number = int(self.rng.integers(len(plan.sets) - 1))
        joined = tuple(sorted((*plan.sets[number], *plan.sets[number + 1])))
        keep = number + int(self.rng.integers(2))
        return Plan(
            (*plan.sets[:number], joined, *plan.sets[number + 2 :]),
            (*plan.designs[:number], plan.designs[keep], *plan.designs[number + 2 :]),
            (*plan.cuts[:number], *plan.cuts[number + 1 :]),
        )

    def _part(self, plan: Plan) -> Plan:
        large = [number for number, members in enumerate(plan.sets) if len(members) > 1]
        number = large[int(self.rng.integers(len(large)))]
        members = plan.sets[number]
        at = [p for p in range(1, len(members)) if self.pool.group_of[members[p - 1]] != self.pool.group_of[members[p]]]
        if not at or self.rng.random() > _AT_GROUPS:
            at = list(range(1, len(members)))
        place = at[int(self.rng.integers(len(at)))]
        start, stop = self._bounds(plan, number)
        before = self.before[plan.designs[number]]
        middle = before[start] + (before[stop] - before[start]) * place / len(members)
        cut = self.cut_near(int(np.searchsorted(before, middle)))
        return Plan(
            (*plan.sets[:number], members[:place], members[place:], *plan.sets[number + 1 :]),
            (*plan.designs[:number], plan.designs[number], self.design(start, stop), *plan.designs[number + 1 :]),
            (*plan.cuts[:number], int(np.clip(cut, start, stop)), *plan.cuts[number:]),
        )

    def sets(self, plan: Plan) -> tuple[AcceleratorSet, ...]:
        """The accelerator sets that a plan means."""
        found: list[AcceleratorSet] = []
        for number, (members, name) in enumerate(zip(plan.sets, plan.designs, strict=True)):
            start, stop = self._bounds(plan, number)
            designs = []
            for rank in members:
                own = self.pool.accelerators[rank]
                able = [each for each in self.by_speed(start, stop) if own.design(each)]
                designs.append(name if own.design(name) else (able or [own.designs[0].name])[0])
            found.append(AcceleratorSet(members, tuple(designs)))
        return tuple(found)
