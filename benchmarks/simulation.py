"""How long simulating takes: ``python -m benchmarks.simulation``.

Partitions of a model on a pool under several conditions, and the bare run of many tasks.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.markdown import table


def timed(work: Callable[[], object], repeats: int) -> float:
    """Median of some runs, in seconds."""
    taken: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def made_up(tasks: int, ranks: int, seed: int = 0) -> tuple[list[float], list[list[int]]]:
    """Tasks in a row per rank; one in ten is of two ranks."""
    rng = random.Random(seed)
    followers: list[list[int]] = [[] for _ in range(tasks)]
    last: list[int] = [-1] * ranks
    for task in range(tasks):
        for rank in rng.sample(range(ranks), 2 if rng.random() < 0.1 else 1):
            if last[rank] >= 0:
                followers[last[rank]].append(task)
            last[rank] = task
    return [rng.random() for _ in range(tasks)], followers


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    parser.add_argument("--model", default="resnet101")
    parser.add_argument("--pool", default="fpga_pool")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)

    import onnx_ir as ir

    from mars_onnx.compiler import compile
    from mars_onnx.models import load_builder
    from mars_onnx.simulation import ADDITIVE, Conditions, simulate
    from mars_onnx.simulation.core import run_tasks

    compilation = compile(ir.from_proto(load_builder().build(options.model)), options.pool)
    models = [partition.model for partition in compilation.partitions.partitions]
    cases = {
        "as the additive cost": ADDITIVE,
        "one thing after the other": Conditions(),
        "overlap": Conditions(overlap=True, double_buffering=True),
        "overlap, contention, local moves": Conditions(True, True, None, True, True),
    }
    rows: list[list[str]] = []
    for name, conditions in cases.items():
        done = simulate(models, compilation.pool, compilation.canonical, conditions)
        again = partial(simulate, models, compilation.pool, compilation.canonical, conditions)
        seconds = timed(again, options.repeats)
        rows.append([f"{options.model}, {name}", str(len(done.tasks)), f"{seconds:.3f}", f"{done.latency_s * 1e3:.4f}"])
    tasks = 50_000
    seconds_of, followers = made_up(tasks, 8)
    seconds = timed(lambda: run_tasks(seconds_of, followers), options.repeats)
    rows.append([f"the bare run, {2 * tasks} events", str(tasks), f"{seconds:.3f}", ""])
    demands = {
        task: ((task % 16, 0.5),) for task, own in enumerate(followers) if task % 10 == 0 and seconds_of[task] > 0
    }
    seconds = timed(lambda: run_tasks(seconds_of, followers, demands), options.repeats)
    rows.append([f"the bare run with contention, {2 * tasks} events", str(tasks), f"{seconds:.3f}", ""])
    print(f"additive cost: {compilation.price.latency_s * 1e3:.4f} ms\n")
    print(table(["what", "tasks", "seconds", "latency, ms"], rows, numbers=3))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
