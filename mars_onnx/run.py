"""Run a partitioned model: ``python -m mars_onnx.run DIR --input x.npy --output y.npz``.

Alone it runs a thread per accelerator; under ``mpiexec -n N`` every process runs one.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mars_onnx.errors import InputError, MarsError, UsageError

if TYPE_CHECKING:
    from mars_onnx.runtime.mpi.rank import Rank
    from mars_onnx.runtime.plan_file import PlanFile
    from mars_onnx.runtime.transport import Array


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except MarsError as error:
        _say(f"error: {error}")
        return error.exit_code
    return 0


def _say(line: str) -> None:
    """To the error stream, in one piece: lines of several processes come together there."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mars-onnx-run",
        description="Run the partitions in DIR together: on this machine's CPU, a thread per accelerator; under "
        "mpiexec -n N, where N is the number of partitions, a process per accelerator.",
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
    parser.add_argument(
        "--stream",
        type=_positive,
        metavar="N",
        help="run N times as a pipeline: no accelerator waits for all",
    )
    parser.add_argument(
        "--profile", type=Path, metavar="FILE.json", help="write what every accelerator did and when, as trace.json is"
    )
    parser.add_argument("--rendezvous", action="store_true", help="threads: let every send wait for its receiver")
    parser.add_argument(
        "--rank-map",
        metavar="LIST|FILE",
        help="MPI: the accelerator of every process, by id or rank: a,b,c or a file with one per line",
    )
    parser.add_argument("--threads", action="store_true", help="a thread per accelerator though mpiexec is there")
    parser.add_argument(
        "--provider",
        action="append",
        default=[],
        metavar="[ACCELERATOR=]NAME",
        help="execution provider of ONNX Runtime, for all or for one: CPU, CUDA, ...; repeatable; by default the one "
        "that the pool file names, else CPU",
    )
    parser.add_argument(
        "--segments",
        action="store_true",
        help="run the partitions as they are, segment by segment, with messages; by default they are lowered for this "
        "CPU first, and accelerators on one host share memory",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    return parser


def _run(options: argparse.Namespace) -> None:
    # Imported here so that --help and wrong usage answer at once.
    from mars_onnx.runtime.mpi.library import launched

    if options.output is not None and options.output.suffix != ".npz":
        raise UsageError(f"--output {options.output}: should end in .npz")
    if launched() and not options.threads:
        _run_processes(options)
    else:
        _run_threads(options)


def _run_threads(options: argparse.Namespace) -> None:
    from mars_onnx.runtime.runner import PartitionRunner, load_folder
    from mars_onnx.runtime.sessions import FASTEST, SEGMENTS, with_providers

    if options.rank_map is not None:
        raise UsageError("--rank-map is for MPI; start with mpiexec -n N")
    plan, files = load_folder(options.folder)
    inputs = _inputs(options, plan)
    how = SEGMENTS if options.segments or options.rendezvous else FASTEST
    how = with_providers(how, options.provider)
    runner = PartitionRunner(files, plan, rendezvous=options.rendezvous, options=how)
    runner.prepare()
    if options.profile is not None:
        runner.record()

    def once() -> tuple[dict[str, Array], float]:
        result = runner.run(inputs)
        return result.outputs, result.seconds

    outputs, times = _timed(once, runner.run_stream, inputs, options)
    if options.profile is not None:
        _save_trace(options, runner.trace(options.stream or options.repeat))
    _finish(options, outputs, times, f"{len(files)} threads on this CPU")


def _run_processes(options: argparse.Namespace) -> None:
    from mars_onnx.runtime.mpi.agreement import EverywhereError
    from mars_onnx.runtime.mpi.rank import Rank, is_host
    from mars_onnx.runtime.mpi.rank_map import rank_map
    from mars_onnx.runtime.mpi.watch import leave
    from mars_onnx.runtime.sessions import FASTEST, SEGMENTS, with_providers

    if options.rendezvous:
        raise UsageError("--rendezvous is for threads; MPI has its own semantics")
    chosen = None if options.rank_map is None else rank_map(options.rank_map)
    how = with_providers(SEGMENTS if options.segments else FASTEST, options.provider)
    try:
        rank = Rank(options.folder, ranks=chosen, options=how, profile=options.profile is not None)
    except EverywhereError as error:
        if is_host():
            raise
        sys.exit(error.exit_code)
    except MarsError:
        raise
    except BaseException:  # noqa: BLE001 - see below
        traceback.print_exc()
        leave(1)
    try:
        with rank:
            if rank.is_host:
                _drive(rank, options)
            else:
                rank.serve()
                if options.profile is not None:
                    rank.trace()
    except MarsError as error:
        _say(f"error: {rank.name}: {error}")
        leave(error.exit_code)
    except BaseException:  # noqa: BLE001 - whatever it is: an end in the ordinary way would wait for the others
        traceback.print_exc()
        leave(1)


def _drive(rank: Rank, options: argparse.Namespace) -> None:
    inputs = _inputs(options, rank.plan)
    outputs, times = _timed(lambda: rank.timed(inputs), rank.run_stream, inputs, options)
    if options.profile is not None and (trace := rank.trace(options.stream or options.repeat)) is not None:
        _save_trace(options, trace)
    _finish(options, outputs, times, f"{len(rank.ranks)} MPI processes")


def _timed(
    once: Callable[[], tuple[dict[str, Array], float]],
    stream: Callable[[Iterable[dict[str, Array]]], Iterator[dict[str, Array]]],
    inputs: dict[str, Array],
    options: argparse.Namespace,
) -> tuple[dict[str, Array], list[float]]:
    """The outputs of the last run, and the time of each; of a stream, what each has taken on average."""
    for _ in range(options.warm_up):
        once()
    outputs: dict[str, Array] = {}
    if options.stream is not None:
        start = perf_counter()
        for made in stream(inputs for _ in range(options.stream)):
            outputs = made
        return outputs, [(perf_counter() - start) / options.stream]
    times: list[float] = []
    for _ in range(options.repeat):
        outputs, seconds = once()
        times.append(seconds)
    return outputs, times


def _finish(options: argparse.Namespace, outputs: dict[str, Array], times: list[float], how: str) -> None:
    if options.output is not None:
        _save(options.output, outputs)
    if not options.quiet:
        _show(outputs, times, how)
        if options.stream is not None:
            print(f"a pipeline of {options.stream}: {1 / times[0]:.4g} per second")


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


def _save_trace(options: argparse.Namespace, trace: dict[str, Any]) -> None:
    try:
        options.profile.write_text(json.dumps(trace, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"--profile {options.profile}: {error.strerror}") from None


def _show(outputs: dict[str, Array], times: list[float], how: str) -> None:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    table = Table(title=how)
    for column in ("output", "type", "shape", "min", "mean", "max"):
        table.add_column(column, overflow="fold")
    for name, array in outputs.items():
        numbers = array.astype(np.float64) if array.dtype.kind not in "cOSU" and array.size else None
        figures = ["-"] * 3 if numbers is None else [f"{f(numbers):.4g}" for f in (np.min, np.mean, np.max)]
        table.add_row(name, str(array.dtype), "x".join(map(str, array.shape)) or "scalar", *figures)
    console = Console()
    console.print(table)
    best, median = min(times), float(np.median(times))
    console.print(f"{len(times)} run(s): fastest {best * 1e3:.3f} ms, median {median * 1e3:.3f} ms ({how})")


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
