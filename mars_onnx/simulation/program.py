"""From partitions to tasks: who does what, in which order, and what each task takes from which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import onnx_ir as ir

from mars_onnx.comm import (
    TOKEN_NAME,
    TOKEN_START,
    Communication,
    communication_of,
    is_communication,
)
from mars_onnx.errors import InvariantError
from mars_onnx.rules.signature import is_present
from mars_onnx.stages.canonical import captured_values


class Kind(StrEnum):
    """What a task is."""

    COMPUTE = "compute"  #: A share of a node of the original.
    LOCAL = "local"  #: A node that emission added: a slice, a join, a sum of parts.
    COMMUNICATION = "communication"  #: A communication operator, of all its members together.
    INPUT = "input"  #: Boxes of a model input, to all who take one.
    OUTPUT = "output"  #: Boxes of a model output, from all who give one.


#: Digits of a number in metadata that is taken for one.
_LONGEST_NUMBER = 9
#: What occupies the links and not the arithmetic.
MOVING = frozenset((Kind.COMMUNICATION, Kind.INPUT, Kind.OUTPUT))


@dataclass(eq=False, slots=True)
class Task:
    """One thing that is done.

    Attributes:
        index: Its number.
        kind: What it is.
        label: Node of the original that it computes, or tensor that it moves.
        op: Name of the operator.
        nodes: Per rank that takes part its nodes, in their order.
        operators: Per rank the communication operator.
        values: Of an input or output, per rank the value.
        after: Tasks whose results it takes.
        step: Number of the step that it belongs to, in the order in which lockstep has them; ``None`` if to none.
    """

    index: int
    kind: Kind
    label: str
    op: str
    nodes: dict[int, list[ir.Node]] = field(default_factory=dict)
    operators: dict[int, Communication] = field(default_factory=dict)
    values: dict[int, ir.Value] = field(default_factory=dict)
    after: dict[int, None] = field(default_factory=dict)
    step: int | None = None

    @property
    def ranks(self) -> tuple[int, ...]:
        """Who takes part."""
        return tuple(self.nodes or self.values)

    @property
    def node(self) -> ir.Node:
        """Its first node."""
        return next(iter(self.nodes.values()))[0]


@dataclass(eq=False, slots=True)
class Program:
    """All partitions as tasks.

    Attributes:
        models: By rank.
        tasks: By index.
        order: Per rank its tasks in the order of its file, inputs first and outputs last.
        sets: Per rank the set that it is in.
    """

    models: Mapping[int, ir.Model]
    tasks: list[Task]
    order: dict[int, list[int]]
    sets: dict[int, str]


def program_of(models: Mapping[int, ir.Model]) -> Program:
    """Read partitions.

    Raises:
        InvariantError: A communication node is malformed, or a member of a communication is missing.
    """
    reader = _Reader()
    for rank in sorted(models):
        reader.partition(rank, models[rank].graph)
    for task in reader.tasks:
        if task.kind is Kind.COMMUNICATION:
            _check_members(task)
    sets = {rank: str(model.metadata_props.get("mars.set", f"rank {rank}")) for rank, model in models.items()}
    return Program(models, reader.tasks, reader.order, sets)


def rank_of(model: ir.Model) -> int:
    """The rank that a partition says it is for.

    Raises:
        InvariantError: It says none.
    """
    text = model.metadata_props.get("mars.rank", "")
    if not text.isdecimal():
        raise InvariantError(f"the graph {model.graph.name!r} is no partition: it has no metadata 'mars.rank'")
    return int(text)


class _Reader:
    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.order: dict[int, list[int]] = {}
        self._shared: dict[tuple[Kind, object], Task] = {}

    def partition(self, rank: int, graph: ir.Graph) -> None:
        """The tasks of one file."""
        own = self.order[rank] = []
        made: dict[ir.Value, int] = {}
        step: int | None = None
        for value in graph.inputs:
            if value.name != TOKEN_START:
                step = _step(value.metadata_props, step)
                task = self.transfer(Kind.INPUT, rank, value, step)
                own.append(task.index)
                made[value] = task.index
        share: tuple[object, ...] | None = None
        for node in graph:
            facts = node.metadata_props
            # What somebody else added belongs to what stands before it.
            step = _step(facts, step)
            if is_communication(node):
                task = self.communication(rank, node, step)
                share = None
            elif "mars.share" in facts:
                key = (facts.get("mars.source"), facts.get("mars.phase"), facts["mars.share"])
                if key != share:
                    task = self.add(Kind.COMPUTE, str(facts.get("mars.source", "")), node.op_type, step)
                share = key
            else:
                # What nothing is known of was not added by emission: it is work like any other.
                added = "mars.source" in facts or "mars.tensor" in facts or node.op_type == "Identity"
                label = str(facts.get("mars.source") or facts.get("mars.tensor") or node.name or "")
                task = self.add(Kind.LOCAL if added else Kind.COMPUTE, label, node.op_type, step)
                share = None
            task.nodes.setdefault(rank, []).append(node)
            if not own or own[-1] != task.index:
                own.append(task.index)
            for value in reads(node):
                if value in made and made[value] != task.index:
                    task.after[made[value]] = None
            made.update((value, task.index) for value in node.outputs)
        for value in graph.outputs:
            if value.name != TOKEN_NAME:
                step = _step(value.metadata_props, step)
                task = self.transfer(Kind.OUTPUT, rank, value, step)
                own.append(task.index)
                if value in made:
                    task.after[made[value]] = None

    def add(self, kind: Kind, label: str, op: str, step: int | None) -> Task:
        task = Task(len(self.tasks), kind, label, op, step=step)
        self.tasks.append(task)
        return task

    def transfer(self, kind: Kind, rank: int, value: ir.Value, step: int | None) -> Task:
        """A model input or output, in which all ranks that have a box of it take part."""
        name = value.name or ""
        task = self._shared.get((kind, name)) or self.add(kind, name, str(kind), step)
        self._shared[kind, name] = task
        _check_step(task, step, f"the model {kind} {name!r}")
        task.values[rank] = value
        return task

    def communication(self, rank: int, node: ir.Node, step: int | None) -> Task:
        """A communication node, one task with the others of its tag."""
        operator = communication_of(node)
        task = self._shared.get((Kind.COMMUNICATION, operator.tag))
        if task is None:
            op = "SendRecv" if operator.op_type in ("Send", "Recv") else operator.op_type
            task = self.add(Kind.COMMUNICATION, str(node.metadata_props.get("mars.tensor", "")), op, step)
            self._shared[Kind.COMMUNICATION, operator.tag] = task
        _check_step(task, step, f"the communication with the tag {operator.tag}")
        if rank in task.operators:
            raise InvariantError(f"rank {rank} has two communications with the tag {operator.tag}")
        task.operators[rank] = operator
        return task


def reads(node: ir.Node) -> Iterator[ir.Value]:
    """Values that a node takes, those that its subgraphs capture included; possibly more than once."""
    yield from (value for value in node.inputs if value is not None and is_present(value))
    yield from captured_values(node)


def _step(facts: Mapping[str, str], before: int | None) -> int | None:
    """The step that a node or value says it belongs to; by default the one before it."""
    text = facts.get("mars.step")
    if text is None:
        return before
    if not text.isdecimal() or len(text) > _LONGEST_NUMBER:
        raise InvariantError(f"the metadata 'mars.step' is the number of a step, not {text[:40]!r}")
    return int(text)


def _check_step(task: Task, step: int | None, what: str) -> None:
    if task.step != step:
        raise InvariantError(f"{what} belongs to step {task.step} in one file and to step {step} in another")


def _check_members(task: Task) -> None:
    rank, operator = next(iter(task.operators.items()))
    expected = operator.ranks(rank)
    if set(expected) != set(task.operators):
        raise InvariantError(
            f"the communication with the tag {operator.tag} is of the ranks {sorted(expected)}, "
            f"but stands in the files of {sorted(task.operators)}"
        )
