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
        lines += _zeros(opset)
        lines.append("zeros_flat = Reshape (zeros, minus_one)")
        lines.append("nothing_typed = Cast <to: int = @dtype> (nothing_int)")
        lines.append("joined = Concat <axis = 0> (zeros_flat, nothing_typed)")
        # Without allowzero a 0 in the shape would mean "as the input has it".
        lines.append(f"y = Reshape {'<allowzero = 1> ' if opset >= 14 else ''}(joined, wanted)")
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


def _zeros(opset: int) -> list[str]:
    """``wanted``, the shape as a tensor, and ``zeros`` of that shape and the attribute ``dtype``."""
    if opset >= 12:
        zeros = ["wanted = Constant <value_ints: ints = @shape> ()", "zeros_float = ConstantOfShape (wanted)"]
    else:
        # Before opset 12 no Constant takes a list of integers, so the only stock operators that make a tensor of a
        # shape given as an attribute are the random ones; from 0 to 0 they are not random.
        zeros = ["zeros_float = RandomUniform <shape: ints = @shape, low = 0.0, high = 0.0> ()"]
        zeros += ["wanted = Shape (zeros_float)"]
    return [*zeros, "zeros = Cast <to: int = @dtype> (zeros_float)"]
