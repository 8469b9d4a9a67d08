"""Memory for every value that passes between steps, and the steps of a run bound to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir

from mars_onnx.errors import InvariantError
from mars_onnx.runtime.collectives import execute
from mars_onnx.runtime.native.assembly import Assembly, Piece, blocked_shape, unblocked
from mars_onnx.runtime.native.compute import Kind, Session, private_memory
from mars_onnx.runtime.native.links import Link, Prepared
from mars_onnx.runtime.native.offers import added_in_place, own_name
from mars_onnx.runtime.native.placement import Offer, Placement, Wait
from mars_onnx.runtime.native.steps import Complete, Compute, Post
from mars_onnx.runtime.segments import CommunicationStep, Segment
from mars_onnx.runtime.transport import Array, ArrayKind, BoundCommunication, Transport


@dataclass(slots=True)
class Action:
    """A part of a run.

    Attributes:
        act: What to do.
        waits: What to wait for before.
        done: How many steps are done then.
        step: What it is, in the words of a run in segments; ``None`` if it is only a part of a communication.
    """

    act: Callable[[], None]
    waits: tuple[Wait, ...]
    done: int
    step: Segment | CommunicationStep | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a communication has given: an array, of five dimensions if it is in blocks."""

    array: Array
    blocked: bool

    def plain(self) -> Array:
        """As (N, C, H, W)."""
        return unblocked(self.array) if self.blocked else self.array


class Binder:
    """Binds a prepared partition.

    Args:
        prepared: What to bind.
        rank: The own rank.
        placement: Where the tensors that ranks share lie.
        arena: The memory they lie in.
        constants: Initializers that communications take or the partition gives.

    Attributes:
        late: Arrays that are others in every run, by name: inputs, outputs, and what messages have brought.
        results: What communications give through memory.
        memory: Of the values that have the same memory in all runs.
        bound: Communications that the transport has prepared.
        transport: For communications with ranks of other regions; has to be there when a run begins.
    """

    def __init__(
        self,
        prepared: Prepared,
        rank: int,
        placement: Placement,
        arena: Array,
        constants: Mapping[str, Array],
    ) -> None:
        self._prepared = prepared
        self._rank = rank
        self._placement = placement
        self._arena = arena
        self._constants = constants
        self._offers: dict[tuple[int, int], Offer] = {
            (member, offer.tag): offer for member, program in prepared.programs.items() for offer in program.offers
        }
        self.transport: Transport | None = None
        self.late: dict[str, Array] = {}
        self.results: dict[str, Result] = {}
        self.memory: dict[ir.Value, Array] = {}
        self.bound: dict[int, BoundCommunication] = {}
        self._names: dict[ir.Value, str] = {}
        self._assembling: dict[int, list[Callable[[], None]]] = {}
        self._place_own()
        for number, link in enumerate(prepared.links):
            if link.shared:
                self._place_result(number, link)
        self._place_private()

    def actions(self) -> list[Action]:
        """The parts of a run in their order."""
        actions: list[Action] = []
        for index, step in enumerate(self._prepared.steps, start=1):
            match step:
                case Compute():
                    actions.append(self._compute(index, step))
                case Post():
                    link = self._prepared.links[step.number]
                    if not link.shared:
                        actions.append(Action(partial(self._start, step.number, link), (), index))
                    elif link.source is not None and link.source.computed is None and own_name(link, self._rank):
                        actions.append(self._copy(index, link))
                    elif actions:
                        actions[-1].done = index
                    else:
                        actions.append(Action(_nothing, (), index))
                case Complete():
                    actions.append(self._complete(index, step.number))
        return actions

    def output(self, name: str) -> Array:
        """What the partition gives, when a run is over; nobody else has this array."""
        value = self._prepared.outputs.get(name)
        if value is not None and value in self.memory:
            return self.memory[value].copy()
        if name in self.late:
            # An input that is given as it is may be the caller's.
            return self.late.pop(name) if value is not None else self.late[name].copy()
        return self._named(name).copy()

    def _place_own(self) -> None:
        for link in self._prepared.links:
            name = own_name(link, self._rank)
            if link.shared and name and link.source is not None and link.source.computed is not None:
                value = link.source.computed
                self.memory[value] = self._at(self._placement.pieces[self._rank, name], self._prepared.kinds[value])
                self._names[value] = name
        for added, value in self._prepared.moved.items():
            self.memory[added] = self.memory[value]
            self._names[added] = self._names[value]

    def _place_result(self, number: int, link: Link) -> None:
        if link.assembly is None or link.y_kind is None or link.exchange.y is None:
            return
        pieces = link.assembly.pieces
        xs = [self._x_of(piece.rank, link) for piece in pieces]
        if link.exchange.in_graph:
            for opening, piece, x in zip(link.exchange.openings, pieces, xs, strict=True):
                part = Assembly((Piece(piece.rank, piece.axis, piece.start, piece.extent),))
                self.memory[self._prepared.openings[opening.name]] = self._assembled(number, link, part, [x])
            return
        if link.tag in self._placement.whole:
            y = self._at(self._placement.whole[link.tag], link.y_kind)
        else:
            y = self._assembled(number, link, link.assembly, xs)
        self.results[link.exchange.y] = Result(self._viewed(y, link), link.blocked)
        for opening in link.exchange.openings:
            self.memory[self._prepared.openings[opening.name]] = y

    def _assembled(self, number: int, link: Link, together: Assembly, xs: list[Array]) -> Array:
        """The result in its plain shape: a view of what another rank computes, or memory filled in every run."""
        if link.y_kind is None:
            raise InvariantError(f"{link.exchange.name} gives nothing")
        if len(xs) == 1:
            part = together.pieces[0].of_x(xs[0])
            if part.flags.c_contiguous and part.size * part.itemsize == link.y_kind.size:
                return part.reshape(link.y_kind.shape)
        y = private_memory(link.y_kind)
        fill = partial(together.compute, xs, self._viewed(y, link))
        self._assembling.setdefault(number, []).append(fill)
        return y

    def _place_private(self) -> None:
        given = set(self._prepared.outputs.values())
        read: dict[ir.Value, int] = {}
        for step in self._prepared.steps:
            if isinstance(step, Compute):
                for value in step.inputs:
                    read[value] = read.get(value, 0) + 1
        sources = {link.source.computed for link in self._prepared.links if link.source is not None}
        for step in self._prepared.steps:
            if not isinstance(step, Compute):
                continue
            for value in step.outputs:
                if value in self.memory or (value in given and value not in read and value not in sources):
                    continue
                added = added_in_place(value)
                in_place = (
                    added is not None
                    and added in step.inputs
                    and added.producer() is not None
                    and read[added] == 1
                    and added not in given
                    and added not in sources
                    and added not in self._names
                    and sum(list(node.inputs).count(added) for node in step.nodes) == 1
                    and self._prepared.kinds[added] == self._prepared.kinds[value]
                )
                memory = self.memory[added] if in_place and added is not None else None
                self.memory[value] = private_memory(self._prepared.kinds[value]) if memory is None else memory

    def _compute(self, index: int, step: Compute) -> Action:
        session, kinds = self._prepared.sessions[index], self._prepared.kinds
        waits: dict[Wait, None] = {}
        for value in step.outputs:
            if value in self._names:
                waits.update(dict.fromkeys(self._placement.before_writing[self._rank, self._names[value]]))
        late_inputs: list[tuple[str, str, Kind]] = []
        late_outputs: list[tuple[str, Kind]] = []
        brought = {o.name: str(k.exchange.y) for k in self._prepared.links for o in k.exchange.openings}
        for value in step.inputs:
            name = str(value.name)
            if value in self.memory:
                session.bind_input(name, kinds[value], self.memory[value])
            else:
                late_inputs.append((name, brought.get(name, name), kinds[value]))
        for value in step.outputs:
            if value in self.memory:
                session.bind_output(str(value.name), kinds[value], self.memory[value])
            else:
                late_outputs.append((str(value.name), kinds[value]))
        act = (
            partial(self._run_late, session, late_inputs, late_outputs) if late_inputs or late_outputs else session.run
        )
        described = Segment(step.name, step.nodes, step.inputs, step.outputs, step.initializers)
        return Action(act, tuple(waits), index, described)

    def _run_late(self, session: Session, inputs: list[tuple[str, str, Kind]], outputs: list[tuple[str, Kind]]) -> None:
        for name, late, kind in inputs:
            session.bind_input(name, kind, self.late[late])
        for name, kind in outputs:
            self.late[name] = array = np.empty(kind.shape, kind.dtype.numpy())
            session.bind_output(name, kind, array)
        session.run()

    def _copy(self, index: int, link: Link) -> Action:
        """Put a tensor that no session computes where the others look for it."""
        if link.source is None or link.x_kind is None:
            raise InvariantError(f"{link.exchange.name} takes nothing")
        name = own_name(link, self._rank)
        target = self._at(self._placement.pieces[self._rank, name], link.x_kind)
        source = link.source.name
        if link.blocked:
            # What another communication has brought in blocks goes on in blocks.
            blocks, in_blocks = self._viewed(target, link), self.results[source]
            if not in_blocks.blocked:
                raise InvariantError(f"{link.exchange.name}: {source} is not in blocks")

        def copy() -> None:
            if link.blocked:
                blocks[...] = in_blocks.array
            else:
                target[...] = self._named(source)

        return Action(copy, self._placement.before_writing[self._rank, name], index)

    def _complete(self, index: int, number: int) -> Action:
        link = self._prepared.links[number]
        described = CommunicationStep(
            link.exchange.name,
            link.exchange.operator,
            None if link.source is None else link.source.name,
            link.exchange.y,
        )
        if not link.shared:
            return Action(partial(self._finish, number, link), (), index, described)
        waits: dict[Wait, None] = {}
        for piece in link.assembly.pieces if link.assembly is not None else ():
            if piece.rank != self._rank:
                waits[Wait(piece.rank, self._offers[piece.rank, link.tag].posted)] = None
        fills = self._assembling.get(number, [])

        def fill() -> None:
            for one in fills:
                one()

        return Action(fill if fills else _nothing, tuple(waits), index, described)

    def _start(self, number: int, link: Link) -> None:
        """Begin a communication by messages."""
        bound = self.bound.get(number)
        if bound is not None:
            bound.start(self._taken(link))

    def _finish(self, number: int, link: Link) -> None:
        bound = self.bound.get(number)
        if bound is not None:
            y = bound.finish()
        elif self.transport is None:
            raise InvariantError(f"{link.exchange.name}: there is no transport")
        else:
            x = self._taken(link)
            # The transport may hand over the very array, and this one is written again in the next run.
            y = execute(link.exchange.operator, None if x is None else x.copy(), self.transport)
        if y is not None and link.exchange.y is not None:
            self.late[link.exchange.y] = y if y.flags.c_contiguous else y.copy()

    def bind_messages(self, transport: Transport) -> None:
        """Let the transport prepare the communications with other regions."""
        for number, link in enumerate(self._prepared.links):
            if link.shared:
                continue
            kind = None if link.x_kind is None else ArrayKind(link.x_kind.shape, link.x_kind.dtype.numpy())
            bound = transport.bind(link.exchange.operator, kind)
            if bound is not None:
                self.bound[number] = bound

    def _taken(self, link: Link) -> Array | None:
        if link.source is None:
            return None
        if link.source.computed is not None:
            value = link.source.computed
            return self.memory[value] if value in self.memory else self.late[str(value.name)]
        return self._named(link.source.name)

    def _named(self, name: str) -> Array:
        """An input, an initializer, or what a communication has given, as (N, C, H, W)."""
        if name in self.late:
            return self.late[name]
        if name in self.results:
            return self.results[name].plain()
        return self._constants[name]

    def _x_of(self, member: int, link: Link) -> Array:
        offer = self._offers[member, link.tag]
        if link.y_kind is None:
            raise InvariantError(f"{link.exchange.name} gives nothing")
        start = self._placement.pieces[member, offer.value]
        return self._arena[start : start + offer.size].view(link.y_kind.dtype.numpy()).reshape(offer.shape)

    def _viewed(self, array: Array, link: Link) -> Array:
        return array.reshape(blocked_shape(array.shape, self._prepared.block)) if link.blocked else array

    def _at(self, start: int, kind: Kind) -> Array:
        return self._arena[start : start + kind.size].view(kind.dtype.numpy()).reshape(kind.shape)


def _nothing() -> None:
    pass
