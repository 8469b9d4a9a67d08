"""How long every task takes alone, from what stands in the partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mars_onnx.cost.interconnect import Interconnect
from mars_onnx.cost.performance import Workload, performance_model
from mars_onnx.cost.shares import twin
from mars_onnx.cost.workload import workload
from mars_onnx.errors import InvariantError
from mars_onnx.pool.topology import Design, Pool
from mars_onnx.rules.axes import Ranges
from mars_onnx.rules.base import OpRule, Signature
from mars_onnx.rules.registry import rule_for
from mars_onnx.rules.shares import boxes, parse_share
from mars_onnx.rules.signature import is_present, signature_of, tensor_type
from mars_onnx.simulation.moves import Message, collective_of, demand_of, messages_of
from mars_onnx.simulation.program import Kind, Program, Task
from mars_onnx.simulation.sharing import Demand


@dataclass(frozen=True, slots=True)
class TaskPrice:
    """What a task takes alone.

    Attributes:
        seconds: In all.
        compute_s: Of arithmetic.
        memory_s: Of traffic at the memory port.
        weight_s: Of that, the traffic of weights.
        demand: The links that it keeps busy.
    """

    seconds: float = 0.0
    compute_s: float = 0.0
    memory_s: float = 0.0
    weight_s: float = 0.0
    demand: Demand = ()


class Pricer:
    """Prices the tasks of a program on a pool."""

    def __init__(self, program: Program, pool: Pool, canonical: ir.Model | None, *, local_moves: bool) -> None:
        """Args: see :func:`mars_onnx.simulation.simulate`."""
        self._program = program
        self._pool = pool
        self._interconnect = Interconnect(pool)
        self._canonical = {} if canonical is None else {node.name: node for node in canonical.graph}
        self._designs = {rank: _design(rank, model, pool) for rank, model in program.models.items()}
        self._local_moves = local_moves
        self._known: dict[tuple[Signature, int, str], TaskPrice] = {}

    def prices(self) -> list[TaskPrice]:
        """Per task."""
        tasks = self._program.tasks
        found: list[TaskPrice] = [TaskPrice()] * len(tasks)
        sources: dict[str, list[Task]] = {}
        for task in tasks:
            if task.kind is Kind.COMPUTE and self._canonical and "mars.share" in task.node.metadata_props:
                sources.setdefault(task.label, []).append(task)
            else:
                found[task.index] = self._alone(task)
        for label, own in sources.items():
            for task, priced in zip(own, self._shares(label, own), strict=True):
                found[task.index] = priced
        return found

    def _alone(self, task: Task) -> TaskPrice:
        match task.kind:
            case Kind.COMMUNICATION:
                nodes = {rank: own[0] for rank, own in task.nodes.items()}
                collective, dtype = collective_of(task.operators, nodes)
                width = dtype.bitwidth / 8
                seconds = self._interconnect.collective(collective, width)
                messages = messages_of(collective, width, self._interconnect, self._pool)
                return TaskPrice(seconds, demand=demand_of(messages, seconds, self._pool))
            case Kind.INPUT | Kind.OUTPUT:
                return self._transfer(task)
            case Kind.LOCAL if not self._local_moves or any(_is_token(v) for v in task.node.outputs):
                return TaskPrice()
        # Of several nodes the one with most work stands for all, as the share would.
        rank = task.ranks[0]
        return max((self._node(node, rank) for node in task.nodes[rank]), key=lambda priced: priced.seconds)

    def _transfer(self, task: Task) -> TaskPrice:
        """A model input from where inputs start, or an output to where outputs end: all boxes at once."""
        entering = task.kind is Kind.INPUT
        end = self._pool.inputs_at if entering else self._pool.outputs_at
        messages: list[Message] = []
        for rank, value in task.values.items():
            kind = tensor_type(value)
            if kind is not None:
                size = float(np.prod(kind.shape, dtype=np.int64)) * kind.dtype.bitwidth / 8
                messages.append((end, rank, size) if entering else (rank, end, size))
        if not messages:
            return TaskPrice()
        pairs = [(source, target) for source, target, _ in messages]
        seconds = float(self._interconnect.exchange(pairs, np.asarray([size for *_, size in messages])))
        return TaskPrice(seconds, demand=demand_of(messages, seconds, self._pool))

    def _node(self, node: ir.Node, rank: int) -> TaskPrice:
        """One node of a partition by its own shapes."""
        signature = signature_of(node)
        key = (signature, twin(self._pool, rank), self._designs[rank].name)
        if key not in self._known:
            rule = rule_for(signature)
            self._known[key] = self._estimates(workload(rule, rule.whole_ranges()), rank)[0]
        return self._known[key]

    def _shares(self, label: str, tasks: Sequence[Task]) -> list[TaskPrice]:
        """All shares of one node of the original: by its rule, with the ranges that the files say."""
        node = self._canonical.get(label)
        if node is None:
            raise InvariantError(f"the original has no node {label!r}, of which the partitions have shares")
        rule = rule_for(signature_of(node))
        texts = list(dict.fromkeys(task.node.metadata_props["mars.share"] for task in tasks))
        ranges = _ranges(rule, label, texts)
        _check_shapes(rule, ranges, texts, tasks)
        work = workload(rule, ranges)
        priced: dict[tuple[int, str], dict[str, TaskPrice]] = {}
        found: list[TaskPrice] = []
        for task in tasks:
            rank = task.ranks[0]
            kind = (twin(self._pool, rank), self._designs[rank].name)
            if kind not in priced:
                priced[kind] = dict(zip(texts, self._estimates(work, rank, len(texts)), strict=True))
            found.append(priced[kind][task.node.metadata_props["mars.share"]])
        return found

    def _estimates(self, work: Workload, rank: int, count: int = 1) -> list[TaskPrice]:
        accelerator = self._pool.accelerators[rank]
        estimate = performance_model(self._designs[rank], accelerator).estimate(work)
        part = work.weight_bytes / np.maximum(work.bytes, 1)
        columns = (estimate.total_s, estimate.compute_s, estimate.memory_s, estimate.memory_s * part)
        rows = zip(*(np.broadcast_to(column, (count,)).tolist() for column in columns), strict=True)
        return [TaskPrice(*row) for row in rows]


def _design(rank: int, model: ir.Model, pool: Pool) -> Design:
    if rank >= pool.size:
        raise InvariantError(f"rank {rank} is not in the pool {pool.name!r}, which has {pool.size} accelerators")
    name = model.metadata_props.get("mars.design", "")
    found = pool.accelerators[rank].design(name)
    if found is None:
        raise InvariantError(f"the partition of rank {rank} is for the design {name!r}, which its accelerator has not")
    return found


def _ranges(rule: OpRule, label: str, texts: Sequence[str]) -> Ranges:
    """Ranges of all axes as arrays, one entry per text."""
    try:
        parsed = [parse_share(text) for text in texts]
        bounds = [[own[axis.name] for axis in rule.axes] for own in parsed]
    except (ValueError, KeyError) as error:
        raise InvariantError(f"{label!r}: the metadata 'mars.share' of a node cannot be read ({error})") from None
    array = np.asarray(bounds, np.int64).reshape(len(texts), len(rule.axes), 2)
    return {axis.name: (array[:, place, 0], array[:, place, 1]) for place, axis in enumerate(rule.axes)}


def _check_shapes(rule: OpRule, ranges: Ranges, texts: Sequence[str], tasks: Sequence[Task]) -> None:
    """What a share claims to be has to be what its nodes compute."""
    if rule.is_fallback:
        return
    wanted: dict[str, list[tuple[int, ...]]] = {text: [] for text in texts}
    for dims in rule.outputs:
        for text, box in zip(texts, boxes(dims, ranges, (len(texts),)) if dims is not None else (), strict=False):
            if box is not None:
                wanted[text].append(tuple(high - low for low, high in box))
    for task in tasks:
        (nodes,) = task.nodes.values()
        # Of several outputs one may be an input as it is.
        passed = [v for node in nodes for v in node.inputs] if len(rule.outputs) > 1 else []
        values = (v for v in (*passed, *(v for node in nodes for v in node.outputs)) if v is not None and is_present(v))
        seen = {kind.shape for v in values if (kind := tensor_type(v))}
        for shape in wanted[task.node.metadata_props["mars.share"]]:
            if shape not in seen:
                raise InvariantError(
                    f"{task.node.name!r} of rank {task.ranks[0]} says that it computes "
                    f"{task.node.metadata_props['mars.share']} of {task.label!r}, of shape {list(shape)}; "
                    f"it gives {', '.join(str(list(other)) for other in sorted(seen))}"
                )


def _is_token(value: ir.Value) -> bool:
    return (value.name or "").startswith("mars.token")


def demands_of(prices: Sequence[TaskPrice], pool: Pool) -> Mapping[int, Demand]:
    """Per task that uses links, which of those it has to share, and how much of them it needs."""
    demands: dict[int, Demand] = {}
    for index, priced in enumerate(prices):
        shared = tuple((channel, part) for channel, part in priced.demand if pool.links[channel // 2].shared)
        if shared:
            demands[index] = shared
    return demands
