"""The report on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mars_onnx.report.units import percent_text, size_text

#: Columns from which there is room for everything.
_WIDE = 90
_TIMES = ("compute", "transfer", "idle")


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
    console.print(_sets(report))
    if verbose:
        console.print(_layers(report["layers"]))
    counts: dict[str, list[int]] = {}
    for entry in report["communication"]:
        counts.setdefault(entry["op"], []).append(entry["bytes"])
    moved = ", ".join(f"{len(sizes)} {op} ({size_text(sum(sizes))})" for op, sizes in sorted(counts.items()))
    console.print(f"predicted {headline(report)}; communication: {moved or 'none'}", highlight=False)
    console.print(proof(report), highlight=False)
    if search["reranked"]:
        console.print(_reranked(search["reranked"]))
    if report["comparators"]:
        console.print(_comparators(report))
    whole = report["computed_whole"]
    if whole:
        shown = ", ".join(whole[:5]) + (f" and {len(whole) - 5} more" if len(whole) > 5 else "")
        console.print(f"[yellow]computed whole for want of a rule:[/] {_plain(shown)}", highlight=False)
    _verification(report["verification"], console)
    console.print(f"written to {folder}/", highlight=False, markup=False, soft_wrap=True)


def headline(report: dict[str, Any]) -> str:
    """Latency, and what else is to be small, in words."""
    latency, cost_s = report["latency_s"], report["search"]["cost_s"]
    if report["objective"] == "throughput":
        rate = report["throughput_per_s"]
        return f"throughput {rate:.4g} per s ({cost_s * 1e3:.3f} ms between two), latency {latency * 1e3:.3f} ms"
    also = "" if f"{latency:.3e}" == f"{cost_s:.3e}" else f" (the search's cost: {cost_s * 1e3:.3f} ms)"
    return f"latency {latency * 1e3:.3f} ms{also}"


def proof(report: dict[str, Any]) -> str:
    """What is known of how far from the best the mapping is, in words."""
    bound_s, gap, ending = report["lower_bound_s"], report["optimality_gap"], report["search"]["ending"]
    if bound_s is None:
        why = {"given": "the mapping was given", "heuristic": "the method proves nothing"}.get(ending, ending)
        return f"no lower bound: {why}"
    if gap == 0:
        return "proven optimal in the space that was searched: gap 0"
    size = "not proven" if gap is None else percent_text(gap)
    return f"lower bound {bound_s * 1e3:.3f} ms, gap {size}; the search ended: {ending}"


def sets_of(report: dict[str, Any]) -> list[tuple[int, list[str], str, int]]:
    """Per set its index, the ids of its accelerators, its designs, and how many layers it computes."""
    rows: list[tuple[int, list[str], str, int]] = []
    used = [row for row in report["accelerators"] if row["set"] is not None]
    for index in sorted({row["set"] for row in used}):
        own = [row for row in used if row["set"] == index]
        designs = ", ".join(dict.fromkeys(row["design"] for row in own))
        layers = sum(layer["set"] == index for layer in report["layers"])
        rows.append((index, [row["id"] for row in own], designs, layers))
    return rows


def _sets(report: dict[str, Any]) -> Table:
    table = _table(("set", "accelerators", "design"), ("layers",))
    for index, ids, designs, layers in sets_of(report):
        table.add_row(str(index), _plain(", ".join(ids)), _plain(designs), str(layers))
    return table


def _reranked(rows: list[dict[str, Any]]) -> Table:
    stream = any(row["period_s"] is not None for row in rows)
    table = _table(("best mappings, simulated",), ("cost", *(["between two"] if stream else []), "latency"))
    for place, row in enumerate(rows):
        state = "kept" if row["kept"] else "" if row["fits"] else "does not fit"
        figures = (row[key] for key in ("cost_s", "period_s", "latency_s") if row[key] is not None)
        table.add_row(f"{place + 1} {state}".strip(), *(f"{seconds * 1e3:.3f}" for seconds in figures))
    return table


def _comparators(report: dict[str, Any]) -> Table:
    """Costs of other methods, and by how much ours is less."""
    table = _table(("compared with",), ("cost", "reduction", "seconds"))
    for name, row in report["comparators"].items():
        if row["failure"] is not None:
            table.add_row(_plain(name), "finds nothing", "-", f"{row['seconds']:.2f}")
            continue
        name = name if row["fits"] else f"{name} (does not fit)"
        less = "-" if row["reduction"] is None else f"{row['reduction']:.1%}"
        table.add_row(_plain(name), f"{row['cost_s'] * 1e3:.3f}", less, f"{row['seconds']:.2f}")
    return table


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
