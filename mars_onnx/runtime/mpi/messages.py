"""Send, Recv, Shift and HaloExchange: messages that do not block, received where they are needed."""

from __future__ import annotations

import numpy as np

from mars_onnx.comm import HaloExchange, Recv, Send, Shift
from mars_onnx.runtime.mpi.pieces import along, check, contiguous, member_of, overlap
from mars_onnx.runtime.mpi.transport import MpiHandle, MpiTransport
from mars_onnx.runtime.transport import Array, ArrayKind


class BoundSend:
    """A Send."""

    def __init__(self, operator: Send, transport: MpiTransport) -> None:
        self._operator = operator
        self._transport = transport
        self._handle: MpiHandle | None = None

    def post(self) -> None:
        pass

    def start(self, x: Array | None) -> None:
        self.settle()
        self._handle = self._transport.isend_bytes(self._operator.dst, self._operator.tag, contiguous(x))

    def finish(self) -> None:
        return None

    def settle(self) -> None:
        if self._handle is not None:
            self._handle.wait()
            self._handle = None


class BoundRecv:
    """A Recv; its buffer is used again in every run."""

    def __init__(self, operator: Recv, transport: MpiTransport) -> None:
        self._operator = operator
        self._transport = transport
        self._y = np.empty(operator.shape, operator.dtype.numpy())
        self._handle: MpiHandle | None = None

    def post(self) -> None:
        if self._handle is None:
            self._handle = self._transport.irecv_bytes(self._operator.src, self._operator.tag, self._y)

    def start(self, x: Array | None) -> None:
        self.post()

    def finish(self) -> Array:
        if self._handle is not None:
            self._handle.wait()
            self._handle = None
        return self._y

    def settle(self) -> None:
        pass


class _Messages:
    """Messages with neighbours: subclasses say which parts of x go where, and from where parts of y come."""

    def __init__(self, tag: int, transport: MpiTransport, y: Array) -> None:
        self._tag = tag
        self._transport = transport
        self._y = y
        self._sources: list[tuple[int, Array, tuple[slice, ...]]] = []
        self._targets: list[tuple[int, tuple[slice, ...]]] = []
        self._own: tuple[tuple[slice, ...], tuple[slice, ...]] | None = None
        self._receiving: list[MpiHandle] = []
        self._sending: list[MpiHandle] = []

    def _take(self, src: int, part: tuple[slice, ...]) -> None:
        """Part of y that a rank sends: received in place if its memory is in one piece, else beside and copied."""
        view = self._y[part]
        buffer = view if view.flags.c_contiguous else np.empty(view.shape, view.dtype)
        self._sources.append((src, buffer, part))

    def post(self) -> None:
        if not self._receiving:
            self._receiving = [self._transport.irecv_bytes(src, self._tag, buffer) for src, buffer, _ in self._sources]

    def start(self, x: Array | None) -> None:
        array = contiguous(x)
        self.post()
        self.settle()
        self._sending = [
            self._transport.isend_bytes(dst, self._tag, np.ascontiguousarray(array[part]))
            for dst, part in self._targets
        ]
        if self._own is not None:
            here, there = self._own
            self._y[there] = array[here]

    def finish(self) -> Array:
        for handle, (_, buffer, part) in zip(self._receiving, self._sources, strict=True):
            handle.wait()
            if not self._y[part].flags.c_contiguous:
                self._y[part] = buffer
        self._receiving = []
        return self._y

    def settle(self) -> None:
        for handle in self._sending:
            handle.wait()
        self._sending = []


class BoundShift(_Messages):
    """A step of a ring."""

    def __init__(self, operator: Shift, x: ArrayKind, transport: MpiTransport) -> None:
        super().__init__(operator.tag, transport, np.empty(operator.shape, x.dtype))
        own, n = member_of(operator, transport), len(operator.group)
        everything = (slice(None),) * len(operator.shape)
        if operator.offset % n == 0:
            self._own = (everything, everything)
            return
        self._targets.append((operator.group[(own + operator.offset) % n], everything))
        self._take(operator.group[(own - operator.offset) % n], everything)


class BoundHaloExchange(_Messages):
    """Rows (or whatever the axis is) from neighbours around the own ones."""

    def __init__(self, operator: HaloExchange, x: ArrayKind, transport: MpiTransport) -> None:
        super().__init__(operator.tag, transport, np.empty(operator.shape, x.dtype))
        own = member_of(operator, transport)
        held, need = operator.held_by(own), operator.needed_by(own)
        check(x.shape[operator.axis] == held[1] - held[0], operator, "what it holds has another extent than held says")
        check(operator.shape[operator.axis] == need[1] - need[0], operator, "the result has another extent than need")
        covered = 0
        for member, rank in enumerate(operator.group):
            give = overlap(held, operator.needed_by(member))
            take = overlap(operator.held_by(member), need)
            if member == own:
                if give is not None:
                    self._own = along(operator.axis, give, held[0]), along(operator.axis, give, need[0])
                    covered += give[1] - give[0]
                continue
            if give is not None:
                self._targets.append((rank, along(operator.axis, give, held[0])))
            if take is not None:
                self._take(rank, along(operator.axis, take, need[0]))
                covered += take[1] - take[0]
        check(covered == need[1] - need[0], operator, f"{need[0]}:{need[1]} is held by none or twice")
