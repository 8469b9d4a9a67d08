"""The networks of MARS on its pool, all search methods on one cost: ``python -m benchmarks.paper [--write FILE]``.

Costs are lockstep latencies by ``mars_onnx.search.evaluate``. Every search runs in a process of its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks.markdown import table, write_between_markers
from benchmarks.searching import Results, edited_pool, figure, plain, proof, search_apart, shipped_problem
from mars_onnx.pool.topology import Pool
from mars_onnx.search.method import SearchOptions

NETWORKS = ("alexnet", "vgg16", "resnet34", "resnet101", "wideresnet50_2")
BRANCHED = ("casia_surf", "facebagnet")
GBIT_PER_S = (1.0, 1.2, 2.0, 4.0, 10.0)
#: What the shipped pool has inside a group.
SHIPPED_GBIT_PER_S = 8.0
SEEDS = range(5)
OTHERS = ("baseline", "genetic", "h2h", "h2h-fixed", "greedy", "uniform", "single")
#: Average reductions that MARS (DAC 2023) and its journal version (TCAD 2024) publish, in percent.
PUBLISHED_BASELINE = (32.2, 34.3)
PUBLISHED_H2H = (59.4, 63.0)

METHODS_COMPARED = ("exact", *OTHERS)
NOT_RUN = "not run"

Facts = Mapping[str, Any]
#: A network, and the speed of links inside a group in Gbit/s.
Case = tuple[str, float]
CHAINS: tuple[Case, ...] = tuple((network, SHIPPED_GBIT_PER_S) for network in NETWORKS)
BRANCHES: tuple[Case, ...] = tuple((network, speed) for network in BRANCHED for speed in GBIT_PER_S)


def linked(gbit_per_s: float) -> Pool:
    """``fpga_pool`` with links of that speed inside a group; those to the host keep their quarter of it."""

    def edit(document: dict[str, Any]) -> None:
        for link in document["links"]:
            link["bandwidth_bytes_per_s"] *= gbit_per_s / SHIPPED_GBIT_PER_S

    return edited_pool("fpga_pool", edit)


def label(method: str, seed: int) -> str:
    """How a search is called in the results."""
    return f"{method} {seed}" if method == "genetic" else method


def measure(network: str, gbit_per_s: float, methods: Sequence[str], limit_s: float, results: Results) -> None:
    """Let all of these methods choose that have not yet; the limit is the exact search's."""
    wanted = [(method, seed) for method in methods for seed in seeds_of(method)]
    missing = [one for one in wanted if results.get(f"{network} {gbit_per_s:g} {label(*one)}") is None]
    if not missing:
        return
    pool = linked(gbit_per_s)
    problem = shipped_problem(network, pool)
    for method, seed in missing:
        options = SearchOptions(time_limit_s=limit_s if method == "exact" else None, seed=seed)
        outcome = search_apart(problem, pool, method, options)
        results.note(f"{network} {gbit_per_s:g} {label(method, seed)}", plain(outcome))
        print(network, f"{gbit_per_s:g} Gbit/s", label(method, seed), outcome, file=sys.stderr, flush=True)


def seeds_of(method: str) -> Sequence[int]:
    """The seeds that a method is tried with."""
    return SEEDS if method == "genetic" else (0,)


def facts_of(results: Results, network: str, gbit_per_s: float, method: str) -> list[Facts]:
    """What was measured, a line per seed; nothing if a seed is missing."""
    found = [results.get(f"{network} {gbit_per_s:g} {label(method, seed)}") for seed in seeds_of(method)]
    known: list[Facts] = [facts for facts in found if facts is not None]
    return known if len(known) == len(found) else []


def reduction(results: Results, network: str, gbit_per_s: float, other: str) -> float | None:
    """Share of another method's latency that the exact search saves; of the genetic algorithm's on average."""
    exact = facts_of(results, network, gbit_per_s, "exact")
    others = facts_of(results, network, gbit_per_s, other)
    if not exact or not others:
        return None
    return float(1 - exact[0]["cost_s"] / mean(facts["cost_s"] for facts in others))


def average(results: Results, cases: Sequence[Case], other: str) -> str:
    """The mean reduction over cases, if all of them were measured."""
    found = [reduction(results, *case, other) for case in cases]
    known = [value for value in found if value is not None]
    return f"{mean(known):.1%}" if len(known) == len(found) else NOT_RUN


def genetic_gaps(results: Results, network: str, gbit_per_s: float) -> str:
    """Least and most that the genetic algorithm is above the exact search, over its seeds."""
    exact = facts_of(results, network, gbit_per_s, "exact")
    above = [facts["cost_s"] / exact[0]["cost_s"] - 1 for facts in facts_of(results, network, gbit_per_s, "genetic")]
    return f"{min(above):.2%} to {max(above):.2%}" if above else NOT_RUN


def cost_table(results: Results, cases: Sequence[Case]) -> str:
    """Latency by the exact search, its proof, and what it saves against each other method."""
    rows = []
    for network, speed in cases:
        found = facts_of(results, network, speed, "exact")
        if not found:
            continue
        saved = [reduction(results, network, speed, other) for other in OTHERS]
        rows.append(
            (
                network,
                f"{speed:g}",
                " + ".join(map(str, found[0]["sets"])),
                f"{found[0]['cost_s'] * 1e3:.3f}",
                proof(found[0]),
                *(NOT_RUN if value is None else f"{value:.1%}" for value in saved),
                genetic_gaps(results, network, speed),
            )
        )
    rows.append(("**average**", "", "", "", "", *(f"**{average(results, cases, other)}**" for other in OTHERS), ""))
    headings = ("network", "Gbit/s", "sets", "exact, ms", "gap", *OTHERS, "genetic above exact, 5 seeds")
    return table(headings, rows, len(headings) - 3)


def time_table(results: Results, cases: Sequence[Case]) -> str:
    """CPU seconds of every method; of the genetic algorithm the median over seeds."""
    rows = []
    for network, speed in cases:
        cells = []
        for method in METHODS_COMPARED:
            taken = [facts["cpu_s"] for facts in facts_of(results, network, speed, method)]
            cells.append(f"{median(taken):.2f}" if taken else NOT_RUN)
        rows.append((network, f"{speed:g}", *cells))
    return table(("network", "Gbit/s", *METHODS_COMPARED), rows, 1 + len(METHODS_COMPARED))


def text(results: Results, limit_s: float) -> str:
    """What the document shows."""
    cases = [*CHAINS, *BRANCHES]
    published = [[f"{value} %" for value in values] for values in (PUBLISHED_BASELINE, PUBLISHED_H2H)]
    summary = table(
        ("average reduction of latency", "here", "MARS, DAC 2023", "journal version, 2024"),
        [
            ("five networks, against the baseline", average(results, CHAINS, "baseline"), *published[0]),
            ("two networks, five speeds, against `h2h-fixed`", average(results, BRANCHES, "h2h-fixed"), *published[1]),
            ("two networks, five speeds, against `h2h`", average(results, BRANCHES, "h2h"), *published[1]),
            ("five networks, against the best uniform strategy", average(results, CHAINS, "uniform"), "", ""),
            ("two networks, five speeds, against it", average(results, BRANCHES, "uniform"), "", ""),
        ],
        3,
    )
    return (
        f"{summary}\nColumns of other methods: 1 - exact / other; of `genetic`, against the mean of its seeds. *Gap*: "
        f"what the exact search could not prove, and how it ended; its limit was {limit_s:g} s.\n\n"
        f"{cost_table(results, CHAINS)}\n{cost_table(results, BRANCHES)}\n"
        f"CPU seconds, of `genetic` the median of a seed:\n\n{time_table(results, cases)}"
    )


def plot(results: Results, path: Path) -> None:
    """Latency relative to the exact search: by method on the five, by speed on the two."""
    colours = ("#b5443c", "#d98c2b", "#8a6bb1", "#5b8c5a", "#8c8c8c", "#2f6f9f", "#c9c9c9")
    with figure(path, 2, (7.2, 3.0)) as (left, right):
        width = 0.8 / len(OTHERS)
        for index, (method, colour) in enumerate(zip(OTHERS, colours, strict=True)):
            ratios = [_ratio(results, case, method) for case in CHAINS]
            places = [at + (index - (len(OTHERS) - 1) / 2) * width for at in range(len(NETWORKS))]
            left.bar(places, ratios, width, color=colour, label=method)
        left.axhline(1, color="black", linewidth=0.8)
        left.set_xticks(range(len(NETWORKS)), [name.replace("wideresnet50_2", "wide\nresnet50") for name in NETWORKS])
        left.set_ylabel("latency / exact search's")
        left.set_yscale("log", base=2)
        left.yaxis.set_major_formatter("{x:g}")
        left.set_title("Eight FPGAs, 8 Gbit/s")
        left.legend(ncols=3, frameon=False, fontsize=7, loc="upper right")
        left.set_ylim(top=left.get_ylim()[1] * 1.6)
        for network, style in zip(BRANCHED, ("-", "--"), strict=True):
            for method, colour in zip(OTHERS, colours, strict=True):
                if method in ("h2h", "h2h-fixed", "uniform", "genetic"):
                    ratios = [_ratio(results, (network, speed), method) for speed in GBIT_PER_S]
                    if all(map(isnan, ratios)):
                        continue
                    right.plot(GBIT_PER_S, ratios, style, marker="o", ms=3, color=colour, label=f"{network}, {method}")
        right.axhline(1, color="black", linewidth=0.8)
        right.set_xscale("log")
        right.set_xticks(GBIT_PER_S, [f"{speed:g}" for speed in GBIT_PER_S])
        right.minorticks_off()
        right.set_xlabel("Gbit/s inside a group")
        right.set_yscale("log", base=2)
        right.yaxis.set_major_formatter("{x:g}")
        right.set_title("Branched networks")
        right.legend(frameon=False, fontsize=7, ncols=2, loc="upper right")
        low, high = right.get_ylim()
        right.set_ylim(low, high * (high / low) ** 0.45)


def _ratio(results: Results, case: Case, method: str) -> float:
    """Latency by a method, as a multiple of the exact search's; NaN, which is not drawn, if it was not run."""
    saved = reduction(results, *case, method)
    return float("nan") if saved is None else 1 / (1 - saved)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.paper", description=__doc__)
    parser.add_argument("--time-limit", type=float, default=60.0, metavar="SECONDS", help="of the exact search")
    parser.add_argument("--results", type=Path, default=Path("build/paper.jsonl"), help="continue with this file")
    parser.add_argument("--no-search", action="store_true", help="only write what the results hold")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into FILE, between its markers")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the picture (needs matplotlib)")
    options = parser.parse_args(arguments)
    results = Results(options.results)
    if not options.no_search:
        # The genetic algorithm with all its seeds takes longest: it comes last.
        for methods in (tuple(method for method in METHODS_COMPARED if method != "genetic"), ("genetic",)):
            for case in (*CHAINS, *BRANCHES):
                measure(*case, methods, options.time_limit, results)
    written = text(results, options.time_limit)
    if options.write:
        write_between_markers(options.write, "paper", written)
    else:
        print(written)
    if options.plot:
        plot(results, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
