"""report.html: the report as one page for a browser, with everything in it and nothing fetched.

Names come from models, pools and anybody's files. The template escapes all text (jinja2's autoescape), data for the
script is JSON with the characters escaped that end a script element, and a content security policy allows the one
script of the page, by its hash, and no connection at all.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from mars_onnx.pool.drawing import draw
from mars_onnx.pool.topology import Pool
from mars_onnx.report.terminal import proof, sets_of
from mars_onnx.report.units import percent_text, size_text, time_text
from mars_onnx.simulation import Simulation

_US = 1e6
#: Digits of microseconds in the timeline.
_DIGITS = 4


def page_of(report: Mapping[str, Any], simulation: Simulation, pool: Pool) -> str:
    """The text of report.html.

    Args:
        report: The content of report.json.
        simulation: The run that the timeline shows.
        pool: The accelerators.
    """
    environment = Environment(
        loader=PackageLoader("mars_onnx.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(time=time_text, size=size_text, percent=percent_text, ms=_milliseconds, count=_count)
    script = _own("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html").render(
        report=report,
        proof=proof(dict(report)),
        sets=sets_of(dict(report)),
        communication=_communication(report),
        largest_cost_s=max([report["search"]["cost_s"], *_costs(report)]),
        drawing=base64.b64encode(draw(pool).encode()).decode(),
        script=Markup(script),
        style=Markup(_own("report.css")),
        script_hash=f"sha256-{digest}",
        timeline=htmlsafe_json_dumps(timeline_of(simulation, pool), separators=(",", ":"), allow_nan=False),
    )


def timeline_of(simulation: Simulation, pool: Pool) -> dict[str, Any]:
    """The run as the script of the page draws it.

    Returns:
        ``accelerators`` are the ids of the rows, ``kinds``, ``labels`` and ``operators`` texts that ``tasks`` refer to
        by index: ``[kind, label, operator, start, duration, rows, critical]``, times in microseconds.
    """
    rows = {rank: row for row, rank in enumerate(simulation.ranks)}
    kinds, labels, operators = _Texts(), _Texts(), _Texts()
    critical = set(simulation.critical_path)
    tasks = [
        [
            kinds.index(task.kind),
            labels.index(task.label),
            operators.index(task.op),
            round(task.start_s * _US, _DIGITS),
            round((task.end_s - task.start_s) * _US, _DIGITS),
            [rows[rank] for rank in task.ranks],
            int(place in critical),
        ]
        for place, task in enumerate(simulation.tasks)
        if task.end_s > task.start_s
    ]
    return {
        "accelerators": [pool.accelerators[rank].id for rank in rows],
        "latency_us": simulation.latency_s * _US,
        "kinds": list(kinds.places),
        "labels": list(labels.places),
        "operators": list(operators.places),
        "tasks": tasks,
    }


class _Texts:
    """Texts, each once."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}

    def index(self, text: str) -> int:
        return self.places.setdefault(text, len(self.places))


def _own(name: str) -> str:
    return (files("mars_onnx.report") / "templates" / name).read_text(encoding="utf-8")


def _costs(report: Mapping[str, Any]) -> list[float]:
    return [row["cost_s"] for row in report["comparators"].values() if row["cost_s"] is not None]


def _communication(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per operator how often, how much, how long."""
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in report["communication"]:
        found.setdefault(entry["op"], []).append(entry)
    return [
        {
            "op": op,
            "count": len(own),
            "bytes": sum(entry["bytes"] for entry in own),
            "seconds": sum(entry["end_s"] - entry["start_s"] for entry in own),
            "largest": max(own, key=lambda entry: entry["bytes"]),
        }
        for op, own in sorted(found.items())
    ]


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.4f}"


def _count(number: int) -> str:
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
