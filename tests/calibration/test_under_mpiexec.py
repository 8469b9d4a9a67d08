from pathlib import Path

import pytest

from mars_onnx.pool import load_pool
from tests.runtime.mpi.launch import WITHOUT, Launcher, launchers

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not launchers(), reason=WITHOUT)]


@pytest.mark.parametrize("launcher", launchers(), ids=lambda launcher: launcher.name)
def test_a_rank_per_process_is_measured(launcher: Launcher, tmp_path: Path) -> None:
    file = tmp_path / "measured.json"
    launcher.run(2, "-m", "mars_onnx.calibrate", "--quick", "-q", "-o", file, timeout=280)
    pool = load_pool(file)
    assert pool.size == 2
    assert pool.route(0, 1).nodes == (0, 1)


def test_another_number_of_ranks_is_refused_by_all(tmp_path: Path) -> None:
    launcher = launchers()[0]
    process = launcher.start(2, "-m", "mars_onnx.calibrate", "--ranks", "3", "-o", tmp_path / "measured.json")
    _, err = process.communicate(timeout=100)
    assert process.returncode != 0
    assert "--ranks 3: mpiexec has started 2 processes" in err
