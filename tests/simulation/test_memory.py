"""Memory over time against a count that looks at every value at every moment."""

from __future__ import annotations

import onnx_ir as ir
from hypothesis import settings

from mars_onnx.simulation import ADDITIVE, Conditions
from mars_onnx.simulation.core import run_tasks
from mars_onnx.simulation.memory import memory_of_run
from mars_onnx.simulation.pricing import Pricer
from mars_onnx.simulation.program import Kind, Program, program_of, reads
from mars_onnx.simulation.result import MemoryPoint
from mars_onnx.simulation.simulate import followers_of
from tests.end_to_end.test_random_mappings import compiled
from tests.simulation.file_memory import memory_of
from tests.simulation.partitions import simulated
from tests.simulation.test_simulate import COMMON, graphs


@settings(COMMON, max_examples=40)
@graphs
def test_without_overlap_the_peak_is_that_of_the_file(
    size: int, groups: tuple[int, ...], graph_seed: int, mapping_seed: int
) -> None:
    found = compiled(size, groups, graph_seed, mapping_seed)
    for rank, use in simulated(found, ADDITIVE).ranks.items():
        memory = memory_of(found.models[rank])
        assert use.peak_bytes == memory.weight_bytes + memory.activation_bytes
        assert use.peak.weight_bytes == memory.weight_bytes


@settings(COMMON, max_examples=30)
@graphs
def test_with_overlap_every_moment_is_right(
    size: int, groups: tuple[int, ...], graph_seed: int, mapping_seed: int
) -> None:
    found = compiled(size, groups, graph_seed, mapping_seed)
    program = program_of(found.models)
    prices = Pricer(program, found.pool, found.canonical, local_moves=True).prices()
    conditions = Conditions(overlap=True, local_moves=True)
    run = run_tasks([own.seconds for own in prices], followers_of(program, conditions))
    curves = memory_of_run(program, run.log, run.start_s, run.end_s)
    for rank, (points, peak) in curves.items():
        spans = lives(program, rank, run.start_s, run.end_s)
        weights = memory_of(found.models[rank]).weight_bytes
        times = sorted({point.time_s for point in points})
        for now, then in zip(times, [*times[1:], times[-1] + 1], strict=True):
            middle = (now + then) / 2
            if not now < middle < then:
                continue
            expected = weights + sum(size for size, start, end in spans if start <= middle < end)
            assert at(points, middle).total_bytes == expected
        assert peak.total_bytes >= max(point.total_bytes for point in points)


def at(points: tuple[MemoryPoint, ...], now: float) -> MemoryPoint:
    return max((point for point in points if point.time_s <= now), key=lambda point: point.time_s)


def lives(program: Program, rank: int, start_s: list[float], end_s: list[float]) -> list[tuple[int, float, float]]:
    """Bytes, first and last moment of every value of a partition."""
    graph = program.models[rank].graph
    born: dict[ir.Value, float] = {}
    dead: dict[ir.Value, float] = {}
    for task in program.tasks:
        if task.kind is Kind.INPUT and rank in task.values:
            born[task.values[rank]] = start_s[task.index]
        nodes = task.nodes.get(rank, [])
        for node in nodes:
            gone = end_s[task.index] if node is nodes[-1] else start_s[task.index]
            for value in node.outputs:
                if value.name:
                    born[value] = start_s[task.index]
                    dead[value] = max(dead.get(value, 0.0), gone)
            for value in reads(node):
                dead[value] = max(dead.get(value, 0.0), gone)
    forever = float("inf")
    spans: list[tuple[int, float, float]] = []
    for value, start in born.items():
        if value in graph.initializers.values():
            continue
        kept = value in graph.outputs or value not in dead
        elements = 1
        for extent in value.shape.numpy() if value.shape is not None else ():
            elements *= extent
        assert value.dtype is not None
        spans.append(
            (elements * value.dtype.itemsize if value.shape is not None else 0, start, forever if kept else dead[value])
        )
    return spans


def test_kinds_of_memory() -> None:
    found = compiled(10, (4,), 3, 4)
    for use in simulated(found, ADDITIVE).ranks.values():
        last = use.memory[-1]
        assert last.total_bytes == last.weight_bytes + last.activation_bytes + last.buffer_bytes
        assert all(min(p.weight_bytes, p.activation_bytes, p.buffer_bytes) >= 0 for p in use.memory)
