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
        cuts: Those without shared shards.
        rings: Strategies with shared shards, behind them.
        needs: Per input the boxes ``[strategies, members, rank, 2]``; ``None`` where nothing is taken from the graph.
        resolved: Per output the boxes after partial sums are resolved; ``None`` for an absent output.
        parts: Per strategy, in how many partial sums it leaves its outputs.
        part: Per strategy and member, which of them it has.
    """

    cuts: Cuts
    rings: tuple[Strategy, ...]
    needs: tuple[IntArray | None, ...]
    resolved: tuple[IntArray | None, ...]
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

    def produced(self, signature: Signature, row: int) -> tuple[IntArray | None, ...]:
        """Per output the boxes ``[members, rank, 2]`` of a strategy without a ring before partial sums are resolved."""
        pattern = self.cuts.pattern[row]
        ranges = {name: (low[pattern], high[pattern]) for name, (low, high) in self.cuts.ranges.items()}
        return tuple(
            None if dims is None or kind is None else _boxes(dims, ranges, self.cuts.idle[pattern])
            for dims, kind in zip(rule_for(signature).outputs, signature.outputs, strict=False)
        )

    @property
    def scattered(self) -> BoolArray:
        """Per strategy whether partial sums are scattered."""
        found: BoolArray = np.concatenate([self.cuts.scatter >= 0, np.zeros(len(self.rings), np.bool_)])
        return found


def layer_space(signature: Signature, levels: Levels) -> LayerSpace:
    """Evaluate all strategies without rings on a set with these levels."""
    rule, own = rule_for(signature), sound_cuts(signature, levels)
    needs = tuple(
        None if dims is None or kind is None else _boxes(dims, own.ranges, own.idle)[own.pattern]
        for dims, kind in zip(rule.inputs, signature.inputs, strict=False)
    )
    resolved = tuple(
        None if dims is None or kind is None else _boxes(dims, own.kept, own.idle[own.pattern])
        for dims, kind in zip(rule.outputs, signature.outputs, strict=False)
    )
    return LayerSpace(own, (), needs, resolved, own.parts, own.part)


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
