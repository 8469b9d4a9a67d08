"""Whole inputs to boxes of accelerators, and boxes of outputs to whole ones, as a plan says."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from mars_onnx.errors import InputError, InvariantError, RunError
from mars_onnx.geometry import Box
from mars_onnx.runtime.plan_file import PlanFile
from mars_onnx.runtime.transport import Array


def check_inputs(plan: PlanFile, inputs: Mapping[str, Array]) -> None:
    """Raise InputError unless these are the inputs of the model, in shape and element type."""
    names = {tensor.tensor for tensor in plan.inputs}
    for name in sorted(inputs.keys() - names):
        raise InputError(f"the model has no input {name!r}; it has {', '.join(sorted(names))}")
    for tensor in plan.inputs:
        if tensor.tensor not in inputs:
            raise InputError(f"input {tensor.tensor!r} is not given")
        given = inputs[tensor.tensor]
        if (given.shape, given.dtype) != (tensor.shape, tensor.numpy_dtype):
            raise InputError(
                f"input {tensor.tensor!r} is {given.dtype}{list(given.shape)}; the model takes "
                f"{tensor.dtype}{list(tensor.shape)}"
            )


def check_names(plan: PlanFile, rank: int, inputs: Collection[str], outputs: Collection[str]) -> None:
    """Raise InvariantError unless a partition takes what the plan gives it, and gives what the plan takes from it."""
    name = accelerator_name(plan, rank)
    planned_inputs = {tensor.tensor for tensor in plan.inputs for held in tensor.boxes if held.rank == rank}
    planned_outputs = {tensor.tensor for tensor in plan.outputs for held in tensor.boxes if held.rank == rank}
    for unplanned in sorted(set(inputs) - planned_inputs):
        raise InvariantError(f"{name}: input {unplanned} is in the partition, not in the plan")
    for missing in sorted(planned_outputs - set(outputs)):
        raise InvariantError(f"{name}: output {missing} is in the plan, not in the partition")


def accelerator_name(plan: PlanFile, rank: int) -> str:
    """How messages name an accelerator."""
    names = {entry.rank: entry.accelerator for entry in plan.partitions}
    return f"accelerator {names[rank]} (rank {rank})" if rank in names else f"accelerator {rank}"


def local_inputs(plan: PlanFile, rank: int, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The boxes of one accelerator, as views."""
    return {
        tensor.tensor: inputs[tensor.tensor][slices(held.box)]
        for tensor in plan.inputs
        for held in tensor.boxes
        if held.rank == rank
    }


def whole_outputs(plan: PlanFile, results: Mapping[int, Mapping[str, Array]]) -> dict[str, Array]:
    """The outputs of the model in new memory, from those of the accelerators by rank and name.

    Raises:
        RunError: One is not of the shape or element type of the plan.
    """
    outputs: dict[str, Array] = {}
    for tensor in plan.outputs:
        whole = np.empty(tensor.shape, tensor.numpy_dtype)
        for held in tensor.boxes:
            piece = results[held.rank][tensor.tensor]
            shape = extents(held.box)
            if (piece.shape, piece.dtype) != (shape, whole.dtype):
                raise RunError(
                    f"{accelerator_name(plan, held.rank)}: output {tensor.tensor} is "
                    f"{piece.dtype}{list(piece.shape)}, the plan says {tensor.dtype}{list(shape)}"
                )
            whole[slices(held.box)] = piece
        outputs[tensor.tensor] = whole
    return outputs


def default_depth(plan: PlanFile) -> int:
    """How many sets of inputs to have under way so that every accelerator set has one, and one that comes."""
    return max(2, 2 * len({entry.set for entry in plan.partitions}))


def extents(box: Box) -> tuple[int, ...]:
    """The shape of a box."""
    return tuple(stop - start for start, stop in box)


def slices(box: Box) -> tuple[Any, ...]:
    """Index of a box; the ellipsis makes the result an array even of a scalar."""
    return (*(slice(start, stop) for start, stop in box), ...)
