"""How partitions exchange arrays: an interface, and an implementation for threads of one process.

:mod:`mars_onnx.runtime.mpi` has the implementation for processes.

The thread fabric knows who waits for what. When every rank that still runs waits and no message can end it, that is a
deadlock; it is reported at once, with everybody's wait, instead of after a timeout.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol

import numpy as np

from mars_onnx.comm import Communication
from mars_onnx.errors import RunError

Array = np.ndarray[Any, np.dtype[Any]]


class Handle(Protocol):
    """A send on its way."""

    def wait(self) -> None:
        """Return when the array may be reused; with rendezvous semantics, when it has been received."""


class Transport(Protocol):
    """What one rank sees. Between two ranks, messages of one tag keep their order; nothing else is ordered."""

    rank: int

    def isend(self, dst: int, tag: int, array: Array) -> Handle:
        """Begin to send; the array must not change until the handle's ``wait`` returns."""

    def recv(self, src: int, tag: int) -> Array:
        """Wait for the next array of this source and tag. It may be shared with others: do not write to it."""

    def bind(self, operator: Communication, x: ArrayKind | None) -> BoundCommunication | None:
        """Prepare a communication node that will be carried out many times.

        Args:
            operator: Which one. All members of its group bind the same nodes in the same order.
            x: What it will be fed; ``None`` for Recv.

        Returns:
            ``None`` if the transport has nothing better than :func:`mars_onnx.runtime.collectives.execute`.
        """

    def abort(self, message: str) -> None:
        """End everybody: all that wait, or will, raise RunError with this message (the first one given)."""


@dataclass(frozen=True, slots=True)
class ArrayKind:
    """Shape and element type of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class BoundCommunication(Protocol):
    """A communication node ready to be carried out, again and again: ``post``, ``start``, ``finish`` in every run."""

    def post(self) -> None:
        """Begin to receive what does not depend on the own data; as early in a run as one likes. Idempotent."""

    def start(self, x: Array | None) -> None:
        """Begin. ``x`` must not change until ``settle`` returns."""

    def finish(self) -> Array | None:
        """Wait for the result; ``None`` for Send. It is valid until ``start`` is called again: do not write to it."""

    def settle(self) -> None:
        """Wait until the ``x`` of the last ``start`` has left; ``start`` does so itself."""


@dataclass(slots=True)
class _Message:
    array: Array
    received: bool = False


@dataclass(slots=True)
class _Mailbox:
    """State shared by all ranks, guarded by ``condition``."""

    condition: threading.Condition = field(default_factory=threading.Condition)
    messages: dict[tuple[int, int, int], deque[_Message]] = field(default_factory=dict)
    waiting: dict[int, tuple[str, Callable[[], bool]]] = field(default_factory=dict)
    running: set[int] = field(default_factory=set)
    failure: str | None = None


class ThreadFabric:
    """Connects ``n`` ranks that are threads of this process. Arrays are handed over, not copied.

    Args:
        n: How many ranks.
        rendezvous: A send ends only when it has been received. That is the harsher rule: what does not deadlock under
            it does not deadlock on any transport.
        timeout: Seconds after which a wait fails though others still compute; ``None`` to wait as long as they do.
        names: What to call the ranks in messages.
    """

    def __init__(
        self, n: int, rendezvous: bool = False, timeout: float | None = None, names: tuple[str, ...] = ()
    ) -> None:
        self.rendezvous = rendezvous
        self.timeout = timeout
        self.names = names or tuple(f"accelerator {rank}" for rank in range(n))
        self._mailbox = _Mailbox(running=set(range(n)))
        self.endpoints = tuple(ThreadTransport(self, self._mailbox, rank) for rank in range(n))

    @property
    def failure(self) -> str | None:
        """The message of the first abort or deadlock, if there was one."""
        return self._mailbox.failure


class ThreadTransport:
    """One rank's end of a :class:`ThreadFabric`. Call :meth:`close` when the rank is done."""

    def __init__(self, fabric: ThreadFabric, mailbox: _Mailbox, rank: int) -> None:
        self.rank = rank
        self._fabric = fabric
        self._mailbox = mailbox

    def isend(self, dst: int, tag: int, array: Array) -> Handle:
        """See :class:`Transport`."""
        box = self._mailbox
        with box.condition:
            self._raise_failure()
            if not 0 <= dst < len(self._fabric.endpoints):
                raise RunError(f"{self._name(self.rank)} sends tag {tag} to accelerator {dst}, which is not there")
            message = _Message(array)
            box.messages.setdefault((self.rank, dst, tag), deque()).append(message)
            box.condition.notify_all()
        return _ThreadHandle(self, message, dst, tag)

    def recv(self, src: int, tag: int) -> Array:
        """See :class:`Transport`."""
        key = (src, self.rank, tag)
        messages = self._mailbox.messages
        what = f"waits for tag {tag} from {self._name(src)}"
        with self._mailbox.condition:
            self._wait_until(lambda: bool(messages.get(key)), what)
            message = messages[key].popleft()
            if not messages[key]:
                del messages[key]
            message.received = True
            self._mailbox.condition.notify_all()
        return message.array

    def bind(self, operator: Communication, x: ArrayKind | None) -> BoundCommunication | None:
        """See :class:`Transport`: nothing is faster than handing arrays over."""
        return None

    def abort(self, message: str) -> None:
        """See :class:`Transport`."""
        with self._mailbox.condition:
            if self._mailbox.failure is None:
                self._mailbox.failure = message
            self._mailbox.condition.notify_all()

    def close(self) -> None:
        """Leave: this rank will neither send nor receive any more."""
        with self._mailbox.condition:
            self._mailbox.running.discard(self.rank)
            self._look_for_deadlock()
            self._mailbox.condition.notify_all()

    def wait_received(self, message: _Message, dst: int, tag: int) -> None:
        """Wait until ``dst`` has taken the message."""
        with self._mailbox.condition:
            self._wait_until(lambda: message.received, f"waits for {self._name(dst)} to receive tag {tag}")

    @property
    def rendezvous(self) -> bool:
        """Whether a send ends only when it has been received."""
        return self._fabric.rendezvous

    def _name(self, rank: int) -> str:
        return self._fabric.names[rank] if 0 <= rank < len(self._fabric.names) else f"accelerator {rank}"

    def _raise_failure(self) -> None:
        if self._mailbox.failure is not None:
            raise RunError(self._mailbox.failure)

    def _wait_until(self, ready: Callable[[], bool], what: str) -> None:
        box = self._mailbox
        deadline = None if self._fabric.timeout is None else monotonic() + self._fabric.timeout
        self._raise_failure()
        if ready():
            return
        box.waiting[self.rank] = (what, ready)
        try:
            self._look_for_deadlock()
            while True:
                self._raise_failure()
                if ready():
                    return
                remaining = None if deadline is None else deadline - monotonic()
                if remaining is not None and remaining <= 0:
                    box.failure = f"{self._name(self.rank)} {what}, in vain for {self._fabric.timeout:g} s"
                    box.condition.notify_all()
                    continue
                box.condition.wait(remaining)
        finally:
            del box.waiting[self.rank]

    def _look_for_deadlock(self) -> None:
        """Fail if all who still run wait, and none of their waits is over. The lock is held."""
        box = self._mailbox
        if box.failure is not None or not box.running or not box.running <= box.waiting.keys():
            return
        if any(ready() for _, ready in box.waiting.values()):
            return
        waits = "; ".join(f"{self._name(rank)} {box.waiting[rank][0]}" for rank in sorted(box.running))
        ended = sorted(set(range(len(self._fabric.endpoints))) - box.running)
        rest = f" ({', '.join(map(self._name, ended))} has ended)" if ended else ""
        box.failure = f"deadlock: {waits}{rest}"
        box.condition.notify_all()


@dataclass(frozen=True, slots=True)
class _ThreadHandle:
    transport: ThreadTransport
    message: _Message
    dst: int
    tag: int

    def wait(self) -> None:
        if self.transport.rendezvous:
            self.transport.wait_received(self.message, self.dst, self.tag)
