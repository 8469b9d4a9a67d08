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

from mars_onnx.errors import InputError
from mars_onnx.geometry import Layout
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.base import Signature, TensorType
from mars_onnx.search.comparators.moves import Moves
from mars_onnx.search.evaluate import needs_of
from mars_onnx.search.problem import Problem, Source
from mars_onnx.sharding.lowering import Sharding, lower_all
from mars_onnx.sharding.mapping import AcceleratorSet
from mars_onnx.sharding.strategy import WHOLE, Strategy

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
        #: How often everything was forgotten: then structures have to place their terms anew.
        self.generation = 0
        self.forget()

    def forget(self) -> None:
        """Start anew: all offsets given out so far are void."""
        self.generation += 1
        self.terms: FloatArray = np.full(1 << 12, np.nan)
        #: About how little a term can be, where that was asked for.
        self.bounds: FloatArray = np.full(1 << 12, np.nan)
        self._used = 0
        self._offsets: dict[object, int] = {}
        self.moves = Moves(self.pool)
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
        """Forget if there is too much to keep."""
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
