"""Number types with bounds, and the parameters of every performance model that a design can name.

A design names its performance model in ``model`` and gives that model's numbers in ``parameters``. What those are is
said here, below the models themselves (``mars_onnx.cost``), so that a pool file is checked to the line without
loading any of them. A third party's model brings its own: see :func:`parameters_type`.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mars_onnx.errors import InputError

#: Entry-point group of performance models. A name is what a design's ``model`` says; the object is a class with an
#: attribute ``Parameters`` (a subclass of :class:`Parameters`).
ENTRY_POINTS = "mars_onnx.performance_models"


def _whole_number(value: object) -> object:
    """1e9 is a float to Python but a whole number to a person, and to JSON Schema."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# The upper bounds are far beyond any hardware: they catch a wrong unit and keep all sums of times finite.
Bandwidth = Annotated[float, Field(strict=True, ge=1, le=1e16, allow_inf_nan=False)]
Latency = Annotated[float, Field(strict=True, ge=0, le=60, allow_inf_nan=False)]
Clock = Annotated[float, Field(strict=True, ge=1, le=1e12, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, ge=1e-9, le=1e9, allow_inf_nan=False)]
Bytes = Annotated[int, Field(strict=True, ge=1, le=2**50), BeforeValidator(_whole_number)]
Count = Annotated[int, Field(strict=True, ge=1, le=2**20), BeforeValidator(_whole_number)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(min_length=1, max_length=4000)]


class Parameters(BaseModel):
    """Base of the parameters of a performance model: frozen, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class KernelGain(Parameters):
    """Convolutions that a design computes with fewer multiplications than the direct way, as Winograd's do.

    Attributes:
        kernel: Extents of the kernel, per spatial dimension.
        strides: Its steps, per spatial dimension; dilations have to be 1.
        factor: Multiply-accumulates of the direct way per multiplication done.
        source: Where the factor is from.
    """

    kernel: Annotated[tuple[Count, ...], Field(min_length=1, max_length=3)]
    strides: Annotated[tuple[Count, ...], Field(min_length=1, max_length=3)]
    factor: Positive
    source: Text


class RooflineParameters(Parameters):
    """A peak rate of arithmetic, bounded by the memory's bandwidth (which the accelerator gives).

    Attributes:
        clock_hz: Clock of the arithmetic.
        macs_per_cycle: Multiply-accumulates per cycle with every unit busy.
        overhead_s: What every operator costs on top, however small.
        gains: Kernels that do better than ``macs_per_cycle``.
    """

    clock_hz: Clock
    macs_per_cycle: Positive
    overhead_s: Latency = 0.0
    gains: tuple[KernelGain, ...] = ()


_OWN: dict[str, type[Parameters]] = {"roofline": RooflineParameters}


def own_models() -> dict[str, type[Parameters]]:
    """The performance models that mars_onnx ships, by name, with the type of their parameters."""
    return dict(_OWN)


def known_models() -> tuple[str, ...]:
    """Names of all performance models that a design can name here, sorted."""
    return tuple(sorted({*_OWN, *(point.name for point in entry_points(group=ENTRY_POINTS))}))


def parameters_type(model: str) -> type[Parameters] | None:
    """The type of a performance model's parameters, ``None`` if there is no such model.

    Raises:
        InputError: The model is a third party's and cannot be loaded, or does not say its parameters.
    """
    if model in _OWN:
        return _OWN[model]
    for point in entry_points(group=ENTRY_POINTS, name=model):
        try:
            plugin: Any = point.load()
        except Exception as error:
            raise InputError(f"the performance model {model!r} ({point.value}) cannot be loaded: {error}") from error
        found = getattr(plugin, "Parameters", None)
        if isinstance(found, type) and issubclass(found, Parameters):
            return found
        raise InputError(
            f"the performance model {model!r} ({point.value}) has no class attribute `Parameters`; "
            "it should be a subclass of mars_onnx.pool.Parameters"
        )
    return None
