"""What all strategies of a layer on a set need, leave and compute, as arrays.

The same answers as :func:`mars_onnx.sharding.lowering.lower` gives one strategy at a time (a test compares them), for
hundreds at once. A box is a row of ``[rank, 2]``; a box without elements is all zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mars_onnx.rules.axes import IntArray
from mars_onnx.rules.base import Dims, Signature
from mars_onnx.rules.registry import rule_for
from mars_onnx.search.exact.strategies.cuts import BoolArray, Cuts, Levels, RangeArrays, cuts
from mars_onnx.sharding.strategy import Strategy

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LayerSpace:
    """Strategies of one layer on one set.

    Attributes:
        signature: Of the layer.
        cuts: Those without shared shards.
        rings: Strategies with shared shards, behind them.
        ring_needs: Per input what these need, ``[rings, members, rank, 2]``.
        ring_bases: Per ring the strategy that is the same without.
        parts: Per strategy, in how many partial sums it leaves its outputs.
        part: Per strategy and member, which of them it has.
    """

    signature: Signature
    cuts: Cuts
    rings: tuple[Strategy, ...]
    ring_needs: tuple[IntArray | None, ...]
    ring_bases: tuple[int, ...]
    parts: IntArray
    part: IntArray

    @property
    def count(self) -> int:
        """How many strategies there are."""
        return len(self.parts)

    def strategy(self, row: int) -> Strategy:
        """A strategy by its number."""
        plain = len(self.cuts.pattern)
        return self.cuts.strategy(row) if row < plain else self.rings[row - plain]

    def needs(self, number: int) -> IntArray | None:
        """What strategies need of an input, ``[strategies, members, rank, 2]``; ``None`` if they need nothing of it."""
        different = self.different_needs(number)
        return None if different is None else different[self.need]

    def different_needs(self, number: int) -> IntArray | None:
        """The same once per pattern, and then per ring."""
        every = rule_for(self.signature).inputs
        dims = every[number] if number < len(every) else None
        if dims is None or self.signature.inputs[number] is None:
            return None
        boxes = _boxes(dims, self.cuts.ranges, self.cuts.idle)
        own = self.ring_needs[number] if self.rings else None
        return boxes if own is None else np.concatenate([boxes, own])

    @property
    def need(self) -> IntArray:
        """Which of these each strategy has."""
        if not self.rings:
            return self.cuts.pattern
        return np.concatenate([self.cuts.pattern, len(self.cuts.factors) + np.arange(len(self.rings))])

    def resolved(self, number: int) -> IntArray | None:
        """What strategies leave of an output after partial sums are resolved; ``None`` if there is no such output."""
        different = self.different_outs(number)
        return None if different is None else different[self.out]

    def different_outs(self, number: int) -> IntArray | None:
        """The same once per pattern, and then per strategy whose partial sums are scattered."""
        dims = rule_for(self.signature).outputs[number]
        if dims is None or self.signature.outputs[number] is None:
            return None
        own = self.cuts
        boxes = _boxes(dims, own.ranges, own.idle)
        if not len(own.scattering):
            return boxes
        return np.concatenate([boxes, _boxes(dims, own.kept, own.idle[own.pattern[own.scattering]])])

    @property
    def out(self) -> IntArray:
        """Which of these each strategy has."""
        own = self.cuts
        which: IntArray = own.pattern.copy()
        which[own.scattering] = len(own.factors) + np.arange(len(own.scattering))
        return np.append(which, which[list(self.ring_bases)]) if self.rings else which

    def produced(self, row: int) -> tuple[IntArray | None, ...]:
        """Per output the boxes ``[members, rank, 2]`` of a strategy without a ring before partial sums are resolved."""
        pattern = self.cuts.pattern[row]
        ranges = {name: (low[pattern], high[pattern]) for name, (low, high) in self.cuts.ranges.items()}
        return tuple(
            None if dims is None or kind is None else _boxes(dims, ranges, self.cuts.idle[pattern])
            for dims, kind in zip(rule_for(self.signature).outputs, self.signature.outputs, strict=False)
        )

    @property
    def scattered(self) -> BoolArray:
        """Per strategy whether partial sums are scattered."""
        found: BoolArray = np.concatenate([self.cuts.scatter >= 0, np.zeros(len(self.rings), np.bool_)])
        return found


def layer_space(signature: Signature, levels: Levels) -> LayerSpace:
    """Evaluate all strategies without rings on a set with these levels."""
    own = sound_cuts(signature, levels)
    return LayerSpace(signature, own, (), (), (), own.parts, own.part)


@lru_cache(maxsize=8192)
def sound_cuts(signature: Signature, levels: Levels) -> Cuts:
    """All strategies without rings but for those that the rule refuses."""
    rule = rule_for(signature)
    every = cuts(rule.axes, levels)
    if signature.opaque or None in signature.outputs:
        # What cannot be sent has to be with everyone who takes it.
        every = every.only(~every.single)
    names = rule.choosy_axes
    if not names:
        return every
    bounds = np.stack([bound for name in names for bound in every.ranges[name]], -1)
    # Who does nothing has no part in it.
    bounds[every.idle] = -1
    unique, inverse = np.unique(bounds.reshape(-1, bounds.shape[-1]), axis=0, return_inverse=True)
    others = {axis.name: (0, axis.size) for axis in rule.axes}
    fine = np.ones(len(unique), np.bool_)
    for number, row in enumerate(unique.tolist()):
        if row[0] >= 0:
            own = dict(zip(names, zip(row[0::2], row[1::2], strict=True), strict=True))
            fine[number] = rule.problem(others | own) is None
    refused: BoolArray = ~fine[inverse].reshape(every.idle.shape)
    return every.only(np.count_nonzero(refused, axis=1) == 0)


def _boxes(dims: Dims, ranges: RangeArrays, idle: BoolArray) -> IntArray:
    boxes = np.zeros((*idle.shape, max(1, len(dims)), 2), np.int64)
    if not dims:  # a scalar is the one element of a vector
        boxes[..., 0, 1] = 1
    empty = idle.copy()
    for place, dim in enumerate(dims):
        low, high = dim(ranges)
        boxes[..., place, 0], boxes[..., place, 1] = low, high
        empty |= boxes[..., place, 0] >= boxes[..., place, 1]
    boxes[empty] = 0
    return boxes
