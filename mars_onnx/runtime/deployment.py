"""A folder of partitions as one function from inputs to outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mars_onnx.runtime.plan_file import PlanFile
from mars_onnx.runtime.runner import PartitionRunner, load_folder
from mars_onnx.runtime.sessions import ExecutorOptions
from mars_onnx.runtime.transport import Array


class Deployment:
    """All partitions of a folder in this process, a thread per accelerator, their sessions built.

    Args:
        folder: What mars_onnx has written.
        options: How sessions are built.

    Attributes:
        plan: The content of plan.json: names, shapes and element types of inputs and outputs.

    Raises:
        InputError: A file is missing or malformed, or is not the one that plan.json was written with.
        RunError: ONNX Runtime refuses a partition.
    """

    def __init__(self, folder: str | Path, *, options: ExecutorOptions | None = None) -> None:
        self.plan: PlanFile
        self.plan, files = load_folder(folder)
        self._runner = PartitionRunner(files, self.plan, options=options or ExecutorOptions())
        self._runner.prepare()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of the model, whole and by name, in new memory.

        Args:
            inputs: The inputs of the model, whole and by name.

        Raises:
            InputError: An input is missing or of the wrong shape or element type.
            RunError: A partition failed; the message names accelerator and node or segment.
        """
        return self._runner.run(inputs).outputs

    def run_stream(self, inputs: Iterable[Mapping[str, Array]], depth: int | None = None) -> Iterator[dict[str, Array]]:
        """The outputs for every set of inputs, in order, as a pipeline: an accelerator does not wait for the others.

        Args:
            inputs: Sets of inputs, taken as they are needed.
            depth: How many sets may be under way; by default twice the number of accelerator sets, at least 2.

        Raises:
            InputError: See :meth:`run`; sets before it have been given back.
            RunError: See :meth:`run`.
        """
        return self._runner.run_stream(inputs, depth)


def load(folder: str | Path, *, options: ExecutorOptions | None = None) -> Deployment:
    """Load a folder of partitions, to run them in this process, a thread per accelerator.

    Under MPI, with a process per accelerator, use :func:`mars_onnx.load_rank`.

    Args:
        folder: What mars_onnx has written.
        options: How sessions are built.

    Raises:
        InputError: A file is missing or malformed, or is not the one that plan.json was written with.
        RunError: ONNX Runtime refuses a partition.
    """
    return Deployment(folder, options=options)
