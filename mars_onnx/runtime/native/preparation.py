"""What the ranks of a region find out before the first run: the layout of every tensor, the steps, the memory."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Mapping
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import onnx_ir as ir

from mars_onnx.comm import TOKEN_NAME, Communication, communication_of
from mars_onnx.errors import InvariantError
from mars_onnx.runtime.native.assembly import assembly, on_blocks, splits_into_blocks
from mars_onnx.runtime.native.compute import Kind, UnsuitableError, make_sessions
from mars_onnx.runtime.native.links import Link, Prepared, Source
from mars_onnx.runtime.native.lowered import Lowered, block_size, lower
from mars_onnx.runtime.native.offers import program_of
from mars_onnx.runtime.native.opened import Exchange, open_partition
from mars_onnx.runtime.native.placement import Program
from mars_onnx.runtime.native.region import Region
from mars_onnx.runtime.native.steps import Compute, plan_steps
from mars_onnx.runtime.native.trimming import Repeat, repeats
from mars_onnx.runtime.segments import communication_order
from mars_onnx.runtime.sessions import RUNTIME_ERRORS, ExecutorOptions

_ORDERED_STORES = {"x86_64", "amd64"}
"""Machines on which all cores see the stores of one core in their order, as the counters need."""


def prepare(model: ir.Model, region: Region, options: ExecutorOptions) -> Prepared:
    """Prepare a partition. All ranks of the region have to do it at the same time.

    Raises:
        UnsuitableError: A rank of the region cannot run its partition like this. All ranks raise it then.
        InvariantError: The communications of the partition contradict themselves.
    """
    nodes = communication_order(model.graph)
    order = [communication_of(node) for node in nodes]
    inside = {operator.tag for operator in order if set(operator.ranks(region.rank)) <= set(region.ranks)}
    values = _values(model)
    given = [str(value.name) for value in model.graph.outputs if value.name != TOKEN_NAME]
    block = block_size() if options.blocked else 1

    def first() -> tuple[Lowered, list[int]]:
        if any(before.tag >= after.tag for before, after in pairwise(order)):
            raise UnsuitableError("the tags of its communications do not ascend")
        lowered = lower(open_partition(model, block, inside, repeated), options)
        ready = [e.operator.tag for e in lowered.exchanges if _in_blocks(lowered, e, values, block)]
        return lowered, [tag for tag in ready if tag in inside]

    with _Meeting(region) as meeting:
        if options.chosen_provider != "CPU":
            raise UnsuitableError(f"its provider is {options.chosen_provider}")
        if len(region.ranks) > 1 and platform.machine().lower() not in _ORDERED_STORES:
            raise UnsuitableError(f"stores of a {platform.machine()} may be seen in another order")
        found = repeats(nodes, inside)
        meeting.note = [asdict(one) for one in found]
    repeated = _seen_by_all(found, order, meeting.notes, region.rank)
    with _Meeting(region) as meeting:
        lowered, ready = first()
        meeting.note = [block, *ready]
    blocked = _ready_everywhere(ready, order, meeting.notes, region.rank)
    with _Meeting(region) as meeting:
        prepared = _cut(values, lowered, given, blocked, inside, block, region.rank, options)
        meeting.note = program_of(prepared, region.rank).dump()
    prepared.programs = {rank: Program.load(note) for rank, note in meeting.notes.items()}
    return prepared


class _Meeting:
    """Something that every rank does for itself, and then tells the others about: its note, or why it cannot.

    Raises:
        UnsuitableError: One of them cannot.
    """

    def __init__(self, region: Region) -> None:
        self._region = region
        self.note: Any = None
        self.notes: dict[int, Any] = {}

    def __enter__(self) -> _Meeting:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and not isinstance(error, (UnsuitableError, InvariantError, *RUNTIME_ERRORS)):
            return
        mine = {"trouble": None if error is None else str(error), "note": self.note}
        for rank, data in zip(self._region.ranks, self._region.exchange(json.dumps(mine).encode()), strict=True):
            theirs = json.loads(data)
            if theirs["trouble"] is not None:
                raise UnsuitableError(f"rank {rank}: {theirs['trouble']}") from error
            self.notes[rank] = theirs["note"]


def _seen_by_all(
    found: list[Repeat], order: list[Communication], notes: Mapping[int, list[dict[str, Any]]], own: int
) -> list[Repeat]:
    """The repeats that all members of the communication have found."""
    members = {operator.tag: operator.ranks(own) for operator in order}
    texts = {rank: {json.dumps(one) for one in note} for rank, note in notes.items()}
    return [one for one in found if all(json.dumps(asdict(one)) in texts[rank] for rank in members[one.tag])]


def _ready_everywhere(
    ready: list[int], order: list[Communication], notes: Mapping[int, list[int]], own: int
) -> set[int]:
    """The tags whose tensors all members can have in blocks, of one size."""
    if len({note[0] for note in notes.values()}) > 1:
        return set()
    members = {operator.tag: operator.ranks(own) for operator in order}
    return {tag for tag in ready if all(tag in note[1:] for rank, note in notes.items() if rank in members[tag])}


def _in_blocks(lowered: Lowered, exchange: Exchange, values: Mapping[str, ir.Value], block: int) -> bool:
    if not lowered.takes_blocks(exchange) or not splits_into_blocks(exchange.operator, block):
        return False
    return exchange.x is None or Kind.of(values[exchange.x]).shape[1] % block == 0


def _values(model: ir.Model) -> dict[str, ir.Value]:
    """All values of a partition by name."""
    graph = model.graph
    values = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    return {str(value.name): value for value in values}


def _source(x: str, taken: ir.Value | None, names: Mapping[str, str]) -> Source:
    """What a communication takes; ``names`` has what communications give, by the names of inputs of the graph."""
    if taken is None:
        return Source(x, None)
    if taken.producer() is None:
        return Source(names.get(str(taken.name), str(taken.name)), None)
    return Source(str(taken.name), taken)


def _cut(
    values: Mapping[str, ir.Value],
    lowered: Lowered,
    given: Collection[str],
    blocked: Collection[int],
    inside: Collection[int],
    block: int,
    rank: int,
    options: ExecutorOptions,
) -> Prepared:
    """Cut the optimised partition into steps, and build their sessions."""
    settled = lowered.settle(blocked)
    graph = lowered.model.graph
    outputs = {name: value for name, value in settled.outputs.items() if name in given}
    constants = {
        name: value.const_value.numpy().copy()
        for key, value in settled.outputs.items()
        if value.is_initializer() and value.const_value is not None
        for name in (key, str(value.name))
    }
    steps = plan_steps(graph, lowered.exchanges, settled.taken, outputs.values())
    names = {opening.name: str(exchange.y) for exchange in lowered.exchanges for opening in exchange.openings}
    kinds = {value: Kind.of(values[str(value.name)]) for value in graph.inputs if str(value.name) in values}
    links = []
    for exchange in lowered.exchanges:
        operator = exchange.operator
        in_blocks = operator.tag in blocked
        source = None
        if exchange.x is not None:
            source = _source(exchange.x, settled.taken[operator.tag], names)
        x_kind = None if exchange.x is None else Kind.of(values[exchange.x])
        y_kind = None if exchange.y is None else Kind.of(values[exchange.y])
        for opening in exchange.openings:
            kinds[lowered.input(opening.name)] = Kind.of(values[str(exchange.y)])
        scaled = on_blocks(operator, block) if in_blocks else operator
        shared = operator.tag in inside
        together = assembly(scaled, rank) if shared else None
        links.append(Link(exchange, in_blocks, shared, source, x_kind, y_kind, together))
    numbers = [number for number, step in enumerate(steps, start=1) if isinstance(step, Compute)]
    computing = [step for step in steps if isinstance(step, Compute)]
    sessions = make_sessions(lowered.model, computing, kinds, options)
    openings = {opening.name: lowered.input(opening.name) for e in lowered.exchanges for opening in e.openings}
    by_number = dict(zip(numbers, sessions, strict=True))
    return Prepared(block, openings, tuple(links), steps, by_number, kinds, tuple(given), outputs, constants)
