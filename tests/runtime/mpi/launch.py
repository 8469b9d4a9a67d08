"""Programs of several MPI processes, as tests start them."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent.parent
PROGRAMS = Path(__file__).parent / "programs"


@dataclass(frozen=True)
class Launcher:
    """An mpiexec: its name, how it is called, and what its environment needs."""

    name: str
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()

    def argv(self, processes: int, *arguments: object) -> list[str]:
        return [*self.command, "-n", str(processes), sys.executable, *map(str, arguments)]

    def env(self) -> dict[str, str]:
        paths = f"{ROOT}{os.pathsep}{ROOT / 'passes'}"
        return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "TERM": "dumb", **dict(self.environment)}

    def start(self, processes: int, *arguments: object, cwd: Path | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(processes, *arguments),
            cwd=cwd,
            env=self.env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, processes: int, *arguments: object, cwd: Path | None = None, timeout: float = 120) -> str:
        process = self.start(processes, *arguments, cwd=cwd)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            pytest.fail(f"{processes} processes hang:\n{out}\n{err}")
        assert process.returncode == 0, out + err
        return out


def launchers() -> list[Launcher]:
    """MPICH's from its wheel, and Open MPI's from the system."""
    found = []
    if find_spec("mpi4py") is None:
        return found
    wheel = Path(sysconfig.get_path("scripts")) / "mpiexec"
    if wheel.is_file():
        found.append(Launcher("mpich", (str(wheel),)))
    system = shutil.which("mpiexec.openmpi")
    if system is not None:
        root = (("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"))
        found.append(Launcher("openmpi", (system, "--oversubscribe"), root))
    return found


LAUNCHERS = launchers()
WITHOUT = "no MPI: neither the mpich wheel nor Open MPI is installed, or mpi4py is not"
each_mpi = pytest.mark.parametrize(
    "mpi",
    # One is enough for the quick run.
    [pytest.param(mpi, id=mpi.name, marks=[pytest.mark.slow] * (number > 0)) for number, mpi in enumerate(LAUNCHERS)]
    or [pytest.param(None, marks=pytest.mark.skip(reason=WITHOUT))],
)
