"""What every process does for itself and all have to know the outcome of: it succeeds in all, or fails in all."""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from mars_onnx.errors import MarsError

if TYPE_CHECKING:
    from mpi4py import MPI

_T = TypeVar("_T")


class ProcessError(MarsError):
    """A process cannot take part; all processes raise it with the same message."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class EverywhereError(ProcessError):
    """All processes fail in the same way, so that one may speak for all."""


@dataclass(frozen=True, slots=True)
class Attempt(Generic[_T]):
    """What something has given, or a message and the exit code."""

    results: tuple[_T, ...] = ()
    failure: tuple[str, int] | None = None


def attempt(work: Callable[[], _T]) -> Attempt[_T]:
    """Do something; what it raises is part of the outcome."""
    try:
        return Attempt((work(),))
    except Exception as error:  # noqa: BLE001 - whatever it is, the others wait to be told
        if not isinstance(error, (MarsError, MemoryError)):
            traceback.print_exc()
        return Attempt(failure=told(error))


def agree(comm: MPI.Intracomm, outcome: Attempt[_T], names: Sequence[str]) -> _T:
    """The result, if all processes have one; all call it.

    Args:
        comm: All processes.
        outcome: The own one.
        names: What messages call the processes; empty if that is not known yet.

    Raises:
        EverywhereError: All processes have failed in the same way.
        ProcessError: Some have; the message names the first.
    """
    everybody = comm.allgather(outcome.failure)
    if not any(everybody):
        return outcome.results[0]
    texts = [entry[0] for entry in everybody if entry is not None]
    process = next(process for process, entry in enumerate(everybody) if entry is not None)
    if len(texts) == len(everybody) and len(set(texts)) == 1:
        raise EverywhereError(texts[0], everybody[process][1])
    who = names[process] if names else f"process {process}"
    machine = comm.bcast(socket.gethostname(), process)
    raise ProcessError(f"{who} on {machine}: {texts[0]}", everybody[process][1])


def told(error: BaseException) -> tuple[str, int]:
    """A message for the other processes, and the exit code."""
    if isinstance(error, MarsError):
        return str(error), error.exit_code
    if isinstance(error, MemoryError):
        return "out of memory" + (f" ({error})" if str(error) else ""), 1
    return f"{type(error).__name__}: {error}", 1
