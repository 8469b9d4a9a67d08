"""Run all partitions together: a thread per accelerator, boxes of the inputs in, boxes of the outputs out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from time import perf_counter
from typing import Any

import onnx_ir as ir

from mars_onnx.errors import InputError, MarsError, RunError
from mars_onnx.runtime.boxes import check_inputs, check_names, default_depth, local_inputs, whole_outputs
from mars_onnx.runtime.executor import Claim, PartitionExecutor
from mars_onnx.runtime.native.region import ThreadRegion, thread_regions
from mars_onnx.runtime.plan_file import PlanFile, load_plan
from mars_onnx.runtime.profile import Recorder, Track, chrome_trace, step_facts
from mars_onnx.runtime.sessions import ExecutorOptions, check_accelerators, check_provider
from mars_onnx.runtime.transport import Array, ThreadFabric


@dataclass(frozen=True, slots=True)
class Observed:
    """A local value of a partition that says which box of which canonical tensor it is."""

    rank: int
    accelerator: str
    claim: Claim
    array: Array


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run gave: whole outputs by name, observed values of all partitions in rank order, seconds it took."""

    outputs: dict[str, Array]
    observed: tuple[Observed, ...]
    seconds: float


class PartitionRunner:
    """Partitions ready to run, as often as wanted.

    Args:
        partitions: Models or files, in the order of ``plan.partitions``.
        plan: Which box of every input and output is whose.
        rendezvous: Every send waits for its receiver, as on a transport without buffers.
        timeout: See :class:`ThreadFabric`.
        options: How sessions are built.
    """

    def __init__(
        self,
        partitions: Sequence[ir.Model | str | Path],
        plan: PlanFile,
        *,
        rendezvous: bool = False,
        timeout: float | None = None,
        options: ExecutorOptions | None = None,
    ) -> None:
        if len(partitions) != len(plan.partitions):
            raise InputError(f"the plan has {len(plan.partitions)} partitions, {len(partitions)} are given")
        if options is not None:
            check_accelerators(options, [entry.accelerator for entry in plan.partitions])
            for entry in plan.partitions:
                check_provider(options.of(entry.accelerator, entry.provider), entry.accelerator)
        self.plan = plan
        self._rendezvous = rendezvous
        self._timeout = timeout
        size = 1 + max(entry.rank for entry in plan.partitions)
        self._recorders: dict[int, Recorder] = {}
        self._names = {entry.rank: entry.accelerator for entry in plan.partitions}
        self._all_names = tuple(self._names.get(rank, f"accelerator {rank}") for rank in range(size))
        fabric = self._fabric()
        # A run that tries the harshest semantics of messages is about messages.
        regions = thread_regions(self._names) if options is not None and options.native and not rendezvous else {}
        self._executors = {
            entry.rank: PartitionExecutor(
                load_partition(model),
                fabric.endpoints[entry.rank],
                None if options is None else options.of(entry.accelerator, entry.provider),
                regions.get(entry.rank),
            )
            for entry, model in zip(plan.partitions, partitions, strict=True)
        }
        for rank, executor in self._executors.items():
            check_names(plan, rank, executor.inputs, executor.outputs)

    def prepare(self, deep: bool = False) -> None:
        """Build all sessions, which otherwise the first run does."""
        fabric = self._fabric()
        self._in_threads(fabric, lambda rank: self._executors[rank].prepare(deep))

    def run(self, inputs: Mapping[str, Array], *, deep: bool = False) -> RunResult:
        """Run all partitions once.

        Args:
            inputs: The model's inputs, whole.
            deep: Whether to keep every value that is a box of a tensor of the canonical graph.

        Raises:
            InputError: An input is missing or of the wrong shape or element type.
            RunError: A partition failed; the message names accelerator and node or segment.
        """
        check_inputs(self.plan, inputs)
        fabric = self._fabric()
        results: dict[int, dict[str, Array]] = {}
        observed: dict[int, list[Observed]] = {rank: [] for rank in self._executors}

        def work(rank: int) -> None:
            executor = self._executors[rank]
            executor.transport = fabric.endpoints[rank]
            name = self._names[rank]

            def observe(claim: Claim, array: Array) -> None:
                observed[rank].append(Observed(rank, name, claim, array))

            results[rank] = executor.run(local_inputs(self.plan, rank, inputs), observe if deep else None)

        start = perf_counter()
        self._in_threads(fabric, work)
        seconds = perf_counter() - start
        everything = tuple(item for rank in sorted(observed) for item in observed[rank])
        return RunResult(whole_outputs(self.plan, results), everything, seconds)

    def record(self) -> None:
        """Note from now on what every partition does, for :meth:`trace`."""
        self._recorders = {rank: Recorder() for rank in self._executors}
        for rank, executor in self._executors.items():
            executor.monitor = self._recorders[rank]

    def trace(self, runs: int | None = None) -> dict[str, Any]:
        """What all partitions did since :meth:`record`, as a Chrome trace.

        Args:
            runs: How many runs to show, the last ones; all if not given.
        """
        tracks = [
            Track(
                rank,
                self._names[rank],
                tuple(step_facts(step, self.plan) for step in self._executors[rank].steps()),
                tuple(recorder.events),
            )
            for rank, recorder in sorted(self._recorders.items())
        ]
        return chrome_trace(tracks, runs)

    def run_stream(self, inputs: Iterable[Mapping[str, Array]], depth: int | None = None) -> Iterator[dict[str, Array]]:
        """The outputs for every set of inputs, in order, as a pipeline: no partition waits for one it does not need.

        Args:
            inputs: Sets of whole inputs, taken as they are needed.
            depth: How many sets may be under way; by default twice the number of accelerator sets, at least 2.

        Raises:
            InputError: A set is wrong; those before it have been given back.
            RunError: A partition failed; the message names accelerator and node or segment.
        """
        depth = default_depth(self.plan) if depth is None else depth
        fabric = self._fabric()
        given: dict[int, SimpleQueue[dict[str, Array] | None]] = {rank: SimpleQueue() for rank in self._executors}
        made: dict[int, SimpleQueue[dict[str, Array] | None]] = {rank: SimpleQueue() for rank in self._executors}

        def work(rank: int) -> None:
            executor = self._executors[rank]
            executor.transport = fabric.endpoints[rank]
            try:
                while (local := given[rank].get()) is not None:
                    # The next run may use the memory of its outputs again.
                    made[rank].put({name: array.copy() for name, array in executor.run(local).items()})
            finally:
                made[rank].put(None)

        def collect() -> dict[str, Array] | None:
            results = {rank: queue.get() for rank, queue in made.items()}
            complete = {rank: result for rank, result in results.items() if result is not None}
            return whole_outputs(self.plan, complete) if len(complete) == len(results) else None

        failures: list[Exception] = []

        def run_all() -> None:
            try:
                self._in_threads(fabric, work)
            except MarsError as error:
                failures.append(error)

        driver = threading.Thread(target=run_all, name="stream")
        driver.start()
        under_way = 0
        refused: InputError | None = None
        try:
            for whole in inputs:
                try:
                    check_inputs(self.plan, whole)
                except InputError as error:
                    refused = error
                    break
                for rank, queue in given.items():
                    queue.put(local_inputs(self.plan, rank, whole))
                under_way += 1
                if under_way >= depth:
                    under_way -= 1
                    outputs = collect()
                    if outputs is None:
                        # A thread that has ended gives nothing more: not one run may be waited for after this.
                        under_way = 0
                        break
                    yield outputs
            while under_way:
                under_way -= 1
                outputs = collect()
                if outputs is None:
                    break
                yield outputs
        finally:
            for queue in given.values():
                queue.put(None)
            driver.join()
        if failures:
            raise failures[0]
        if refused is not None:
            raise refused

    def _fabric(self) -> ThreadFabric:
        fabric = ThreadFabric(len(self._all_names), self._rendezvous, self._timeout, self._all_names)
        for rank, endpoint in enumerate(fabric.endpoints):
            if rank not in self._names:
                endpoint.close()
        return fabric

    def _renew(self) -> None:
        """Forget the memory that a failed run has left in no known state."""
        regions = thread_regions(self._names)
        for rank, executor in self._executors.items():
            if executor.region is not None:
                executor.forget(regions[rank])

    def _in_threads(self, fabric: ThreadFabric, work: Callable[[int], None]) -> None:
        failures: list[tuple[int, Exception]] = []

        def body(rank: int) -> None:
            endpoint = fabric.endpoints[rank]
            try:
                work(rank)
            except Exception as error:  # noqa: BLE001 - whatever ends this thread has to end the others too
                failures.append((rank, error))
                text = str(error) if isinstance(error, MarsError) else f"{type(error).__name__}: {error}"
                endpoint.abort(f"accelerator {self._names[rank]} (rank {rank}): {text}")
                region = self._executors[rank].region
                if isinstance(region, ThreadRegion):
                    region.abort(fabric.failure or text)
            finally:
                endpoint.close()

        threads = [threading.Thread(target=body, args=(rank,), name=name) for rank, name in self._names.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            self._renew()
            # The fabric keeps the first message; the other ranks only repeat it.
            cause = failures[0][1]
            kind = type(cause) if isinstance(cause, MarsError) else RunError
            raise kind(fabric.failure or str(cause)) from cause


def load_partition(model: ir.Model | str | Path) -> ir.Model:
    """A partition from its file; a model as it is.

    Raises:
        InputError: The file cannot be read as ONNX.
    """
    if isinstance(model, ir.Model):
        return model
    try:
        loaded = ir.load(model)
    except OSError as error:
        raise InputError(f"{model}: {error.strerror or error}") from None
    except MemoryError:
        raise RunError(f"{model}: there is not enough memory for it") from None
    except Exception as error:
        # protobuf and onnx_ir raise whatever they like on a corrupt file.
        raise InputError(f"{model}: not an ONNX file ({type(error).__name__}: {error})") from error
    for value in loaded.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            _check_inside(value.const_value, Path(model))
    return loaded


def _check_inside(tensor: ir.ExternalTensor, model: Path) -> None:
    """Refuse weights that are taken from a file outside the model's folder, and data that is not all there."""
    folder = model.parent.resolve()
    file = (folder / tensor.location).resolve()
    if not file.is_relative_to(folder):
        raise InputError(
            f"{model}: initializer {tensor.name} takes its data from outside the folder: {tensor.location}"
        )
    if not file.is_file():
        raise InputError(f"{model}: the data of initializer {tensor.name} should be in {file}, which is not there")
    if file.stat().st_size < (tensor.offset or 0) + tensor.nbytes:
        raise InputError(f"{file}: too short to hold initializer {tensor.name} of {model}")


def run_partitions(
    partitions: Sequence[ir.Model | str | Path],
    plan: PlanFile,
    inputs: Mapping[str, Array],
    *,
    deep: bool = False,
    rendezvous: bool = False,
    timeout: float | None = None,
    options: ExecutorOptions | None = None,
) -> RunResult:
    """Run partitions together once; see :class:`PartitionRunner`."""
    runner = PartitionRunner(partitions, plan, rendezvous=rendezvous, timeout=timeout, options=options)
    return runner.run(inputs, deep=deep)


def load_folder(folder: str | Path, check_hashes: bool = True) -> tuple[PlanFile, list[Path]]:
    """The plan of a folder and the files of its partitions."""
    plan = load_plan(folder, check_hashes)
    return plan, [Path(folder) / entry.file for entry in plan.partitions]
