"""The plot of predicted against measured times. Needs matplotlib, which only this benchmark does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BAND = 0.1


class Point(Protocol):
    """Something that was predicted and measured."""

    @property
    def model(self) -> str: ...

    @property
    def predicted_s(self) -> float | None: ...

    @property
    def measured_s(self) -> float: ...


def plot(runs: Sequence[Point], layers: Sequence[Point], path: Path) -> None:
    """Two panels: whole networks with all mappings, and single kernels."""
    mpl.rcParams["font.size"] = 8
    figure = Figure(figsize=(7.2, 3.6), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    _panel(left, runs, 1e3, "ms", "networks")
    _panel(right, layers, 1e6, "us", "kernels")
    left.legend(loc="upper left", frameon=False)
    figure.savefig(path, pil_kwargs={"optimize": True})


def _panel(axes: Axes, points: Sequence[Point], scale: float, unit: str, title: str) -> None:
    drawn = [point for point in points if point.predicted_s]
    # "resnet18, rows" is a part of resnet18.
    for model in dict.fromkeys(point.model.split(",")[0] for point in drawn):
        own = [point for point in drawn if point.model.split(",")[0] == model]
        measured = [point.measured_s * scale for point in own]
        predicted = [(point.predicted_s or 0.0) * scale for point in own]
        axes.plot(measured, predicted, "o", markersize=3, alpha=0.7, label=model)
    values = [point.measured_s * scale for point in drawn]
    ends = (min(values) / 1.3, max(values) * 1.3)
    axes.plot(ends, ends, color="black", linewidth=0.8)
    for factor in (1 - _BAND, 1 + _BAND):
        axes.plot(ends, [end * factor for end in ends], color="gray", linewidth=0.6, linestyle="--")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(f"{title} (dashed: {_BAND:.0%})")
    axes.set_xlabel(f"measured, {unit}")
    axes.set_ylabel(f"predicted, {unit}")
