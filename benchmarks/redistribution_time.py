"""How long the search waits for the cost of one move: ``python -m benchmarks.redistribution_time [--against FOLDER]``.

Every pair of layouts is planned and priced once, in a fresh process, as an exact search does for one network; processor
time counts, which others on the machine disturb less. With the
folder of another checkout both are measured in turn, several times, and the least time of every pair counts; what
matters are the ratios.
"""

import argparse
import gc
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import onnx_ir as ir

from benchmarks.markdown import table
from mars_onnx.cost.steps import move_seconds
from mars_onnx.errors import InputError
from mars_onnx.geometry import Layout
from mars_onnx.pool.loader import load_pool
from mars_onnx.redistribution.planner import redistribute
from mars_onnx.rules.base import Signature, TensorType
from mars_onnx.sharding.lowering import lower
from mars_onnx.sharding.strategy import Placement, Resolution, Split, Strategy

_ROOT = Path(__file__).parent.parent
_SHAPES = ((1, 64, 56, 56), (1, 256, 14, 14), (1, 512, 7, 7))
#: Kernel, stride and padding of those who take a tensor.
_WINDOWS = ((1, 1, 0), (1, 2, 0), (3, 1, 1), (3, 2, 1), (7, 2, 3))
_BITS = 32


class Timed(NamedTuple):
    """A pair of layouts, measured.

    Attributes:
        kind: Of its plan.
        plan_s: Seconds to plan it.
        price_s: Seconds to price the plan.
    """

    kind: str
    plan_s: float
    price_s: float


def moves(members: int, count: int, seed: int = 1) -> list[tuple[Layout, Layout]]:
    """Pairs of layouts, source and target, drawn at random from those among which an exact search has to choose.

    Args:
        members: Accelerators in the set.
        count: How many.
        seed: Of the choice.
    """
    rng = random.Random(seed)
    parallel, all_axes = (_strategies(members, axes) for axes in (("Cout", "H", "W"), ("Cin", "Cout", "H", "W")))
    channels, products = (_strategies(members, axes) for axes in (("C", "H", "W"), ("N", "K")))
    found: dict[tuple[Layout, Layout], None] = {}
    while len(found) < count:
        shape = rng.choice(_SHAPES)
        convolution = _convolution(shape, 3, 1, 1)
        takers = [(_convolution(shape, *window), all_axes) for window in _WINDOWS] + [(_max_pool(shape), channels)]
        what = rng.choice(("input",) * 6 + ("addend", "parts", "matrix"))
        producer, ways = (_product(), products) if what == "matrix" else (convolution, parallel)
        taker, taken = (_product(), products) if what == "matrix" else rng.choice(takers)
        group = tuple(range(members))
        try:
            source = lower(producer, rng.choice(ways), group)
            if what == "parts":
                source = lower(producer, rng.choice(all_axes), group)
                pair = source.produced[0], source.resolved[0]
            elif what == "addend":
                pair = source.resolved[0], lower(producer, rng.choice(ways), group).resolved[0]
            else:
                pair = source.resolved[0], lower(taker, rng.choice(taken), group).needs[0]
        except InputError:
            continue
        if pair[0] is not None and pair[1] is not None and pair[0] != pair[1]:
            found[pair[0], pair[1]] = None
    return list(found)


def _strategies(members: int, axes: Sequence[str]) -> list[Strategy]:
    """All ways to give the digits of a set to axes or to replicas, and what may become of partial sums."""
    made: list[Strategy] = []
    for digits in ((members,), (2, members // 2), (members // 2, 2), (2, 2, members // 4)):
        for given in itertools.product((*axes, None), repeat=len(digits)):
            splits = tuple(Split(axis, (1,) * ways) for axis, ways in zip(given, digits, strict=True) if axis)
            if min(digits) < 2 or len({split.axis for split in splits}) < len(splits) or not splits:
                continue
            made.append(Strategy(Placement.SHARDED, splits))
            if "Cin" in given:
                made += [
                    Strategy(Placement.SHARDED, splits, resolution=Resolution.REDUCE_SCATTER, scatter_axis=axis)
                    for axis in ("Cout", "H")
                ]
    return made


def _float(*shape: int) -> TensorType:
    return TensorType(ir.DataType.FLOAT, shape)


def _convolution(shape: tuple[int, int, int, int], kernel: int, stride: int, padding: int) -> Signature:
    batch, channels, *extents = shape
    out = [(extent + 2 * padding - kernel) // stride + 1 for extent in extents]
    attributes = (("pads", (padding,) * 4), ("strides", (stride,) * 2))
    inputs = (_float(*shape), _float(channels, channels, kernel, kernel))
    return Signature("", "Conv", 18, attributes, inputs, (_float(batch, channels, *out),), (None, None))


def _max_pool(shape: tuple[int, int, int, int]) -> Signature:
    batch, channels, *extents = shape
    out = [(extent + 2 - 3) // 2 + 1 for extent in extents]
    attributes = (("kernel_shape", (3, 3)), ("pads", (1,) * 4), ("strides", (2, 2)))
    return Signature("", "MaxPool", 18, attributes, (_float(*shape),), (_float(batch, channels, *out),), (None,))


def _product() -> Signature:
    return Signature("", "Gemm", 18, (), (_float(1, 512), _float(512, 512)), (_float(1, 512),), (None, None))


def measure(pool_name: str, members: int, count: int) -> list[Timed]:
    """Plan and price every pair once, one after the other, as far as they have not been met before."""
    pool = load_pool(pool_name)
    pairs = moves(members, count)
    # What the very first call brings with it, imports and routes, is not the price of a pair.
    for first, second in itertools.permutations(range(members), 2):
        pool.distance(first, second)
    group, shape = tuple(range(members)), (6, members)
    move_seconds(
        pool,
        Layout(shape, group, tuple(((0, 6), (rank, rank + 1)) for rank in group)),
        Layout.replicated(shape, group),
        _BITS,
    )
    # Nor is a collection of all that the imports have left behind.
    gc.collect()
    gc.freeze()
    measured: list[Timed] = []
    for source, target in pairs:
        start = time.process_time()
        plan = redistribute(source, target, pool.distance)
        between = time.process_time()
        move_seconds(pool, source, target, _BITS)
        measured.append(Timed(plan.kind, between - start, time.process_time() - between))
    return measured


def _in_fresh_process(folder: Path, options: argparse.Namespace) -> list[Timed]:
    command = [sys.executable, str(Path(__file__).resolve()), "--once", "--pool", options.pool]
    command += ["--members", str(options.members), "--count", str(options.count)]
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{folder / 'passes'}"}
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, env=environment)
    return [Timed(*row) for row in json.loads(done.stdout)]


def _report(runs: dict[str, list[list[Timed]]]) -> str:
    """Milliseconds by kind of plan; the kinds are those of the first checkout."""
    kinds = [timed.kind for timed in next(iter(runs.values()))[0]]
    headings = ["plans", "pairs", "checkout", "median [ms]", "mean", "95 %", "most", "plan, mean", "price, mean"]
    rows: list[list[str]] = []
    for kind in [*sorted(set(kinds)), "all"]:
        chosen = [index for index, own in enumerate(kinds) if kind in (own, "all")]
        for name, repeats in runs.items():
            plans = [1e3 * min(repeat[index].plan_s for repeat in repeats) for index in chosen]
            prices = [1e3 * min(repeat[index].price_s for repeat in repeats) for index in chosen]
            both = sorted(plan + price for plan, price in zip(plans, prices, strict=True))
            figures = (
                statistics.median(both),
                statistics.mean(both),
                both[int(0.95 * (len(both) - 1))],
                both[-1],
                statistics.mean(plans),
                statistics.mean(prices),
            )
            rows.append([kind, str(len(both)), name, *(f"{figure:.3f}" for figure in figures)])
    return table(headings, rows, 6)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.redistribution_time", description="Measure how long redistributions take to plan and price."
    )
    parser.add_argument("--pool", default="fpga_pool", help="name of a pool (default: fpga_pool)")
    parser.add_argument("--members", type=int, default=8, help="members of the set (default: 8)")
    parser.add_argument("--count", type=int, default=600, help="pairs of layouts (default: 600)")
    parser.add_argument("--rounds", type=int, default=3, help="processes; the least time of a pair counts (default: 3)")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout to compare with")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.once:
        json.dump(measure(options.pool, options.members, options.count), sys.stdout)
        return 0
    folders = {"this": _ROOT} | ({"other": options.against.resolve()} if options.against else {})
    runs: dict[str, list[list[Timed]]] = {name: [] for name in folders}
    for _ in range(options.rounds):
        for name, folder in folders.items():
            runs[name].append(_in_fresh_process(folder, options))
    print(_report(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
