"""Which performance models a design can name, and the type of the parameters of each.

A design names its performance model in ``model`` and gives that model's numbers in ``parameters``. What those are is
said in :mod:`mars_onnx.pool.model_parameters` and :mod:`mars_onnx.pool.cpu_parameters`, below the models themselves
(``mars_onnx.cost``), so that a pool file is checked to the line without loading any of them. A third party's model
brings its own: see :func:`parameters_type`.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from mars_onnx.errors import InputError
from mars_onnx.pool.cpu_parameters import CpuParameters
from mars_onnx.pool.model_parameters import (
    ArrayParameters,
    MeasuredParameters,
    RooflineParameters,
    SystolicParameters,
    TiledParameters,
    WinogradParameters,
)
from mars_onnx.pool.numbers import Parameters

#: Entry-point group of performance models. A name is what a design's ``model`` says; the object is a class with an
#: attribute ``Parameters`` (a subclass of :class:`Parameters`).
ENTRY_POINTS = "mars_onnx.performance_models"

_OWN: dict[str, type[Parameters]] = {
    "array": ArrayParameters,
    "cpu": CpuParameters,
    "measured": MeasuredParameters,
    "roofline": RooflineParameters,
    "systolic": SystolicParameters,
    "tiled": TiledParameters,
    "winograd": WinogradParameters,
}


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
