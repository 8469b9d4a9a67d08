"""Options of a pass: its fields (or constructor parameters), their types, and text to value and back.

Types that text can spell: bool, int, float, str, Path, Enum, Literal, each also as ``T | None`` and as
``tuple[T, ...]``. A field of any other type (a pool, say) is set from Python only and has no text.
"""

import dataclasses
import enum
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir


class Missing(enum.Enum):
    """The type of ``MISSING``."""

    MISSING = "missing"


MISSING = Missing.MISSING


@dataclass(frozen=True)
class OptionType:
    """How one kind of value reads and prints.

    Attributes:
        expected: What would be right, for error messages and listings.
        parse: Text to value; ValueError if it is not one.
        print: Value to text.
        repeated: A tuple: the option is given once per item.
        optional: ``none`` stands for None.
    """

    expected: str
    parse: Callable[[str], Any]
    print: Callable[[Any], str]
    repeated: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Option:
    """One option of a pass.

    Attributes:
        name: In kebab case, as in pipeline text.
        field: The field or constructor parameter.
        type: None if text cannot spell the value.
        default: MISSING if it has to be given.
    """

    name: str
    field: str
    type: OptionType | None
    default: object


def options_of(pass_class: type[ir.passes.PassBase]) -> dict[str, Option]:
    """Return the options of a pass by their names in pipeline text."""
    found = _from_fields(pass_class) if dataclasses.is_dataclass(pass_class) else _from_constructor(pass_class)
    return {option.name: option for option in found}


def _from_fields(pass_class: type) -> list[Option]:
    hints = typing.get_type_hints(pass_class)
    options = []
    for field in dataclasses.fields(pass_class):
        if not field.init:
            continue
        default: object = MISSING
        if field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        options.append(_option(field.name, hints[field.name], default))
    return options


def _from_constructor(pass_class: type[ir.passes.PassBase]) -> list[Option]:
    """Options of a pass that is no dataclass, such as those of onnx_ir."""
    if pass_class.__init__ is object.__init__:
        return []
    options = []
    for parameter in list(inspect.signature(pass_class.__init__).parameters.values())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        annotation = parameter.annotation
        if isinstance(annotation, str):
            annotation = _resolve(annotation, pass_class)
        default = MISSING if parameter.default is parameter.empty else parameter.default
        options.append(_option(parameter.name, annotation, default))
    return options


def _resolve(annotation: str, pass_class: type) -> object:
    """Evaluate an annotation that is text; one that needs a name for type checkers only is no option type."""
    namespace = vars(sys.modules[pass_class.__module__])
    try:
        return eval(annotation, dict(namespace))  # the module's own source, which has run already
    except (NameError, AttributeError, TypeError):
        return None


def _option(field: str, annotation: object, default: object) -> Option:
    return Option(field.replace("_", "-"), field, option_type(annotation), default)


def option_type(annotation: object) -> OptionType | None:
    """Return how values of an annotated type read and print, or None if text cannot spell them."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType) and len(arguments) == 2 and types.NoneType in arguments:
        inner = option_type(next(argument for argument in arguments if argument is not types.NoneType))
        return dataclasses.replace(inner, optional=True, expected=f"{inner.expected} or none") if inner else None
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        inner = option_type(arguments[0])
        return dataclasses.replace(inner, repeated=True) if inner and not (inner.repeated or inner.optional) else None
    if origin is typing.Literal:
        return _choice({str(value): value for value in arguments})
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _choice({_enum_text(member): member for member in annotation})
    return _SCALARS.get(annotation) if isinstance(annotation, type) else None


def _enum_text(member: enum.Enum) -> str:
    return member.value if isinstance(member.value, str) else member.name.lower().replace("_", "-")


def _choice(values: dict[str, Any]) -> OptionType:
    texts = {value: text for text, value in values.items()}

    def parse(text: str) -> Any:
        if text not in values:
            raise ValueError(text)
        return values[text]

    return OptionType("one of " + ", ".join(values), parse, lambda value: texts[value])


def _parse_bool(text: str) -> bool:
    return {"true": True, "false": False}[text]


def _parse_int(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ValueError(text)
    return int(text)


_SCALARS = {
    bool: OptionType("true or false", _parse_bool, lambda value: "true" if value else "false"),
    int: OptionType("a whole number", _parse_int, str),
    float: OptionType("a number", float, repr),
    str: OptionType("text", str, str),
    Path: OptionType("a path", Path, str),
}
