"""What all strategies of a layer on a set need, leave and compute, as arrays.

The same answers as :func:`mars_onnx.sharding.lowering.lower` gives one strategy at a time (a test compares them), for
hundreds at once. A box is a row of ``[rank, 2]``; a box without elements is all zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod

import numpy as np
import numpy.typing as npt

from mars_onnx.cost.performance import performance_model
from mars_onnx.cost.shares import twin
from mars_onnx.cost.workload import workload
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.axes import Axis, IntArray
from mars_onnx.rules.base import Dims, OpRule, Signature
from mars_onnx.rules.registry import rule_for
from mars_onnx.rules.shares import cut
from mars_onnx.sharding.strategy import REPLICAS, Placement, Resolution, Split, Strategy

FloatArray = npt.NDArray[np.float64]
RangeArrays = dict[str, tuple[IntArray, IntArray]]


@dataclass(frozen=True, eq=False)
class LayerSpace:
    """Strategies of one layer on one set.

    Attributes:
        strategies: In order.
        needs: Per input the boxes ``[strategies, members, rank, 2]``; ``None`` where nothing is taken from the graph.
        resolved: Per output the boxes after partial sums are resolved; ``None`` for an absent output.
        parts: Per strategy, in how many partial sums it leaves its outputs.
        part: Per strategy and member, which of them it has.
        ranges: Per axis of the rule its range, two arrays ``[strategies, members]``; empty ranges for idle members.
    """

    strategies: tuple[Strategy, ...]
    needs: tuple[IntArray | None, ...]
    resolved: tuple[IntArray | None, ...]
    parts: IntArray
    part: IntArray
    ranges: RangeArrays

    def seconds(self, pool: Pool, signature: Signature, members: Sequence[int], designs: tuple[str, ...]) -> FloatArray:
        """Per strategy the seconds of its longest share.

        Args:
            pool: Where the accelerators are described.
            signature: Of the layer.
            members: The set.
            designs: Per member what it is configured as.
        """
        rule = rule_for(signature)
        shape = (len(self.strategies), len(members))
        rows = np.stack([bound for pair in self.ranges.values() for bound in pair] or [np.zeros(shape, np.int64)], -1)
        flat = rows.reshape(-1, rows.shape[-1])
        unique, inverse = _unique_rows(flat)
        inverse = inverse.reshape(shape)
        ranges = {axis: (unique[:, 2 * place], unique[:, 2 * place + 1]) for place, axis in enumerate(self.ranges)}
        idle: npt.NDArray[np.bool_] = np.zeros(len(unique), np.bool_)
        for low, high in ranges.values():
            idle = np.asarray(idle | (low >= high))
        work = workload(rule, ranges) if ranges else workload(rule, {})
        longest = np.zeros(shape[0])
        priced: dict[tuple[int, str], FloatArray] = {}
        for place, (rank, design) in enumerate(zip(members, designs, strict=True)):
            kind = (twin(pool, rank), design)
            if kind not in priced:
                accelerator = pool.accelerators[kind[0]]
                found = accelerator.design(design)
                if found is None:
                    raise ValueError(f"{accelerator.id} cannot take the design {design!r}")
                total = np.broadcast_to(performance_model(found, accelerator).estimate(work).total_s, len(unique))
                priced[kind] = np.where(idle, 0.0, total)
            longest = np.maximum(longest, priced[kind][inverse[:, place]])
        return longest


def _unique_rows(rows: IntArray) -> tuple[IntArray, IntArray]:
    """Distinct rows, and for every row the number of its like."""
    packed = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first, inverse = np.unique(packed, return_index=True, return_inverse=True)
    return rows[first], inverse.ravel()


def layer_space(signature: Signature, strategies: Sequence[Strategy], count: int) -> LayerSpace:
    """Evaluate strategies without rings on a set of ``count`` members; those that the rule refuses are left out."""
    rule = rule_for(signature)
    ranges = _ranges(rule, strategies, count)
    sound = _sound(rule, ranges, (len(strategies), count))
    chosen = tuple(strategy for strategy, fine in zip(strategies, sound, strict=True) if fine)
    if len(chosen) < len(strategies):
        ranges = {name: (low[sound], high[sound]) for name, (low, high) in ranges.items()}
    shape = (len(chosen), count)
    idle = np.zeros(shape, np.bool_)
    for low, high in ranges.values():
        idle |= low >= high
    needs = tuple(
        None if dims is None or kind is None else _boxes(dims, ranges, idle)
        for dims, kind in zip(rule.inputs, signature.inputs, strict=False)
    )
    parts, part = _parts(rule, chosen, ranges, idle)
    kept_ranges = _scattered(rule, chosen, ranges, parts, part)
    resolved = tuple(
        None if dims is None or kind is None else _boxes(dims, kept_ranges, idle)
        for dims, kind in zip(rule.outputs, signature.outputs, strict=False)
    )
    return LayerSpace(chosen, needs, resolved, parts, part, ranges)


def _sound(rule: OpRule, ranges: RangeArrays, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Per strategy whether the rule has no objection to any share."""
    if type(rule).problem is OpRule.problem or not ranges:
        return np.ones(shape[0], np.bool_)
    rows = np.stack([bound for pair in ranges.values() for bound in pair], -1).reshape(-1, 2 * len(ranges))
    unique, inverse = _unique_rows(rows)
    fine = np.ones(len(unique), np.bool_)
    for number, row in enumerate(unique.tolist()):
        own = dict(zip(ranges, zip(row[0::2], row[1::2], strict=True), strict=True))
        if all(low < high for low, high in own.values()):
            fine[number] = rule.problem(own) is None
    return np.asarray(fine[inverse].reshape(shape).all(axis=1))


def _ranges(rule: OpRule, strategies: Sequence[Strategy], count: int) -> RangeArrays:
    """Per axis the ranges of all strategies and members."""
    low = {axis.name: np.zeros((len(strategies), count), np.int64) for axis in rule.axes}
    high = {axis.name: np.full((len(strategies), count), axis.size, np.int64) for axis in rule.axes}
    known: dict[tuple[Split, ...], int] = {}
    for row, strategy in enumerate(strategies):
        if strategy.placement is Placement.SINGLE:
            for name in high:
                high[name][row, 1:] = 0
            continue
        first = known.setdefault(strategy.splits, row)
        for split, digits in zip(strategy.splits, _digits(strategy.splits, count), strict=True):
            if split.axis == REPLICAS:
                continue
            if first != row:
                low[split.axis][row], high[split.axis][row] = low[split.axis][first], high[split.axis][first]
                continue
            axis = rule.axis(split.axis)
            if axis is None:
                raise ValueError(f"{rule.signature.op_type} has no axis {split.axis}")
            starts, stops = _cut(axis, split.shares)
            low[split.axis][row], high[split.axis][row] = starts[digits], stops[digits]
    return {name: (low[name], high[name]) for name in low}


@cache
def _cut(axis: Axis, shares: tuple[int, ...]) -> tuple[IntArray, IntArray]:
    pieces = np.asarray(cut(axis, shares), np.int64)
    return pieces[:, 0], pieces[:, 1]


def _digits(splits: tuple[Split, ...], count: int) -> tuple[IntArray, ...]:
    """Per split the digit of every member."""
    return _mixed_radix(tuple(len(split.shares) for split in splits), count)


@cache
def _mixed_radix(ways: tuple[int, ...], count: int) -> tuple[IntArray, ...]:
    positions = np.arange(count) // (count // prod(ways)) if ways else np.zeros(count, np.int64)
    return tuple(np.asarray(digit) for digit in np.unravel_index(positions, ways)) if ways else ()


def _boxes(dims: Dims, ranges: RangeArrays, idle: npt.NDArray[np.bool_]) -> IntArray:
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


def _parts(
    rule: OpRule, strategies: Sequence[Strategy], ranges: RangeArrays, idle: npt.NDArray[np.bool_]
) -> tuple[IntArray, IntArray]:
    """Per strategy the number of parts, and per member its part."""
    part = np.zeros(idle.shape, np.int64)
    parts = np.ones(idle.shape[0], np.int64)
    reductions = [axis.name for axis in rule.axes if axis.reduction]
    known: dict[tuple[Split, ...], int] = {}
    for row, strategy in enumerate(strategies):
        cut_here = {split.axis for split in strategy.splits}
        if not cut_here.intersection(reductions):
            continue
        first = known.setdefault(strategy.splits, row)
        if first != row:
            part[row], parts[row] = part[first], parts[first]
            continue
        busy = ~idle[row]
        keys = list(zip(*(ranges[name][0][row][busy].tolist() for name in reductions), strict=True))
        number = {key: place for place, key in enumerate(sorted(set(keys)))}
        part[row, busy] = [number[key] for key in keys]
        parts[row] = max(1, len(number))
    return parts, part


def _scattered(
    rule: OpRule, strategies: Sequence[Strategy], ranges: RangeArrays, parts: IntArray, part: IntArray
) -> RangeArrays:
    """The ranges that members keep after partial sums are resolved."""
    kept = {name: (low.copy(), high.copy()) for name, (low, high) in ranges.items()}
    for row, strategy in enumerate(strategies):
        if strategy.resolution is not Resolution.REDUCE_SCATTER or parts[row] == 1:
            continue
        axis = rule.axis(strategy.scatter_axis or "")
        if axis is None:
            raise ValueError(f"{rule.signature.op_type} has no axis {strategy.scatter_axis}")
        low, high = kept[axis.name]
        for member in range(low.shape[1]):
            start, stop = int(low[row, member]), int(high[row, member])
            low[row, member], high[row, member] = _piece(axis, start, stop, int(parts[row]), int(part[row, member]))
    return kept


@cache
def _piece(axis: Axis, start: int, stop: int, count: int, number: int) -> tuple[int, int]:
    low, high = cut(replace(axis, size=stop - start), (1,) * count)[number]
    return start + low, start + high
