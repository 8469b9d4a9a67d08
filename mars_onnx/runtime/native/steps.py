"""The order in which a rank computes and communicates: each tensor is offered as soon as it can be.

Before a communication only that is computed which it needs. What else can be computed by then comes between offering
the own tensor and waiting for those of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from mars_onnx.errors import InvariantError
from mars_onnx.runtime.native.opened import Exchange
from mars_onnx.stages.canonical import captured_values


@dataclass(frozen=True, slots=True)
class Compute:
    """Nodes computed in one session.

    Attributes:
        name: For messages.
        nodes: In an order in which they can be computed.
        inputs: Values from outside, initializers not among them.
        outputs: Values that somebody outside reads.
        initializers: Weights.
        key: See :func:`plan_steps`.
    """

    name: str
    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    initializers: tuple[ir.Value, ...]
    key: int


@dataclass(frozen=True, slots=True)
class Post:
    """Offer the own tensor of a communication. ``number`` counts the communications of the rank."""

    number: int
    key: int


@dataclass(frozen=True, slots=True)
class Complete:
    """Wait for what the others give to a communication."""

    number: int
    key: int


Step = Compute | Post | Complete


def plan_steps(
    graph: ir.Graph,
    exchanges: tuple[Exchange, ...],
    taken: Mapping[int, ir.Value | None],
    outputs: Iterable[ir.Value],
) -> tuple[Step, ...]:
    """Cut a graph into steps.

    Every step has a key: ``2 * tag`` until the tensor of that tag is offered, ``2 * tag + 1`` until it is complete. A
    step with a key can only depend on steps of other ranks with lower keys.

    Args:
        graph: The optimised partition.
        exchanges: Its communications in the order of the token.
        taken: Per tag the value of the graph that the communication takes.
        outputs: The values that the partition gives.

    Raises:
        InvariantError: A communication needs what only a later one brings.
    """
    graph.sort()
    wanted = {value for value in taken.values() if value is not None}
    wanted |= set(outputs)
    inputs = {str(value.name): value for value in graph.inputs}
    openings = [[inputs[opening.name] for opening in exchange.openings] for exchange in exchanges]
    missing = {value for values in openings for value in values}
    groups: list[tuple[str, list[ir.Node], int]] = []
    order: list[tuple[int, Step]] = []
    # What only served what has been taken away (a conversion at a border that is none any more) is left out.
    left = dict.fromkeys(_ancestors(wanted, dict.fromkeys(graph), set(), ""))

    def group(name: str, nodes: list[ir.Node], key: int) -> None:
        if nodes:
            order.append((len(groups), Post(-1, key)))
            groups.append((name, nodes, key))
        for node in nodes:
            del left[node]

    for number, exchange in enumerate(exchanges):
        tag = exchange.operator.tag
        value = taken[tag]
        group(f"before {exchange.name}", _ancestors([value], left, missing, exchange.name), 2 * tag)
        order.append((-1, Post(number, 2 * tag)))
        group(f"beside {exchange.name}", _ready(left, missing), 2 * tag + 1)
        order.append((-1, Complete(number, 2 * tag + 1)))
        missing -= set(openings[number])
    last = exchanges[-1].operator.tag if exchanges else 0
    group("at the end", _ready(left, missing), 2 * last + 2)
    if left:
        raise InvariantError(f"{next(iter(left)).name} can never be computed")
    segments = list(_segments(groups, wanted))
    return tuple(step if index < 0 else segments[index] for index, step in order)


def _segments(groups: list[tuple[str, list[ir.Node], int]], wanted: set[ir.Value]) -> Iterable[Compute]:
    read_later: list[set[ir.Value]] = [set()]
    for _, nodes, _ in reversed(groups):
        read_later.append(read_later[-1] | {value for node in nodes for value in _reads(node)})
    for (name, nodes, key), later in zip(groups, read_later[-2::-1], strict=True):
        made = {value for node in nodes for value in node.outputs}
        outside = dict.fromkeys(value for node in nodes for value in _reads(node) if value not in made)
        yield Compute(
            name,
            tuple(nodes),
            tuple(value for value in outside if not value.is_initializer()),
            tuple(value for node in nodes for value in node.outputs if value in wanted or value in later),
            tuple(value for value in outside if value.is_initializer()),
            key,
        )


def _ancestors(
    values: Iterable[ir.Value | None], left: Mapping[ir.Node, None], missing: set[ir.Value], name: str
) -> list[ir.Node]:
    """The nodes still to be computed that some values need, in the order of the graph."""
    found: set[ir.Node] = set()
    pending = list(values)
    while pending:
        current = pending.pop()
        if current in missing:
            raise InvariantError(f"{name} needs what only a later communication brings")
        node = None if current is None else current.producer()
        if node is not None and node in left and node not in found:
            found.add(node)
            pending.extend(_reads(node))
    return [node for node in left if node in found]


def _ready(left: Mapping[ir.Node, None], missing: set[ir.Value]) -> list[ir.Node]:
    """The nodes still to be computed that nothing missing keeps from it."""
    unknown = set(missing)
    found: list[ir.Node] = []
    for node in left:
        if unknown.isdisjoint(_reads(node)):
            found.append(node)
        else:
            unknown.update(node.outputs)
    return found


def _reads(node: ir.Node) -> list[ir.Value]:
    return [value for value in dict.fromkeys((*node.inputs, *captured_values(node))) if value is not None]
