import json
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from mars_onnx import calibrate
from mars_onnx.calibration.deployment import Deployment
from mars_onnx.calibration.links import Exchange, LinkTimes, assembly_of, line_through, overhead_of
from mars_onnx.calibration.networks import networks
from mars_onnx.calibration.pool_file import Machine, near_cache_bytes, pool_of, vector_words, write_pool
from mars_onnx.calibration.session import Wanted
from mars_onnx.calibration.session import calibrate as measure
from mars_onnx.compiler import Compilation, compile
from mars_onnx.cost.interconnect import Interconnect
from mars_onnx.errors import UsageError
from mars_onnx.hw import main as describe
from mars_onnx.pool import load_pool
from mars_onnx.pool.collectives import Overhead
from mars_onnx.pool.cpu_parameters import CpuParameters, KernelTime
from mars_onnx.redistribution.plan import Collective, Fragment, Pattern


def machine(ranks: int, **changes: object) -> Machine:
    kernels = CpuParameters(
        near_cache_bytes=2**19,
        kernels=(
            KernelTime(kinds=("conv_direct", "conv_pointwise", "conv_planar"), s_per_mmac=2e-5, source="made up"),
            KernelTime(kinds=("elementwise", "move", "view"), s_per_output_mb=5e-5, source="made up"),
        ),
    )
    pairs = {(i, j): LinkTimes(1e-5 * (1 + i), 2e9, 6e9, 0.02) for i in range(ranks) for j in range(i + 1, ranks)}
    facts = {
        "name": "made_up",
        "kernels": kernels,
        "ranks": ranks,
        "memory_bytes": 2**30,
        "memory_bandwidth_bytes_per_s": 1.2e10,
        "links": pairs,
        "run_s": 3e-4,
        "host_bandwidth_bytes_per_s": 5e10,
        "source": "made up",
    }
    return Machine(**(facts | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_file_is_a_pool(ranks: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "made_up.json"
    write_pool(machine(ranks), file)
    assert describe([str(file)]) == 0
    assert "ort_cpu" in capsys.readouterr().out
    pool = load_pool(file)
    assert [own.id for own in pool.accelerators] == [f"core{rank}" for rank in range(ranks)]
    assert pool.accelerators[0].designs[0].parameters == machine(ranks).kernels
    write_pool(machine(ranks), file)
    assert load_pool(file).sha256 == pool.sha256


@pytest.mark.parametrize("run_s", [1e-6, 1e-3])
def test_no_message_between_ranks_takes_the_way_through_the_host(run_s: float) -> None:
    pool = pool_of(machine(3, run_s=run_s))
    for first in range(3):
        for second in range(3):
            if first != second:
                assert pool.route(first, second).nodes == (first, second)


def test_a_model_is_compiled_for_it() -> None:
    model = next(networks())
    compiled = compile(ir.from_proto(model), pool_of(machine(2)))
    assert compiled.simulation.latency_s > 0


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "taken.json").mkdir()
    with pytest.raises(UsageError, match=r"taken\.json: cannot be written"):
        write_pool(machine(1), tmp_path / "taken.json")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken.json"]


def test_latency_and_bandwidth_are_recovered() -> None:
    sizes = (2048.0, 32768.0, 262144.0, 1048576.0)
    kinds = ((1, 0.5, 0.0), (2, 1.0, 0.5))
    made = [
        Exchange(rounds, sent * size, summed * size, 0.0, rounds * 2e-5 + sent * size / 3e9 + summed * size / 8e9)
        for rounds, sent, summed in kinds
        for size in sizes
    ]
    found = line_through(made)
    assert found.reduction_bytes_per_s == pytest.approx(8e9)
    assert found.latency_s == pytest.approx(2e-5)
    assert found.bandwidth_bytes_per_s == pytest.approx(3e9)
    assert found.error == pytest.approx(0, abs=1e-9)
    # Noise can make the smallest ones come out as nothing.
    nothing = line_through([Exchange(1, size, 0.0, 0.0, -1e-6) for size in sizes])
    assert nothing.latency_s >= 0
    assert nothing.reduction_bytes_per_s is None


def test_what_communications_take_beyond_the_link_is_recovered() -> None:
    link = LinkTimes(2e-5, 3e9)
    sizes = (2048.0, 32768.0, 262144.0, 1048576.0)
    made = [Exchange(1, size / 8, 0.0, size, 2e-5 + size / 8 / 3e9 + 7e-5 + size / 6e9) for size in sizes]
    found = overhead_of(made, link)
    assert found.latency_s == pytest.approx(7e-5)
    assert found.kept_bytes_per_s == pytest.approx(6e9)
    assert overhead_of([Exchange(1, size, 0.0, size, 1e-6) for size in sizes], link) == Overhead()


def test_overheads_are_priced() -> None:
    plain, more = (pool_of(machine(2, overheads=own)) for own in ((), ({"HaloExchange": Overhead(7e-5, 6e9)},)))
    boxes = [Fragment(((0, 1), (0, 8), (0, 16), (0, 32))), Fragment(((0, 1), (0, 8), (16, 32), (0, 32)))]
    needed = [Fragment(((0, 1), (0, 8), (0, 17), (0, 32))), Fragment(((0, 1), (0, 8), (15, 32), (0, 32)))]
    halo = Collective(Pattern.HALO_EXCHANGE, (0, 1), tuple(boxes), tuple(needed), axis=2)
    kept = 4 * 8 * 16 * 32
    before, after = (Interconnect(pool).collective(halo, 4.0) for pool in (plain, more))
    assert after - before == pytest.approx(7e-5 + kept / 6e9)
    both = (Fragment(((0, 64),)),) * 2
    summed = Collective(Pattern.ALL_REDUCE, (0, 1), both, both)
    assert Interconnect(more).collective(summed, 4.0) == Interconnect(plain).collective(summed, 4.0)


def test_how_fast_gathered_pieces_are_put_together_is_recovered() -> None:
    link = LinkTimes(2e-5, 3e9)
    sizes = (2048.0, 32768.0, 262144.0, 1048576.0)
    made = [Exchange(1, size, 0.0, size, 2e-5 + size / 3e9 + 2 * size / 5e9) for size in sizes]
    assert assembly_of(made, link) == pytest.approx(5e9)
    assert assembly_of([Exchange(1, size, 0.0, size, 1e-6) for size in sizes], link) is None


@pytest.mark.parametrize(("axis", "apart"), [(1, False), (2, True), (3, True)])
def test_pieces_that_lie_apart_cost_more_to_gather(axis: int, apart: bool) -> None:
    own = ({"AllGather": Overhead(assembled_bytes_per_s=5e9)},)
    plain, more = (pool_of(machine(2, overheads=overheads)) for overheads in ((), own))
    assert more.collectives.overheads["AllGather"] == own[0]["AllGather"]
    whole = ((0, 1), (0, 8), (0, 16), (0, 32))
    half = whole[axis][1] // 2
    pieces = tuple(
        Fragment((*whole[:axis], place, *whole[axis + 1 :])) for place in ((0, half), (half, whole[axis][1]))
    )
    gather = Collective(Pattern.ALL_GATHER, (0, 1), pieces, (Fragment(whole),) * 2, axis=axis)
    before, after = (Interconnect(pool).collective(gather, 4.0) for pool in (plain, more))
    assert after - before == pytest.approx(4 * 8 * 16 * 32 / 5e9 if apart else 0.0)


def test_the_machine_is_read_from_the_system() -> None:
    assert near_cache_bytes() >= 2**15
    assert vector_words(["sse", "avx2"]) == 8
    assert vector_words(["sse", "avx512f"]) == 16
    assert vector_words() in (8, 16)


class _Clock:
    """Deployments that take what a machine with known links would, so that no test looks at a real clock."""

    how = "made up"

    def __init__(self, ranks: int, latency_s: float, bandwidth_bytes_per_s: float) -> None:
        self.ranks = ranks
        self._line = (latency_s, bandwidth_bytes_per_s)

    def deploy(self, compilation: Compilation) -> Deployment:
        latency_s, bandwidth = self._line
        seconds = max(compilation.price.timeline.compute_s) + 1e-4
        for entry in compilation.plan.communication:
            rounds = 2 if entry.op == "AllReduce" else 1
            # What reaches both together: each sends a half. A sum goes there and back.
            seconds += rounds * (latency_s + entry.bytes / 2 / rounds / bandwidth)
        return _Fixed(seconds)


class _Fixed:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def run(self) -> float:
        return self._seconds


def test_a_whole_calibration(tmp_path: Path) -> None:
    model = next(networks())
    onnx.save(model, tmp_path / "own.onnx")
    wanted = Wanted("tiny", ranks=2, scale=0.01, models=(tmp_path / "own.onnx",))
    found = measure(wanted, _Clock(2, 3e-5, 4e9))
    (link,) = found.machine.links.values()
    assert link.latency_s == pytest.approx(3e-5, rel=0.05)
    assert link.bandwidth_bytes_per_s == pytest.approx(4e9, rel=0.05)
    assert any(note.startswith("own.onnx: ") for note in found.notes)
    file = tmp_path / "tiny.json"
    write_pool(found.machine, file)
    assert load_pool(file).size == 2
    assert found.seconds > 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-o", "pool.txt"], 2, "should end in .json"),
        (["-o", "nowhere/pool.json"], 2, "there is no folder nowhere"),
        (["--threads-per-rank", "100000"], 2, "give at most as many"),
        (["--ort-profile", "broken.json"], 1, "broken.json: not JSON"),
        (["--ort-profile", "strange.json"], 1, "strange.json: no kernel in it says by its shapes"),
        (["--model", "broken.json"], 1, "broken.json"),
        (["--model", "nowhere.onnx"], 1, "nowhere.onnx"),
    ],
)
def test_wrong_use_is_said(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text("[{", encoding="utf-8")
    event = {"cat": "Node", "name": "x_kernel_time", "dur": 3, "args": {"op_name": "Nonsense"}}
    Path("strange.json").write_text(json.dumps([event]), encoding="utf-8")
    assert calibrate.main([*arguments, "-q"]) == code
    assert message in capsys.readouterr().err
    assert not Path("calibrated.json").exists()
