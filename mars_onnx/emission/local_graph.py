"""A local graph under construction: what the rules write their nodes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from mars_onnx.geometry import Box, Reduction, box_shape, whole_box
from mars_onnx.rules.base import AttributeValue, TensorType

#: Element types that ConstantOfShape could make from its first version on.
_FILLABLE = {
    ir.DataType.FLOAT16,
    ir.DataType.FLOAT,
    ir.DataType.DOUBLE,
    ir.DataType.INT8,
    ir.DataType.INT16,
    ir.DataType.INT32,
    ir.DataType.INT64,
    ir.DataType.UINT8,
    ir.DataType.UINT16,
    ir.DataType.UINT32,
    ir.DataType.UINT64,
    ir.DataType.BOOL,
}

_COMBINERS = {Reduction.SUM: "Add", Reduction.MAX: "Max", Reduction.MIN: "Min"}
#: Of truth values, the sum is "any", like the maximum.
_BOOLEAN_COMBINERS = {Reduction.SUM: "Or", Reduction.MAX: "Or", Reduction.MIN: "And"}


class LocalGraphBuilder:
    """Nodes and initializers of one local graph, in order, with type and shape on every value.

    Attributes:
        opset: Version of ONNX's own operators in the graph.
        nodes: Nodes so far, in topological order.
        initializers: Constants so far, by name.
    """

    def __init__(self, opset: int, prefix: str = "") -> None:
        """Start an empty graph.

        Args:
            opset: Version of ONNX's own operators.
            prefix: What the names of all new values and nodes start with.
        """
        self.opset = opset
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {}
        self._prefix = prefix
        self._numbers = count()
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def fresh(self, name: str) -> str:
        """A name for a new value; subclasses that also use names from elsewhere give one that nothing else has."""
        return name

    def annotate(self, node: ir.Node) -> None:
        """Called with every node as it is appended; for subclasses that name or mark nodes."""

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
        converted = [_attribute(name, value) for name, value in sorted(attributes.items())]
        return self._append(op_type, inputs, converted, outputs, domain)

    def constant(self, array: npt.NDArray[np.generic]) -> ir.Value:
        """A small local constant; equal ones are shared."""
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            name = self.fresh(f"{self._prefix}const_{next(self._numbers)}")
            tensor = ir.tensor(array, name=name)
            self._constants[key] = self.initializer(tensor)
        return self._constants[key]

    def initializer(self, tensor: ir.TensorProtocol) -> ir.Value:
        """Add a constant under the tensor's own name, which must be new."""
        name = tensor.name
        if not name or name in self.initializers:
            raise ValueError(f"an initializer needs a name of its own, not {name!r}")
        value = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor
        )
        self.initializers[name] = value
        return value

    def slice(self, value: ir.Value, box: Box) -> ir.Value:
        """Part of a local value, ``box`` in its own coordinates; the value itself if that is all of it."""
        kind = type_of(value)
        cut = [(axis, *box[axis]) for axis, whole in enumerate(whole_box(kind.shape)) if box[axis] != whole]
        if not cut:
            return value
        axes, starts, ends = (tuple(column) for column in zip(*cut, strict=True))
        result = [TensorType(kind.dtype, box_shape(box))]
        if self.opset < 10:
            return self.op("Slice", [value], {"axes": axes, "starts": starts, "ends": ends}, result)[0]
        operands = [self.constant(np.asarray(column, np.int64)) for column in (starts, ends, axes)]
        return self.op("Slice", [value, *operands], {}, result)[0]

    def concat(self, values: Sequence[ir.Value], axis: int) -> ir.Value:
        """Values joined along a dimension; the value itself if there is just one."""
        if len(values) == 1:
            return values[0]
        kinds = [type_of(value) for value in values]
        shape = list(kinds[0].shape)
        shape[axis] = sum(kind.shape[axis] for kind in kinds)
        return self.op("Concat", values, {"axis": axis}, [TensorType(kinds[0].dtype, tuple(shape))])[0]

    def combine(self, values: Sequence[ir.Value], reduction: Reduction) -> ir.Value:
        """Element-wise sum, maximum or minimum; the value itself if there is just one."""
        kind = type_of(values[0])
        boolean = kind.dtype == ir.DataType.BOOL
        op_type = (_BOOLEAN_COMBINERS if boolean else _COMBINERS)[reduction]
        result = values[0]
        # Two by two: Sum takes only floating point, and the order of a chain is the same on every member.
        for value in values[1:]:
            result = self.op(op_type, [result, value], {}, [kind])[0]
        return result

    def zeros(self, dtype: ir.DataType, shape: Sequence[int]) -> ir.Value:
        """A tensor of zeros (false, for booleans), not stored in the file unless the opset knows no other way."""
        if self.opset < 9 or dtype not in _FILLABLE:
            return self.constant(np.zeros(tuple(shape), dtype.numpy()))
        fill = ir.AttrTensor("value", ir.tensor(np.zeros(1, dtype.numpy())))
        extents = self.constant(np.asarray(shape, np.int64))
        return self._append("ConstantOfShape", [extents], [fill], [TensorType(dtype, tuple(shape))], "")[0]

    def graph(self, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], name: str) -> ir.Graph:
        """The finished graph."""
        return ir.Graph(
            inputs,
            outputs,
            nodes=self.nodes,
            initializers=tuple(self.initializers.values()),
            opset_imports={"": self.opset},
            name=name,
        )

    def _append(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Sequence[ir.Attr],
        outputs: Sequence[TensorType | None],
        domain: str,
    ) -> tuple[ir.Value, ...]:
        operands = list(inputs)
        while operands and operands[-1] is None:
            operands.pop()
        name = self.fresh(f"{self._prefix}{op_type}_{next(self._numbers)}")
        values: list[ir.Value] = []
        for index, kind in enumerate(outputs):
            if kind is None:
                values.append(ir.Value(name=""))
            else:
                own = name if index == 0 else self.fresh(f"{name}_{index}")
                values.append(ir.Value(name=own, type=ir.TensorType(kind.dtype), shape=ir.Shape(kind.shape)))
        node = ir.Node(domain, op_type, operands, attributes, outputs=values, name=name)
        self.nodes.append(node)
        self.annotate(node)
        return tuple(values)


def type_of(value: ir.Value) -> TensorType:
    """Element type and static shape of a local value."""
    if value.dtype is None or value.shape is None:
        raise ValueError(f"local value {value.name} has no type or shape")
    return TensorType(value.dtype, value.shape.numpy())


def _attribute(name: str, value: AttributeValue) -> ir.Attr:
    """An attribute with the type that its value has; an empty list is one of integers (axes, mostly)."""
    if isinstance(value, tuple):
        if value and isinstance(value[0], str):
            return ir.AttrStrings(name, [str(element) for element in value])
        if value and isinstance(value[0], float):
            return ir.AttrFloat32s(name, [float(element) for element in value])
        return ir.AttrInt64s(name, [int(element) for element in value])
    if isinstance(value, str):
        return ir.AttrString(name, value)
    return ir.AttrFloat32(name, value) if isinstance(value, float) else ir.AttrInt64(name, value)
