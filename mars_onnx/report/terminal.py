"""The report on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

#: Columns from which there is room for everything.
_WIDE = 90
_TIMES = ("compute", "transfer", "idle")
_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def show(report: dict[str, Any], folder: Path, console: Console, *, verbose: bool = False) -> None:
    """Print what a person wants to know first, and with ``verbose`` every layer."""
    model, pool, search = report["model"], report["pool"], report["search"]
    console.print(
        f"[bold]{_plain(model['name'])}[/] ({model['layers']} layers) on [bold]{_plain(pool['name'])}[/] "
        f"({pool['accelerators']} accelerators), {_how(search['method'])} in {search['seconds']:.2f} s; "
        "times in ms",
        highlight=False,
    )
    console.print(_accelerators(report["accelerators"], console.width))
    if verbose:
        console.print(_layers(report["layers"]))
    counts: dict[str, list[int]] = {}
    for entry in report["communication"]:
        counts.setdefault(entry["op"], []).append(entry["bytes"])
    moved = ", ".join(f"{len(sizes)} {op} ({size_text(sum(sizes))})" for op, sizes in sorted(counts.items()))
    latency, cost = (f"{seconds * 1e3:.3f}" for seconds in (report["latency_s"], search["cost_s"]))
    also = "" if latency == cost else f" (the search's cost: {cost} ms)"
    console.print(f"predicted latency {latency} ms{also}; communication: {moved or 'none'}", highlight=False)
    whole = report["computed_whole"]
    if whole:
        shown = ", ".join(whole[:5]) + (f" and {len(whole) - 5} more" if len(whole) > 5 else "")
        console.print(f"[yellow]computed whole for want of a rule:[/] {_plain(shown)}", highlight=False)
    _verification(report["verification"], console)
    console.print(f"written to {folder}/", highlight=False, markup=False, soft_wrap=True)


def _how(method: str) -> str:
    """Where the mapping is from: ``method`` is ``mapping`` where it was given."""
    return "mapping as given, read" if method == "mapping" else f"mapping by {method}"


def _verification(facts: dict[str, Any], console: Console) -> None:
    if facts["status"] == "not run":
        console.print("not compared with the original; --verify does that", highlight=False)
        return
    colour = "green" if facts["status"] == "equal" else "red"
    deep = facts.get("deep")
    also = f"; {deep['boxes'] + deep['partial_boxes']} boxes of {deep['tensors']} tensors compared" if deep else ""
    console.print(
        f"[{colour}]compared with the original: {facts['status']}[/] "
        f"(largest difference {facts['max_abs_error']:.3g}, relative {facts['max_rel_error']:.3g}{also})",
        highlight=False,
    )


def _accelerators(rows: list[dict[str, Any]], width: int) -> Table:
    wide = width >= _WIDE
    table = _table(("accelerator", "set", "design"), (*_TIMES, *(("weights",) if wide else ()), "memory", "of"))
    for row in rows:
        table.add_row(
            _plain(row["id"]),
            "-" if row["set"] is None else str(row["set"]),
            _plain(row["design"] or "unused"),
            *(f"{row[key] * 1e3:.3f}" for key in ("compute_s", "communication_s", "idle_s")),
            *((size_text(row["weight_bytes"]),) if wide else ()),
            *(size_text(row[key]) for key in ("peak_memory_bytes", "memory_bytes")),
        )
    return table


def _layers(rows: list[dict[str, Any]]) -> Table:
    table = _table(("layer", "op", "set", "strategy"), _TIMES[:2])
    for row in rows:
        times = (f"{row[key] * 1e3:.3f}" for key in ("compute_s", "communication_s"))
        table.add_row(_plain(row["name"]), _plain(row["op"]), str(row["set"]), _plain(row["strategy"]), *times)
    return table


def _table(texts: Sequence[str], numbers: Sequence[str]) -> Table:
    """A table without lines, whose numbers are never broken; names are, where the terminal is narrow."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in texts:
        table.add_column(heading, overflow="fold", vertical="top")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _plain(text: str) -> str:
    """A name from a model, fit for a terminal: neither markup nor control characters, which it would obey."""
    return escape(text if text.isprintable() else repr(text))


def size_text(count: int) -> str:
    """A number of bytes for a person."""
    for size, unit in _UNITS:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
