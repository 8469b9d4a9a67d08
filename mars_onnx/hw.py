"""``python -m mars_onnx.hw FILE|NAME``: check a pool file and describe the pool."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mars_onnx.errors import InputError, MarsError
from mars_onnx.pool import Pool, load_pool, shipped_pools
from mars_onnx.pool.clusters import interchangeable
from mars_onnx.pool.drawing import draw

#: Up to here every pair has its cell in a matrix; beyond, a table of how often each figure occurs.
_MATRIX_SIZE = 16
#: Up to here all pairs are looked at; beyond, those of the first accelerator of every group with all others.
_ALL_PAIRS_SIZE = 128
_ROWS = 64


def quantity(value: float, unit: str, base: int = 1000) -> str:
    """A figure with the prefix a person would use: ``1.25 GB/s``, ``512 MiB``, ``5 us``."""
    if value == float("inf"):
        return "-"
    if value == 0:
        return f"0 {unit}"
    prefixes = ("", "Ki", "Mi", "Gi", "Ti", "Pi") if base == 1024 else ("", "k", "M", "G", "T", "P")
    step = 0
    while value >= base and step < len(prefixes) - 1:
        value, step = value / base, step + 1
    if step or value >= 1:
        return f"{value:.4g} {prefixes[step]}{unit}"
    small = next((s for s in ((1e-3, "m"), (1e-6, "u"), (1e-9, "n")) if value >= s[0] * 0.9999), (1e-9, "n"))
    return f"{value / small[0]:.4g} {small[1]}{unit}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _accelerators(pool: Pool) -> Table:
    table = _table("Accelerators", "rank", "id", "kind", "group", "designs", "memory", "memory bandwidth")
    for accelerator in pool.accelerators[:_ROWS]:
        table.add_row(
            str(accelerator.rank),
            accelerator.id,
            accelerator.kind,
            str(pool.group_of[accelerator.rank]),
            ", ".join(design.name for design in accelerator.designs) + ("" if accelerator.adaptive else " (fixed)"),
            quantity(accelerator.memory_bytes, "B", 1024),
            quantity(accelerator.memory_bandwidth_bytes_per_s, "B/s"),
        )
    _cut(table, pool.size)
    return table


def _cut(table: Table, count: int) -> None:
    if count > _ROWS:
        table.add_row("...", f"{count - _ROWS} more")


def _designs(pool: Pool) -> Table:
    table = _table("Designs", "name", "what it is", "model", "parameters", "data", "source")
    for design in pool.designs.values():
        parameters = design.parameters.model_dump(mode="json", exclude_defaults=True)
        table.add_row(
            design.name,
            escape(design.title),
            design.model,
            escape("\n".join(f"{name} = {_short(value)}" for name, value in parameters.items())),
            f"{design.data_bits} bit" if design.data_bits else "as the tensor",
            escape(design.source) + (" (reconstructed)" if design.reconstructed else ""),
        )
    return table


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return (" x " if all(isinstance(inner, int) for inner in value) else "; ").join(map(_short, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(inner)}" for name, inner in value.items() if name != "source")
    return str(value)


def _links(pool: Pool) -> Table:
    table = _table("Links", "between", "bandwidth", "latency", "duplex", "source")
    alike: dict[tuple[float, float, bool, str], list[str]] = {}
    for link in pool.links:
        kind = (link.bandwidth_bytes_per_s, link.latency_s, link.full_duplex, link.source)
        alike.setdefault(kind, []).append(" - ".join(pool.node_ids[end] for end in link.ends))
    rows = list(alike.items())
    for (bandwidth, latency, full_duplex, source), pairs in rows[:_ROWS]:
        shown = pairs if len(pairs) <= _MATRIX_SIZE else [*pairs[:_MATRIX_SIZE], f"... ({len(pairs)} links)"]
        table.add_row(
            "\n".join(shown),
            quantity(bandwidth, "B/s"),
            quantity(latency, "s"),
            "full" if full_duplex else "half",
            escape(source),
        )
    _cut(table, len(rows))
    return table


def _between(pool: Pool) -> Table:
    """Effective bandwidth and latency between accelerators, with nothing else going on."""
    if 1 < pool.size <= _MATRIX_SIZE:
        table = _table(
            "Effective bandwidth between any two", "", *(accelerator.id for accelerator in pool.accelerators)
        )
        for first in range(pool.size):
            cells = (quantity(pool.bandwidth(first, second), "B/s") for second in range(pool.size))
            table.add_row(pool.accelerators[first].id, *cells)
        return table
    table = _table("Effective bandwidth between any two", "pairs", "bandwidth", "latency", "hops", "for example")
    kinds: Counter[tuple[float, float, int]] = Counter()
    example: dict[tuple[float, float, int], str] = {}
    for first, second in _pairs(pool):
        route = pool.route(first, second)
        kind = (route.bandwidth_bytes_per_s, route.latency_s, route.hops)
        kinds[kind] += 1
        example.setdefault(kind, f"{pool.node_ids[first]} - {pool.node_ids[second]}")
    for kind, count in sorted(kinds.items(), reverse=True):
        table.add_row(str(count), quantity(kind[0], "B/s"), quantity(kind[1], "s"), str(kind[2]), example[kind])
    return table


def _pairs(pool: Pool) -> Iterable[tuple[int, int]]:
    firsts = range(pool.size) if pool.size <= _ALL_PAIRS_SIZE else [ranks[0] for ranks in pool.groups()][:_ROWS]
    return (
        (first, second)
        for first in firsts
        for second in range(pool.size)
        if (first < second if pool.size <= _ALL_PAIRS_SIZE else first != second)
    )


def _members(pool: Pool, ranks: Sequence[int]) -> str:
    members = [pool.accelerators[rank].id for rank in ranks]
    shown = members if len(members) <= _MATRIX_SIZE else [*members[:3], "...", members[-1]]
    return f"{' '.join(shown)} ({len(members)})"


def _collectives(pool: Pool) -> str:
    rules = pool.collectives
    rate = rules.reduction_bytes_per_s
    sums = f"at {quantity(rate, 'B/s')}" if rate else "as fast as they come"
    added = "".join(
        f"; {op} takes {quantity(own.latency_s, 's')} more"
        + (f", and copies what is kept at {quantity(own.kept_bytes_per_s, 'B/s')}" if own.kept_bytes_per_s else "")
        + (
            f", and puts pieces that lie apart together at {quantity(own.assembled_bytes_per_s, 'B/s')}"
            if own.assembled_bytes_per_s
            else ""
        )
        for op, own in rules.overheads.items()
    )
    return (
        f"Collectives: {rules.chunks} chunk{'s' if rules.chunks > 1 else ''}, "
        f"{quantity(rules.endpoint_latency_s, 's')} at each end of a message, sums {sums}{added} "
        f"({escape(rules.source) if rules.source else 'the file says nothing: these are the defaults'})"
    )


def save_drawing(pool: Pool, path: Path) -> None:
    """Draw the topology as SVG, or as PNG where ``rsvg-convert`` is installed.

    Raises:
        InputError: Another ending, no such program, or the file cannot be written.
    """
    text = draw(pool)
    try:
        if path.suffix == ".svg":
            path.write_text(text, encoding="utf-8")
            return
        if path.suffix != ".png":
            raise InputError(f"{path}: drawings are .svg or .png")
        program = shutil.which("rsvg-convert")
        if program is None:
            raise InputError(f"{path}: PNG needs the program rsvg-convert (librsvg2-bin); draw an .svg instead")
        subprocess.run([program, "--output", str(path)], input=text.encode(), check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error


def _overlap(pool: Pool) -> str:
    """What happens at the same time, in one line."""
    own = pool.overlap
    if own is None:
        return "Nothing overlaps (the file does not say that anything does)."
    limit = "" if own.prefetch_bytes is None else f" of at most {quantity(own.prefetch_bytes, 'B', 1024)}"
    facts = {
        "communication with compute": own.communication_with_compute,
        f"double buffering{limit}": own.double_buffering,
        "contention": own.contention,
        "local moves": own.local_moves,
    }
    shown = ", ".join(f"{name}: {'yes' if holds else 'no'}" for name, holds in facts.items())
    return f"Simulated with {shown} (source: {own.source})."


def describe(pool: Pool, console: Console) -> None:
    """Print all that the file says, and what follows from it."""
    console.print(f"[bold]{pool.name}[/bold]: {escape(pool.title)}")
    console.print(f"source: {escape(pool.source)}")
    if pool.reconstructed:
        console.print("Some of its numbers are reconstructed from incomplete publications.", style="yellow")
    if pool.notes:
        console.print(escape(pool.notes))
    console.print(_accelerators(pool))
    console.print(_designs(pool))
    if pool.links:
        console.print(_links(pool))
        console.print(_between(pool))
    groups = pool.groups()
    console.print(f"Groups that communicate without a host: {len(groups)}")
    for index, ranks in enumerate(groups[:_ROWS]):
        console.print(f"  {index}: {_members(pool, ranks)}")
    if pool.size <= _ALL_PAIRS_SIZE:
        alike = interchangeable(pool)
        console.print(f"Accelerators that are interchangeable (links, designs and memory alike): {len(alike)} classes")
        for ranks in alike:
            console.print(f"  {_members(pool, ranks)}")
    console.print(_collectives(pool))
    console.print(f"Inputs start at {pool.node_ids[pool.inputs_at]}, outputs end at {pool.node_ids[pool.outputs_at]}.")
    console.print(escape(_overlap(pool)))
    console.print(f"sha256 of the content: {pool.sha256}", soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="mars-onnx-hw",
        description="Check a pool file and describe the pool.",
        epilog=f"shipped pools: {', '.join(shipped_pools())}",
    )
    parser.add_argument("pool", metavar="FILE|NAME", help="a pool file, or the name of a shipped pool")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="draw the topology, as .svg or .png")
    options = parser.parse_args(arguments)
    try:
        pool = load_pool(options.pool)
        if options.draw:
            save_drawing(pool, options.draw)
    except MarsError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    # A file or a pipe has no width of its own: leave room for whole lines there.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    describe(pool, console)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
