"""How the exact search scales: ``python -m benchmarks.scaling [--write docs/scaling.md] [--plot PNG]``.

Every case has a process of its own. Networks are made here; their widths are small, since only shapes count.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import onnx

from benchmarks.markdown import table, write_between_markers
from benchmarks.searching import (
    Results,
    builder_module,
    canonical_problem,
    figure,
    first_accelerators,
    plain,
    proof,
    search_here,
    shipped_problem,
)
from mars_onnx.search.method import Objective, SearchOptions
from mars_onnx.search.problem import Problem

_ROOT = Path(__file__).parent.parent
#: Address space of a case; what wants more fails by itself and leaves the machine alone.
_MOST_BYTES = 10 * 2**30
NOT_RUN = "not run"


class Case(NamedTuple):
    """A search."""

    network: str
    pool: str
    accelerators: int
    objective: Objective = Objective.LATENCY


POOLS = (
    *(Case("resnet34", "fpga_pool", count) for count in (4, 8)),
    *(Case("resnet34", "fpga_tree_pool", count) for count in (8, 16, 32)),
    *(Case("resnet34", "large_pool", count) for count in (8, 16, 32, 64)),
)
DEPTHS = (
    *(Case(f"chain {layers}", "fpga_pool", 8) for layers in (50, 100, 200, 500, 1000)),
    *(Case(f"residual {blocks}", "fpga_pool", 8) for blocks in (8, 32, 128)),
    *(Case(f"transformer {blocks}", "fpga_pool", 8) for blocks in (12, 24, 48, 80)),
    *(Case("light_densenet121", "fpga_pool", count) for count in (4, 8)),
)
STREAMS = (
    *(Case(name, "fpga_pool", 8, Objective.THROUGHPUT) for name in ("alexnet", "resnet34", "wideresnet50_2")),
    *(Case("resnet34", pool, 16, Objective.THROUGHPUT) for pool in ("fpga_tree_pool", "large_pool")),
    Case("resnet34", "large_pool", 32, Objective.THROUGHPUT),
)
_STAGES = 4
_FIRST_WIDTH = 16
_FIRST_SIZE = 56


def made(name: str) -> onnx.ModelProto:
    """A network of this file by its name: ``chain LAYERS``, ``residual BLOCKS`` or ``transformer BLOCKS``."""
    kind, _, size = name.partition(" ")
    if kind == "chain":
        skeleton = _chain(int(size))
    elif kind == "residual":
        skeleton = _residual(int(size))
    else:
        skeleton = builder_module("encoder").encoder(blocks=int(size), sequence=64, hidden=64, heads=4, inner=256)
    model: onnx.ModelProto = builder_module("random_weights").fill(skeleton, 0)
    return model


def _writer(name: str) -> Any:
    return builder_module("graph_writer").GraphWriter(name, source="synthetic, benchmarks.scaling", opset=17)


def _stages(count: int) -> list[int]:
    """How many of ``count`` come in each stage."""
    return [count * (stage + 1) // _STAGES - count * stage // _STAGES for stage in range(_STAGES)]


def _chain(layers: int) -> Any:
    """Convolutions of 3x3, each with a Relu, both counted as layers; four stages that halve size and double width."""
    writer = _writer("chain")
    x, width = writer.input("image", 1, _FIRST_WIDTH, _FIRST_SIZE, _FIRST_SIZE), _FIRST_WIDTH
    for stage, count in enumerate(_stages(layers // 2)):
        for number in range(count):
            first = stage > 0 and number == 0
            wide = width * 2 if first else width
            x = writer.conv(x, f"conv{stage}.{number}", (width, wide), 3, stride=2 if first else 1, bias=True)
            x, width = writer.relu(x, f"relu{stage}.{number}"), wide
    writer.output(x, "features")
    return writer.skeleton()


def _residual(blocks: int) -> Any:
    """Basic blocks of ResNet (two convolutions, a sum around them) in four stages."""
    block = builder_module("residual").basic_block
    writer = _writer("residual")
    x, width = writer.input("image", 1, _FIRST_WIDTH, _FIRST_SIZE, _FIRST_SIZE), _FIRST_WIDTH
    for stage, count in enumerate(_stages(blocks)):
        for number in range(count):
            first = stage > 0 and number == 0
            wide = width * 2 if first else width
            x, width = block(writer, x, f"layer{stage}.{number}", (width, wide), 2 if first else 1), wide
    writer.output(x, "features")
    return writer.skeleton()


def search_case(case: Case, limit_s: float) -> dict[str, Any]:
    """Search one case in this process."""
    name, pool_name, count, objective = case
    pool = first_accelerators(pool_name, count)
    problem: Problem = canonical_problem(made(name), pool) if " " in name else shipped_problem(name, pool)
    outcome = search_here(problem, pool, "exact", SearchOptions(objective, time_limit_s=limit_s))
    return {**plain(outcome), "layers": len(problem.layers)}


def measure(case: Case, limit_s: float, results: Results, search: bool = True) -> Mapping[str, Any]:
    """What is known of a case, or is found out now; what failed has an ``error_text``."""
    key = " / ".join(map(str, case if case.objective is not Objective.LATENCY else case[:-1]))
    known = results.get(key)
    if known is not None and ("error_text" not in known or not search):
        return known
    if not search:
        return {"error_text": NOT_RUN}
    facts: dict[str, Any]
    command = (sys.executable, "-m", "benchmarks.scaling", "--time-limit", str(limit_s), "--once", json.dumps(case))
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(key, done.stderr, file=sys.stderr, flush=True)
        facts = {"error_text": (done.stderr.strip() or f"ended with {done.returncode}").splitlines()[-1]}
    else:
        facts = json.loads(done.stdout)
    results.note(key, facts)
    print(key, facts, file=sys.stderr, flush=True)
    return facts


def row(case: Case, facts: Mapping[str, Any]) -> tuple[str, ...]:
    """A line of the table."""
    name, pool, count, _ = case
    if "error_text" in facts:
        text = facts["error_text"].replace("|", "/")
        return name, pool, str(count), "", text if text == NOT_RUN else f"**failed**: {text}", "", "", "", ""
    sets = " + ".join(map(str, facts["sets"]))
    return (
        name,
        pool,
        str(count),
        str(facts["layers"]),
        sets,
        f"{facts['cost_s'] * 1e3:.3f}",
        proof(facts),
        f"{facts['cpu_s']:.1f}",
        f"{facts['peak_mib']:.0f}",
    )


def plot(found: Mapping[Case, Mapping[str, Any]], path: Path) -> None:
    """CPU seconds by accelerators and by layers; hollow where the proof is not complete."""
    sound = {case: facts for case, facts in found.items() if "error_text" not in facts}
    with figure(path, 2, (7.2, 3.0)) as (left, right):
        for pool in dict.fromkeys(case.pool for case in POOLS):
            own = [(case.accelerators, sound[case]) for case in POOLS if case.pool == pool and case in sound]
            _line(left, own, pool)
        for kind in dict.fromkeys(case.network.split()[0] for case in DEPTHS):
            own = [
                (sound[case]["layers"], sound[case])
                for case in DEPTHS
                if case.network.split()[0] == kind and case.accelerators == 8 and case in sound
            ]
            _line(right, own, kind)
        left.set_xlabel("accelerators")
        left.set_title("ResNet-34")
        left.set_ylabel("CPU seconds (hollow: stopped with a gap)")
        counts = sorted({case.accelerators for case in POOLS})
        right.set_xlabel("layers")
        right.set_title("fpga_pool, eight accelerators")
        seconds = (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
        for axes, corner in ((left, "lower right"), (right, "upper left")):
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_ylim(0.15, 200)
            axes.set_yticks(seconds, [str(tick) for tick in seconds])
            axes.legend(frameon=False, fontsize=7, loc=corner)
        left.set_xlim(3.5, 73)
        right.set_xlim(40, 3500)
        left.set_xticks(counts, [str(count) for count in counts])
        left.minorticks_off()
        ticks = (50, 100, 200, 500, 1000, 2000)
        right.set_xticks(ticks, [str(tick) for tick in ticks])
        right.minorticks_off()


def _line(axes: Any, points: Sequence[tuple[int, Mapping[str, Any]]], label: str) -> None:
    if not points:
        return
    (line,) = axes.plot([at for at, _ in points], [facts["cpu_s"] for _, facts in points], linewidth=1, label=label)
    for at, facts in points:
        fill = line.get_color() if facts["ending"] == "proven" else "white"
        axes.plot(at, facts["cpu_s"], "o", markersize=4, color=line.get_color(), markerfacecolor=fill)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.scaling", description=__doc__)
    parser.add_argument("--time-limit", type=float, default=60.0, metavar="SECONDS", help="per search (default 60)")
    parser.add_argument("--results", type=Path, default=Path("build/scaling.jsonl"), help="continue with this file")
    parser.add_argument("--no-search", action="store_true", help="only write what the results hold")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into FILE, between its markers")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the picture (needs matplotlib)")
    parser.add_argument("--once", metavar="JSON", help="search this case in this process and print JSON")
    options = parser.parse_args(arguments)
    if options.once:
        name, pool, count, objective = json.loads(options.once)
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
        print(json.dumps(search_case(Case(name, pool, count, Objective(objective)), options.time_limit)))
        return 0
    results = Results(options.results)
    every = (*DEPTHS, *POOLS, *STREAMS)
    found = {case: measure(case, options.time_limit, results, not options.no_search) for case in every}
    for name, cases, cost in (("scaling", (*DEPTHS, *POOLS), "latency"), ("streams", STREAMS, "period")):
        headings = ("network", "pool", "accelerators", "layers", "sets", f"{cost}, ms", "gap", "CPU s", "peak MiB")
        text = table(headings, [row(case, found[case]) for case in cases], 4)
        if options.write:
            write_between_markers(options.write, name, text)
        else:
            print(text)
    if options.plot:
        plot(found, options.plot)
    return 1 if any("error_text" in facts for facts in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
