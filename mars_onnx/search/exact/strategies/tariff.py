"""What memory costs: a price per byte of weights, by which a search comes to hold fewer of them.

The weights of all layers on an accelerator must fit into its memory. Lagrangian relaxation (Fisher, Management Science
27, 1981) gives up this constraint and lets every byte above it cost something instead. For any price the least sum of
seconds and costs, less what the permitted bytes cost, is a lower bound for all mappings that fit.

Counted is, where all accelerators have as much memory, the share of the first member of a set, times the members: equal
cuts give it the most. It must fit like any other, so all sets together cannot have more than the memory of the pool.
Where memories differ, the shares of all members are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import numpy as np
import numpy.typing as npt

from mars_onnx.errors import InputError
from mars_onnx.geometry import Layout
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.axes import IntArray
from mars_onnx.rules.base import Signature
from mars_onnx.rules.registry import rule_for
from mars_onnx.search.exact.strategies.space import LayerSpace
from mars_onnx.search.problem import Problem
from mars_onnx.sharding.lowering import lower
from mars_onnx.sharding.mapping import Mapping
from mars_onnx.sharding.strategy import Ring, Strategy

FloatArray = npt.NDArray[np.float64]

#: Shared shards are looked at for weights that take at least this share of an accelerator's memory,
_WORTH_A_RING = 1 / 256
#: and on top of so many strategies of a layer that would hold the weight more than once.
_MOST_RINGS = 8


@dataclass(eq=False)
class Tariff:
    """The price of memory, and what of it each strategy takes.

    Attributes:
        problem: The model.
        pool: The accelerators.
        seconds_per_byte: The price.
        most_bytes: Strategies of which a member takes more for an input and the outputs are left out.
    """

    problem: Problem
    pool: Pool
    seconds_per_byte: float = 0.0
    most_bytes: float = float("inf")
    _weights: dict[Signature, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find out which inputs are weights of one layer alone."""
        for number, layer in enumerate(self.problem.layers):
            own = tuple(
                index
                for index, name in enumerate(layer.weights)
                if name is not None
                and self._takers[name] == 1
                and self.problem.layers[number].signature.has_input(index)
            )
            known = self._weights.get(layer.signature)
            # Layers of one signature share a table: what is not a weight of all of them is not counted.
            self._weights[layer.signature] = own if known is None else tuple(i for i in known if i in own)

    @cached_property
    def _takers(self) -> dict[str, int]:
        count: dict[str, int] = {}
        for layer in self.problem.layers:
            for name in layer.weights:
                if name is not None:
                    count[name] = count.get(name, 0) + 1
        return count

    @cached_property
    def first_counts(self) -> bool:
        """Whether the first member stands for all of its set."""
        return len({accelerator.memory_bytes for accelerator in self.pool.accelerators}) == 1

    @cached_property
    def weight_bytes(self) -> int:
        """Of all weights that are counted, each once."""
        return sum(self._whole(layer.signature) for layer in self.problem.layers)

    @cached_property
    def spare_bytes(self) -> int:
        """What the pool's memory has left, with every weight there once, while the layer of most output computes.

        Its outputs are there at that moment, each element at least once, and first members have the largest share.
        """
        memory = sum(accelerator.memory_bytes for accelerator in self.pool.accelerators)
        outputs = max(
            sum(prod(kind.shape) * kind.dtype.bitwidth // 8 for kind in layer.signature.outputs if kind is not None)
            for layer in self.problem.layers
        )
        return memory - self.weight_bytes - outputs

    def weights_of(self, signature: Signature) -> tuple[int, ...]:
        """Which inputs of a layer are its weights."""
        # Of what is no layer, nothing is.
        return self._weights.get(signature, ())

    def _whole(self, signature: Signature) -> int:
        """Bytes of a layer's weights, as the rule reads them."""
        rule = rule_for(signature)
        total = 0
        for index in self.weights_of(signature):
            kind = signature.inputs[index]
            if kind is not None and index < len(rule.inputs) and rule.inputs[index] is not None:
                total += prod(kind.shape) * kind.dtype.bitwidth // 8
        return total

    def excess(self, signature: Signature, space: LayerSpace) -> FloatArray:
        """Per strategy how many bytes more than once its weights take, counted as above."""
        held = self._held(signature, space)
        counted = held[:, 0] * held.shape[1] if self.first_counts else held.sum(axis=1)
        found: FloatArray = counted - self._whole(signature)
        return found

    def _held(self, signature: Signature, space: LayerSpace) -> FloatArray:
        """Bytes of weights, ``[strategies, members]``."""
        held = np.zeros(space.part.shape)
        for index in self.weights_of(signature):
            boxes, kind = space.needs(index), signature.inputs[index]
            if boxes is not None and kind is not None:
                held = held + _bytes(boxes, kind.dtype.bitwidth)
        return held

    def toll(self, signature: Signature, space: LayerSpace, excess: FloatArray, members: Sequence[int]) -> FloatArray:
        """Per strategy what it costs, in seconds; infinite for one that cannot fit."""
        costs: FloatArray = np.where(self.closed(signature, space, members), np.inf, self.seconds_per_byte * excess)
        return costs

    def closed(self, signature: Signature, space: LayerSpace, members: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Per strategy whether it cannot be chosen: one member's share alone takes more than there is.

        Counted are the weights, the largest of the inputs, and the outputs: all of them are there while it computes.
        """
        memory = np.asarray([self.pool.accelerators[rank].memory_bytes for rank in members], np.float64)
        held, moving = self._at_once(signature, space, len(members))
        return np.asarray(((held + moving > memory) | (moving > self.most_bytes)).any(axis=1), np.bool_)

    def lacking(self, signature: Signature, space: LayerSpace, members: Sequence[int]) -> tuple[int, int]:
        """The bytes that the best strategy lacks for this layer alone, and the rank of the member that lacks them."""
        memory = np.asarray([self.pool.accelerators[rank].memory_bytes for rank in members], np.float64)
        missing = sum(self._at_once(signature, space, len(members))) - memory
        best = int(missing.max(axis=1).argmin())
        return int(missing[best].max()), members[int(missing[best].argmax())]

    def _at_once(self, signature: Signature, space: LayerSpace, count: int) -> tuple[FloatArray, FloatArray]:
        """Bytes of weights, and of the largest input and the outputs, ``[strategies, members]``."""
        weights = set(self.weights_of(signature))
        moving = np.zeros((space.count, count))
        for index, kind in enumerate(signature.inputs):
            boxes = None if index in weights else space.needs(index)
            if boxes is not None and kind is not None:
                moving = np.maximum(moving, _bytes(boxes, kind.dtype.bitwidth))
        for index, kind in enumerate(signature.outputs):
            boxes = space.resolved(index)
            if boxes is not None and kind is not None:
                moving = moving + _bytes(boxes, kind.dtype.bitwidth)
        return np.broadcast_to(self._held(signature, space), moving.shape), moving

    def excess_of(self, mapping: Mapping) -> float:
        """What a mapping takes, counted like that of the strategies."""
        total = 0.0
        for layer, choice in zip(self.problem.layers, mapping.layers, strict=True):
            members = mapping.sets[choice.set_index].members
            needs = lower(layer.signature, choice.strategy, members).needs
            held = np.zeros(len(members))
            for index in self.weights_of(layer.signature):
                layout, kind = (needs[index] if index < len(needs) else None), layer.signature.inputs[index]
                if layout is not None and kind is not None:
                    held = held + _bytes(_rows(layout), kind.dtype.bitwidth)
            total += held[0] * len(members) if self.first_counts else held.sum()
            total -= self._whole(layer.signature)
        return float(total)

    def rings(self, signature: Signature, space: LayerSpace, members: tuple[int, ...]) -> LayerSpace:
        """Add shared shards: where a weight would be held more than once, its pieces go round instead.

        Args:
            signature: Of the layer.
            space: Its strategies without shared shards.
            members: The set.

        Returns:
            The space with those strategies behind the others.
        """
        least = min(accelerator.memory_bytes for accelerator in self.pool.accelerators)
        operands = {
            index: name for index, name in rule_for(signature).operands.items() if index in self.weights_of(signature)
        }
        if len(members) == 1 or self._whole(signature) < least * _WORTH_A_RING or not operands:
            return space
        index, operand = next(iter(operands.items()))
        rows: list[int] = []
        found: list[Strategy] = []
        boxes: list[IntArray] = []
        for row in self._bases(signature, space):
            strategy = replace(space.strategy(row), ring=Ring(operand))
            try:
                layout = lower(signature, strategy, members).needs[index]
            except InputError:
                continue
            if layout is not None:
                rows.append(row)
                found.append(strategy)
                boxes.append(_rows(layout))
        if not found:
            return space
        needs = [space.needs(place) for place in range(len(signature.inputs))]
        return LayerSpace(
            signature,
            space.cuts,
            tuple(found),
            tuple(
                None if own is None else np.stack(boxes) if place == index else own[rows]
                for place, own in enumerate(needs)
            ),
            tuple(rows),
            np.concatenate([space.parts, space.parts[rows]]),
            np.concatenate([space.part, space.part[rows]]),
        )

    def _bases(self, signature: Signature, space: LayerSpace) -> list[int]:
        """Strategies that hold the weights several times over: of those with the smallest shares, the first."""
        many = self.excess(signature, space) >= self._whole(signature)
        pattern = space.cuts.pattern
        split = np.asarray([bool(factors) for factors in space.cuts.factors])[pattern]
        share = np.ones(space.count)
        for low, high in space.cuts.ranges.values():
            share = share * np.maximum(high - low, 0).max(axis=1)[pattern]
        rows = np.flatnonzero(many & split & (space.parts == 1))
        return [int(row) for row in rows[np.argsort(share[rows], kind="stable")][:_MOST_RINGS]]


def _bytes(boxes: IntArray, bits: int) -> FloatArray:
    """Bytes of boxes, ``[strategies, members]``."""
    size: FloatArray = np.maximum(boxes[..., 1] - boxes[..., 0], 0).prod(axis=-1) * (bits / 8)
    return size


def _rows(layout: Layout) -> IntArray:
    """The boxes of a layout, ``[members, rank, 2]``."""
    rank = max(1, len(layout.shape))
    return np.asarray([np.zeros((rank, 2)) if box is None else box for box in layout.boxes], np.int64)
