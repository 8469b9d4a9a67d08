"""A stream of inferences on emitted partitions: the time between two of them.

Every accelerator does one inference after the other, each in the order of its file, and takes up the next one as soon
as it is done with its part; so several are under way at a time, on different sets. A communication waits for all its
members, so that none gets ahead by more than one.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from mars_onnx.pool.topology import Pool
from mars_onnx.simulation.conditions import Conditions, declared
from mars_onnx.simulation.pricing import Pricer
from mars_onnx.simulation.program import Program, Task
from mars_onnx.simulation.simulate import program_from, run_program

#: Inferences that are run: so many, and so many for each set that a stream goes through. Of these the later half is
#: looked at, when all sets have something to do.
_LEAST = 8
_PER_SET = 2


def stream_period_s(
    partitions: Iterable[ir.Model],
    pool: Pool,
    canonical: ir.Model | None = None,
    conditions: Conditions | None = None,
) -> float:
    """Seconds between two inferences of a stream, once it is going.

    Args:
        partitions: The models of the accelerators.
        pool: The accelerators.
        canonical: The graph that was partitioned; see :func:`mars_onnx.simulation.simulate`.
        conditions: What to take into account; default: what the pool declares.

    Raises:
        InvariantError: The partitions are not what emission writes, or do not fit together or to the pool.
    """
    wanted = declared(pool) if conditions is None else conditions
    program = program_from(partitions)
    count = _LEAST + _PER_SET * len(set(program.sets.values()))
    prices = Pricer(program, pool, canonical, local_moves=wanted.local_moves).prices()
    run, _ = run_program(repeated(program, count), prices * count, pool, wanted)
    tasks = len(prices)
    ends = [max(run.end_s[tasks * number : tasks * (number + 1)], default=0.0) for number in range(count)]
    first = count // 2 - 1
    return (ends[-1] - ends[first]) / (count - 1 - first)


def repeated(program: Program, count: int) -> Program:
    """Several inferences, one after the other on every accelerator."""
    size = len(program.tasks)
    steps = 1 + max((task.step for task in program.tasks if task.step is not None), default=0)
    tasks = [
        Task(
            task.index + size * number,
            task.kind,
            task.label,
            task.op,
            task.nodes,
            task.operators,
            task.values,
            {before + size * number: None for before in task.after},
            None if task.step is None else task.step + steps * number,
        )
        for number in range(count)
        for task in program.tasks
    ]
    order = {
        rank: [index + size * number for number in range(count) for index in own] for rank, own in program.order.items()
    }
    return Program(program.models, tasks, order, program.sets)
