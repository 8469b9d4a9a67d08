"""From partitions and a pool to a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import onnx_ir as ir

from mars_onnx.errors import InvariantError
from mars_onnx.loading import load_model
from mars_onnx.pool.topology import Pool
from mars_onnx.runtime.runner import load_folder, load_partition
from mars_onnx.simulation.conditions import Conditions, declared
from mars_onnx.simulation.core import Run, run_tasks
from mars_onnx.simulation.lockstep import run_in_lockstep
from mars_onnx.simulation.memory import memory_of_run
from mars_onnx.simulation.pricing import Pricer, TaskPrice, demands_of
from mars_onnx.simulation.program import MOVING, Kind, Program, program_of, rank_of
from mars_onnx.simulation.result import RankUse, Simulation, TaskRun


def simulate(
    partitions: Iterable[ir.Model],
    pool: Pool,
    canonical: ir.Model | None = None,
    conditions: Conditions | None = None,
) -> Simulation:
    """Run partitions on a pool.

    Args:
        partitions: The models of the accelerators; their metadata says which is whose.
        pool: The accelerators.
        canonical: The graph that was partitioned. With it the work of a share is counted as the additive cost counts
            it, by the rule of the original node and the ranges that the partition says; nodes whose shapes belie what
            they say are refused. Without it, work is counted from the shapes of the local nodes alone.
        conditions: What to take into account; default: what the pool declares.

    Raises:
        InvariantError: The partitions are not what emission writes, or do not fit together or to the pool.
    """
    wanted = declared(pool) if conditions is None else conditions
    program = program_from(partitions)
    prices = Pricer(program, pool, canonical, local_moves=wanted.local_moves).prices()
    run, ahead = run_program(program, prices, pool, wanted)
    return _result(program, prices, pool, run, wanted, ahead)


def program_from(partitions: Iterable[ir.Model]) -> Program:
    """Partitions as tasks.

    Raises:
        InvariantError: The partitions are not what emission writes, or do not fit together.
    """
    models: dict[int, ir.Model] = {}
    for model in partitions:
        rank = rank_of(model)
        if rank in models:
            raise InvariantError(f"two partitions are for rank {rank}")
        models[rank] = model
    return program_of(models)


def run_program(
    program: Program, prices: Sequence[TaskPrice], pool: Pool, wanted: Conditions
) -> tuple[Run, _Prefetch | None]:
    """Run tasks; says when, and what was fetched ahead if anything is.

    Args:
        program: The tasks.
        prices: What each takes alone.
        pool: The accelerators.
        wanted: What to take into account.
    """
    seconds = [priced.seconds for priced in prices]
    ahead = _Prefetch(program, prices, pool, wanted.prefetch_bytes) if wanted.double_buffering else None
    followers = followers_of(program, wanted)
    demands = demands_of(prices, pool) if wanted.contention else None
    duration = ahead.duration if ahead else None
    if wanted.lockstep:
        return run_in_lockstep(program, seconds, followers, demands, duration), ahead
    return run_tasks(seconds, followers, demands, duration), ahead


def read_folder(folder: str | Path) -> tuple[list[ir.Model], ir.Model | None]:
    """The partitions of an output folder, and the graph that was partitioned if it is there.

    Raises:
        InputError: There is no plan.json, or the files are not those it names.
    """
    path = Path(folder)
    _, files = load_folder(path)
    annotated = path / "annotated.onnx"
    models = [load_partition(file) for file in files]
    return models, load_model(annotated) if annotated.is_file() else None


def followers_of(program: Program, conditions: Conditions) -> list[list[int]]:
    """Per task, those that wait for it.

    Without overlap an accelerator does one thing after the other, as its file has them. With overlap it does what it
    computes in that order, and what it communicates, and a task waits for the results that it takes.
    """
    followers: list[dict[int, None]] = [{} for _ in program.tasks]
    for order in program.order.values():
        if not conditions.overlap:
            _chain(followers, order)
            continue
        moving = [index for index in order if program.tasks[index].kind in MOVING]
        computing = [index for index in order if program.tasks[index].kind not in MOVING]
        if not conditions.local_moves:
            # What takes no time holds nobody up.
            computing = [index for index in computing if program.tasks[index].kind is Kind.COMPUTE]
        _chain(followers, moving)
        _chain(followers, computing)
    if conditions.overlap:
        for task in program.tasks:
            for before in task.after:
                followers[before][task.index] = None
    return [list(own) for own in followers]


def _chain(followers: list[dict[int, None]], order: Sequence[int]) -> None:
    for before, after in pairwise(order):
        followers[before][after] = None


class _Prefetch:
    """Double buffering: how much of a task's weights is there already when it starts.

    While a task computes, its memory port is free for what is left of its time after its own traffic; so it is while
    the accelerator waits. In that time the weights of the next task come in, as many as the buffer holds. A task takes
    ``max(compute, memory - fetched)`` and what its model adds to the larger of the two.
    """

    def __init__(self, program: Program, prices: Sequence[TaskPrice], pool: Pool, limit_bytes: int | None) -> None:
        self._prices = prices
        self._rank = {task.index: task.ranks[0] for task in program.tasks if task.kind not in MOVING}
        self._limit_s = {
            rank: float("inf") if limit_bytes is None else limit_bytes / own.memory_bandwidth_bytes_per_s
            for rank, own in enumerate(pool.accelerators)
        }
        #: Per rank when its port is done with the traffic of the last task.
        self._port_free_s: dict[int, float] = {}
        #: Seconds at the memory port, per task.
        self.memory_s: dict[int, float] = {}

    def duration(self, task: int, start_s: float) -> float:
        """What a task takes that starts now."""
        own = self._prices[task]
        rank = self._rank.get(task)
        if rank is None or own.seconds == 0.0:
            return own.seconds
        free_s = max(0.0, start_s - self._port_free_s.get(rank, 0.0))
        fetched_s = min(own.weight_s, self._limit_s[rank], free_s)
        left_s = own.memory_s - fetched_s
        self._port_free_s[rank] = start_s + left_s
        self.memory_s[task] = own.memory_s
        if fetched_s == 0.0:
            return own.seconds
        saved = max(own.compute_s, own.memory_s) - max(own.compute_s, left_s)
        return max(0.0, own.seconds - saved)


def _result(
    program: Program,
    prices: Sequence[TaskPrice],
    pool: Pool,
    run: Run,
    conditions: Conditions,
    ahead: _Prefetch | None,
) -> Simulation:
    order = [entry for entry in run.log if entry >= 0]
    place = {task: position for position, task in enumerate(order)}
    tasks: list[TaskRun] = []
    for index in order:
        task = program.tasks[index]
        operator = next(iter(task.operators.values()), None)
        phase = task.node.metadata_props.get("mars.phase") if task.nodes else None
        tasks.append(
            TaskRun(
                str(task.kind),
                task.label,
                task.op,
                task.ranks,
                None if operator is None else operator.tag,
                None if phase is None or operator is not None else int(phase),
                prices[index].seconds,
                run.start_s[index],
                run.end_s[index],
            )
        )
    latency = max(run.end_s, default=0.0)
    memory = memory_of_run(program, run.log, run.start_s, run.end_s)
    ranks: dict[int, RankUse] = {}
    exact = not conditions.contention and ahead is None
    for rank, own in program.order.items():
        spent = {False: 0.0, True: 0.0}
        for index in own:
            took = prices[index].seconds if exact else run.end_s[index] - run.start_s[index]
            spent[program.tasks[index].kind in MOVING] += took
        busy = _union([(run.start_s[index], run.end_s[index]) for index in own])
        if not conditions.overlap:
            busy = spent[False] + spent[True]
        ranks[rank] = RankUse(spent[False], spent[True], max(0.0, latency - busy), *memory[rank])
    path: list[int] = []
    last = max(order, key=lambda index: (run.end_s[index], -place[index]), default=-1)
    while last >= 0:
        path.append(place[last])
        last = run.waited_for[last]
    use = _utilisation(program, prices, pool, latency, ranks)
    return Simulation(conditions, tuple(tasks), tuple(reversed(path)), ranks, use)


def _union(spans: list[tuple[float, float]]) -> float:
    """Total length of intervals, what overlaps counted once."""
    total, reached = 0.0, 0.0
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _utilisation(
    program: Program, prices: Sequence[TaskPrice], pool: Pool, latency_s: float, ranks: Mapping[int, RankUse]
) -> dict[str, float]:
    def part(seconds: float) -> float:
        return seconds / latency_s if latency_s > 0 else 0.0

    found: dict[str, float] = {}
    for rank, use in ranks.items():
        own = pool.accelerators[rank].id
        found[f"{own} compute"] = part(use.compute_s)
        found[f"{own} memory"] = part(sum(prices[index].memory_s for index in program.order[rank]))
    busy: dict[int, float] = {}
    for priced in prices:
        for channel, share in priced.demand:
            busy[channel] = busy.get(channel, 0.0) + share * priced.seconds
    for link in pool.links:
        first, second = (pool.node_ids[end] for end in link.ends)
        if link.full_duplex:
            found[f"{first} -> {second}"] = part(busy.get(2 * link.index, 0.0))
            found[f"{second} -> {first}"] = part(busy.get(2 * link.index + 1, 0.0))
        else:
            found[f"{first} - {second}"] = part(busy.get(2 * link.index, 0.0))
    return found
