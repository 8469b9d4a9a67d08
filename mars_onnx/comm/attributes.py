"""The communication operators as typed values: from attributes to a node, and back with errors for people.

One dataclass per operator; its fields are the attributes, in the order of the table in ``docs/architecture.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
import onnx_ir as ir

from mars_onnx.comm.domain import DOMAIN, OPERATORS, TOKEN_START, VERSION
from mars_onnx.errors import InvariantError
from mars_onnx.geometry import Reduction

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Communication:
    """What all communication operators share.

    Attributes:
        tag: Number of this communication, the same for all who take part, unique among all communications.
    """

    op_type: ClassVar[str] = ""
    takes_data: ClassVar[bool] = True
    gives_data: ClassVar[bool] = True

    tag: int

    def to_node(
        self, x: ir.Value | None, token: ir.Value, *, name: str, output: str | None = None, token_output: str
    ) -> ir.Node:
        """Create the node.

        Args:
            x: What it feeds; ``None`` exactly for Recv.
            token: The token before.
            name: Name of the node.
            output: Name of its data output; ``None`` exactly for Send.
            token_output: Name of the token after.

        Returns:
            The node, in no graph yet, with types and shapes on its outputs: data first (except Send), then the token.
        """
        self.check(name)
        if (x is not None) != self.takes_data or (output is not None) != self.gives_data:
            raise InvariantError(f"{self.op_type} {name}: data input or output is missing or not wanted")
        outputs: list[ir.Value] = []
        if output is not None:
            dtype, shape = self.result(x)
            outputs.append(ir.Value(name=output, type=ir.TensorType(dtype), shape=ir.Shape(shape)))
        outputs.append(ir.Value(name=token_output, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1])))
        inputs = [token] if x is None else [x, token]
        return ir.Node(DOMAIN, self.op_type, inputs, self._attributes(), outputs=outputs, name=name, version=VERSION)

    @classmethod
    def kinds(cls) -> dict[str, str]:
        """The operator's attributes and their kinds: ``int``, ``Shape``, ``Reduction`` or ``ir.DataType``."""
        return {field.name: str(field.type) for field in fields(cls)}

    @classmethod
    def from_node(cls, node: ir.Node) -> Self:
        """Read a node of this operator.

        Raises:
            InvariantError: An attribute is missing, unknown or of the wrong type, or they contradict each other.
        """
        place = f"{node.op_type} {node.name or '(no name)'}"
        if (node.domain, node.op_type) != (DOMAIN, cls.op_type):
            raise InvariantError(f"{place}: not a {DOMAIN}.{cls.op_type}")
        kinds = cls.kinds()
        for unknown in sorted(set(node.attributes) - set(kinds)):
            raise InvariantError(f"{place}: unknown attribute {unknown!r}; it has {', '.join(kinds)}")
        if len(node.inputs) != 1 + cls.takes_data or any(value is None for value in node.inputs):
            raise InvariantError(f"{place}: takes {1 + cls.takes_data} inputs, the token last")
        if len(node.outputs) != 1 + cls.gives_data:
            raise InvariantError(f"{place}: gives {1 + cls.gives_data} outputs, the token last")
        communication = cls(**{name: _read(node, name, kind, place) for name, kind in kinds.items()})
        communication.check(place)
        return communication

    def ranks(self, own: int) -> Shape:
        """The ranks that take part, in the operator's order; ``own`` is the rank whose file the node stands in."""
        raise NotImplementedError

    def result(self, x: ir.Value | None) -> tuple[ir.DataType, Shape]:
        """Element type and shape of the data output, given the data input."""
        raise NotImplementedError

    def problems(self) -> list[str]:
        """What contradicts itself in the attributes; empty if nothing does."""
        return []

    def check(self, place: str) -> None:
        """Raise InvariantError naming ``place`` if the attributes contradict each other."""
        found = self.problems()
        if self.tag < 0:
            found.append(f"tag {self.tag} is negative")
        if found:
            raise InvariantError(f"{place}: {'; '.join(found)}")

    def _attributes(self) -> list[ir.Attr]:
        return [_attribute(name, getattr(self, name)) for name in self.kinds()]


@dataclass(frozen=True, slots=True)
class Send(Communication):
    """Give x to accelerator ``dst``, whose Recv has the same tag."""

    op_type: ClassVar[str] = "Send"
    gives_data: ClassVar[bool] = False

    dst: int

    def ranks(self, own: int) -> Shape:
        """Source, destination."""
        return (own, self.dst)


@dataclass(frozen=True, slots=True)
class Recv(Communication):
    """Take a tensor from accelerator ``src``, whose Send has the same tag."""

    op_type: ClassVar[str] = "Recv"
    takes_data: ClassVar[bool] = False

    src: int
    shape: Shape
    dtype: ir.DataType

    def ranks(self, own: int) -> Shape:
        """Source, destination."""
        return (self.src, own)

    def result(self, x: ir.Value | None) -> tuple[ir.DataType, Shape]:
        """As the attributes say."""
        return self.dtype, self.shape


@dataclass(frozen=True, slots=True)
class Grouped(Communication):
    """A collective of a group of ranks, in the order that the other attributes use."""

    group: Shape

    def ranks(self, own: int) -> Shape:
        """The group."""
        return self.group

    def problems(self) -> list[str]:
        """A rank that is in the group twice, or an attribute that does not speak of all members."""
        found = [] if self.group else ["the group is empty"]
        if len(set(self.group)) != len(self.group) or any(rank < 0 for rank in self.group):
            found.append(f"the group {list(self.group)} is not a list of different ranks")
        for name, per_member in _PER_MEMBER.items():
            sizes = getattr(self, name, None)
            if sizes is not None and len(sizes) != per_member * len(self.group):
                found.append(f"{name} has {len(sizes)} numbers, not {per_member} for each of {len(self.group)} members")
            if sizes is not None and any(size < 0 for size in sizes):
                found.append(f"{name} has a negative number")
        shape = getattr(self, "shape", None)
        for name in ("axis", "split_axis", "concat_axis"):
            axis = getattr(self, name, None)
            if shape is not None and axis is not None and not 0 <= axis < len(shape):
                found.append(f"{name} {axis} is no dimension of shape {list(shape)}")
        return found


@dataclass(frozen=True, slots=True)
class AllReduce(Grouped):
    """y is the reduction of all x, which have one shape."""

    op_type: ClassVar[str] = "AllReduce"

    reduce_op: Reduction

    def result(self, x: ir.Value | None) -> tuple[ir.DataType, Shape]:
        """As x."""
        return _type_and_shape(self.op_type, x)


@dataclass(frozen=True, slots=True)
class Shaped(Grouped):
    """A collective whose output has the ``shape`` and ``dtype`` of the attributes."""

    shape: Shape
    dtype: ir.DataType

    def result(self, x: ir.Value | None) -> tuple[ir.DataType, Shape]:
        """As the attributes say."""
        return self.dtype, self.shape


@dataclass(frozen=True, slots=True)
class AllGather(Shaped):
    """y is all x, joined along ``axis`` in group order; ``sizes`` has the extent of every member's x."""

    op_type: ClassVar[str] = "AllGather"

    axis: int
    sizes: Shape


@dataclass(frozen=True, slots=True)
class ReduceScatter(Shaped):
    """y is the own piece of the reduction of all x; ``sizes`` has the extent of every member's y along ``axis``."""

    op_type: ClassVar[str] = "ReduceScatter"

    axis: int
    sizes: Shape
    reduce_op: Reduction


@dataclass(frozen=True, slots=True)
class AllToAll(Shaped):
    """From pieces along ``concat_axis`` to pieces along ``split_axis``.

    ``concat_sizes`` has the extent of every member's x along ``concat_axis``, ``split_sizes`` that of every member's y
    along ``split_axis``.
    """

    op_type: ClassVar[str] = "AllToAll"

    split_axis: int
    concat_axis: int
    split_sizes: Shape
    concat_sizes: Shape


@dataclass(frozen=True, slots=True)
class Broadcast(Shaped):
    """y is the x of rank ``root``; the x of the others is not read."""

    op_type: ClassVar[str] = "Broadcast"

    root: int

    def problems(self) -> list[str]:
        """Also a root outside the group."""
        found = Grouped.problems(self)
        if self.root not in self.group:
            found.append(f"root {self.root} is not in the group {list(self.group)}")
        return found


@dataclass(frozen=True, slots=True)
class HaloExchange(Shaped):
    """Every member gets the range ``need`` along ``axis`` of what all of them hold.

    ``held`` and ``need`` are ``start, stop`` per member, flat, in the coordinates of the whole tensor.
    """

    op_type: ClassVar[str] = "HaloExchange"

    axis: int
    held: Shape
    need: Shape

    def held_by(self, member: int) -> tuple[int, int]:
        """The range of ``member``'s x."""
        return self.held[2 * member], self.held[2 * member + 1]

    def needed_by(self, member: int) -> tuple[int, int]:
        """The range of ``member``'s y."""
        return self.need[2 * member], self.need[2 * member + 1]


@dataclass(frozen=True, slots=True)
class Shift(Shaped):
    """y is the x of the member ``offset`` before in the group, cyclically."""

    op_type: ClassVar[str] = "Shift"

    offset: int


_PER_MEMBER = {"sizes": 1, "split_sizes": 1, "concat_sizes": 1, "held": 2, "need": 2}

CLASSES: Mapping[str, type[Communication]] = {
    cls.op_type: cls
    for cls in (Send, Recv, AllReduce, AllGather, ReduceScatter, AllToAll, Broadcast, HaloExchange, Shift)
}


def is_communication(node: ir.Node) -> bool:
    """Whether the node communicates: it is one of the operators that carry a token."""
    return node.domain == DOMAIN and node.op_type in OPERATORS


def communication_of(node: ir.Node) -> Communication:
    """Read any communication node.

    Raises:
        InvariantError: It is none, or malformed.
    """
    if not is_communication(node):
        raise InvariantError(f"{node.domain}.{node.op_type} {node.name}: not a communication operator")
    return CLASSES[node.op_type].from_node(node)


def token_start() -> ir.Value:
    """The value that starts a token: append it to the graph's inputs *and* initializers (see ``TOKEN_START``)."""
    tensor = ir.tensor(np.zeros(1, np.int64), name=TOKEN_START)
    return ir.Value(name=TOKEN_START, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([1]), const_value=tensor)


def static_shape(value: ir.Value) -> Shape | None:
    """The shape if it is known and static."""
    shape = value.shape
    return tuple(shape.numpy()) if shape is not None and shape.is_static() else None


def _type_and_shape(op_type: str, x: ir.Value | None) -> tuple[ir.DataType, Shape]:
    shape = None if x is None else static_shape(x)
    if x is None or x.dtype is None or shape is None:
        raise InvariantError(f"{op_type}: its input {x.name if x else ''!r} has no static shape and element type")
    return x.dtype, shape


def _attribute(name: str, value: Any) -> ir.Attr:
    if isinstance(value, tuple):
        return ir.AttrInt64s(name, value)
    if isinstance(value, str):
        return ir.AttrString(name, str(value))
    return ir.AttrInt64(name, int(value))


def _read(node: ir.Node, name: str, kind: str, place: str) -> Any:
    attribute = node.attributes.get(name)
    if attribute is None or attribute.is_ref():
        raise InvariantError(f"{place}: attribute {name!r} is missing")
    value = attribute.value
    if kind == "Shape" and attribute.type in (ir.AttributeType.INTS, ir.AttributeType.FLOATS) and len(value) == 0:
        return ()
    wanted = {"Shape": ir.AttributeType.INTS, "Reduction": ir.AttributeType.STRING}.get(kind, ir.AttributeType.INT)
    if attribute.type != wanted:
        raise InvariantError(f"{place}: attribute {name!r} is of type {attribute.type.name}, not {wanted.name}")
    if kind == "Shape":
        return tuple(int(item) for item in value)
    try:
        return {"Reduction": Reduction, "ir.DataType": ir.DataType}.get(kind, int)(value)
    except ValueError:
        allowed = f" (one of {', '.join(Reduction)})" if kind == "Reduction" else ""
        raise InvariantError(f"{place}: attribute {name!r} cannot be {value!r}{allowed}") from None
