"""What a rule for an operator is: its axes, where they touch its tensors, and the local node for one member.

One object answers every question about sharding a node: which box of each input a member needs for its share of the
iterations, which box of each output it then has, whether that is a partial result, and what its local node looks like.
Redistribution, costs, rings and emission are written once, over these answers; none of them knows an operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import prod
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from mars_onnx.geometry import Box, Reduction, box_shape
from mars_onnx.rules.axes import Axis, DimMap, IntArray, Ranges

AttributeValue = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type and static shape of an operand."""

    dtype: ir.DataType
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """All that a rule may depend on; hashable, and the cache key for everything derived from the rule.

    Attributes:
        domain: Operator domain, ``""`` for ONNX's own.
        op_type: Operator name.
        version: Opset version of the domain in the model.
        attributes: Name and value, sorted by name. Graph and tensor attributes are not here.
        inputs: Per input its type; ``None`` where an optional input is absent.
        outputs: Per output its type; ``None`` where an optional output is absent.
        constants: Per input the values of a small constant that the operator reads as a parameter (the axes of a
            Squeeze, the scales of a Resize), else ``None``.
        opaque: Whether there is more to the node than this says: a subgraph, an operand without static shape.
        chain: Operators right before it whose results nobody else reads and that it changes element by element, the
            first one first: ``("Conv", "Add")`` of a Relu. No rule depends on it; a performance model may, since
            runtimes compute such a chain as one kernel. Empty for what is no link of a chain.
    """

    domain: str
    op_type: str
    version: int
    attributes: tuple[tuple[str, AttributeValue], ...] = ()
    inputs: tuple[TensorType | None, ...] = ()
    outputs: tuple[TensorType | None, ...] = ()
    constants: tuple[tuple[int | float, ...] | None, ...] = ()
    opaque: bool = False
    chain: tuple[str, ...] = ()
    #: A search looks signatures up hundreds of thousands of times.
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Work the hash out once."""
        object.__setattr__(self, "_hash", hash(self._key()))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[Signature], tuple[object, ...]]:
        # Hashes of texts differ between processes, so this one does not travel.
        return Signature, self._key()

    def _key(self) -> tuple[object, ...]:
        return tuple(getattr(self, own.name) for own in fields(self) if own.init)

    def attribute(self, name: str) -> AttributeValue | None:
        """Value of an attribute, ``None`` if absent."""
        return dict(self.attributes).get(name)

    def integer(self, name: str, default: int) -> int:
        """Value of an integer attribute."""
        value = self.attribute(name)
        return value if isinstance(value, int) else default

    def integers(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        """Value of an integer-list attribute."""
        value = self.attribute(name)
        return tuple(int(v) for v in value) if isinstance(value, tuple) else tuple(default)

    def numbers(self, index: int) -> tuple[int | float, ...] | None:
        """Values of the parameter operand ``index``, ``None`` if absent or not constant."""
        return self.constants[index] if index < len(self.constants) else None

    def constant(self, index: int) -> tuple[int, ...] | None:
        """Values of the integer parameter operand ``index``, ``None`` if absent or not constant."""
        values = self.numbers(index)
        return None if values is None else tuple(int(value) for value in values)

    def has_input(self, index: int) -> bool:
        """Whether the optional input ``index`` is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def input(self, index: int) -> TensorType:
        """Type of a required input."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None:
            raise ValueError(f"{self.op_type} has no input {index}")
        return found

    def output(self, index: int = 0) -> TensorType:
        """Type of a required output."""
        found = self.outputs[index]
        if found is None:
            raise ValueError(f"{self.op_type} has no output {index}")
        return found


class LocalGraph(Protocol):
    """The graph of one accelerator, as far as a rule may write to it."""

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, AttributeValue],
        outputs: Sequence[TensorType | None],
        *,
        domain: str = "",
    ) -> tuple[ir.Value, ...]:
        """Append a node and return its outputs (an absent one, type ``None``, gets an unnamed value)."""
        ...

    def constant(self, array: npt.NDArray[np.generic]) -> ir.Value:
        """A small local constant; equal ones are shared."""
        ...

    def slice(self, value: ir.Value, box: Box) -> ir.Value:
        """Part of a local value, ``box`` in its own coordinates; the value itself if that is all of it."""
        ...

    def concat(self, values: Sequence[ir.Value], axis: int) -> ir.Value:
        """Values joined along a dimension; the value itself if there is just one."""
        ...

    def combine(self, values: Sequence[ir.Value], reduction: Reduction) -> ir.Value:
        """Element-wise sum, maximum or minimum; the value itself if there is just one."""
        ...

    def zeros(self, dtype: ir.DataType, shape: Sequence[int]) -> ir.Value:
        """A tensor of zeros (false, for booleans), not stored in the file."""
        ...


@dataclass(frozen=True, slots=True)
class Share:
    """One member's share of a node.

    Attributes:
        ranges: Per axis its range of iterations.
        inputs: Per input the box it needs, ``None`` where it needs nothing of it.
        outputs: Per output the box it computes.
        first: Whether this share holds the start of every reduction: what must count once (a bias) is added here.
    """

    ranges: Mapping[str, tuple[int, int]]
    inputs: tuple[Box | None, ...]
    outputs: tuple[Box | None, ...]
    first: bool

    def extent(self, axis: str) -> int:
        """Number of iterations of an axis."""
        low, high = self.ranges[axis]
        return high - low

    def output_shape(self, index: int = 0) -> tuple[int, ...]:
        """Shape of the local output."""
        box = self.outputs[index]
        if box is None:
            raise ValueError("this share computes nothing")
        return box_shape(box)


Dims = tuple[DimMap, ...]


@dataclass(frozen=True)
class OpRule:
    """How one node can be sharded. Subclasses fill in the maps and write :meth:`local`.

    Attributes:
        signature: The node this is about.
        axes: Its loops, the ones that a person would name first.
        inputs: Per input, per dimension, the map from axes; ``None`` for an input that the local node does not take
            from the graph (absent, or a parameter that the rule writes anew).
        outputs: Per output, per dimension, the map from axes; ``None`` for an absent output.
        operands: Names of the inputs that shared shards can rotate, by input index.
        reduction: How partial results combine where a reduction axis is split.
        work: Element operations per iteration of all axes together (the window of a pooling; the row of a softmax).
    """

    signature: Signature
    axes: tuple[Axis, ...] = ()
    inputs: tuple[Dims | None, ...] = ()
    outputs: tuple[Dims | None, ...] = ()
    operands: Mapping[int, str] = field(default_factory=dict)
    reduction: Reduction = Reduction.SUM
    work: int = 1

    #: Whether this is the fallback for an operator without a rule.
    is_fallback: ClassVar[bool] = False

    def axis(self, name: str) -> Axis | None:
        """The axis of that name, ``None`` if the node has none.

        ``D0``, ``D1``, ... also name the axis along that dimension of the first output, whatever the rule calls it,
        unless the rule itself has an axis of that name.
        """
        found = next((axis for axis in self.axes if axis.name == name), None)
        dims = self.outputs[0] if self.outputs else None
        if found is None and dims is not None and name[:1] == "D" and name[1:].isdecimal():
            position = int(name[1:])
            along = dims[position].axes if position < len(dims) else ()
            return self.axis(along[0]) if len(along) == 1 and along[0] != name else None
        return found

    def whole_ranges(self) -> dict[str, tuple[IntArray, IntArray]]:
        """Every axis whole, as 0-d arrays."""
        return {a.name: (np.asarray(0, np.int64), np.asarray(a.size, np.int64)) for a in self.axes}

    @property
    def choosy_axes(self) -> tuple[str, ...]:
        """Names of the axes whose ranges :meth:`problem` looks at; without any, it has no objection ever."""
        return () if type(self).problem is OpRule.problem else tuple(axis.name for axis in self.axes)

    def problem(self, ranges: Mapping[str, tuple[int, int]]) -> str | None:
        """Why a (non-empty) share cannot be computed by a local node, in words for the user; ``None`` if it can."""
        return None

    def macs(self, ranges: Ranges) -> IntArray:
        """Multiply-accumulates of a share, or element operations for what has none; arrays as in ``ranges``."""
        work = np.asarray(self.work, np.int64)
        for axis in self.axes:
            low, high = ranges[axis.name]
            work = work * np.maximum(high - low, 0)
        return work if self.axes else np.asarray(sum(prod(t.shape) for t in self.signature.outputs if t), np.int64)

    def local(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        """Write the nodes that compute a share.

        Args:
            graph: The member's graph.
            share: What to compute. At least one output box is not ``None``.
            inputs: Per input the local value of exactly ``share.inputs[i]``; ``None`` where that box is ``None`` or
                the rule takes no such input.

        Returns:
            Per output the local value of exactly ``share.outputs[i]``.
        """
        raise NotImplementedError


def attributes_without(signature: Signature, *dropped: str) -> dict[str, AttributeValue]:
    """The node's attributes, less some that the local node sets itself."""
    return {name: value for name, value in signature.attributes if name not in dropped}
