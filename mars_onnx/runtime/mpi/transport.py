"""One rank's end of an MPI communicator.

Importing this module initializes MPI; :func:`mars_onnx.runtime.mpi.library.load_mpi` comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI

from mars_onnx.comm import Communication
from mars_onnx.errors import RunError
from mars_onnx.runtime.transport import Array, ArrayKind, BoundCommunication

_TAG_EVERYWHERE = 32767
"""The largest tag that the MPI standard promises."""


class MpiTransport:
    """See :class:`mars_onnx.runtime.transport.Transport`.

    Args:
        comm: Has a process per rank. It serves the messages of partitions alone: messages of the program around it
            would be mistaken for them.
        ranks: The rank of every process, in the order of the communicator.
        ordered: Whether floats are summed in group order, as by any other transport, however many members there are.
            Otherwise the library's own reduction is taken, which sums in whatever order it likes.

    Attributes:
        rank: The own rank.
        comm: The communicator.
        ranks: The rank of every process.
    """

    def __init__(self, comm: MPI.Intracomm, ranks: Sequence[int], ordered: bool = True) -> None:
        self.comm = comm
        self.ranks = tuple(ranks)
        self.rank = self.ranks[comm.Get_rank()]
        self.ordered = ordered
        self._process = {rank: process for process, rank in enumerate(self.ranks)}
        self._groups: dict[tuple[int, ...], MPI.Intracomm] = {}
        largest = comm.Get_attr(MPI.TAG_UB)
        self._largest_tag = largest if isinstance(largest, int) else _TAG_EVERYWHERE

    def isend(self, dst: int, tag: int, array: Array) -> MpiHandle:
        """See :class:`~mars_onnx.runtime.transport.Transport`. Shape and element type travel with it."""
        return MpiHandle(self.comm.isend(array, self.process(dst, tag), tag))

    def recv(self, src: int, tag: int) -> Array:
        """See :class:`~mars_onnx.runtime.transport.Transport`: what :meth:`isend` has sent."""
        return np.asarray(self.comm.recv(None, self.process(src, tag), tag))

    def isend_bytes(self, dst: int, tag: int, array: Array) -> MpiHandle:
        """Begin to send the bare memory of a contiguous array, which has to stay as it is."""
        data = as_bytes(array)
        return MpiHandle(self.comm.Isend([data, MPI.BYTE], self.process(dst, tag), tag), data)

    def irecv_bytes(self, src: int, tag: int, into: Array) -> MpiHandle:
        """Begin to receive bare memory into a contiguous array."""
        data = as_bytes(into)
        return MpiHandle(self.comm.Irecv([data, MPI.BYTE], self.process(src, tag), tag), data)

    def bind(self, operator: Communication, x: ArrayKind | None) -> BoundCommunication | None:
        """See :class:`~mars_onnx.runtime.transport.Transport`. A collective gets its sub-communicator here."""
        from mars_onnx.runtime.mpi.operators import bind

        return bind(operator, x, self)

    def abort(self, message: str) -> None:
        """Nothing: an MPI process cannot wake another one that waits; a :class:`~.watch.Watch` ends them all."""

    def process(self, rank: int, tag: int = 0) -> int:
        """The process that runs a rank.

        Raises:
            RunError: There is none, or the tag is larger than this MPI allows.
        """
        if rank not in self._process:
            raise RunError(f"tag {tag}: rank {rank} has no process")
        if tag > self._largest_tag:
            raise RunError(f"tag {tag} is larger than this MPI library allows, {self._largest_tag}")
        return self._process[rank]

    def communicator(self, group: Sequence[int]) -> MPI.Intracomm:
        """The communicator of a group of ranks, in this order. All members ask for their groups in one order."""
        key = tuple(group)
        if key == self.ranks:
            return self.comm
        if key not in self._groups:
            members = self.comm.Get_group().Incl([self.process(rank) for rank in key])
            self._groups[key] = self.comm.Create_group(members)
        return self._groups[key]

    def close(self) -> None:
        """Free the communicators of groups. All processes call it, when nothing is under way."""
        for comm in self._groups.values():
            comm.Free()
        self._groups.clear()


@dataclass(frozen=True, slots=True)
class MpiHandle:
    """A message on its way, and the memory it comes from or goes to."""

    request: MPI.Request
    data: Array | None = None

    def wait(self) -> None:
        """Return when the message has left, or has come.

        Raises:
            RunError: It is longer than expected.
        """
        try:
            self.request.wait()
        except MPI.Exception as error:
            raise RunError(f"MPI: {error.Get_error_string()}") from error


def as_bytes(array: Array) -> Array:
    """The memory of a contiguous array as bytes; MPI knows few of the element types, and moves bytes as they are."""
    if not array.flags.c_contiguous:
        raise RunError(f"an array of shape {list(array.shape)} that is to be moved is not contiguous")
    return array.reshape(-1).view(np.uint8)
