"""``python -m mars_onnx.calibrate``: measure this machine and write a pool file."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mars_onnx.errors import MarsError, UsageError

if TYPE_CHECKING:
    from mars_onnx.calibration.session import Calibrated, Wanted


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        wanted = _wanted(options)
        # Imported late, so that --help and wrong usage answer at once.
        from mars_onnx.runtime.mpi.library import launched

        found = _under_mpiexec(wanted) if launched() else _here(wanted)
        if found is None:
            return 0
        _write(found, options.output)
    except MarsError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if not options.quiet:
        _show(found, options.output)
    return 0


def _here(wanted: Wanted) -> Calibrated:
    from mars_onnx.calibration.session import calibrate

    return calibrate(wanted)


def _write(found: Calibrated, path: Path) -> None:
    from mars_onnx.calibration.pool_file import write_pool

    write_pool(found.machine, path)


def _under_mpiexec(wanted: Wanted) -> Calibrated | None:
    """A rank per process; the first one measures and writes, the others take part (and have nothing to say)."""
    from mars_onnx.calibration.mpi_deployment import MpiDeployer
    from mars_onnx.calibration.session import calibrate
    from mars_onnx.runtime.mpi.library import load_mpi

    world = load_mpi().COMM_WORLD
    size = world.Get_size()
    if wanted.ranks not in (None, size):
        raise UsageError(f"--ranks {wanted.ranks}: mpiexec has started {size} processes; leave the option out")
    deployer = MpiDeployer(world, wanted.threads)
    if world.Get_rank() != 0:
        deployer.serve()
        return None
    try:
        return calibrate(replace(wanted, ranks=size), deployer)
    finally:
        deployer.close()


def _parser() -> argparse.ArgumentParser:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(
        prog="mars-onnx-calibrate",
        description="Measure this machine with ONNX Runtime, and write a pool file with an accelerator per rank. "
        "Under mpiexec: with a rank per process.",
        epilog="Let the machine rest meanwhile. exit codes: 0 fine, 1 bad input, 2 wrong usage",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("calibrated.json"), metavar="FILE", help="default: calibrated.json"
    )
    parser.add_argument("--ranks", type=_positive, metavar="N", help=f"accelerators of the pool (default {cores})")
    parser.add_argument(
        "--threads-per-rank", type=_positive, default=1, metavar="T", help="threads of every rank (default 1)"
    )
    parser.add_argument(
        "--ort-profile",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="add the kernels of a profile that ONNX Runtime wrote on this machine with as many threads; repeatable",
    )
    parser.add_argument(
        "--model", type=Path, action="append", default=[], metavar="FILE.onnx", help="add the kernels of a model"
    )
    parser.add_argument("--quick", action="store_true", help="a quarter of the shapes: a rougher pool in less time")
    parser.add_argument("--memory-bytes", type=_positive, metavar="N", help="of every rank (default: a share of all)")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    return parser


def _wanted(options: argparse.Namespace) -> Wanted:
    from mars_onnx.calibration.session import Wanted

    path: Path = options.output
    if path.suffix != ".json":
        raise UsageError(f"--output {path}: should end in .json")
    if not path.parent.is_dir():
        raise UsageError(f"--output {path}: there is no folder {path.parent}")
    return Wanted(
        name=path.stem,
        ranks=options.ranks,
        threads=options.threads_per_rank,
        scale=0.25 if options.quick else 1.0,
        profiles=tuple(options.ort_profile),
        models=tuple(options.model),
        memory_bytes=options.memory_bytes,
        show=not options.quiet,
    )


def _show(found: Calibrated, path: Path) -> None:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    table = Table(title="Kernels: errors on samples that were left out of the fit", title_justify="left")
    for column in ("kind", "samples", "median error", "90 % are within"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    for kernel in found.machine.kernels.kernels:
        errors = found.errors.get(kernel.kinds[0])
        if kernel.kinds[0] == "fused" or errors is None:
            continue
        known = len(errors) > 0
        table.add_row(
            kernel.kinds[0],
            str(kernel.samples),
            f"{np.median(np.abs(errors)):.1%}" if known else "-",
            f"{np.quantile(np.abs(errors), 0.9):.1%}" if known else "-",
        )
    console.print(table)
    for (first, second), times in sorted(found.machine.links.items()):
        console.print(
            f"ranks {first} and {second}: {times.latency_s * 1e6:.1f} us + bytes / "
            f"{times.bandwidth_bytes_per_s / 1e9:.2f} GB/s (median error {times.error:.0%})"
        )
    for own in found.machine.overheads:
        for op, more in own.items():
            copies = (
                f", and copies what is kept at {more.kept_bytes_per_s / 1e9:.2f} GB/s" if more.kept_bytes_per_s else ""
            )
            if more.assembled_bytes_per_s:
                copies += f", and puts pieces that lie apart together at {more.assembled_bytes_per_s / 1e9:.2f} GB/s"
            console.print(f"{op}: {more.latency_s * 1e6:.1f} us more{copies}")
    console.print(f"memory: {found.machine.memory_bandwidth_bytes_per_s / 1e9:.1f} GB/s read and written together")
    console.print(f"a run, beside its kernels: {found.machine.run_s * 1e6:.0f} us")
    for note in found.notes:
        console.print(note, style="yellow")
    console.print(f"{path}: written after {found.seconds:.0f} s", soft_wrap=True)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
