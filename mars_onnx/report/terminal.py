"""The report on a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def show(report: dict[str, Any], folder: Path, console: Console, *, verbose: bool = False) -> None:
    """Print what a person wants to know first, and with ``verbose`` every layer."""
    model, pool, search = report["model"], report["pool"], report["search"]
    console.print(
        f"[bold]{model['name']}[/] ({model['layers']} layers) on [bold]{pool['name']}[/] "
        f"({pool['accelerators']} accelerators), mapping by {search['method']} in {search['seconds']:.2f} s",
        highlight=False,
    )
    console.print(_accelerators(report["accelerators"]))
    if verbose:
        console.print(_layers(report["layers"]))
    counts: dict[str, list[int]] = {}
    for entry in report["communication"]:
        counts.setdefault(entry["op"], []).append(entry["bytes"])
    moved = ", ".join(f"{len(sizes)} {op} ({size_text(sum(sizes))})" for op, sizes in sorted(counts.items()))
    console.print(
        f"predicted latency {report['latency_s'] * 1e3:.3f} ms; communication: {moved or 'none'}", highlight=False
    )
    whole = report["computed_whole"]
    if whole:
        shown = ", ".join(whole[:5]) + (f" and {len(whole) - 5} more" if len(whole) > 5 else "")
        console.print(f"[yellow]computed whole for want of a rule:[/] {shown}", highlight=False)
    _verification(report["verification"], console)
    console.print(f"written to {folder}/", highlight=False)


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


def _accelerators(rows: list[dict[str, Any]]) -> Table:
    table = Table("accelerator", "set", "design", box=None, pad_edge=False)
    for heading in ("compute ms", "communication ms", "idle ms", "weights", "memory needed", "of"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["id"],
            "-" if row["set"] is None else str(row["set"]),
            row["design"] or "unused",
            *(f"{row[key] * 1e3:.3f}" for key in ("compute_s", "communication_s", "idle_s")),
            *(size_text(row[key]) for key in ("weight_bytes", "peak_memory_bytes", "memory_bytes")),
        )
    return table


def _layers(rows: list[dict[str, Any]]) -> Table:
    table = Table("layer", "op", "set", "strategy", box=None, pad_edge=False)
    for heading in ("compute ms", "communication ms"):
        table.add_column(heading, justify="right")
    for row in rows:
        times = (f"{row[key] * 1e3:.3f}" for key in ("compute_s", "communication_s"))
        table.add_row(row["name"], row["op"], str(row["set"]), row["strategy"], *times)
    return table


def size_text(count: int) -> str:
    """A number of bytes for a person."""
    for size, unit in _UNITS:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
