"""Ranks that see the same memory: what the executor wants of it, for a rank alone, for threads, and under MPI."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from time import sleep
from typing import Any, Protocol

import numpy as np

from mars_onnx.errors import RunError

_PAGE_BYTES = 4096
_BARRIER_SECONDS = 600.0
_SPINS = 1000
"""Turns of a wait, some 0.2 us each, before the first nap of who has a core of his own."""
_SPINS_CROWDED = 50
_YIELDS_CROWDED = 150
_SHORTEST_NAP_S, _LONGEST_NAP_S = 5e-5, 4e-4


class Region(Protocol):
    """One rank's view of the ranks on its host.

    Attributes:
        rank: The own rank, in the numbers of the plan.
        ranks: All ranks of the region, ascending, the own among them.
    """

    rank: int
    ranks: tuple[int, ...]

    def exchange(self, data: bytes) -> list[bytes]:
        """Everybody's data, in the order of ``ranks``. All must call it. Not meant to be fast.

        Raises:
            RunError: Another rank has failed.
        """

    def allocate(self, size: int) -> memoryview:
        """The same ``size`` bytes for everybody, zeroed, writable, aligned to 64. All must call it, with one size."""

    def idle(self, turns: int) -> None:
        """Let time pass in a loop that waits for another rank, ``turns`` turns old.

        Raises:
            RunError: Another rank has failed; it is noticed within some milliseconds.
        """


class Alone:
    """A region of one rank."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.ranks = (rank,)

    def exchange(self, data: bytes) -> list[bytes]:
        """See :class:`Region`."""
        return [data]

    def allocate(self, size: int) -> memoryview:
        """See :class:`Region`."""
        return _page_aligned(size)

    def idle(self, turns: int) -> None:
        """See :class:`Region`."""
        raise RunError(f"rank {self.rank} waits for itself")


class ThreadRegion:
    """One thread's end of a region in one process. Made by :func:`thread_regions`."""

    def __init__(self, rank: int, shared: _Threads) -> None:
        self.rank = rank
        self.ranks = shared.ranks
        self._shared = shared

    def exchange(self, data: bytes) -> list[bytes]:
        """See :class:`Region`."""
        shared = self._shared
        shared.slots[self.rank] = data
        self._meet()
        everything = [shared.slots[rank] for rank in self.ranks]
        self._meet()
        return everything

    def allocate(self, size: int) -> memoryview:
        """See :class:`Region`."""
        shared = self._shared
        if self.rank == self.ranks[0]:
            shared.memory = _page_aligned(size)
        self._meet()
        memory = shared.memory
        self._meet()
        return memory

    def idle(self, turns: int) -> None:
        """See :class:`Region`. Gives the interpreter to the other threads: they need it to go on."""
        if self._shared.failure is not None:
            raise RunError(self._shared.failure)
        sleep(0 if turns < 1000 else 1e-4)

    def abort(self, message: str) -> None:
        """End everybody: all that wait, or will, raise RunError with this message (the first one given)."""
        with self._shared.lock:
            self._shared.failure = self._shared.failure or message
        self._shared.barrier.abort()

    def _meet(self) -> None:
        try:
            self._shared.barrier.wait(_BARRIER_SECONDS)
        except threading.BrokenBarrierError:
            raise RunError(self._shared.failure or "another rank did not come to the common start") from None


class _Threads:
    def __init__(self, ranks: tuple[int, ...]) -> None:
        self.ranks = ranks
        self.slots: dict[int, bytes] = {}
        self.memory = memoryview(b"")
        self.barrier = threading.Barrier(len(ranks))
        self.lock = threading.Lock()
        self.failure: str | None = None


def thread_regions(ranks: Iterable[int]) -> dict[int, ThreadRegion]:
    """A region for threads of this process, by rank."""
    shared = _Threads(tuple(sorted(ranks)))
    return {rank: ThreadRegion(rank, shared) for rank in shared.ranks}


class MpiRegion:
    """The ranks of a communicator that run on this host, in windows of shared memory.

    Args:
        communicator: An ``mpi4py.MPI.Comm`` whose rank ``i`` is rank ``ranks[i]`` of the plan. All of it must call.
        ranks: Rank of the plan per rank of the communicator; by default the same.
    """

    def __init__(self, communicator: Any, ranks: Sequence[int] | None = None) -> None:
        from mpi4py import MPI

        own = communicator.Get_rank() if ranks is None else ranks[communicator.Get_rank()]
        self._mpi = MPI
        self._host = communicator.Split_type(MPI.COMM_TYPE_SHARED, own)
        self.rank = own
        self.ranks = tuple(self._host.allgather(own))
        self._windows: list[Any] = []
        # Who has a core of his own may spin; who shares one must let the others come.
        crowded = is_crowded(self._host.allgather(_cores()))
        self._spins = _SPINS_CROWDED if crowded else _SPINS
        self._yields = _YIELDS_CROWDED if crowded else 0

    def exchange(self, data: bytes) -> list[bytes]:
        """See :class:`Region`."""
        return list(self._host.allgather(data))

    def allocate(self, size: int) -> memoryview:
        """See :class:`Region`."""
        first = self._host.Get_rank() == 0
        window = self._mpi.Win.Allocate_shared(size + _PAGE_BYTES if first else 0, 1, comm=self._host)
        self._windows.append(window)
        memory, _ = window.Shared_query(0)
        # Windows are mapped at other addresses in every process, but all at the start of a page.
        view = self._view(memory, size)
        if first:
            np.frombuffer(view, np.uint8)[...] = 0
        self._host.Barrier()
        return view

    @staticmethod
    def _view(memory: Any, size: int) -> memoryview:
        return memoryview(memory).cast("B")[:size]

    def idle(self, turns: int) -> None:
        """See :class:`Region`."""
        if turns > self._spins + self._yields:
            # Somebody computes for long, maybe because he has to share his core with another program, which can come
            # to this one if it is left for long enough.
            doublings = min(turns - self._spins - self._yields - 1, 3)
            sleep(min(_SHORTEST_NAP_S * 2**doublings, _LONGEST_NAP_S))
        elif turns > self._spins:
            os.sched_yield()
        if turns % 4096 == 0:
            # Lets the MPI library see what has come, and a broken connection end the run.
            self._host.Iprobe()

    def free(self) -> None:
        """Give the windows back; all of the region must call."""
        for window in self._windows:
            window.Free()
        self._windows.clear()


def is_crowded(cores: Sequence[frozenset[int]]) -> bool:
    """Whether ranks have to share cores.

    Args:
        cores: Per rank those that it may use. Some launchers bind every process to one (Open MPI does with two).
    """
    everything = frozenset[int]().union(*cores)
    return any(sum(other <= own for other in cores) > len(own) for own in {*cores, everything})


def _cores() -> frozenset[int]:
    return frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def _page_aligned(size: int) -> memoryview:
    raw = np.zeros(size + _PAGE_BYTES, np.uint8)
    start = -raw.ctypes.data % _PAGE_BYTES
    return raw[start : start + size].data
