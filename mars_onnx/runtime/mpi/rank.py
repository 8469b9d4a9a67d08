"""One accelerator's part of a deployment, in a process of its own."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from mars_onnx.errors import InputError, MarsError, RunError, UsageError
from mars_onnx.pool.document import read_text
from mars_onnx.runtime.boxes import accelerator_name, check_inputs, check_names
from mars_onnx.runtime.executor import PartitionExecutor
from mars_onnx.runtime.mpi.library import load_mpi
from mars_onnx.runtime.plan_file import FILE_NAME, PlanFile, check_partition, file_sha256, load_plan
from mars_onnx.runtime.runner import load_partition
from mars_onnx.runtime.sessions import ExecutorOptions
from mars_onnx.runtime.transport import Array

if TYPE_CHECKING:
    from mpi4py import MPI

_T = TypeVar("_T")
_MAX_RANK_MAP_BYTES = 2**20


class Rank:
    """The partition of one accelerator in a program that runs under MPI. All processes make one, together.

    Process 0 of the communicator is the host: it has the inputs and gets the outputs. Every process reads ``plan.json``
    and its own partition, and nothing else of the folder.

    >>> rank = mars_onnx.load_rank("model.mars")  # doctest: +SKIP
    >>> outputs = rank.run(inputs if rank.is_host else None)  # doctest: +SKIP

    Args:
        folder: What mars_onnx has written.
        comm: A process per partition; ``MPI.COMM_WORLD`` if none is given. It is duplicated: messages of the program
            and ours do not meet.
        ranks: Which accelerator every process runs, by rank or id; in ascending order of ranks if not given.
        options: How sessions are built.

    Raises:
        UsageError: The communicator has not as many processes as there are partitions, or ``ranks`` does not fit.
        InputError: The folder is damaged, or not the same for all processes; all processes raise it.
    """

    def __init__(
        self,
        folder: str | Path,
        comm: MPI.Intracomm | None = None,
        *,
        ranks: Sequence[int | str] | None = None,
        options: ExecutorOptions | None = None,
    ) -> None:
        mpi = load_mpi()
        from mars_onnx.runtime.mpi.courier import HOST, Courier
        from mars_onnx.runtime.mpi.transport import MpiTransport

        self._comm = (comm or mpi.COMM_WORLD).Dup()
        self.process = self._comm.Get_rank()
        self.is_host = self.process == HOST
        self.plan, digest = self._together(lambda: _load_plan(Path(folder)))
        self._together(lambda: self._check_plan(Path(folder), self._comm.bcast(digest, HOST), digest))
        self.ranks = self._together(lambda: _checked_ranks(self.plan, self._comm.Get_size(), ranks))
        self.rank = self.ranks[self.process]
        self.name = accelerator_name(self.plan, self.rank)
        self._transport = MpiTransport(self._comm.Dup(), self.ranks)
        self._executor = self._together(lambda: self._load(Path(folder), options))
        self._together(self._executor.prepare)
        self._executor.bind()
        self._courier = Courier(self._comm, self.plan, self.ranks)
        self._open = True

    def run(self, inputs: Mapping[str, Array] | None = None) -> dict[str, Array] | None:
        """Run once. All processes call it; or the host does, while the others are in :meth:`serve`.

        Args:
            inputs: On the host, the model's inputs, whole.

        Returns:
            On the host, the model's outputs in new memory; ``None`` elsewhere.

        Raises:
            InputError: An input is missing or of the wrong shape or element type; all processes raise it.
            RunError: The partition of this process failed; the message names accelerator and node or segment.
        """
        if not self.is_host:
            self._serve_once()
            return None
        try:
            if inputs is None:
                raise InputError("the host is given no inputs")
            check_inputs(self.plan, inputs)
        except MarsError as error:
            self._courier.refuse(str(error))
            raise
        job = self._courier.send(inputs)
        return self._courier.collect(job, self._run(job.own))

    def timed(self, inputs: Mapping[str, Array]) -> tuple[dict[str, Array], float]:
        """On the host, :meth:`run` and the seconds it took."""
        start = perf_counter()
        outputs = self.run(inputs)
        seconds = perf_counter() - start
        if outputs is None:
            raise UsageError("only the host has outputs")
        return outputs, seconds

    def serve(self) -> None:
        """Run whenever the host does, until it calls :meth:`close`. For all processes but the host.

        Raises:
            RunError: See :meth:`run`.
        """
        while True:
            try:
                if not self._serve_once():
                    return
            except InputError:
                continue

    def close(self) -> None:
        """End: all processes call it; those in :meth:`serve` come back from there first."""
        if not self._open:
            return
        self._open = False
        if self.is_host:
            self._courier.stop()
        self._courier.settle()
        self._executor.settle()
        self._comm.Barrier()
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        # The others wait for this process, and nothing but its end wakes them.
        if isinstance(error, MarsError):
            print(f"error: {error}", file=sys.stderr, flush=True)
        else:
            traceback.print_exception(error)
        self._comm.Abort(error.exit_code if isinstance(error, MarsError) else 1)

    def _serve_once(self) -> bool:
        order = self._courier.receive()
        if order.refusal is not None:
            raise InputError(order.refusal)
        if order.inputs is None:
            return False
        self._courier.deliver(self._run(order.inputs))
        return True

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            return self._executor.run(inputs)
        except MarsError as error:
            raise type(error)(f"{self.name}: {error}") from error

    def _check_plan(self, folder: Path, theirs: str, ours: str) -> None:
        if ours != theirs:
            raise InputError(f"{folder / FILE_NAME}: not the plan that the host has read")

    def _load(self, folder: Path, options: ExecutorOptions | None) -> PartitionExecutor:
        entry = next(entry for entry in self.plan.partitions if entry.rank == self.rank)
        path = check_partition(folder, entry)
        executor = PartitionExecutor(load_partition(path), self._transport, options)
        check_names(self.plan, self.rank, executor.inputs, executor.outputs)
        return executor

    def _together(self, work: Callable[[], _T]) -> _T:
        """Do something that every process does; if it fails in one, all raise what it says."""
        result: _T | None = None
        failure: MarsError | None = None
        try:
            result = work()
        except MarsError as error:
            failure = error
        texts = self._comm.allgather(None if failure is None else str(failure))
        if failure is not None:
            raise failure
        for process, text in enumerate(texts):
            if text is not None:
                raise RunError(f"process {process}: {text}")
        return result  # type: ignore[return-value]


def _load_plan(folder: Path) -> tuple[PlanFile, str]:
    """The plan, and the SHA-256 of its file."""
    plan = load_plan(folder, check_hashes=False)
    return plan, file_sha256(folder / FILE_NAME)


def rank_map(text: str) -> tuple[str, ...]:
    """The accelerator of every process, from a list ``a,b,c`` or a file that has one per line (``#`` for remarks).

    Raises:
        InputError: The file cannot be read.
    """
    path = Path(text)
    if "," in text or not path.is_file():
        return tuple(item.strip() for item in text.split(","))
    lines = (line.partition("#")[0].strip() for line in read_text(path, _MAX_RANK_MAP_BYTES).splitlines())
    return tuple(line for line in lines if line)


def _checked_ranks(plan: PlanFile, processes: int, chosen: Sequence[int | str] | None) -> tuple[int, ...]:
    planned = sorted(entry.rank for entry in plan.partitions)
    if processes != len(planned):
        raise UsageError(
            f"there are {processes} MPI processes and {len(planned)} partitions; use mpiexec -n {len(planned)}"
        )
    if chosen is None:
        return tuple(planned)
    by_name = {str(entry.rank): entry.rank for entry in plan.partitions}
    by_name |= {entry.accelerator: entry.rank for entry in plan.partitions}
    for item in chosen:
        if str(item) not in by_name:
            raise UsageError(f"rank map: there is no accelerator {item!r}; there are {', '.join(by_name)}")
    ranks = tuple(by_name[str(item)] for item in chosen)
    if sorted(ranks) != planned:
        raise UsageError(f"rank map: processes run ranks {list(ranks)}; the plan has {planned}, each once")
    return ranks
