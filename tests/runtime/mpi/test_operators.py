"""Every operator over MPI, with uneven and empty pieces and every element type, against threads: equal bits."""

import pytest

from tests.runtime.mpi.launch import PROGRAMS, Launcher, each_mpi


@each_mpi
@pytest.mark.parametrize(
    ("processes", "seed"), [(4, 2), *(pytest.param(n, n, marks=pytest.mark.slow) for n in (2, 3, 5))]
)
def test_equal_to_threads(mpi: Launcher, processes: int, seed: int) -> None:
    assert int(mpi.run(processes, PROGRAMS / "operators.py", seed)) > 64
