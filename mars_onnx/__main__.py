"""``python -m mars_onnx model.onnx --hw POOL``: options in, exit code out; everything else is the compiler's."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mars_onnx.errors import MarsError, UsageError
from mars_onnx.search.names import ALL, DEFAULT, DEFAULT_WORK_LIMIT, TITLES
from mars_onnx.version import __version__

_INTERRUPTED = 130
_EXIT_CODES = f"""exit codes:
  0 done, 1 bad model, pool or mapping, 2 usage, 3 does not fit the pool, 4 verification failed,
  {_INTERRUPTED} interrupted
"""


def parser() -> argparse.ArgumentParser:
    """The options of the command line."""
    result = argparse.ArgumentParser(
        prog="mars-onnx",
        description="Partition an ONNX model over a pool of accelerators: one ONNX model per accelerator.",
        epilog=f"search methods:\n{_methods()}\n\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("model", nargs="?", type=Path, help="the ONNX model")
    result.add_argument("--hw", metavar="POOL", help="a pool file, or the name of a shipped pool")
    result.add_argument("-o", "--output", metavar="DIR", type=Path, help="output folder (default: <model stem>.mars)")
    result.add_argument("--mapping", metavar="FILE", type=Path, help="use this mapping (JSON, or a plan.json)")
    search = result.add_argument_group("search")
    search.add_argument(
        "--search", metavar="METHOD", default=DEFAULT, help=f"how to choose a mapping; see below (default: {DEFAULT})"
    )
    search.add_argument(
        "--objective",
        choices=("latency", "throughput"),
        default="latency",
        help="make small the latency of one inference, or the time between two of a stream (default: latency)",
    )
    search.add_argument(
        "--work-limit",
        metavar="UNITS",
        type=_limit,
        default=DEFAULT_WORK_LIMIT,
        help=f"how much the search {DEFAULT} does before it takes the best mapping so far: a unit is half a second to "
        f"a second, but the same on every machine; 'none' for no limit (default: {DEFAULT_WORK_LIMIT:g})",
    )
    search.add_argument(
        "--time-limit",
        metavar="SECONDS",
        type=_limit,
        default=None,
        help="take the best mapping so far after so many seconds, as Ctrl-C does: another machine may find another; "
        "'none' for no limit (default: none)",
    )
    search.add_argument(
        "--compare",
        metavar=f"{ALL}|METHOD,...",
        help="let other search methods choose too, on the same cost model, and report them",
    )
    search.add_argument(
        "--seed", type=int, default=0, help="of search methods that draw numbers, and of --verify (default: 0)"
    )
    shapes = result.add_argument_group("shapes")
    shapes.add_argument("--dim", metavar="NAME=VALUE", action="append", default=[], help="size of a symbolic dimension")
    shapes.add_argument(
        "--input-shape", metavar="NAME:1,3,224,224", action="append", default=[], help="shape of a model input"
    )
    check = result.add_argument_group("verification")
    check.add_argument("--verify", action="store_true", help="run the partitions and compare with the original")
    check.add_argument("--deep", action="store_true", help="with --verify: compare every box of every tensor")
    passes = result.add_argument_group("passes")
    passes.add_argument("--pass-pipeline", metavar="TEXT", help="passes to run, as in 'canonicalize{dim=N=1},...'")
    passes.add_argument("--list-passes", action="store_true", help="describe all passes and exit")
    passes.add_argument(
        "--print-ir-after", metavar="PASS|all", action="append", default=[], help="print the graph after a pass"
    )
    passes.add_argument(
        "--stop-after", metavar="PASS", help="stop after a pass and write the model as it is to -o FILE"
    )
    passes.add_argument("--timing", action="store_true", help="print how long every pass took")
    noise = result.add_mutually_exclusive_group()
    noise.add_argument("-v", "--verbose", action="store_true", help="print every layer too")
    noise.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    result.add_argument("--version", action="version", version=f"mars_onnx {__version__}")
    return result


def _limit(text: str) -> float | None:
    """A number, or ``none``."""
    return None if text == "none" else float(text)


def _methods() -> str:
    return "\n".join(f"  {name:10} {title}" for name, title in TITLES.items())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = parser().parse_args(argv)
    try:
        # Only now: what it imports takes a second, which --help should not.
        from mars_onnx.cli import partition

        return partition(options)
    except MarsError as error:
        print(f"mars-onnx: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return UsageError.exit_code
    except KeyboardInterrupt:
        print("mars-onnx: interrupted", file=sys.stderr)
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
