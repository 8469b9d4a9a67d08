"""Mappings with the same sets and the same layers on each, of which only the strategies differ: priced all at once."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import numpy.typing as npt

from mars_onnx.search.comparators.pricer import FloatArray, IntArray, Pricer, Use
from mars_onnx.search.comparators.terms import Terms
from mars_onnx.search.method import Objective
from mars_onnx.search.problem import Source
from mars_onnx.sharding.mapping import AcceleratorSet, LayerChoice, Mapping

#: How many of the terms of a mapping that are not known yet are worked out before it is looked at again.
_AT_ONCE = 4


class Structure:
    """Mappings that differ in the strategies of their layers only; a gene is the index of a layer's strategy."""

    def __init__(
        self,
        pricer: Pricer,
        sets: Sequence[AcceleratorSet],
        places: Sequence[int],
        objective: Objective = Objective.LATENCY,
    ) -> None:
        """Sets, per layer the index of its set, and what is to be small."""
        pricer.tidy()
        self.pricer, self.objective = pricer, objective
        self._made = Terms(pricer, sets, places)
        self.sets, self.places, self.options = self._made.sets, self._made.places, self._made.options
        self._terms, self._shared = self._made.terms, self._made.shared
        self.counts: IntArray = np.array([len(own) for own in self.options], np.intp)
        self._place_terms()

    def _place_terms(self) -> None:
        """Lay the terms out as columns."""
        self._generation = self.pricer.generation
        # Terms of more than two layers (an input that many take) are rare, and worked out by themselves.
        self._odd = [number for number, term in enumerate(self._terms) if len(term.layers) > 2]
        last = len(self.places)  # a column of zeros stands in where a term depends on one layer only
        sizes = [prod(int(self.counts[layer]) for layer in term.layers) for term in self._terms]
        odd = set(self._odd)
        self._offset: IntArray = np.array(
            [
                self.pricer.block(term.key, 1 if number in odd else size)
                for number, (term, size) in enumerate(zip(self._terms, sizes, strict=True))
            ],
            np.intp,
        )
        self._first: IntArray = np.array(
            [last if number in odd else term.layers[0] for number, term in enumerate(self._terms)], np.intp
        )
        pairs = [len(term.layers) == 2 for term in self._terms]
        self._second: IntArray = np.array(
            [term.layers[1] if pair else last for term, pair in zip(self._terms, pairs, strict=True)], np.intp
        )
        self._width: IntArray = np.array(
            [int(self.counts[term.layers[1]]) if pair else 1 for term, pair in zip(self._terms, pairs, strict=True)],
            np.intp,
        )
        groups = [term.sets for term in self._terms]
        self._starts: IntArray = np.array(
            [number for number, sets in enumerate(groups) if number == 0 or sets != groups[number - 1]], np.intp
        )
        self._segments = [groups[start] for start in self._starts]

    def costs(self, genes: IntArray, limit: float = float("inf")) -> FloatArray:
        """What mappings cost, as far as that is below a limit.

        Args:
            genes: ``[mappings, layers]``, indices into ``options``.
            limit: In seconds. Of a mapping that costs at least about so much, a bound from below is enough.

        Returns:
            Seconds, ``[mappings]``; infinite where a strategy cannot be applied.

        Raises:
            InputError: A design cannot run a layer.
        """
        if self._generation != self.pricer.generation:
            self._place_terms()
        index = self._index(genes)
        values, gaps = self._known(genes, index)
        cost = self._cost(genes, values)
        for row in np.argsort(cost, kind="stable").tolist():
            open_ = np.nonzero(gaps[row])[0]
            open_ = open_[np.argsort(-values[row, open_], kind="stable")]
            step = _AT_ONCE if limit < float("inf") else len(open_)
            while len(open_) and cost[row] < limit:
                for column in open_[:step].tolist():
                    values[row, column] = self._work_out(genes[row], column, int(index[row, column]))
                open_ = open_[step:]
                cost[row] = self._cost(genes[row : row + 1], values[row : row + 1])[0]
        return cost

    def cheapest(self, genes: IntArray, limit: float = float("inf")) -> tuple[int, float] | None:
        """The row and the seconds of the cheapest of many mappings; ``None`` if all cost at least ``limit``.

        Raises:
            InputError: A design cannot run a layer.
        """
        found: tuple[int, float] | None = None
        bounds = self.costs(genes, 0.0)
        for row in np.argsort(bounds, kind="stable").tolist():
            if bounds[row] >= limit:
                break
            cost = float(self.costs(genes[row : row + 1], limit)[0])
            if cost < limit:
                limit, found = cost, (row, cost)
        return found

    def profile(self, layer: int) -> list[float]:
        """Per strategy of a layer the seconds of compute; infinite where it cannot be applied.

        Of shared shards those of the split that they belong to: what goes round does not change the work.
        """
        return self._made.profile(layer)

    def compute_alone(self, seconds: Sequence[float]) -> float:
        """What layers of so many seconds cost if nothing had to be moved; sets still wait for each other."""
        clock = [0.0] * len(self.sets)
        uses: dict[int, list[Use]] = {}
        for use in self.pricer.uses:
            uses.setdefault(use.layer, []).append(use)
        met: set[tuple[Source, int]] = set()
        for layer, (place, own) in enumerate(zip(self.places, seconds, strict=True)):
            for use in uses.get(layer, ()):
                home = place if use.source.layer is None else self.places[use.source.layer]
                if home != place and (use.source, place) not in met and self.objective is Objective.LATENCY:
                    met.add((use.source, place))
                    clock[home] = clock[place] = max(clock[home], clock[place])
            clock[place] += own
        return max(clock, default=0.0)

    def mapping(self, genes: Sequence[int] | IntArray) -> Mapping:
        """The mapping that a row of genes stands for, without sets that compute nothing."""
        used = sorted(set(self.places))
        return Mapping(
            tuple(self.sets[index] for index in used),
            tuple(
                LayerChoice(layer.name, used.index(place), own[int(gene)])
                for layer, place, own, gene in zip(
                    self.pricer.problem.layers, self.places, self.options, genes, strict=True
                )
            ),
        )

    def _index(self, genes: IntArray) -> IntArray:
        """Where the terms of mappings are, ``[mappings, terms]``."""
        padded = np.concatenate([genes, np.zeros((len(genes), 1), np.intp)], axis=1)
        index: IntArray = self._offset + padded[:, self._first] * self._width + padded[:, self._second]
        return index

    def _known(self, genes: IntArray, index: IntArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """The terms of mappings, or bounds of them; and which are bounds only."""
        values: FloatArray = self.pricer.terms[index]
        gaps = np.isnan(values)
        gaps[:, self._odd] = False
        rows, columns = np.nonzero(gaps & np.isnan(self.pricer.bounds[index]))
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            place = index[row, column]
            if np.isnan(self.pricer.bounds[place]):
                term = self._terms[column]
                self.pricer.bounds[place] = term.bound(*(int(genes[row, layer]) for layer in term.layers))
        values[gaps] = self.pricer.bounds[index[gaps]]
        for column in self._odd:
            term = self._terms[column]
            known: dict[tuple[int, ...], float] = {}
            for row, taken in enumerate(genes[:, list(term.layers)].tolist()):
                if tuple(taken) not in known:
                    known[tuple(taken)] = term.seconds(*taken)
                values[row, column] = known[tuple(taken)]
        return values, gaps

    def _work_out(self, genes: IntArray, column: int, place: int) -> float:
        if np.isnan(self.pricer.terms[place]):
            term = self._terms[column]
            self.pricer.terms[place] = term.seconds(*(int(genes[layer]) for layer in term.layers))
        return float(self.pricer.terms[place])

    def _cost(self, genes: IntArray, values: FloatArray) -> FloatArray:
        """Terms put together: what moves once counts once, and sets wait for each other."""
        counted = values.copy()
        for shared in self._shared:
            same = shared.before[genes[:, shared.first]] == shared.after[genes[:, shared.second]]
            counted[same, shared.column] = 0.0
        if not len(self._starts):
            return np.zeros(len(genes))
        sums: FloatArray = np.add.reduceat(counted, self._starts, axis=1)
        if len(self.sets) == 1:
            return np.asarray(sums[:, 0])
        clock = np.zeros((len(genes), len(self.sets)))
        for column, sets in enumerate(self._segments):
            index = list(sets)
            if self.objective is Objective.LATENCY:
                ends = clock[:, index].max(axis=1) + sums[:, column]
                # What need not move keeps nobody waiting.
                moves = sums[:, column] > 0
                clock[np.ix_(moves, index)] = ends[moves, None]
            else:
                clock[:, index] += sums[:, column : column + 1]
        cost: FloatArray = clock.max(axis=1)
        return cost
