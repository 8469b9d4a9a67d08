"""Running compiled models the way they are deployed here: a thread per accelerator, or a process under mpiexec."""

from __future__ import annotations

from dataclasses import replace
from time import sleep
from typing import Protocol

import numpy as np

from mars_onnx.compiler import Compilation
from mars_onnx.runtime.plan_file import PlanFile
from mars_onnx.runtime.runner import PartitionRunner
from mars_onnx.runtime.sessions import FASTEST, ExecutorOptions
from mars_onnx.runtime.transport import Array

_WARM_UP = 3
#: Threads of a session that has just been used may look for work a little longer.
_PAUSE_S = 0.01


class Deployment(Protocol):
    """A compiled model, ready to run."""

    def run(self) -> float:
        """Run once on random inputs; the seconds it took."""
        ...


class Deployer(Protocol):
    """Makes deployments.

    Attributes:
        ranks: How many accelerators there are.
        how: What a deployment is, in words.
    """

    ranks: int
    how: str

    def deploy(self, compilation: Compilation) -> Deployment:
        """Make a compiled model ready to run."""
        ...


def executor_options(threads: int) -> ExecutorOptions:
    """How sessions are built where speed counts."""
    return replace(FASTEST, threads=threads)


class ThreadDeployment:
    """A thread per accelerator."""

    def __init__(self, compilation: Compilation, threads: int) -> None:
        models = [partition.model for partition in compilation.partitions.partitions]
        plan = compilation.plan
        self._runner = PartitionRunner(models, plan, options=executor_options(threads))
        self._runner.prepare()
        self._inputs = inputs_of(plan)

    def run(self) -> float:
        """See :class:`Deployment`."""
        return self._runner.run(self._inputs).seconds


class ThreadDeployer:
    """Deployments with a thread per accelerator.

    Args:
        ranks: How many accelerators there are.
        threads: Of every accelerator's sessions.
    """

    how = "a thread per accelerator"

    def __init__(self, ranks: int, threads: int) -> None:
        self.ranks = ranks
        self._threads = threads

    def deploy(self, compilation: Compilation) -> Deployment:
        """See :class:`Deployer`."""
        return ThreadDeployment(compilation, self._threads)


def inputs_of(plan: PlanFile, seed: int = 0) -> dict[str, Array]:
    """Small random numbers for all inputs of a plan."""
    rng = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for tensor in plan.inputs:
        drawn = rng.random(tensor.shape) - 0.5 if tensor.numpy_dtype.kind == "f" else np.zeros(tensor.shape)
        made[tensor.tensor] = np.asarray(drawn).astype(tensor.numpy_dtype)
    return made


def alternately(deployments: list[Deployment], runs: int) -> list[list[float]]:
    """Run several in turn, so that what disturbs the machine disturbs them alike.

    Returns:
        Per deployment the seconds of every run.
    """
    for deployment in deployments:
        for _ in range(_WARM_UP):
            deployment.run()
    found: list[list[float]] = [[] for _ in deployments]
    for _ in range(runs):
        for seconds, deployment in zip(found, deployments, strict=True):
            seconds.append(deployment.run())
    sleep(_PAUSE_S)
    return found
