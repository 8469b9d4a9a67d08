"""Running compiled models as MPI processes, a process per accelerator, driven by the first one."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mars_onnx.calibration.deployment import Deployment, inputs_of
from mars_onnx.compiler import Compilation
from mars_onnx.runtime.mpi.rank import Rank
from mars_onnx.runtime.sessions import FASTEST

if TYPE_CHECKING:
    from mpi4py import MPI

    from mars_onnx.runtime.transport import Array

_DRIVER = 0


class MpiDeployer:
    """Deployments over the processes of a communicator, which all make one of these.

    Process 0 calls :meth:`deploy` and in the end :meth:`close`; the others are in :meth:`serve` meanwhile. Folders are
    written where temporary files go, which all processes have to see.

    Args:
        world: A process per accelerator of the pool, in the order of ranks.
        threads: Of every accelerator's sessions.
    """

    how = "a process per accelerator, under mpiexec"

    def __init__(self, world: MPI.Intracomm, threads: int) -> None:
        self._world = world.Dup()
        self.ranks = self._world.Get_size()
        self._threads = threads
        self._known: dict[int, tuple[Rank, dict[str, Array]] | None] = {}

    def deploy(self, compilation: Compilation) -> Deployment:
        """See :class:`mars_onnx.calibration.deployment.Deployer`."""
        folder = Path(tempfile.mkdtemp(prefix="mars-onnx-"))
        try:
            compilation.save(folder / "probe.mars")
            members = sorted(entry.rank for entry in compilation.plan.partitions)
            number = len(self._known)
            self._world.bcast(("open", str(folder / "probe.mars"), members), _DRIVER)
            self._open(str(folder / "probe.mars"), members)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return _MpiDeployment(self, number)

    def run(self, number: int) -> float:
        """Run one of the deployments; for process 0."""
        self._world.bcast(("run", number), _DRIVER)
        return self._run(number)

    def serve(self) -> None:
        """Take part in whatever process 0 does, until it closes. For all other processes."""
        while True:
            command = self._world.bcast(None, _DRIVER)
            match command:
                case ("open", str(folder), list(members)):
                    self._open(folder, members)
                case ("run", int(number)):
                    self._run(number)
                case _:
                    self._end()
                    return

    def close(self) -> None:
        """Let all processes go; for process 0."""
        self._world.bcast(("end",), _DRIVER)
        self._end()

    def _open(self, folder: str, members: list[int]) -> None:
        taking_part = self._world.Get_rank() in members
        group = cast("MPI.Intracomm", self._world.Split(0 if taking_part else 1, self._world.Get_rank()))
        own = None
        if taking_part:
            rank = Rank(folder, group, options=replace(FASTEST, threads=self._threads), watch=False)
            own = (rank, inputs_of(rank.plan) if rank.is_host else {})
        self._known[len(self._known)] = own
        self._world.Barrier()

    def _run(self, number: int) -> float:
        own = self._known[number]
        seconds = 0.0
        if own is not None:
            rank, inputs = own
            if rank.is_host:
                _, seconds = rank.timed(inputs)
            else:
                rank.run(None)
        # Only the host of the group has measured anything.
        return float(max(self._world.allgather(seconds)))

    def _end(self) -> None:
        for own in self._known.values():
            if own is None:
                continue
            if not own[0].is_host:
                own[0].serve()  # until the host closes
            own[0].close()
        self._known.clear()


class _MpiDeployment:
    def __init__(self, deployer: MpiDeployer, number: int) -> None:
        self._deployer = deployer
        self._number = number

    def run(self) -> float:
        return self._deployer.run(self._number)
