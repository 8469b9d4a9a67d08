"""Which accelerator every MPI process runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mars_onnx.errors import UsageError
from mars_onnx.pool.document import read_text
from mars_onnx.runtime.plan_file import PlanFile

_MAX_RANK_MAP_BYTES = 2**20


def rank_map(text: str) -> tuple[str, ...]:
    """The accelerator of every process, from a list ``a,b,c`` or a file that has one per line (``#`` for remarks).

    Raises:
        InputError: The file cannot be read.
    """
    path = Path(text)
    if "," in text or not path.is_file():
        return tuple(item.strip() for item in text.split(","))
    lines = (line.partition("#")[0].strip() for line in read_text(path, _MAX_RANK_MAP_BYTES).splitlines())
    return tuple(line for line in lines if line)


def checked_ranks(plan: PlanFile, processes: int, chosen: Sequence[int | str] | None) -> tuple[int, ...]:
    """The rank of every process.

    Args:
        plan: What is to be run.
        processes: How many there are.
        chosen: Their accelerators, by rank or id; in ascending order of ranks if not given.

    Raises:
        UsageError: There are too many or too few processes, or not every accelerator has exactly one.
    """
    planned = sorted(entry.rank for entry in plan.partitions)
    if processes != len(planned):
        raise UsageError(
            f"there are {processes} MPI processes and {len(planned)} partitions; use mpiexec -n {len(planned)}"
        )
    if chosen is None:
        return tuple(planned)
    by_name = {str(entry.rank): entry.rank for entry in plan.partitions}
    by_name |= {entry.accelerator: entry.rank for entry in plan.partitions}
    for item in chosen:
        if str(item) not in by_name:
            raise UsageError(f"rank map: there is no accelerator {item!r}; there are {', '.join(by_name)}")
    ranks = tuple(by_name[str(item)] for item in chosen)
    if sorted(ranks) != planned:
        raise UsageError(f"rank map: processes run ranks {list(ranks)}; the plan has {planned}, each once")
    return ranks
