"""What pydantic has to say about a file, in words for the person who wrote the file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mars_onnx.pool.document import Document, Place, suggestion
from mars_onnx.pool.format import NAME_PATTERN
from mars_onnx.pool.numbers import PRINTABLE_PATTERN

Model = TypeVar("Model", bound=BaseModel)

_KINDS = {
    "string_type": 'text, in double quotes, is expected, like "fpga0"',
    "float_type": "a number is expected, without quotes, like 1.25e9",
    "int_type": "a whole number is expected, without quotes, like 1073741824",
    "int_from_float": "a whole number is expected, like 1073741824",
    "bool_type": "true or false is expected, without quotes",
    "tuple_type": "a list is expected, like [...]",
    "list_type": "a list is expected, like [...]",
    "dict_type": "an object is expected, like {...}",
    "model_type": "an object is expected, like {...}",
    "model_attributes_type": "an object is expected, like {...}",
}


def validate(document: Document, data: object, model: type[Model], at: Place = ()) -> Model | None:
    """Check a part of a file against a model; note all problems.

    Returns:
        The model, or ``None`` if there were problems.
    """
    try:
        return model.model_validate(data)
    except ValidationError as errors:
        for error in errors.errors(include_url=False):
            place = tuple(error["loc"])
            if error["type"] == "too_short" and error["input"]:
                continue  # only because entries that are wrong themselves do not count
            document.add((*at, *place), partial(_message, error, model, place))
    return None


def _message(error: ErrorDetails, model: type[BaseModel], place: Place) -> str:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    match kind:
        case "missing":
            return f"this key is missing{_meaning(model, place)}"
        case "extra_forbidden":
            return f"unknown key; {suggestion(str(place[-1]), _keys(model, place[:-1]))}"
        case "literal_error":
            return f"is {_shown(value)}; {context.get('expected', 'another value')} would be right"
        case "string_pattern_mismatch" if context.get("pattern") == NAME_PATTERN:
            return (
                f"is {_shown(value)}, which is no name: a letter or digit, then letters, digits, '_', '.' or '-', "
                "64 characters at most"
            )
        case "string_pattern_mismatch" if context.get("pattern") == PRINTABLE_PATTERN:
            return f"is {_shown(value)}, with control characters; letters, signs and line breaks are expected"
        case "finite_number":
            return f"is {_shown(value)}; a finite number is expected"
        case "greater_than_equal" | "less_than_equal":
            bound, side = (context["ge"], "at least") if "ge" in context else (context["le"], "at most")
            return f"is {_shown(value)}; {side} {bound:g} is expected{_unit(place)}"
        case "too_short":
            return "is empty; at least one entry is expected"
        case "too_long":
            return f"has too many entries; {context['max_length']} is the limit"
        case "string_too_short":
            return "is empty; say it in words"
        case "string_too_long":
            return f"is longer than the limit, {context['max_length']} characters"
        case "int_parsing_size":
            return "is a number beyond all reason; check the unit"
    if isinstance(value, bool) or kind in _KINDS:
        return f"is {_shown(value)}; {_KINDS.get(kind, 'something else is expected')}"
    return f"is {_shown(value)}; {error['msg'][:1].lower()}{error['msg'][1:]}"


def _shown(value: object) -> str:
    """A value as it stands in JSON, cut short."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float() if math.isnan(value):
            return "not a number (NaN)"
        case float() if math.isinf(value):
            return "infinite, or too large for a number"
        case int() if value.bit_length() > 1000:
            return f"a number of {len(str(value))} digits"
        case int() | float():
            return f"{value:.6g}" if abs(value) >= 1e15 else str(value)
        case str():
            return f"the text {value[:40]!r}" + ("..." if len(value) > 40 else "")
        case list():
            return "a list"
        case dict():
            return "an object"
    return str(value)[:40]


def _unit(place: Place) -> str:
    """The unit that a key's name ends in, as a reminder."""
    key = next((step for step in reversed(place) if isinstance(step, str)), "")
    for ending, unit in (
        ("_bytes_per_s", "bytes per second"),
        ("_bytes", "bytes"),
        ("_hz", "hertz"),
        ("_s", "seconds"),
    ):
        if key.endswith(ending):
            return f" ({unit})"
    return ""


def _model_at(model: type[BaseModel], place: Place) -> type[BaseModel] | None:
    """The model of the object at a place."""
    found: type[BaseModel] = model
    for step in place:
        if isinstance(step, int):
            continue
        field = _fields(found).get(step)
        inner = _inner_model(field.annotation) if field else None
        if inner is None:
            return None
        found = inner
    return found


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        if inner := _inner_model(argument):
            return inner
    return None


def _fields(model: type[BaseModel]) -> Mapping[str, Any]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _keys(model: type[BaseModel], place: Place) -> list[str]:
    found = _model_at(model, place)
    return list(_fields(found)) if found else []


def _meaning(model: type[BaseModel], place: Place) -> str:
    """What a missing key would say, from the field's docstring."""
    found = _model_at(model, place[:-1])
    field = _fields(found).get(str(place[-1])) if found else None
    return f": {field.description[0].lower()}{field.description[1:].rstrip('.')}" if field and field.description else ""
