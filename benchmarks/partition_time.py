"""How long partitioning takes, step by step, each time in a fresh process: ``python -m benchmarks.partition_time``."""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.markdown import table

_ROOT = Path(__file__).parent.parent


def measure_here(model: str, pool: str) -> dict[str, float]:
    """Seconds per step of one partitioning, imports included, in this process."""
    start = time.perf_counter()
    import networkx  # noqa: F401 - imported by the pool when it is first asked for a route

    from mars_onnx.compiler import DEFAULT_PIPELINE, run
    from mars_onnx.loading import load_model
    from mars_onnx.pipeline import Timing, parse_pipeline
    from mars_onnx.pool.loader import load_pool

    steps = {"imports": time.perf_counter() - start}

    def done(step: str) -> None:
        now = time.perf_counter()
        steps[step] = now - start - sum(steps.values())

    hardware = load_pool(pool)
    pipeline = parse_pipeline(DEFAULT_PIPELINE, {"search": "greedy"})
    done("pool and pipeline")
    work = load_model(model)
    done("load")
    timing = Timing()
    compilation = run(work, Path(model), hardware, pipeline, [timing])
    steps.update({name: seconds for name, seconds, _ in timing.rows})
    done("checks between passes, hash of the model")
    _ = compilation.price
    done("price")
    with tempfile.TemporaryDirectory() as folder:
        before = time.perf_counter()
        compilation.save(Path(folder) / "out")
        steps["save"] = time.perf_counter() - before
    return steps


def _in_fresh_process(model: str, pool: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.partition_time", model, "--pool", pool, "--once"]
    done = subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, text=True)
    steps: dict[str, float] = json.loads(done.stdout)
    return steps


def _wall(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", *command], cwd=_ROOT, check=True, capture_output=True)
    return time.perf_counter() - start


def report(model: str, pool: str, repetitions: int) -> str:
    """Measure and describe, as a table in Markdown; medians."""
    runs = [_in_fresh_process(model, pool) for _ in range(repetitions)]
    rows = [(step, _spread([run[step] for run in runs])) for step in runs[0]]
    beyond = [sum(run.values()) - run["imports"] for run in runs]
    rows.append(("**all steps beyond imports**", _spread(beyond)))
    with tempfile.TemporaryDirectory() as folder:
        command = ("mars_onnx", model, "--hw", pool, "-q", "-o", f"{folder}/out")
        rows.append(("whole command, no `--verify`", _spread([_wall(*command) for _ in range(repetitions)])))
    rows.append(("`python -m mars_onnx --help`", _spread([_wall("mars_onnx", "--help") for _ in range(repetitions)])))
    title = f"{Path(model).stem} on {Path(pool).stem}, {repetitions} fresh processes: median (lowest to highest), s"
    return f"{title}\n\n{table(('step', 'seconds'), rows, 1)}"


def _spread(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.3f} ({min(seconds):.3f} to {max(seconds):.3f})"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.partition_time", description="Time partitioning, step by step.")
    parser.add_argument("model", nargs="?", help="an ONNX model (default: ResNet-50, built for the purpose)")
    parser.add_argument("--pool", default="fpga_pool", help="file or name of a pool (default: fpga_pool)")
    parser.add_argument("-n", type=int, default=5, help="how often (default: 5)")
    parser.add_argument("--once", action="store_true", help="measure in this process and print JSON")
    options = parser.parse_args(arguments)
    if options.once:
        print(json.dumps(measure_here(options.model, options.pool)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        model = options.model and str(Path(options.model).resolve())
        if not model:
            _wall("mars_onnx.models", "resnet50", "-o", folder)
            model = f"{folder}/resnet50.onnx"
        print(report(model, options.pool, options.n))
    return 0


if __name__ == "__main__":
    sys.exit(main())
