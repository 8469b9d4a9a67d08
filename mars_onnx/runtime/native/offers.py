"""What a rank tells the others about its part in every communication through common memory."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from mars_onnx.comm import AllGather, Broadcast
from mars_onnx.runtime.native.assembly import blocked_shape, on_blocks
from mars_onnx.runtime.native.links import Link, Prepared
from mars_onnx.runtime.native.lowered import BLOCKED_DOMAIN
from mars_onnx.runtime.native.placement import Offer, Program
from mars_onnx.runtime.native.steps import Complete, Compute, Post

_NEVER = (0, -1)
_AT_THE_END = 1 << 62


def program_of(prepared: Prepared, rank: int) -> Program:
    """The offers of a rank. Also fills ``prepared.moved``."""
    return _Offers(prepared, rank).program()


def own_name(link: Link, rank: int) -> str:
    """The name under which a rank offers its tensor; empty if it offers none."""
    operator = link.exchange.operator
    if link.source is None or (isinstance(operator, Broadcast) and operator.root != rank):
        return ""
    return f"{'computed' if link.source.computed is not None else 'named'}:{link.source.name}"


class _Offers:
    def __init__(self, prepared: Prepared, rank: int) -> None:
        self.prepared = prepared
        self.rank = rank
        self.end = len(prepared.steps) + 1
        self.made: dict[ir.Value, int] = {}
        self.reads: dict[ir.Value, list[int]] = {}
        self.named: dict[str, list[int]] = {name: [self.end] for name in prepared.given}
        self.posts: dict[int, int] = {}
        self.completes: dict[int, int] = {}
        for index, step in enumerate(prepared.steps, start=1):
            match step:
                case Compute():
                    self.made.update(dict.fromkeys(step.outputs, index))
                    for value in step.inputs:
                        self.reads.setdefault(value, []).append(index)
                case Post():
                    self.posts[step.number] = index
                    source = prepared.links[step.number].source
                    if source is not None and source.computed is None:
                        self.named.setdefault(source.name, []).append(index)
                case Complete():
                    self.completes[step.number] = index
        for value in prepared.outputs.values():
            self.reads.setdefault(value, []).append(self.end)
        self.sources = {
            link.source.computed: link
            for link in prepared.links
            if link.source is not None and link.source.computed is not None
        }

    def program(self) -> Program:
        """All offers, in the order of the communications."""
        shared = [(number, link) for number, link in enumerate(self.prepared.links) if link.shared]
        return Program(self.end, tuple(self._offer(number, link) for number, link in shared))

    def _offer(self, number: int, link: Link) -> Offer:
        operator = link.exchange.operator
        name = own_name(link, self.rank)
        computed = None if link.source is None else link.source.computed
        x_kind = link.x_kind if name else None
        shape = () if x_kind is None else x_kind.shape
        written, replaces, reread = self.posts[number], -1, _NEVER
        if computed is not None and name:
            written = self.made[computed]
            replaces, written = self._in_place(computed, written)
            reread = self._last(self.reads.get(computed, []))
        readings = [self.completes[number], *self.named.get(str(link.exchange.y), [])]
        for opening in link.exchange.openings:
            readings += self.reads.get(self.prepared.openings[opening.name], [])
        return Offer(
            tag=operator.tag,
            group=tuple(operator.ranks(self.rank)),
            value=name,
            shape=blocked_shape(shape, self.prepared.block) if link.blocked and name else shape,
            size=0 if x_kind is None else x_kind.size,
            made=computed is not None,
            gathers=self._gathers(link),
            posted=self.posts[number],
            written=self._last([written]),
            read=self._last(readings),
            reread=reread,
            replaces=replaces,
        )

    def _last(self, steps: Iterable[int]) -> tuple[int, int]:
        """The last of some steps, and its key."""
        last = max(steps, default=0)
        if last == 0:
            return _NEVER
        return last, _AT_THE_END if last == self.end else self.prepared.steps[last - 1].key

    def _gathers(self, link: Link) -> tuple[int, ...]:
        """Bytes of all pieces, if one piece after the other makes the whole."""
        operator = link.exchange.operator
        if not isinstance(operator, AllGather) or link.y_kind is None:
            return ()
        scaled = on_blocks(operator, self.prepared.block) if link.blocked else operator
        if not isinstance(scaled, AllGather) or any(extent != 1 for extent in scaled.shape[: scaled.axis]):
            return ()
        rest = int(np.prod(scaled.shape[scaled.axis + 1 :], dtype=np.int64)) * int(link.y_kind.dtype.itemsize)
        return tuple(size * rest for size in scaled.sizes)

    def _in_place(self, value: ir.Value, made: int) -> tuple[int, int]:
        """What a convolution adds to its result had best lie where the result goes: it is copied there otherwise.

        Returns:
            The tag of the tensor that can be overwritten, or -1; and the first step that writes to the place.
        """
        added = added_in_place(value)
        if (
            added is None
            or added not in self.made
            or self.made[added] == made
            or added in self.prepared.outputs.values()
        ):
            return -1, made
        step = self.prepared.steps[made - 1]
        users = [node for node in step.nodes if added in node.inputs] if isinstance(step, Compute) else []
        if len(users) != 1 or list(users[0].inputs).count(added) != 1:
            return -1, made
        if self.prepared.kinds[added] != self.prepared.kinds[value]:
            return -1, made
        if max(self.reads[added]) != made:
            return -1, made
        link = self.sources.get(added)
        if link is not None:
            return (link.tag if link.shared else -1), made
        if self.reads[added] != [made]:
            return -1, made
        self.prepared.moved[added] = value
        return -1, self.made[added]


def added_in_place(value: ir.Value) -> ir.Value | None:
    """What the convolution that makes a value adds to it; it skips a copy if that lies where the value goes."""
    node = value.producer()
    if node is None or (node.domain, node.op_type) != (BLOCKED_DOMAIN, "Conv") or len(node.inputs) < 4:
        return None
    return node.inputs[3]
