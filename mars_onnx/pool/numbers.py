"""Number types with bounds, and the base of all parameters of performance models."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _whole_number(value: object) -> object:
    """1e9 is a float to Python but a whole number to a person, and to JSON Schema."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# The upper bounds are far beyond any hardware: they catch a wrong unit and keep all sums of times finite.
Bandwidth = Annotated[float, Field(strict=True, ge=1, le=1e16, allow_inf_nan=False)]
Latency = Annotated[float, Field(strict=True, ge=0, le=60, allow_inf_nan=False)]
Clock = Annotated[float, Field(strict=True, ge=1, le=1e12, allow_inf_nan=False)]
Rate = Annotated[float, Field(strict=True, ge=1, le=1e18, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, ge=1e-9, le=1e9, allow_inf_nan=False)]
Bytes = Annotated[int, Field(strict=True, ge=1, le=2**50), BeforeValidator(_whole_number)]
Count = Annotated[int, Field(strict=True, ge=1, le=2**20), BeforeValidator(_whole_number)]
Flag = Annotated[bool, Field(strict=True)]
#: Lines of text without other control characters, which a terminal would obey and a drawing cannot hold.
PRINTABLE_PATTERN = r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$"
Text = Annotated[str, Field(min_length=1, max_length=4000, pattern=PRINTABLE_PATTERN)]
Notes = Annotated[str, Field(max_length=20000, pattern=PRINTABLE_PATTERN)]


class Parameters(BaseModel):
    """Base of the parameters of a performance model: frozen, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
