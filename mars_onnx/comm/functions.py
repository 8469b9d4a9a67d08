"""Model-local function bodies for the communication operators: stand-ins from stock operators.

They give the right shapes and types and let every output depend on every input, so that checkers, strict shape
inference, viewers and a stock ONNX Runtime accept a partition, and nothing that leads to a communication looks unused.
They do not communicate. A body has to import the opset of the model it stands in (the checker refuses others, ONNX
Runtime inlines the body under the model's opset), so there are three forms, by what the opset has.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import onnx.parser
import onnx_ir as ir

from mars_onnx.comm.attributes import CLASSES
from mars_onnx.comm.domain import DOMAIN, OPERATORS, REDISTRIBUTE, VERSION
from mars_onnx.errors import InputError

OLDEST_OPSET = 7

_DOC = (
    "Stand-in for {op} of mars_onnx: the right shapes from stock operators, and a data dependence on every input, so "
    "that any ONNX tool can load, check and profile this file alone. It does NOT communicate: numbers that pass "
    "through it are wrong. Run the partitions together with a runtime that implements the operator."
)


def functions_for(opset: int, op_types: Iterable[str]) -> list[ir.Function]:
    """Function bodies for the given operators, in a model that imports default-domain ``opset``.

    Raises:
        InputError: The opset is older than any for which the bodies can be written.
    """
    if opset < OLDEST_OPSET:
        raise InputError(f"opset {opset} is too old for communication operators; {OLDEST_OPSET} is the oldest")
    return [_function(opset, op_type) for op_type in sorted(set(op_types))]


def add_functions(model: ir.Model) -> None:
    """Give the model the function bodies of the communication operators that its main graph uses, and the import."""
    known = {*OPERATORS, REDISTRIBUTE}
    used = {node.op_type for node in model.graph if node.domain == DOMAIN and node.op_type in known}
    if not used:
        return
    model.opset_imports.setdefault("", OLDEST_OPSET)
    model.opset_imports[DOMAIN] = VERSION
    for function in functions_for(model.opset_imports[""], used):
        model.functions[function.identifier()] = function


def _function(opset: int, op_type: str) -> ir.Function:
    names: tuple[str, ...]
    if op_type == REDISTRIBUTE:
        names, inputs, outputs, lines = ("kind",), "x", "y", ["y = Identity(x)"]
    else:
        cls = CLASSES[op_type]
        names = tuple(cls.kinds())
        inputs = "x, token" if cls.takes_data else "token"
        outputs = "y, token_out" if cls.gives_data else "token_out"
        lines = _body(opset, cls.takes_data, cls.gives_data, "shape" in names)
    text = (
        f'<domain: "{DOMAIN}", opset_import: ["": {opset}]>\n'
        f"{op_type} <{', '.join(names)}> ({inputs}) => ({outputs}) {{\n" + "\n".join(lines) + "\n}"
    )
    proto = onnx.parser.parse_function(text)
    proto.doc_string = _DOC.format(op=op_type)
    return ir.serde.deserialize_function(proto)


def _body(opset: int, takes_data: bool, gives_data: bool, shaped: bool) -> list[str]:
    """Lines of the body. ``nothing`` is an empty slice of the input: a dependence that adds no element."""
    lines = [*_integer(opset, "minus_one", -1), *(_integer(opset, "zero", 0) if opset >= 10 else [])]
    if takes_data:
        lines += ["flat = Reshape (x, minus_one)", f"nothing = {_empty_slice(opset, 'flat')}"]
        lines += ["nothing_int = Cast <to = 7> (nothing)", "token_out = Concat <axis = 0> (token, nothing_int)"]
    else:
        lines += [f"nothing_int = {_empty_slice(opset, 'token')}", "token_out = Identity (token)"]
    if gives_data and not shaped:
        lines.append("y = Identity (x)")
    elif gives_data:
        lines += _wanted(opset)
        lines += _filled(opset)
    return lines


def _integer(opset: int, name: str, number: int) -> list[str]:
    if opset >= 9:
        return [f"{name} = Constant <value = int64[1] {{{number}}}> ()"]
    # Before opset 9 a Constant is a floating-point tensor.
    return [
        f"{name}_float = Constant <value = float[1] {{{number}.0}}> ()",
        f"{name} = Cast <to = 7> ({name}_float)",
    ]


def _empty_slice(opset: int, value: str) -> str:
    if opset >= 10:
        return f"Slice ({value}, zero, zero)"
    return f"Slice <axes = [0], starts = [0], ends = [0]> ({value})"


def _wanted(opset: int) -> list[str]:
    """``wanted``, the attribute ``shape`` as a tensor."""
    if opset >= 12:
        return ["wanted = Constant <value_ints: ints = @shape> ()"]
    # Before opset 12 no Constant takes a list of integers, so the only stock operators that make a tensor of a shape
    # given as an attribute are the random ones; from 0 to 0 they are not random.
    zeros = "zeros_float = RandomUniform <shape: ints = @shape, low = 0.0, high = 0.0> ()"
    return [zeros, "wanted = Shape (zeros_float)"]


def _filled(opset: int) -> list[str]:
    """``y``: zeros of the shape ``wanted`` and the attribute ``dtype``, which depend on ``nothing_int``."""
    if opset < 8:
        # There is no Expand. A Reshape takes a 0 in the shape to mean "as the input has it": no empty pieces here.
        return [
            "zeros = Cast <to: int = @dtype> (zeros_float)",
            "zeros_flat = Reshape (zeros, minus_one)",
            "nothing_typed = Cast <to: int = @dtype> (nothing_int)",
            "joined = Concat <axis = 0> (zeros_flat, nothing_typed)",
            "y = Reshape (joined, wanted)",
        ]
    if opset >= 9:
        scalar = ["scalar = Constant <value = int64[0] {}> ()"]
    else:
        scalar = ["scalar_float = Constant <value = float[0] {}> ()", "scalar = Cast <to = 7> (scalar_float)"]
    return [
        *scalar,
        *_integer(opset, "one_zero", 0),
        "joined = Concat <axis = 0> (one_zero, nothing_int)",
        "single = Reshape (joined, scalar)",
        # As integers, since Expand is not there for all element types.
        "zeros_int = Expand (single, wanted)",
        "y = Cast <to: int = @dtype> (zeros_int)",
    ]
