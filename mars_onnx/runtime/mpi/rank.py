"""One accelerator's part of a deployment, in a process of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from mars_onnx.errors import InputError, MarsError, RunError, UsageError
from mars_onnx.runtime.boxes import accelerator_name, check_inputs, check_names, default_depth
from mars_onnx.runtime.executor import PartitionExecutor, describe
from mars_onnx.runtime.mpi.agreement import Attempt, agree, attempt, told
from mars_onnx.runtime.mpi.library import load_mpi
from mars_onnx.runtime.mpi.rank_map import checked_ranks
from mars_onnx.runtime.mpi.watch import Watch
from mars_onnx.runtime.native.region import MpiRegion
from mars_onnx.runtime.plan_file import FILE_NAME, PlanFile, check_partition, file_sha256, load_plan
from mars_onnx.runtime.profile import Recorder, Track, chrome_trace, step_facts
from mars_onnx.runtime.runner import load_partition
from mars_onnx.runtime.sessions import FASTEST, ExecutorOptions, check_accelerators, check_provider
from mars_onnx.runtime.transport import Array

if TYPE_CHECKING:
    from mpi4py import MPI

    from mars_onnx.runtime.mpi.courier import Job

_T = TypeVar("_T")
_AHEAD = 2
"""Sets of inputs that are sent before the host's own part is done with the one before."""


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
        options: How sessions are built; ``FASTEST`` if not given.
        watch: Whether a watcher stands beside every process, which ends it if another one dies or fails (see
            docs/running.md). Without, whoever waits for a process that is gone waits for ever.
        profile: Whether to note what this process does, for :meth:`trace`.

    Raises:
        ProcessError: The communicator has not as many processes as there are partitions, ``ranks`` does not fit, or
            the folder is damaged or not the same for all processes; all processes raise it.
    """

    def __init__(
        self,
        folder: str | Path,
        comm: MPI.Intracomm | None = None,
        *,
        ranks: Sequence[int | str] | None = None,
        options: ExecutorOptions | None = None,
        watch: bool = True,
        profile: bool = False,
    ) -> None:
        mpi = load_mpi()
        from mars_onnx.runtime.mpi.courier import HOST, Courier
        from mars_onnx.runtime.mpi.transport import MpiTransport

        self._comm = (comm or mpi.COMM_WORLD).Dup()
        self.process = self._comm.Get_rank()
        self.is_host = self.process == HOST
        read = attempt(lambda: _load_plan(Path(folder)))
        # Until all have read the same plan, processes are called what the host's says.
        self._names: list[str] = self._comm.bcast(_named(read, self._comm.Get_size(), ranks), HOST)
        self.plan, digest = agree(self._comm, read, self._names)
        self._together(lambda: self._check_plan(Path(folder), self._comm.bcast(digest, HOST), digest))
        self.ranks = self._together(lambda: checked_ranks(self.plan, self._comm.Get_size(), ranks))
        self.rank = self.ranks[self.process]
        self.name = accelerator_name(self.plan, self.rank)
        options = options or FASTEST
        self._together(lambda: check_accelerators(options, [entry.accelerator for entry in self.plan.partitions]))
        self._watch = Watch(self._comm, self.name) if watch else None
        try:
            self._transport = MpiTransport(self._comm.Dup(), self.ranks)
            self._region = MpiRegion(self._comm.Dup(), self.ranks) if options.native else None
            self._executor = self._together(lambda: self._load(Path(folder), options))
            self._together(self._executor.prepare)
        except MarsError:
            # All have agreed to end.
            if self._watch is not None:
                self._watch.close()
            raise
        except BaseException as error:
            self._announce(error)
            raise
        if self._watch is not None:
            self._watch.steps([describe(step) for step in self._executor.steps()])
        self._courier = Courier(self._comm, self.plan, self.ranks)
        with self._announcing():
            self._executor.bind()
        self._recorder = Recorder() if profile else None
        self._executor.monitor = _Monitor(self._watch, self._recorder)
        self._open = True
        self._stopped = False

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

    def run_stream(self, inputs: Iterable[Mapping[str, Array]], depth: int | None = None) -> Iterator[dict[str, Array]]:
        """On the host, the outputs for every set of inputs, in order, as a pipeline; the others are in :meth:`serve`.

        Args:
            inputs: Sets of inputs, taken as they are needed.
            depth: How many sets may be under way behind the host's own part; by default twice the number of
                accelerator sets, at least 2.

        Raises:
            InputError: A set is wrong; those before it have been given back.
            RunError: See :meth:`run`.
        """
        depth = default_depth(self.plan) if depth is None else depth
        source = iter(inputs)
        ahead: deque[Job] = deque()
        behind: deque[tuple[Job, dict[str, Array]]] = deque()
        refused: InputError | None = None
        more = True
        while more or ahead or behind:
            while more and len(ahead) < _AHEAD:
                try:
                    given = next(source)
                    check_inputs(self.plan, given)
                    ahead.append(self._courier.send(given))
                except StopIteration:
                    more = False
                except InputError as error:
                    more, refused = False, error
            if ahead:
                job = ahead.popleft()
                # The next run may use the memory of its outputs again.
                behind.append((job, {name: array.copy() for name, array in self._run(job.own).items()}))
            if behind and (len(behind) > depth or not (more or ahead)):
                yield self._courier.collect(*behind.popleft())
        if refused is not None:
            raise refused

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

    def trace(self, runs: int | None = None) -> dict[str, Any] | None:
        """What all processes did and when, as a Chrome trace; all call it, those in :meth:`serve` after it.

        Args:
            runs: How many runs to show, the last ones; all if not given.

        Returns:
            On the host, the content of the file; ``None`` elsewhere.

        Raises:
            UsageError: Nothing was noted, for want of ``profile=True``.
        """
        from mars_onnx.runtime.mpi.clock import offset_ns

        if self._recorder is None:
            raise UsageError("there is no profile; make the rank with profile=True")
        self._stop()
        shift = offset_ns(self._comm)
        accelerator = next(entry.accelerator for entry in self.plan.partitions if entry.rank == self.rank)
        steps = tuple(step_facts(step, self.plan) for step in self._executor.steps())
        events = tuple((step, begin + shift, end + shift) for step, begin, end in self._recorder.events)
        tracks = self._comm.gather(Track(self.rank, accelerator, steps, events))
        return None if tracks is None else chrome_trace(sorted(tracks, key=lambda track: track.rank), runs)

    def close(self) -> None:
        """End: all processes call it; those in :meth:`serve` come back from there first."""
        if not self._open:
            return
        self._open = False
        self._stop()
        self._courier.settle()
        self._executor.settle()
        self._comm.Barrier()
        if self._watch is not None:
            self._watch.close()
        if self._region is not None:
            self._region.free()
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        elif self._open:
            self._announce(error)

    def _stop(self) -> None:
        """The host tells the others that no run follows, and they hear it, once."""
        if self._stopped:
            return
        if self.is_host:
            self._courier.stop()
        elif not self._courier.receive().stop:
            raise UsageError(f"{self.name}: the host runs, this process ends")
        self._stopped = True

    def _serve_once(self) -> bool:
        order = self._courier.receive()
        if order.refusal is not None:
            raise InputError(order.refusal)
        if order.inputs is None:
            self._stopped = True
            return False
        self._courier.deliver(self._run(order.inputs))
        return True

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        with self._announcing():
            try:
                results = self._executor.run(inputs)
            except MemoryError as error:
                raise RunError(told(error)[0]) from error
        if self._watch is not None:
            self._watch.idle()
        return results

    @contextmanager
    def _announcing(self) -> Iterator[None]:
        """What is raised here ends all processes."""
        try:
            yield
        except BaseException as error:
            self._announce(error)
            raise

    def _announce(self, error: BaseException) -> None:
        self._open = False
        if self._watch is not None:
            self._watch.failed(*told(error))

    def _check_plan(self, folder: Path, theirs: str, ours: str) -> None:
        if ours != theirs:
            raise InputError(f"{folder / FILE_NAME}: not the plan that the host has read")

    def _load(self, folder: Path, options: ExecutorOptions) -> PartitionExecutor:
        entry = next(entry for entry in self.plan.partitions if entry.rank == self.rank)
        options = options.of(entry.accelerator, entry.provider)
        check_provider(options, entry.accelerator)
        path = check_partition(folder, entry)
        executor = PartitionExecutor(load_partition(path), self._transport, options, self._region)
        check_names(self.plan, self.rank, executor.inputs, executor.outputs)
        return executor

    def _together(self, work: Callable[[], _T]) -> _T:
        """Do something that every process does; if it fails in one, all raise what that one says.

        Raises:
            EverywhereError: All processes have failed in the same way.
            MarsError: Some have; the message names the first.
        """
        return agree(self._comm, attempt(work), self._names)


def _named(read: Attempt[tuple[PlanFile, str]], processes: int, ranks: Sequence[int | str] | None) -> list[str]:
    """What messages call the processes, if the plan says it."""
    try:
        return [
            accelerator_name(plan, rank) for plan, _ in read.results for rank in checked_ranks(plan, processes, ranks)
        ]
    except MarsError:
        return []


class _Monitor:
    """Tells the watcher where a run stands, and a recorder."""

    def __init__(self, watch: Watch | None, recorder: Recorder | None) -> None:
        self._watch = watch
        self._recorder = recorder

    def begin(self, step: int) -> None:
        if self._watch is not None:
            self._watch.at(step)
        if self._recorder is not None:
            self._recorder.begin(step)

    def end(self, step: int) -> None:
        if self._recorder is not None:
            self._recorder.end(step)


def _load_plan(folder: Path) -> tuple[PlanFile, str]:
    """The plan, and the SHA-256 of its file."""
    plan = load_plan(folder, check_hashes=False)
    return plan, file_sha256(folder / FILE_NAME)


def load_rank(
    folder: str | Path,
    comm: MPI.Intracomm | None = None,
    *,
    ranks: Sequence[int | str] | None = None,
    options: ExecutorOptions | None = None,
    watch: bool = True,
    profile: bool = False,
) -> Rank:
    """Load the partition of this MPI process; all processes of the communicator call it. See :class:`Rank`."""
    return Rank(folder, comm, ranks=ranks, options=options, watch=watch, profile=profile)


def is_host() -> bool:
    """Whether this process is the host of ``MPI.COMM_WORLD``."""
    return bool(load_mpi().COMM_WORLD.Get_rank() == 0)
