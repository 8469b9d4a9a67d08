"""What a layer can do on a set, and what moves cost there, priced one by one as the judge prices them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
import numpy.typing as npt

from mars_onnx.cost.shares import twin
from mars_onnx.cost.steps import input_seconds, layer_seconds, move_seconds, output_seconds
from mars_onnx.errors import InputError, InvariantError
from mars_onnx.geometry import Layout
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.axes import IntArray
from mars_onnx.rules.base import TensorType
from mars_onnx.search.evaluate import needs_of
from mars_onnx.search.exact.strategies.cuts import strategies
from mars_onnx.search.exact.ways.shapes import Shapes
from mars_onnx.search.milp.symmetry import Family, Members
from mars_onnx.search.problem import Layer, Problem, Source
from mars_onnx.sharding.entries import entry_layout, identity_signature
from mars_onnx.sharding.lowering import lower
from mars_onnx.sharding.strategy import Strategy
from mars_onnx.stages.sharded import satisfied

FloatArray = npt.NDArray[np.float64]
Designs = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Offers:
    """What a layer can do on sets of one kind: strategies that need and leave the same layouts are one offer.

    Of these only the fastest in each design can be part of a best mapping, as nothing else tells them apart.

    Attributes:
        taken: The tensors that it takes, in the order in which they are moved; one twice that it takes twice.
        needs: Per taken tensor and offer the number of the layout that it needs, ``[taken, offers]``.
        outs: Per output, if it is there, and offer the number of the layout that it leaves.
        seconds: Per choice of designs the seconds of each offer, sums of parts and model outputs included.
        strategies: Per choice of designs the strategy behind each offer.
    """

    taken: tuple[Source, ...]
    needs: IntArray
    outs: dict[int, IntArray]
    seconds: dict[Designs, FloatArray]
    strategies: dict[Designs, tuple[Strategy, ...]]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(next(iter(self.seconds.values())))


class Book:
    """Numbers of layouts."""

    def __init__(self) -> None:
        self._numbers: dict[Layout, int] = {}
        self.layouts: list[Layout] = []

    def number(self, layout: Layout) -> int:
        """The number of a layout."""
        if layout not in self._numbers:
            self._numbers[layout] = len(self.layouts)
            self.layouts.append(layout)
        return self._numbers[layout]


@dataclass(eq=False)
class Kind:
    """Sets that a symmetry of the pool turns into each other. Everything inside them is priced on the first.

    Attributes:
        problem: The model.
        pool: The accelerators.
        members: Of the first set.
    """

    problem: Problem
    pool: Pool
    members: Members
    book: Book = field(default_factory=Book)
    _offers: dict[tuple[object, ...], Offers] = field(default_factory=dict)
    _moves: dict[tuple[int, int, int], float] = field(default_factory=dict)
    _inputs: dict[tuple[int, int], float] = field(default_factory=dict)
    _entries: dict[tuple[tuple[int, ...], int], dict[int, Strategy]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """What strategies need to know of the set."""
        self.levels = Shapes(self.pool).levels(self.members)

    def designs(self) -> list[Designs]:
        """Every choice of one design per kind of accelerator."""
        twins = [twin(self.pool, rank) for rank in self.members]
        kinds = list(dict.fromkeys(twins))
        names = [[design.name for design in self.pool.accelerators[rank].designs] for rank in kinds]
        chosen = (dict(zip(kinds, picked, strict=True)) for picked in product(*names))
        return [tuple(of[rank] for rank in twins) for of in chosen]

    def offers(self, number: int) -> Offers:
        """What a layer can do."""
        layer = self.problem.layers[number]
        leaving = tuple(Source(number, index) in self.problem.outputs for index in range(len(layer.signature.outputs)))
        key = (layer.signature, tuple(s is None for s in layer.sources), tuple(k for _, k in layer.captured), leaving)
        if key not in self._offers:
            self._offers[key] = self._priced(layer, leaving)
        found = self._offers[key]
        return found if found.taken == (own := self._taken(layer, found)) else replace(found, taken=own)

    def _taken(self, layer: Layer, like: Offers) -> tuple[Source, ...]:
        """The tensors that a layer takes, in the order of those of one that is alike."""
        strategy = next(iter(like.strategies.values()))[0]
        return tuple(source for source, _, _ in needs_of(layer, lower(layer.signature, strategy, self.members)))

    def _priced(self, layer: Layer, leaving: tuple[bool, ...]) -> Offers:
        signature = layer.signature
        number: dict[tuple[tuple[int, ...], tuple[int | None, ...]], int] = {}
        best: dict[Designs, dict[int, tuple[float, Strategy]]] = {designs: {} for designs in self.designs()}
        taken: tuple[Source, ...] | None = None
        for strategy in strategies(signature, self.levels):
            try:
                lowered = lower(signature, strategy, self.members)
            except InputError:
                continue
            needed = list(needs_of(layer, lowered))
            if taken is None:
                taken = tuple(source for source, _, _ in needed)
            if taken != tuple(source for source, _, _ in needed):
                raise InvariantError(f"layer {layer.name!r} takes other tensors with the strategy {strategy}")
            after = 0.0
            outs: list[int | None] = []
            for kind, produced, resolved, leaves in zip(
                signature.outputs, lowered.produced, lowered.resolved, leaving, strict=True
            ):
                if kind is None or produced is None or resolved is None:
                    outs.append(None)
                    continue
                if produced != resolved:
                    after += move_seconds(self.pool, produced, resolved, kind.dtype.bitwidth)
                if leaves:
                    after += output_seconds(self.pool, resolved, kind.dtype.bitwidth)
                outs.append(self.book.number(resolved))
            needs = tuple(self.book.number(need) for _, _, need in needed)
            offer = number.setdefault((needs, tuple(outs)), len(number))
            for designs, found in best.items():
                seconds = after + layer_seconds(self.pool, signature, strategy, self.members, designs)
                if offer not in found or seconds < found[offer][0]:
                    found[offer] = seconds, strategy
        if taken is None:
            raise InvariantError(f"layer {layer.name!r} has no strategy")
        every = list(number)
        return Offers(
            taken,
            np.asarray([needs for needs, _ in every], np.int64).reshape(len(every), len(taken)).T,
            {
                index: np.asarray([outs[index] for _, outs in every], np.int64)
                for index, out in enumerate(every[0][1])
                if out is not None
            },
            {designs: np.asarray([found[offer][0] for offer in range(len(every))]) for designs, found in best.items()},
            {designs: tuple(found[offer][1] for offer in range(len(every))) for designs, found in best.items()},
        )

    def entries(self, kind: TensorType) -> dict[int, Strategy]:
        """The layouts in which a tensor can enter, and the strategies that state them."""
        key = (kind.shape, kind.dtype.bitwidth)
        if key not in self._entries:
            found: dict[int, Strategy] = {}
            for strategy in strategies(identity_signature(kind), self.levels):
                try:
                    found.setdefault(self.book.number(entry_layout(kind, strategy, self.members)), strategy)
                except InputError:
                    continue
            self._entries[key] = found
        return self._entries[key]

    def moves(self, kind: TensorType, sources: IntArray, targets: IntArray) -> FloatArray:
        """Seconds from each layout to each other, ``[sources, targets]``; none where everybody has what it needs."""
        return np.asarray([[self._move(kind, a, b) for b in targets.tolist()] for a in sources.tolist()])

    def _move(self, kind: TensorType, source: int, target: int) -> float:
        key = (source, target, kind.dtype.bitwidth)
        if key not in self._moves:
            held, needed = self.book.layouts[source], self.book.layouts[target]
            there = satisfied(held, needed)
            self._moves[key] = 0.0 if there else move_seconds(self.pool, held, needed, kind.dtype.bitwidth)
        return self._moves[key]

    def arrivals(self, kind: TensorType, targets: IntArray) -> FloatArray:
        """Seconds until a model input is there in each layout."""
        bits = kind.dtype.bitwidth
        for target in targets.tolist():
            if (target, bits) not in self._inputs:
                self._inputs[target, bits] = input_seconds(self.pool, self.book.layouts[target], bits)
        return np.asarray([self._inputs[target, bits] for target in targets.tolist()])


class Prices:
    """All sets of a family by kind, and what goes from one to another."""

    def __init__(self, problem: Problem, pool: Pool, family: Family) -> None:
        self.problem, self.pool, self.family = problem, pool, family
        self._kinds: dict[Members, Kind] = {}
        self._crossings: dict[tuple[object, ...], float] = {}

    def kind(self, members: Members) -> Kind:
        """What is known of sets like this one."""
        (first,) = self.family.like([members])
        if first not in self._kinds:
            self._kinds[first] = Kind(self.problem, self.pool, first)
        return self._kinds[first]

    def crossings(
        self, kind: TensorType, home: Members, sources: IntArray, other: Members, targets: IntArray
    ) -> FloatArray:
        """Seconds from each layout on a set to each layout on another one, ``[sources, targets]``."""
        first, second = self.family.like([home, other])
        held = [replace(self.kind(home).book.layouts[a], members=first) for a in sources.tolist()]
        needed = [replace(self.kind(other).book.layouts[b], members=second) for b in targets.tolist()]
        bits = kind.dtype.bitwidth
        found = np.empty((len(held), len(needed)))
        for row, source in enumerate(held):
            for column, target in enumerate(needed):
                key = (source, target, bits)
                if key not in self._crossings:
                    self._crossings[key] = move_seconds(self.pool, source, target, bits)
                found[row, column] = self._crossings[key]
        return found
