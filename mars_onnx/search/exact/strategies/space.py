"""What all strategies of a layer on a set need, leave and compute, as arrays.

The same answers as :func:`mars_onnx.sharding.lowering.lower` gives one strategy at a time (a test compares them), for
hundreds at once. A box is a row of ``[rank, 2]``; a box without elements is all zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt

from mars_onnx.rules.axes import IntArray
from mars_onnx.rules.base import Dims, Signature
from mars_onnx.rules.registry import rule_for
from mars_onnx.rules.shares import cut
from mars_onnx.search.exact.strategies.cuts import BoolArray, Cuts, Levels, RangeArrays, cuts
from mars_onnx.sharding.strategy import Strategy

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Touched:
    """What strategies touch of a tensor; equal for tensors of which they touch the same, such as those of an Add.

    Attributes:
        cuts: The strategies.
        dims: Maps from ranges to the tensor.
        kept: Whether what is left of scattered sums counts too.
    """

    cuts: Cuts
    dims: Dims
    kept: bool

    def boxes(self) -> IntArray:
        """``[rows, members, rank, 2]``: once per pattern, and then per strategy whose partial sums are scattered."""
        own = self.cuts
        boxes = _boxes(self.dims, own.ranges, own.idle)
        if not self.kept or not len(own.scattering):
            return boxes
        return np.concatenate([boxes, _boxes(self.dims, own.kept, own.idle[own.pattern[own.scattering]])])


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
        touched = self.needed(number)
        if touched is None:
            return None
        rings = self.needed_by_rings(number)
        boxes = touched.boxes()
        return (boxes if rings is None else np.concatenate([boxes, rings]))[self.need]

    def needed(self, number: int) -> Touched | None:
        """The same of strategies without rings; ``None`` if they need nothing of it."""
        every = rule_for(self.signature).inputs
        dims = every[number] if number < len(every) else None
        return None if dims is None or self.signature.inputs[number] is None else Touched(self.cuts, dims, False)

    def needed_by_rings(self, number: int) -> IntArray | None:
        """The same of those with rings, ``[rings, members, rank, 2]``; ``None`` if there are none."""
        return self.ring_needs[number] if self.rings else None

    @property
    def need(self) -> IntArray:
        """Which of both together each strategy has."""
        if not self.rings:
            return self.cuts.pattern
        return np.concatenate([self.cuts.pattern, len(self.cuts.factors) + np.arange(len(self.rings))])

    def resolved(self, number: int) -> IntArray | None:
        """What strategies leave of an output after partial sums are resolved; ``None`` if there is no such output."""
        touched = self.left(number)
        return None if touched is None else touched.boxes()[self.out]

    def left(self, number: int) -> Touched | None:
        """The same, each once; ``None`` if there is no such output."""
        dims = rule_for(self.signature).outputs[number]
        return None if dims is None or self.signature.outputs[number] is None else Touched(self.cuts, dims, True)

    @property
    def out(self) -> IntArray:
        """Which row of that each strategy has."""
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
    return every.only(unopposed(signature, every.ways))


def unopposed(signature: Signature, ways: IntArray) -> BoolArray:
    """Whether the rule has no objection to any share, where axes are cut like that.

    Args:
        signature: Of the layer.
        ways: Into how many pieces each axis is cut, ``[axes, any number of ways to cut]``.
    """
    rule = rule_for(signature)
    names = rule.choosy_axes
    rows = [place for place, axis in enumerate(rule.axes) if axis.name in names]
    if not rows:
        return np.ones(ways.shape[1], np.bool_)
    return np.asarray([_unopposed(signature, own) for own in zip(*ways[rows].tolist(), strict=True)], np.bool_)


@lru_cache(maxsize=65536)
def _unopposed(signature: Signature, ways: tuple[int, ...]) -> bool:
    """The same of one way to cut the choosy axes; of every piece of them somebody does something."""
    rule = rule_for(signature)
    names = rule.choosy_axes
    choosy = (axis for axis in rule.axes if axis.name in names)
    pieces = [
        [(axis.name, (low, high)) for low, high in cut(axis, (1,) * count) if low < high]
        for axis, count in zip(choosy, ways, strict=True)
    ]
    whole = {axis.name: (0, axis.size) for axis in rule.axes}
    return all(rule.problem(whole | dict(own)) is None for own in product(*pieces))


def _boxes(dims: Dims, ranges: RangeArrays, idle: BoolArray) -> IntArray:
    boxes = np.empty((*idle.shape, max(1, len(dims)), 2), np.int64)
    if not dims:  # a scalar is the one element of a vector
        boxes[:] = (0, 1)
    empty = idle.copy()
    for place, dim in enumerate(dims):
        low, high = dim(ranges)
        boxes[..., place, 0], boxes[..., place, 1] = low, high
        empty |= low >= high
    if empty.any():
        boxes[empty] = 0
    return boxes
