"""What the random models of one operator are made of: operands, nodes, opsets, shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
import onnx.defs
import onnx.helper
import onnx.numpy_helper
import onnx.shape_inference

from tests.rules.harness import IR_VERSION, Array

Rng = np.random.Generator
NEWEST = 28


@dataclass(frozen=True)
class Operand:
    """An input of the node: random of a type and shape, or given, and perhaps an initializer."""

    shape: tuple[int, ...] = ()
    dtype: npt.DTypeLike = np.float32
    values: Array | None = None
    constant: bool = False


@dataclass
class Case:
    """A node before it is a model."""

    op_type: str
    opset: int
    operands: Sequence[Operand | None]
    attributes: Mapping[str, object] = field(default_factory=dict)
    outputs: int = 1
    #: For an operator that shape inference does not know: its output is like its first input.
    keeps_shape: bool = False

    def model(self) -> tuple[onnx.ModelProto, dict[str, Array]]:
        """The model and the inputs that must not be arbitrary."""
        feeds: dict[str, Array] = {}
        inputs, initializers, names = [], [], []
        for index, operand in enumerate(self.operands):
            name = "" if operand is None else f"x{index}"
            names.append(name)
            if operand is None:
                continue
            if operand.values is not None and operand.constant:
                initializers.append(onnx.numpy_helper.from_array(operand.values, name))
                continue
            values = operand.values
            dtype = values.dtype if values is not None else np.dtype(operand.dtype)
            shape = values.shape if values is not None else operand.shape
            elem = onnx.helper.np_dtype_to_tensor_dtype(dtype)
            inputs.append(onnx.helper.make_tensor_value_info(name, elem, shape))
            if values is not None:
                feeds[name] = values
        given = {name: value for name, value in self.attributes.items() if value is not None}
        outputs = [f"y{index}" for index in range(self.outputs)]
        node = onnx.helper.make_node(self.op_type, names, outputs, **given)
        infos = [onnx.ValueInfoProto(name=name) for name in outputs]
        if self.keeps_shape:
            infos[0].type.CopyFrom(inputs[0].type)
        graph = onnx.helper.make_graph([node], "g", inputs, infos, initializers)
        imports = [onnx.helper.make_opsetid("", self.opset)]
        model = onnx.helper.make_model(graph, ir_version=IR_VERSION, opset_imports=imports)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True), feeds


GENERATORS: dict[str, Callable[[str, Rng], Case]] = {}


def makes(*op_types: str) -> Callable[[Callable[[str, Rng], Case]], Callable[[str, Rng], Case]]:
    def register(function: Callable[[str, Rng], Case]) -> Callable[[str, Rng], Case]:
        GENERATORS.update(dict.fromkeys(op_types, function))
        return function

    return register


def opset_for(op_type: str, rng: Rng, lowest: int = 7, highest: int = NEWEST) -> int:
    """A random opset that has the operator, often one in which it changed."""
    history = [s for s in onnx.defs.get_all_schemas_with_history() if s.name == op_type and not s.domain]
    changes = sorted(schema.since_version for schema in history)
    lowest = max(lowest, min(changes))
    if any(schema.deprecated and schema.since_version == max(changes) for schema in history):
        highest = min(highest, max(changes) - 1)
    steps = [version for version in changes if lowest <= version <= highest] + [
        lowest,
        highest,
        max(lowest, min(highest, 20)),
    ]
    if rng.random() < 0.6:
        return int(rng.choice(steps))
    return int(rng.integers(lowest, highest + 1))


def pick(rng: Rng, *options: object) -> object:
    return options[int(rng.integers(len(options)))]


def maybe(rng: Rng, value: object, chance: float = 0.5) -> object:
    return value if rng.random() < chance else None


def extents(rng: Rng, low: int, high: int | None = None, most: int = 6) -> tuple[int, ...]:
    rank = int(rng.integers(low, (high or low) + 1))
    return tuple(int(extent) for extent in rng.integers(1, most + 1, rank))


def shrunk(rng: Rng, shape: Sequence[int]) -> tuple[int, ...]:
    """A shape that broadcasts to ``shape``."""
    kept = tuple(1 if rng.random() < 0.3 else extent for extent in shape)
    return kept[int(rng.integers(0, len(kept) + 1)) :] if rng.random() < 0.4 else kept


def ints(values: Sequence[int]) -> Operand:
    return Operand(values=np.asarray(values, np.int64), constant=True)


def signed(rng: Rng, axis: int, rank: int) -> int:
    return axis - rank if rng.random() < 0.4 else axis
