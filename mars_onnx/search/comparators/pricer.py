"""The lockstep cost of many mappings at once, where they differ in strategies only.

The cost is made of terms, each of which depends on the strategies of one layer or two: the seconds of a layer, of
moving a tensor from its producer to a consumer, of model inputs and outputs. Every term is worked out when first asked
for and kept in one long array; so a thousand mappings are a thousand rows of places in that array. Equal layers, and
sets that look alike, share their terms. The answer is that of ``mars_onnx.search.evaluate``: a test says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mars_onnx.cost.steps import move_seconds
from mars_onnx.errors import InputError
from mars_onnx.geometry import Box, Layout, intersect, volume
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.base import Signature, TensorType
from mars_onnx.search.comparators.alike import Kind
from mars_onnx.search.evaluate import needs_of
from mars_onnx.search.problem import Problem, Source
from mars_onnx.sharding.lowering import Sharding, lower_all
from mars_onnx.sharding.mapping import AcceleratorSet
from mars_onnx.sharding.strategy import WHOLE, Strategy
from mars_onnx.stages.sharded import satisfied

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

#: Strategies to choose from, by signature and set.
Options = Callable[[Signature, AcceleratorSet], tuple[Strategy, ...]]

#: More terms than this (256 MiB) are forgotten and worked out again.
_MOST_TERMS = 1 << 25


@dataclass(frozen=True, slots=True)
class Use:
    """A layer takes a tensor.

    Attributes:
        source: The tensor.
        kind: Its type.
        layer: Who takes it.
        slot: As which of the layer's needs, in the order of ``needs_of``.
    """

    source: Source
    kind: TensorType
    layer: int
    slot: int


class Pricer:
    """Prices of the mappings of one problem on one pool."""

    def __init__(self, problem: Problem, pool: Pool, options: Options) -> None:
        """Nothing is priced yet."""
        self.problem, self.pool, self.options = problem, pool, options
        self.uses = [
            Use(source, kind, number, slot)
            for number, layer in enumerate(problem.layers)
            for slot, (source, kind, _) in enumerate(needs_of(layer, self.lowered(layer.signature, (0,), WHOLE)))
        ]
        self._numbers: dict[object, int] = {}
        #: By identity, which is quicker to look up than their content; with themselves, so that they live.
        self._offers: dict[int, tuple[tuple[Strategy, ...], int]] = {}
        #: Per layer a number that stands for its signature.
        self.signatures = [self.number(layer.signature) for layer in problem.layers]
        #: Whether a member may take in several messages at the same time.
        self._at_once = any("direct" in names for names in pool.collectives.algorithms.values())
        self._ways_in: dict[tuple[tuple[int, ...], int], tuple[float, float]] = {}
        self.forget()

    def forget(self) -> None:
        """Start anew: all offsets given out so far are void."""
        self.terms: FloatArray = np.full(1 << 12, np.nan)
        #: About how little a term can be, where that was asked for.
        self.bounds: FloatArray = np.full(1 << 12, np.nan)
        self._used = 0
        self._offsets: dict[object, int] = {}
        self._moves: dict[tuple[int, int, int, int], float] = {}
        self._least_moves: dict[tuple[int, int, int, int], float] = {}
        #: Per layer and set the seconds of compute, by strategy.
        self.computed: dict[object, dict[Strategy, float]] = {}
        #: Per layer and need what its strategies need, as numbers of layouts.
        self.needed: dict[object, IntArray] = {}

    def block(self, key: object, size: int) -> int:
        """Where the terms of some kind begin; ``size`` of them, not a number until they are worked out."""
        if key not in self._offsets:
            self._offsets[key] = self._used
            self._used += size
            if self._used > len(self.terms):
                more = np.full(max(len(self.terms), self._used - len(self.terms)), np.nan)
                self.terms = np.concatenate([self.terms, more])
                self.bounds = np.concatenate([self.bounds, more])
        return self._offsets[key]

    def tidy(self) -> None:
        """Forget if there is too much to keep; between structures, not while one is in use."""
        if self._used > _MOST_TERMS:
            self.forget()

    def number(self, thing: object) -> int:
        """A small number that stands for a hashable thing."""
        return self._numbers.setdefault(thing, len(self._numbers))

    def options_number(self, offered: tuple[Strategy, ...]) -> int:
        """A small number that stands for strategies to choose from."""
        known = self._offers.get(id(offered))
        if known is None or known[0] is not offered:
            known = (offered, self.number(offered))
            self._offers[id(offered)] = known
        return known[1]

    def layout_number(self, layout: Layout) -> int:
        """The same number for layouts that differ in the names of their members only."""
        return self.number((layout.shape, layout.boxes, layout.parts, layout.num_parts, layout.reduction))

    def lowered(self, signature: Signature, members: tuple[int, ...], strategy: Strategy) -> Sharding:
        """What a strategy means.

        Raises:
            InputError: It cannot be applied.
        """
        (found,) = lower_all(signature, (strategy,), members)
        if isinstance(found, InputError):
            raise InputError(str(found))
        return found

    def move(self, kind: Kind, source: Layout, target: Layout, bits: int) -> float:
        """Seconds of a redistribution between sets of a kind; 0 if everything is there."""
        key = (self.number(kind), self.layout_number(source), self.layout_number(target), bits)
        if key not in self._moves:
            there = satisfied(source, target)
            self._moves[key] = 0.0 if there else move_seconds(self.pool, source, target, bits)
        return self._moves[key]

    def least_move(self, kind: Kind, source: Layout, target: Layout, bits: int) -> float:
        """About how little a redistribution can take: the one who lacks most gets it over its fastest way in.

        Who lacks something on both sides of what it holds may get both at once, as in a halo exchange.
        """
        key = (self.number(kind), self.layout_number(source), self.layout_number(target), bits)
        if key not in self._least_moves:
            held = dict(zip(source.members, source.boxes, strict=True))
            least = 0.0
            for rank, box in zip(target.members, target.boxes, strict=True):
                lacking = volume(box) - volume(intersect(box, held.get(rank)))
                if lacking > 0 and not source.partial:
                    latency_s, seconds_per_byte = self._way_in(source.members, rank)
                    ways = 2 if _on_both_sides(held.get(rank), box) else 1
                    least = max(least, latency_s + lacking * bits / 8 * seconds_per_byte / ways)
            self._least_moves[key] = least
        return self._least_moves[key]

    def _way_in(self, members: tuple[int, ...], rank: int) -> tuple[float, float]:
        """Least latency, and seconds per byte, from any of ``members`` to another accelerator."""
        if (members, rank) not in self._ways_in:
            routes = [self.pool.route(other, rank) for other in members if other != rank]
            rates = {route.channels[-1]: route.bandwidth_bytes_per_s for route in routes}
            rate = sum(rates.values()) if self._at_once else max(rates.values(), default=0.0)
            latency_s = min((route.latency_s for route in routes), default=0.0)
            self._ways_in[members, rank] = (latency_s, 1.0 / rate if rate else 0.0)
        return self._ways_in[members, rank]


def _on_both_sides(held: Box | None, need: Box | None) -> bool:
    """Whether a need goes beyond what is held at both ends of some dimension."""
    if held is None or need is None:
        return False
    return any(low < start and stop < high for (start, stop), (low, high) in zip(held, need, strict=True))
