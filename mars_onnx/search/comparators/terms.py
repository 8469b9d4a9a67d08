"""The terms of the lockstep cost of mappings with the same sets and the same layers on each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mars_onnx.cost.shares import strategy_seconds
from mars_onnx.cost.steps import input_seconds, layer_seconds, output_seconds
from mars_onnx.errors import InputError
from mars_onnx.geometry import Box, Layout, hull
from mars_onnx.rules.base import TensorType
from mars_onnx.search.comparators.alike import kind_of
from mars_onnx.search.comparators.pricer import IntArray, Pricer, Use
from mars_onnx.search.evaluate import needs_of
from mars_onnx.search.problem import Source
from mars_onnx.sharding.lowering import Sharding, lower_all
from mars_onnx.sharding.mapping import AcceleratorSet
from mars_onnx.sharding.strategy import Strategy


@dataclass(frozen=True, slots=True)
class Term:
    """A step of the cost, as it depends on strategies.

    Attributes:
        layers: Whose strategies it depends on.
        key: Equal terms have equal keys.
        sets: Whom it keeps busy.
        seconds: Its value, for the strategies of ``layers``.
        bound: About how little that can be, quick to find out.
    """

    layers: tuple[int, ...]
    key: object
    sets: tuple[int, ...]
    seconds: Callable[..., float]
    bound: Callable[..., float]


@dataclass(frozen=True, slots=True)
class Shared:
    """Two layers of a set take the same tensor: where both need the same of it, it moves once.

    Attributes:
        first: The layer that takes it first.
        second: The layer that takes it again.
        column: The term of its taking it again.
        before: Per strategy of ``first`` a number for what it needs.
        after: The same of ``second``.
    """

    first: int
    second: int
    column: int
    before: IntArray
    after: IntArray


class Terms:
    """All terms, in the order in which the evaluator takes its steps."""

    def __init__(self, pricer: Pricer, sets: Sequence[AcceleratorSet], places: Sequence[int]) -> None:
        """For sets, and per layer the index of its set."""
        self.pricer, self.sets, self.places = pricer, tuple(sets), tuple(places)
        self.problem, self.pool = pricer.problem, pricer.pool
        self.options = [
            pricer.options(layer.signature, self.sets[place])
            for layer, place in zip(self.problem.layers, self.places, strict=True)
        ]
        self._kinds = [pricer.number(kind_of(self.pool, own.members)) for own in self.sets]
        self._settings = [pricer.number((own.designs, kind)) for own, kind in zip(self.sets, self._kinds, strict=True)]
        self._offers = [pricer.options_number(own) for own in self.options]
        self.shared: list[Shared] = []
        self.terms: list[Term] = []
        self.terms += self._all()

    def _all(self) -> Iterator[Term]:
        uses: dict[int, list[Use]] = {}
        entering: dict[Source, list[Use]] = {}
        for use in self.pricer.uses:
            if use.source.layer is None:
                entering.setdefault(use.source, []).append(use)
            else:
                uses.setdefault(use.layer, []).append(use)
        column = 0
        for source in sorted(entering, key=lambda source: source.output):
            yield self._input(entering[source])
            column += 1
        moved: dict[tuple[Source, int], list[Use]] = {}
        for layer, place in enumerate(self.places):
            for use in uses.get(layer, ()):
                earlier = moved.setdefault((use.source, place), [])
                for other in earlier:
                    needs = self._need_numbers(other), self._need_numbers(use)
                    self.shared.append(Shared(other.layer, layer, column, *needs))
                earlier.append(use)
                yield self._move(use)
                column += 1
            yield self._layer(layer)
            column += 1
        for source in self.problem.outputs:
            if source.layer is not None and self._type_of(source) is not None:
                yield self._output(source)

    def _sharding(self, layer: int, gene: int) -> Sharding | None:
        members = self.sets[self.places[layer]].members
        (found,) = lower_all(self.problem.layers[layer].signature, (self.options[layer][gene],), members)
        return None if isinstance(found, InputError) else found

    def _need(self, use: Use, gene: int) -> Layout | None:
        sharding = self._sharding(use.layer, gene)
        if sharding is None:
            return None
        needs = list(needs_of(self.problem.layers[use.layer], sharding))
        return needs[use.slot][2]

    def _need_numbers(self, use: Use) -> IntArray:
        """Per strategy of the taking layer a number that stands for what it needs."""
        key = (self._signature(use.layer), use.slot, len(self.sets[self.places[use.layer]].members))
        known = self.pricer.needed
        if key not in known:
            needs = [self._need(use, gene) for gene in range(len(self.options[use.layer]))]
            known[key] = np.array([-1 if need is None else self.pricer.layout_number(need) for need in needs], np.intp)
        return known[key]

    def _type_of(self, source: Source) -> TensorType | None:
        return self.problem.layers[source.layer or 0].signature.outputs[source.output]

    def _signature(self, layer: int) -> tuple[int, int]:
        """Stands for a layer's signature and its strategies: all that layouts depend on."""
        return self.pricer.signatures[layer], self._offers[layer]

    def _layer(self, layer: int) -> Term:
        signature, own = self.problem.layers[layer].signature, self.sets[self.places[layer]]
        kind = self._kinds[self.places[layer]]

        def bound(gene: int) -> float:
            strategy = self.options[layer][gene]
            if strategy.ring is None:
                return self._compute(layer).get(strategy, float("inf"))
            if self._sharding(layer, gene) is None:
                return float("inf")
            return layer_seconds(self.pool, signature, strategy, own.members, own.designs)

        def seconds(gene: int) -> float:
            total = bound(gene)
            sharding = self._sharding(layer, gene)
            if sharding is None:
                return total
            for type_, produced, resolved in zip(signature.outputs, sharding.produced, sharding.resolved, strict=True):
                if type_ is not None and produced is not None and resolved is not None and produced != resolved:
                    total += self.pricer.moves.seconds(kind, produced, resolved, type_.dtype.bitwidth)
            return total

        key = ("layer", self._signature(layer), self._settings[self.places[layer]])
        return Term((layer,), key, (self.places[layer],), seconds, bound)

    def profile(self, layer: int) -> list[float]:
        """Per strategy of a layer the seconds of compute, without what moves in or out."""
        known = self._compute(layer)
        return [known.get(replace(strategy, ring=None), float("inf")) for strategy in self.options[layer]]

    def _compute(self, layer: int) -> dict[Strategy, float]:
        """Seconds of all strategies without a ring that can be applied, priced at once."""
        key = (self._signature(layer), self._settings[self.places[layer]])
        known = self.pricer.computed
        if key not in known:
            signature, own = self.problem.layers[layer].signature, self.sets[self.places[layer]]
            strategies = [strategy for strategy in self.options[layer] if strategy.ring is None]
            lowered = lower_all(signature, strategies, own.members)
            sound = tuple(s for s, each in zip(strategies, lowered, strict=True) if not isinstance(each, InputError))
            seconds = strategy_seconds(self.pool, signature, sound, own.members, own.designs)
            known[key] = {s: max(shares, default=0.0) for s, shares in zip(sound, seconds, strict=True)}
        return known[key]

    def _move(self, use: Use) -> Term:
        producer = use.source.layer
        if producer is None:
            raise ValueError("a model input is not moved between layers")
        home, own = self.places[producer], self.places[use.layer]
        members = self.sets[home].members, self.sets[own].members
        kind = self._kinds[own] if home == own else self.pricer.number(kind_of(self.pool, *members))

        def ends(giving: int, taking: int) -> tuple[Layout, Layout] | None:
            sharding, need = self._sharding(producer, giving), self._need(use, taking)
            held = sharding.resolved[use.source.output] if sharding else None
            # Where a strategy cannot be applied, the layer's own term says so.
            return None if held is None or need is None else (held, need)

        def seconds(giving: int, taking: int) -> float:
            found = ends(giving, taking)
            return self.pricer.moves.seconds(kind, *found, use.kind.dtype.bitwidth) if found else 0.0

        def bound(giving: int, taking: int) -> float:
            found = ends(giving, taking)
            return self.pricer.moves.least(kind, *found, use.kind.dtype.bitwidth) if found else 0.0

        key = (
            "move",
            self._signature(producer),
            use.source.output,
            self._signature(use.layer),
            use.slot,
            kind,
            home == own,
        )
        return Term((producer, use.layer), key, (home,) if home == own else (home, own), seconds, bound)

    def _input(self, uses: list[Use]) -> Term:
        layers = tuple(dict.fromkeys(use.layer for use in uses))
        sets = tuple(sorted({self.places[layer] for layer in layers}))

        def seconds(*genes: int) -> float:
            boxes: dict[int, list[Box | None]] = {}
            for use in uses:
                need = self._need(use, genes[layers.index(use.layer)])
                for rank, box in zip(need.members, need.boxes, strict=True) if need else ():
                    boxes.setdefault(rank, []).append(box)
            hulls = {rank: hull(boxes[rank]) for rank in sorted(boxes)}
            kind = uses[0].kind
            return input_seconds(
                self.pool, Layout(kind.shape, tuple(hulls), tuple(hulls.values())), kind.dtype.bitwidth
            )

        kind = self.pricer.number(kind_of(self.pool, *(self.sets[index].members for index in sets)))
        taken = tuple((self._signature(use.layer), layers.index(use.layer), use.slot) for use in uses)
        where = tuple(sets.index(self.places[layer]) for layer in layers)
        return Term(layers, ("input", taken, where, kind), sets, seconds, seconds)

    def _output(self, source: Source) -> Term:
        layer = source.layer or 0
        type_ = self._type_of(source)

        def seconds(gene: int) -> float:
            sharding = self._sharding(layer, gene)
            layout = sharding.resolved[source.output] if sharding else None
            if layout is None or type_ is None:
                return 0.0
            total = 0.0
            if layout.partial:
                whole = Layout(layout.shape, layout.members, layout.boxes)
                total += self.pricer.moves.seconds(self._kinds[self.places[layer]], layout, whole, type_.dtype.bitwidth)
                layout = whole
            return total + output_seconds(self.pool, layout, type_.dtype.bitwidth)

        key = ("output", self._signature(layer), source.output, self._settings[self.places[layer]])
        return Term((layer,), key, (self.places[layer],), seconds, seconds)
