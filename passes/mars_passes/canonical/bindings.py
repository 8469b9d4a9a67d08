"""Static shapes of the inputs: binding symbolic dimensions to numbers."""

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from mars_onnx.errors import InputError, UsageError
from mars_onnx.pipeline.registry import suggestion

# What was bound stays in the model, so that canonicalizing it again with the same options is no error.
BOUND = "mars.dims"

_LARGEST_SIZE = 2**63 - 1
_LONGEST_SIZE = 100  # digits: Python does not read numbers of thousands of them


def bind_shapes(model: ir.Model, dims: Iterable[str], input_shapes: Iterable[str]) -> None:
    """Give every input a static shape.

    Args:
        model: Changed in place: inputs, and every value that mentions a dimension that gets bound.
        dims: ``NAME=VALUE`` for symbolic dimensions.
        input_shapes: ``NAME:1,3,224,224`` for inputs.

    Raises:
        UsageError: An option is malformed, or names an input or dimension that the model lacks, or contradicts it.
        InputError: An input's shape is still not static; the message shows the option to give.
    """
    for value in model.graph.inputs:
        if not isinstance(value.type, ir.TensorType):
            raise InputError(f"the input {value.name!r} is {value.type or 'of no type'}; only tensors are supported")
        if value.dtype == ir.DataType.STRING:
            raise InputError(f"the input {value.name!r} is text; only tensors of numbers are supported")
    _forget_negative(model)
    bound = _parse_dims(dims)
    _check_dims_exist(model, bound)
    _bind_input_shapes(model, input_shapes, bound)
    if bound:
        _substitute(model, bound)
        record = _recorded(model) | bound
        model.metadata_props[BOUND] = ",".join(f"{name}={size}" for name, size in sorted(record.items()))
    _require_static(model)


def _forget_negative(model: ir.Model) -> None:
    """Take a negative dimension for one that is not known, as some exporters mean it and ONNX Runtime reads it."""
    for graph in model.graphs():
        for value in [*graph.inputs, *(value for node in graph for value in node.outputs)]:
            if value.shape is not None and any(isinstance(dim, int) and dim < 0 for dim in value.shape):
                value.shape = ir.Shape([None if isinstance(dim, int) and dim < 0 else dim for dim in value.shape])


def _parse_dims(dims: Iterable[str]) -> dict[str, int]:
    bound: dict[str, int] = {}
    for text in dims:
        name, equals, size = text.partition("=")
        if not (name and equals and _is_size(size)):
            raise UsageError(f"dim {text!r}: expected NAME=VALUE with a positive whole number, such as batch=1")
        _bind(bound, name, int(size), f"dim {text!r}")
    return bound


def _is_size(text: str) -> bool:
    """Whether a text is a positive whole number that a shape of ONNX can hold."""
    return text.isascii() and text.isdigit() and len(text) <= _LONGEST_SIZE and 0 < int(text) <= _LARGEST_SIZE


def _bind(bound: dict[str, int], name: str, size: int, where: str) -> None:
    if bound.setdefault(name, size) != size:
        raise UsageError(f"{where}: the dimension {name!r} is {bound[name]} already and cannot be {size} too")


def _recorded(model: ir.Model) -> dict[str, int]:
    pairs = (pair.rpartition("=") for pair in model.metadata_props.get(BOUND, "").split(",") if pair)
    return {name: int(size) for name, _, size in pairs}


def _symbols(model: ir.Model) -> list[str]:
    """Return the named dimensions of the inputs, in order of appearance."""
    names = (
        dim.value
        for value in model.graph.inputs
        for dim in value.shape or ()
        if isinstance(dim, ir.SymbolicDim) and dim.value
    )
    return list(dict.fromkeys(names))


def _check_dims_exist(model: ir.Model, bound: Mapping[str, int]) -> None:
    symbols, recorded = _symbols(model), _recorded(model)
    for name, size in bound.items():
        if name in symbols or recorded.get(name) == size:
            continue
        if name in recorded:
            raise UsageError(f"dim {name}={size}: this dimension was bound to {recorded[name]} before")
        tail = suggestion(name, symbols) or "; all its shapes are static"
        raise UsageError(f"dim {name}={size}: no input of the model has a dimension {name!r}{tail}")


def _bind_input_shapes(model: ir.Model, input_shapes: Iterable[str], bound: dict[str, int]) -> None:
    inputs = {value.name or "": value for value in model.graph.inputs}
    for text in input_shapes:
        name, colon, sizes = text.rpartition(":")
        words = [word.strip() for word in sizes.split(",")] if sizes.strip() else []
        if not (colon and name and all(map(_is_size, words))):
            raise UsageError(f"input-shape {text!r}: expected NAME:SIZES, such as image:1,3,224,224")
        if name not in inputs:
            raise UsageError(f"input-shape {text!r}: the model has no input {name!r}{suggestion(name, inputs)}")
        value, shape = inputs[name], [int(word) for word in words]
        if value.shape is None:
            value.shape = ir.Shape(shape)
            continue
        if len(value.shape) != len(shape):
            raise UsageError(f"input-shape {text!r}: the model has {_shape_text(value)} there, of another rank")
        for dim, size in zip(value.shape, shape, strict=True):
            if isinstance(dim, ir.SymbolicDim):
                if dim.value:
                    _bind(bound, dim.value, size, f"input-shape {text!r}")
            elif dim != size:
                raise UsageError(f"input-shape {text!r}: the model has {_shape_text(value)} there, which is fixed")
        value.shape = ir.Shape(shape)


def _shape_text(value: ir.Value) -> str:
    if value.shape is None:
        return "a shape of unknown rank"
    return "[" + ", ".join(str(dim) if isinstance(dim, int) else dim.value or "?" for dim in value.shape) + "]"


def _substitute(model: ir.Model, bound: Mapping[str, int]) -> None:
    for graph in model.graphs():
        values = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
        for value in values:
            if value.shape is not None and not value.shape.is_static():
                dims = [bound.get(d.value or "", d) if isinstance(d, ir.SymbolicDim) else d for d in value.shape]
                value.shape = ir.Shape(dims)


def _require_static(model: ir.Model) -> None:
    wanting = [value for value in model.graph.inputs if value.shape is None or not value.shape.is_static()]
    if not wanting:
        return
    symbols = _symbols(model)
    advice = []
    if all(value.shape is not None and all(isinstance(d, int) or d.value for d in value.shape) for value in wanting):
        advice.append(" ".join(f"--dim {_shell(name)}=1" for name in symbols))
    advice.append(" ".join(f"--input-shape {_shell(value.name or '')}:{_example(value)}" for value in wanting))
    described = " and ".join(f"the input {value.name!r} has {_described(value)}" for value in wanting)
    raise InputError(
        f"{described}, but partitions need static shapes; give, with the sizes that you want, {' or '.join(advice)}"
    )


def _described(value: ir.Value) -> str:
    if value.shape is None:
        return "a shape of unknown rank"
    names = list(dict.fromkeys(dim.value or "?" for dim in value.shape if isinstance(dim, ir.SymbolicDim)))
    return f"the shape {_shape_text(value)} with the symbolic dimension{'s' * (len(names) > 1)} {', '.join(names)}"


def _example(value: ir.Value) -> str:
    if value.shape is None:
        return "1,3,224,224"
    return ",".join(str(dim) if isinstance(dim, int) else "1" for dim in value.shape)


def _shell(name: str) -> str:
    return name if name.replace("_", "").replace(".", "").replace("-", "").isalnum() else f"'{name}'"
