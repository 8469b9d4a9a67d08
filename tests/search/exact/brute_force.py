"""Every mapping of the space that exact search states, priced by the judge alone.

A prefix of a mapping, on the layers that it decides, never costs more than the whole: steps only make clocks go on. So
a prefix that is not below the limit ends there. Nothing of the search's tables, bounds or sets is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise, product

from mars_onnx.errors import InputError
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.base import Signature, TensorType
from mars_onnx.rules.registry import rule_for
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.exact.strategies.cuts import strategies
from mars_onnx.search.method import Objective
from mars_onnx.search.problem import Layer, Problem, Source
from mars_onnx.sharding.entries import identity_signature
from mars_onnx.sharding.lowering import lower
from mars_onnx.sharding.mapping import AcceleratorSet, Entry, LayerChoice, Mapping
from mars_onnx.sharding.strategy import SINGLE, WHOLE, Placement, Resolution, Split, Strategy


def _strategies(signature: Signature, size: int) -> tuple[Strategy, ...]:
    """All strategies of a layer, on a set of a prime number of members (there one axis is cut, or none)."""
    if size == 1:
        return (WHOLE,)
    rule = rule_for(signature)
    found = [WHOLE, SINGLE]
    for axis in rule.axes:
        # A share of less than half of the members, or sums of single products, are not part of the space.
        if axis.size * 2 <= size * (2 if axis.reduction else 1) or axis.size < 2:
            continue
        cut = Strategy(Placement.SHARDED, (Split(axis.name, (1,) * size),))
        found.append(cut)
        if axis.reduction:
            found += [
                replace(cut, resolution=Resolution.REDUCE_SCATTER, scatter_axis=other.name)
                for other in rule.axes
                if not other.reduction and other.size // other.granularity >= size
            ]
    return tuple(found)


@dataclass
class BruteForce:
    """The least cost of all mappings below a limit.

    Attributes:
        problem: What is mapped.
        pool: On what.
        limit: Seconds; what is not below is not found.
        objective: What is to be small.
    """

    problem: Problem
    pool: Pool
    limit: float
    objective: Objective = Objective.LATENCY
    best: Mapping | None = None
    looked: int = 0
    _takers: dict[Source, list[int]] = field(default_factory=dict)
    _lowered: dict[tuple[object, ...], tuple[Strategy, ...]] = field(default_factory=dict)

    def run(self) -> float:
        """Look at everything."""
        for number, layer in enumerate(self.problem.layers):
            for source in _inputs(layer):
                self._takers.setdefault(source, []).append(number)
        cuts = self._cuts()
        for sets in self._sets():
            for places in combinations(cuts, len(sets) - 1):
                bounds = [0, *places, len(self.problem.layers)]
                runs = enumerate(pairwise(bounds))
                own = [index for index, (low, high) in runs for _ in range(low, high)]
                self._layer(sets, own, [], [])
        return self.limit

    def _sets(self) -> Iterator[tuple[AcceleratorSet, ...]]:
        """Every sequence of disjoint sets, with every choice of designs."""
        ranks = range(self.pool.size)
        subsets = [members for size in range(1, self.pool.size + 1) for members in combinations(ranks, size)]

        def onward(used: frozenset[int]) -> Iterator[tuple[tuple[int, ...], ...]]:
            for members in subsets:
                if used.isdisjoint(members):
                    yield (members,)
                    for rest in onward(used | set(members)):
                        yield (members, *rest)

        for sequence in onward(frozenset()):
            for designs in product(*(self._designs(members) for members in sequence)):
                yield tuple(AcceleratorSet(m, d) for m, d in zip(sequence, designs, strict=True))

    def _designs(self, members: Sequence[int]) -> list[tuple[str, ...]]:
        """One design for all members of one kind."""
        kinds = {rank: tuple(d.name for d in self.pool.accelerators[rank].designs) for rank in members}
        distinct = list(dict.fromkeys(kinds.values()))
        return [
            tuple(dict(zip(distinct, chosen, strict=True))[kinds[rank]] for rank in members)
            for chosen in product(*distinct)
        ]

    def _cuts(self) -> list[int]:
        """Before which layers a set may take over: all data is in one tensor that a layer made."""
        found = []
        for place in range(1, len(self.problem.layers)):
            alive = {
                source
                for source, takers in self._takers.items()
                if takers[-1] >= place and (source.layer if source.layer is not None else takers[0]) < place
            }
            if len(alive) == 1 and next(iter(alive)).layer is not None:
                found.append(place)
        return found

    def _layer(
        self, sets: tuple[AcceleratorSet, ...], own: list[int], chosen: list[LayerChoice], entries: list[Entry]
    ) -> None:
        number = len(chosen)
        if number == len(self.problem.layers):
            self._price(self.problem, sets, chosen, entries, final=True)
            return
        layer, members = self.problem.layers[number], sets[own[number]].members
        stated = [
            [(source, strategy) for strategy in self._entries(source, kind, own, number, len(members))]
            for source, kind in _kinds(layer).items()
        ]
        prefix = replace(self.problem, layers=self.problem.layers[: number + 1], outputs=())
        for picked in product(*stated):
            more = entries + [
                Entry(self.problem.name_of(source), own[number], strategy)
                for source, strategy in picked
                if strategy is not None
            ]
            for strategy in self._cut(layer.signature, members):
                now = [*chosen, LayerChoice(layer.name, own[number], strategy)]
                if self._price(prefix, sets, now, more):
                    self._layer(sets, own, now, more)

    def _cut(self, signature: Signature, members: tuple[int, ...]) -> tuple[Strategy, ...]:
        key = (signature, len(members))
        if key not in self._lowered:
            if len(members) in (1, 2, 3, 5, 7):
                found = _strategies(signature, len(members))
            else:
                found = strategies(signature, (2, len(members) // 2))
            sound = []
            for strategy in found:
                try:
                    lower(signature, strategy, members)
                except InputError:
                    continue
                sound.append(strategy)
            self._lowered[key] = tuple(sound)
        return self._lowered[key]

    def _entries(
        self, source: Source, kind: TensorType, own: list[int], number: int, size: int
    ) -> list[Strategy | None]:
        """In which layouts a tensor can come to a layer's set: decided at the first layer there that takes it."""
        takers = self._takers[source]
        if next(taker for taker in takers if own[taker] == own[number]) != number:
            return [None]
        crosses = source.layer is None or own[source.layer] != own[number]
        every: list[Strategy | None] = list(self._cut(identity_signature(kind), tuple(range(size))))
        if len(takers) == 1:
            return [None, *every] if crosses else [None]
        return every if crosses else [None, *every]

    def _price(
        self,
        problem: Problem,
        sets: tuple[AcceleratorSet, ...],
        chosen: list[LayerChoice],
        entries: list[Entry],
        final: bool = False,
    ) -> bool:
        """Whether a mapping, or a prefix of one, is below the limit."""
        self.looked += 1
        mapping = Mapping(sets, tuple(chosen), tuple(entries))
        seconds = evaluate(problem, self.pool, mapping).cost_s(self.objective)
        if seconds >= self.limit:
            return False
        if final:
            self.limit, self.best = seconds, mapping
        return True


def _inputs(layer: Layer) -> list[Source]:
    return [source for source in layer.sources if source is not None]


def _kinds(layer: Layer) -> dict[Source, TensorType]:
    return {
        source: kind
        for source, kind in zip(layer.sources, layer.signature.inputs, strict=False)
        if source is not None and kind is not None
    }
