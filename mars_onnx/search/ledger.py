"""What one accelerator would hold over time, if its partition were written: the same values, and no nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, pairwise
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from mars_onnx.geometry import Box, Reduction, box_shape, contains, intersect, relative, volume, whole_box
from mars_onnx.redistribution.plan import Fragment
from mars_onnx.rules.base import AttributeValue, TensorType

#: A token is an int64 of shape [1].
_TOKEN = TensorType(ir.DataType.INT64, (1,))


@dataclass(frozen=True, slots=True)
class Need:
    """What an accelerator needs.

    Attributes:
        weight_bytes: Of its share of weights and constants, there all the time.
        activation_bytes: The most that everything else takes at any moment.
        layer: At which layer that is; ``None`` if it is before the first or after the last.
    """

    weight_bytes: int
    activation_bytes: int
    layer: int | None

    @property
    def total_bytes(self) -> int:
        """Of both together."""
        return self.weight_bytes + self.activation_bytes


@dataclass(eq=False)
class Ledger:
    """A local graph that is only counted; it takes what :class:`~mars_onnx.rules.base.LocalGraph` takes.

    Attributes:
        layer: Which layer whatever comes now belongs to.
    """

    layer: int | None = None
    _weights: dict[tuple[object, Box], ir.Value] = field(default_factory=dict)
    _constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = field(default_factory=dict)
    _weight_bytes: int = 0
    _slices: dict[tuple[ir.Value, Box], ir.Value] = field(default_factory=dict)
    #: Per value its bytes, the node that makes it and the last that reads it, by number; node 0 is none.
    _lives: dict[ir.Value, tuple[int, int, int]] = field(default_factory=dict)
    _layers: list[int | None] = field(default_factory=lambda: [None])
    _token: ir.Value | None = None
    _leaves: list[ir.Value] = field(default_factory=list)

    def need(self) -> Need:
        """What it takes in all."""
        change = [0] * (len(self._layers) + 1)
        for size, first, last in self._lives.values():
            change[first] += size
            change[last + 1] -= size
        alive = list(accumulate(change[:-1]))
        place = int(np.argmax(alive))
        return Need(self._weight_bytes, alive[place], self._layers[place])

    def enter(self, kind: TensorType, box: Box) -> ir.Value:
        """A box of a model input."""
        return self._value(TensorType(kind.dtype, box_shape(box)), 0)

    def weight(self, key: object, kind: TensorType, box: Box) -> ir.Value:
        """A box of a weight; the same box of the same weight is there once."""
        if (key, box) not in self._weights:
            self._weight_bytes += -(-volume(box) * kind.dtype.bitwidth // 8)
            self._weights[key, box] = _typed(TensorType(kind.dtype, box_shape(box)))
        return self._weights[key, box]

    def leave(self, value: ir.Value) -> None:
        """A value is a model output: it stays to the end."""
        if value not in self._lives or self._lives[value][1] == 0 or value in self._leaves:
            (value,) = self.op("Identity", [value], {}, [_kind(value)])
        self._leaves.append(value)

    def end(self) -> None:
        """Nothing comes any more."""
        if self._token is None and not self._leaves:
            # A graph without outputs is no model: an accelerator without work gives an empty token.
            self._token = self.constant(np.zeros(1, np.int64))
        if self._token is not None:
            self.leave(self._token)
        for value in self._leaves:
            size, first, _ = self._lives[value]
            self._lives[value] = size, first, len(self._layers) - 1

    def communicate(self, given: ir.Value | None, got: TensorType | None) -> ir.Value | None:
        """A communication node."""
        if self._token is None:
            self._token = _typed(_TOKEN)
            self._weight_bytes += 8
        outputs = [_TOKEN] if got is None else [got, _TOKEN]
        made = self.op("", [given, self._token], {}, outputs)
        self._token = made[-1]
        return None if got is None else made[0]

    def cut(self, value: ir.Value, held: Box, box: Box) -> ir.Value:
        """Part ``box`` of a local value that is the box ``held``; made once."""
        if held == box:
            return value
        if (value, box) not in self._slices:
            self._slices[value, box] = self.slice(value, relative(box, held))
        return self._slices[value, box]

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, AttributeValue],
        outputs: Sequence[TensorType | None],
        *,
        domain: str = "",
    ) -> tuple[ir.Value, ...]:
        """A node reads and makes values."""
        now = len(self._layers)
        self._layers.append(self.layer)
        for value in inputs:
            if value is not None and value in self._lives:
                size, first, _ = self._lives[value]
                self._lives[value] = size, first, now
        return tuple(ir.Value(name="") if kind is None else self._value(kind, now) for kind in outputs)

    def constant(self, array: npt.NDArray[np.generic]) -> ir.Value:
        """A small constant; equal ones are there once."""
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            self._weight_bytes += array.nbytes
            self._constants[key] = _typed(TensorType(ir.DataType.from_numpy(array.dtype), array.shape))
        return self._constants[key]

    def slice(self, value: ir.Value, box: Box) -> ir.Value:
        """Part of a value; the value itself if that is all of it."""
        kind = _kind(value)
        cut = [(axis, *box[axis]) for axis, whole in enumerate(whole_box(kind.shape)) if box[axis] != whole]
        if not cut:
            return value
        axes, starts, ends = (np.asarray(column, np.int64) for column in zip(*cut, strict=True))
        operands = [self.constant(column) for column in (starts, ends, axes)]
        return self.op("Slice", [value, *operands], {}, [TensorType(kind.dtype, box_shape(box))])[0]

    def concat(self, values: Sequence[ir.Value], axis: int) -> ir.Value:
        """Values joined; the value itself if there is just one."""
        if len(values) == 1:
            return values[0]
        kinds = [_kind(value) for value in values]
        shape = list(kinds[0].shape)
        shape[axis] = sum(kind.shape[axis] for kind in kinds)
        return self.op("Concat", values, {}, [TensorType(kinds[0].dtype, tuple(shape))])[0]

    def combine(self, values: Sequence[ir.Value], reduction: Reduction) -> ir.Value:
        """A reduction, two by two; the value itself if there is just one."""
        result = values[0]
        for value in values[1:]:
            result = self.op("Add", [result, value], {}, [_kind(result)])[0]
        return result

    def zeros(self, dtype: ir.DataType, shape: Sequence[int]) -> ir.Value:
        """Zeros."""
        extents = self.constant(np.asarray(shape, np.int64))
        return self.op("ConstantOfShape", [extents], {}, [TensorType(dtype, tuple(shape))])[0]

    def _value(self, kind: TensorType, now: int) -> ir.Value:
        value = _typed(kind)
        size = 0 if kind.dtype is ir.DataType.STRING else -(-prod(kind.shape) * kind.dtype.bitwidth // 8)
        self._lives[value] = size, now, now
        return value


@dataclass
class Pieces:
    """The pieces of one tensor that an accelerator has while a redistribution runs."""

    ledger: Ledger
    pieces: list[tuple[Fragment, ir.Value]] = field(default_factory=list)

    def find(self, wanted: Fragment) -> ir.Value:
        """The value of a fragment, cut out of one that contains it."""
        for fragment, value in self.pieces:
            if fragment.part == wanted.part and contains(fragment.box, wanted.box):
                return self.ledger.cut(value, fragment.box, wanted.box)
        raise ValueError(f"nothing here contains {wanted}")

    def assemble(self, need: Box, terms: Sequence[Sequence[Fragment]]) -> ir.Value:
        """Tiles joined per part, and the parts reduced."""
        joined = [self._join(need, [(tile.box, self.find(tile)) for tile in tiles]) for tiles in terms]
        return self.ledger.combine(joined, Reduction.SUM)

    def _join(self, need: Box, tiles: list[tuple[Box, ir.Value]]) -> ir.Value:
        """Tiles that make up a box, joined along one dimension after another; as partitions do it."""
        if len(tiles) == 1:
            return tiles[0][1]
        for dim in range(len(need)):
            starts = sorted({box[dim][0] for box, _ in tiles})[1:]
            cuts = [c for c in starts if all(not box[dim][0] < c < box[dim][1] for box, _ in tiles)]
            if cuts:
                parts: list[ir.Value] = []
                for low, high in pairwise([need[dim][0], *cuts, need[dim][1]]):
                    inside = [(box, value) for box, value in tiles if low <= box[dim][0] < high]
                    parts.append(self._join((*need[:dim], (low, high), *need[dim + 1 :]), inside))
                return self.ledger.concat(parts, dim)
        dim, edge = next((d, box[d][0]) for box, _ in tiles for d in range(len(need)) if box[d][0] > need[d][0])
        split: list[tuple[Box, ir.Value]] = []
        for box, value in tiles:
            for side in ((need[dim][0], edge), (edge, need[dim][1])):
                half = intersect(box, (*box[:dim], side, *box[dim + 1 :]))
                if half is not None:
                    split.append((half, self.ledger.cut(value, box, half)))
        return self._join(need, split)


def _typed(kind: TensorType) -> ir.Value:
    of_type, shape = _type_and_shape(kind)
    return ir.Value(name="v", type=of_type, shape=shape)


@lru_cache(maxsize=4096)
def _type_and_shape(kind: TensorType) -> tuple[ir.TensorType, ir.Shape]:
    """The same objects for all values of a kind: there are thousands of these, of few kinds."""
    return ir.TensorType(kind.dtype), ir.Shape(kind.shape, frozen=True)


def _kind(value: ir.Value) -> TensorType:
    if value.dtype is None or value.shape is None:
        raise ValueError("a local value has a type and a shape")
    return TensorType(value.dtype, value.shape.numpy())
