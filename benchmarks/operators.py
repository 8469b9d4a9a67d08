"""Which operators have a rule: ``python -m benchmarks.operators [--write README.md]``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.markdown import table, write_between_markers
from mars_onnx.rules.registry import families


def operator_table() -> str:
    """One row per module of rules."""
    rows = [(f"`{module}`", ", ".join(name for _, name in names)) for module, names in families().items()]
    count = sum(len(names) for names in families().values())
    return f"{count} operators have a rule:\n\n" + table(("rules", "operators"), rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.operators", description="List the operators that have a rule.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into FILE, between its markers")
    options = parser.parse_args(arguments)
    if options.write:
        write_between_markers(options.write, "operators", operator_table())
    else:
        print(operator_table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
