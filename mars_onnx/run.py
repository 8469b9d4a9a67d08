"""Run a partitioned model: ``python -m mars_onnx.run DIR --input x.npy --output y.npz``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mars_onnx.errors import InputError, MarsError, UsageError

if TYPE_CHECKING:
    from mars_onnx.runtime.plan_file import PlanFile
    from mars_onnx.runtime.runner import PartitionRunner, RunResult
    from mars_onnx.runtime.transport import Array


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except MarsError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mars-onnx-run",
        description="Run the partitions in DIR together, a thread per accelerator, on this machine's CPU.",
        epilog="exit codes: 0 fine, 1 bad input or a partition failed, 2 wrong usage",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder with plan.json and the partitions")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="x.npy (the name may be left out if the model has one input), or x.npz with arrays by name; repeatable",
    )
    parser.add_argument("--output", type=Path, metavar="FILE.npz", help="write the outputs there, by name")
    parser.add_argument("--random", type=_natural, metavar="SEED", help="random values for inputs that are not given")
    parser.add_argument("--repeat", type=_positive, default=1, metavar="N", help="run N times and show the times")
    parser.add_argument("--warm-up", type=_natural, default=0, metavar="N", help="runs before that are not timed")
    parser.add_argument("--rendezvous", action="store_true", help="let every send wait for its receiver")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    return parser


def _run(options: argparse.Namespace) -> None:
    # Imported here so that --help and wrong usage answer at once.
    from mars_onnx.runtime.runner import PartitionRunner, load_folder

    if options.output is not None and options.output.suffix != ".npz":
        raise UsageError(f"--output {options.output}: should end in .npz")
    plan, files = load_folder(options.folder)
    inputs = _inputs(options, plan)
    runner = PartitionRunner(files, plan, rendezvous=options.rendezvous)
    result, times = _timed(runner, inputs, options.warm_up, options.repeat)
    if options.output is not None:
        _save(options.output, result.outputs)
    if not options.quiet:
        _show(result, times, len(files))


def _timed(
    runner: PartitionRunner, inputs: dict[str, Array], warm_up: int, repeat: int
) -> tuple[RunResult, list[float]]:
    runner.prepare()
    for _ in range(warm_up):
        runner.run(inputs)
    result = runner.run(inputs)
    times = [result.seconds]
    for _ in range(repeat - 1):
        result = runner.run(inputs)
        times.append(result.seconds)
    return result, times


def _inputs(options: argparse.Namespace, plan: PlanFile) -> dict[str, Array]:
    from mars_onnx.runtime.random_inputs import random_inputs

    names = [tensor.tensor for tensor in plan.inputs]
    given: dict[str, Array] = {}
    for text in options.input:
        for name, array in _read(text, names).items():
            if name in given:
                raise UsageError(f"--input {text}: {name!r} is given twice")
            given[name] = array
    missing = [name for name in names if name not in given]
    if missing and options.random is None:
        raise UsageError(f"input {missing[0]!r} is not given; use --input {missing[0]}=FILE.npy, or --random SEED")
    return {**random_inputs(plan, options.random), **given} if missing else given


def _read(text: str, names: list[str]) -> dict[str, Array]:
    """Arrays of one ``--input``. A file of that very name comes first, so that names with ``=`` can be given."""
    from zipfile import BadZipFile

    import numpy as np

    name, separator, rest = text.rpartition("=")
    if Path(text).exists():
        name, separator, rest = "", "", text
    path = Path(rest)
    try:
        # Pickles run code when they are loaded.
        loaded: Any = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            # Members of an archive are read, and found to be malformed, only now.
            with loaded:
                return {key: loaded[key] for key in loaded.files}
    except OSError as error:
        raise InputError(f"--input {text}: {error.strerror or error}") from None
    except (ValueError, EOFError, BadZipFile, MemoryError) as error:
        raise InputError(f"--input {text}: not a .npy or .npz file of plain arrays: {error}") from None
    if not separator and len(names) != 1:
        raise UsageError(f"--input {text}: say which of {', '.join(names)} it is, as NAME={path}")
    return {name if separator else names[0]: loaded}


def _save(path: Path, outputs: dict[str, Array]) -> None:
    import numpy as np

    try:
        with path.open("wb") as file:
            np.savez(file, **outputs)  # type: ignore[arg-type]
    except OSError as error:
        raise InputError(f"--output {path}: {error.strerror}") from None


def _show(result: RunResult, times: list[float], partitions: int) -> None:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{partitions} partitions")
    for column in ("output", "type", "shape", "min", "mean", "max"):
        table.add_column(column, overflow="fold")
    for name, array in result.outputs.items():
        numbers = array.astype(np.float64) if array.dtype.kind not in "cOSU" and array.size else None
        figures = ["-"] * 3 if numbers is None else [f"{f(numbers):.4g}" for f in (np.min, np.mean, np.max)]
        table.add_row(name, str(array.dtype), "x".join(map(str, array.shape)) or "scalar", *figures)
    console = Console()
    console.print(table)
    best, median = min(times), float(np.median(times))
    console.print(
        f"{len(times)} run(s): fastest {best * 1e3:.3f} ms, median {median * 1e3:.3f} ms (threads on this CPU)"
    )


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
