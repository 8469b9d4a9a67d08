"""Second level: a strategy for every layer, given sets, designs and the layers of each set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mars_onnx.search.comparators.genetic.forms import Form, forms_of, nearest, simple
from mars_onnx.search.comparators.genetic.settings import Settings
from mars_onnx.search.comparators.pricer import FloatArray, IntArray
from mars_onnx.search.comparators.structure import Structure
from mars_onnx.search.comparators.trials import Stopwatch
from mars_onnx.search.comparators.whole_layers import takes_of, units_of

#: Costs are compared to so many seconds, so that the last bits of a sum decide nothing.
_RESOLUTION_S = 1e-13
#: Chances of crossing two parents, and then of doing so by kinds of layers rather than by a stretch of them.
_CROSSED, _BY_KIND = 0.7, 0.4
#: A mutation goes on with this chance.
_ONCE_MORE = 0.4


@dataclass(slots=True)
class Strategies:
    """A population of the second level, the best first.

    Attributes:
        genes: ``[individuals, layers]``.
        costs: Of each, in seconds.
    """

    genes: IntArray
    costs: FloatArray


class Herd:
    """Breeds strategies for one structure."""

    def __init__(self, structure: Structure, settings: Settings, rng: np.random.Generator) -> None:
        """For a structure; random numbers are drawn from ``rng``."""
        self.structure, self.settings, self.rng = structure, settings, rng
        problem = structure.pricer.problem
        self.forms = [
            forms_of(layer.signature, own) for layer, own in zip(problem.layers, structure.options, strict=True)
        ]
        kinds: dict[object, list[int]] = {}
        for number, (layer, place) in enumerate(zip(structure.pricer.signatures, structure.places, strict=True)):
            kinds.setdefault((layer, place), []).append(number)
        #: Layers that are equal and on the same set.
        self.kinds: list[IntArray] = [np.array(layers, np.intp) for layers in kinds.values()]
        self.kind_of: IntArray = np.zeros(len(problem.layers), np.intp)
        for kind, layers in enumerate(self.kinds):
            self.kind_of[layers] = kind
        #: A layer and the light ones behind it mostly change together, as if they were fused.
        self.units = units_of(problem, takes_of(problem))
        heads: dict[int, list[int]] = {}
        for number, unit in enumerate(self.units):
            heads.setdefault(int(self.kind_of[unit[0]]), []).append(number)
        self.alike = [heads[int(self.kind_of[unit[0]])] for unit in self.units]
        #: Per unit the extents of its first result beyond the channels.
        self.extents = [
            tuple(own.shape[2:]) if (own := problem.layers[unit[0]].signature.outputs[0]) else () for unit in self.units
        ]
        self.neighbours: list[list[int]] = [[] for _ in problem.layers]
        for use in structure.pricer.uses:
            if use.source.layer is not None:
                self.neighbours[use.layer].append(use.source.layer)
                self.neighbours[use.source.layer].append(use.layer)
        #: What costs as much as this is of no interest; in seconds.
        self.ceiling = float("inf")
        self._like: dict[tuple[int, Form], int] = {}
        self._chances: dict[int, FloatArray] = {}

    @cached_property
    def least(self) -> float:
        """Seconds that no strategies can beat: of every layer the least compute time, and nothing moves."""
        return self.structure.compute_alone([min(self.structure.profile(n)) for n in range(len(self.forms))])

    def begin(self, inherited: IntArray) -> Strategies:
        """A first population: few forms, a draw for each kind of layer, and what is inherited.

        Few forms are the same everywhere, or one up to where results change their size and another from there on.
        """
        forms = list(dict.fromkeys(form for own in self.forms for form in own if simple(form)))
        rows = [self.uniform(form) for form in forms]
        for _ in range(self.settings.strategies // 4):
            rows.append(self.drawn())
        genes = np.unique(np.concatenate([np.array(rows, np.intp), inherited.astype(np.intp)]), axis=0)
        bounds = self.structure.costs(genes, 0.0)
        genes = genes[np.argsort(bounds, kind="stable")]
        kept = Strategies(genes[:0], np.zeros(0))
        for start in range(0, len(genes), self.settings.strategies):
            kept = self.joined(kept, genes[start : start + self.settings.strategies])
        if len(kept.costs):
            changes = [u for u in range(1, len(self.units)) if self.extents[u] != self.extents[u - 1]]
            made = [self.from_on(kept.genes[0], unit, form) for unit in changes for form in forms]
            kept = self.joined(kept, np.unique(np.array([kept.genes[0], *made], np.intp), axis=0))
        return kept

    def from_on(self, genes: IntArray, unit: int, form: Form) -> IntArray:
        """An individual with a form from some unit on."""
        made = genes.copy()
        for each in self.units[unit:]:
            for layer in each:
                made[layer] = self.like(layer, form)
        return made

    def joined(self, old: Strategies, born: IntArray) -> Strategies:
        """The best of a population and of new individuals."""
        room = self.settings.strategies
        limit = float(old.costs[-1]) if len(old.costs) >= room else float("inf")
        if not len(old.costs) and len(born):
            # Nobody is known yet: what the best costs is a measure for the others.
            limit = 1.5 * float(self.structure.costs(born[:1], self.ceiling)[0])
        costs = self.structure.costs(born, min(limit, self.ceiling))
        fresh = costs < min(limit, self.ceiling)
        genes = np.concatenate([old.genes, born[fresh]])
        every = np.concatenate([old.costs, np.rint(costs[fresh] / _RESOLUTION_S) * _RESOLUTION_S])
        _, distinct = np.unique(genes, axis=0, return_index=True)
        distinct = np.sort(distinct)
        order = distinct[np.argsort(every[distinct], kind="stable")][:room]
        return Strategies(genes[order], every[order])

    def evolve(self, population: Strategies, generations: int, patience: int, stopwatch: Stopwatch) -> Strategies:
        """Breed for some generations, or until time is up or nothing has become better for a while."""
        waited = 0
        for _ in range(generations):
            if stopwatch.over or waited >= patience or not len(population.costs):
                break
            best = population.costs[0]
            born = np.array([self.child(population) for _ in range(self.settings.children)], np.intp)
            population = self.joined(population, np.unique(born, axis=0))
            waited = 0 if population.costs[0] < best else waited + 1
        return population

    def child(self, population: Strategies) -> IntArray:
        """One of two parents, a part of the other, and a mutation."""
        count = len(population.costs)
        made: IntArray = population.genes[int(self.rng.integers(count, size=2).min())].copy()
        crossed = self.rng.random() < _CROSSED
        if crossed:
            other = population.genes[int(self.rng.integers(count, size=2).min())]
            if self.rng.random() < _BY_KIND:
                taken = self.rng.random(len(self.kinds))[self.kind_of] < 0.5
            else:
                start, stop = np.sort(self.rng.integers(0, len(made) + 1, size=2))
                taken = (np.arange(len(made)) >= start) & (np.arange(len(made)) < stop)
            made[taken] = other[taken]
        if not crossed or self.rng.random() < 0.8:
            self.mutate(made)
            while self.rng.random() < _ONCE_MORE:
                self.mutate(made)
        return made

    def mutate(self, genes: IntArray) -> None:
        """Another strategy for one unit, for all units like it, or for a stretch; or the one that a neighbour has."""
        unit = int(self.rng.integers(len(self.units)))
        head = self.units[unit][0]
        chosen = [unit]
        form = self.forms[head][self.draw(head)]
        case = self.rng.random()
        if case < 0.1:
            layer = int(self.rng.integers(len(genes)))
            genes[layer] = self.draw(layer)
            return
        if case < 0.3:
            chosen = self.alike[unit]
        elif case < 0.5 and self.neighbours[head]:
            near = self.neighbours[head][int(self.rng.integers(len(self.neighbours[head])))]
            form = self.forms[near][genes[near]]
            chosen = self.alike[unit] if self.rng.random() < 0.5 else chosen
        elif case < 0.85:
            if self.rng.random() < 0.3:
                form = self.forms[head][genes[head]]
            chosen = list(self.stretch(unit))
        for each in chosen:
            for layer in self.units[each]:
                genes[layer] = self.like(layer, form)

    def stretch(self, unit: int) -> range:
        """Units around one: those whose results are as large as its, or some at random."""
        if self.rng.random() < 0.5:
            start = stop = unit
            while start > 0 and self.extents[start - 1] == self.extents[unit]:
                start -= 1
            while stop < len(self.units) and self.extents[stop] == self.extents[unit]:
                stop += 1
            if self.rng.random() < 0.5:
                return range(unit, stop)
            return range(start, stop)
        length = int(self.rng.geometric(float(self.rng.choice([0.5, 0.15, 0.04]))))
        start = max(0, unit - int(self.rng.integers(length)))
        return range(start, min(len(self.units), start + length))

    def draw(self, layer: int) -> int:
        """A strategy for a layer: the quicker its compute, the likelier."""
        kind = int(self.kind_of[layer])
        if kind not in self._chances:
            seconds = np.array(self.structure.profile(layer))
            chances = np.power(np.maximum(seconds, 1e-12) / max(float(seconds.min()), 1e-12), -self.settings.bias)
            self._chances[kind] = np.cumsum(chances / chances.sum())
        place = int(np.searchsorted(self._chances[kind], self.rng.random()))
        return min(place, len(self.forms[layer]) - 1)

    def drawn(self) -> IntArray:
        """A draw for every kind of layer."""
        genes = np.zeros(len(self.forms), np.intp)
        for layers in self.kinds:
            genes[layers] = self.draw(int(layers[0]))
        return genes

    def uniform(self, form: Form) -> IntArray:
        """The same form for all layers."""
        return np.array([self.like(layer, form) for layer in range(len(self.forms))], np.intp)

    def like(self, layer: int, form: Form) -> int:
        """The strategy of a layer that is most like a form."""
        key = (int(self.kind_of[layer]), form)
        if key not in self._like:
            self._like[key] = nearest(form, self.forms[layer])
        return self._like[key]

    def translated(self, other: Herd, genes: IntArray) -> IntArray:
        """Individuals of another structure, as far as they make sense here."""
        rows = [
            [self.like(layer, other.forms[layer][gene]) for layer, gene in enumerate(row)] for row in genes.tolist()
        ]
        return np.array(rows, np.intp).reshape(len(rows), len(self.forms))
