"""Search options from the command line to the report, of which every figure is derived again from what was written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest

import mars_onnx
from mars_onnx.__main__ import main
from mars_onnx.errors import CapacityError, UsageError
from mars_onnx.pool.loader import load_pool
from mars_onnx.pool.topology import Pool
from mars_onnx.report.capacity import overflows
from mars_onnx.runtime.runner import load_folder, load_partition
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.method import Objective, SearchOptions, SearchResult
from mars_onnx.search.problem import Problem, problem_of
from mars_onnx.sharding.mapping_file import parse_mapping
from mars_onnx.simulation import ADDITIVE, simulate
from mars_onnx.simulation.simulate import read_folder
from tests.passes.onnx_text import model
from tests.pool_factory import pool_document, pool_of
from tests.search.methods_for_tests import answering, few, patient, register, whole_on
from tests.simulation.partitions import pool_with, simulated_latency

TEXT = """(float[64,64] x) => (float[64,64] y) {
    [one] a = MatMul (x, w)
    [two] b = Relu (a)
    [three] c = MatMul (b, v)
    [four] y = Tanh (c)
}"""
WEIGHTS = {"w": (64, 64), "v": (64, 64)}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and a pool, and the methods of the tests."""
    monkeypatch.chdir(tmp_path)
    onnx.save(ir.to_proto(model(TEXT, WEIGHTS)), "model.onnx")
    Path("pool.json").write_text(json.dumps(pool_document((2, 2))), encoding="utf-8")
    register(monkeypatch, "few", few)
    register(monkeypatch, "patient", patient)
    return tmp_path


def report_of(*options: str) -> dict[str, Any]:
    assert main(["model.onnx", "--hw", "pool.json", "-o", "out", *options]) == 0
    return json.loads(Path("out/report.json").read_text(encoding="utf-8"))


def derived(report: dict[str, Any], folder: Path, pool: Pool) -> None:
    """Everything that the report says of the search, from the other files and the search methods alone."""
    models, canonical = read_folder(folder)
    assert canonical is not None
    plan, _ = load_folder(folder)
    problem = problem_of(canonical)
    layers = [layer.name for layer in problem.layers]
    mapping = parse_mapping(json.dumps(plan.mapping), folder / "plan.json", pool, layers)
    cost = evaluate(problem, pool, mapping)
    assert report["latency_s"] == pytest.approx(simulate(models, pool, canonical).latency_s, rel=1e-12)
    assert report["search"]["cost_s"] == pytest.approx(cost.cost_s(Objective(report["objective"])), rel=1e-12)
    assert report["throughput_per_s"] == pytest.approx(1 / min(cost.period_s, report["latency_s"]), rel=1e-12)
    bound_s, gap = report["lower_bound_s"], report["optimality_gap"]
    assert (gap == 0) is (report["search"]["ending"] == "proven")
    if gap is not None:
        assert gap == pytest.approx(1 - bound_s / report["search"]["cost_s"], abs=1e-9)
    for row in report["comparators"].values():
        assert row["reduction"] == pytest.approx(1 - report["search"]["cost_s"] / row["cost_s"], abs=1e-12)
    for model_ in models:
        name = model_.metadata_props["mars.accelerator"]
        (row,) = [row for row in report["accelerators"] if row["id"] == name]
        weights = sum(value.const_value.nbytes for value in model_.graph.initializers.values())
        assert (row["weight_bytes"], row["design"]) == (weights, model_.metadata_props["mars.design"])


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_the_search_in_the_report(objective: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = report_of(
        "--search", "few", "--objective", objective, "--compare", "greedy,patient", "--time-limit", "0.1"
    )
    derived(report, Path("out"), load_pool("pool.json"))
    assert (report["objective"], report["search"]["method"], report["search"]["space"]) == (objective, "few", "a few")
    assert (report["optimality_gap"], report["lower_bound_s"]) == (0, report["search"]["cost_s"])
    assert list(report["comparators"]) == ["greedy", "patient"]
    assert report["comparators"]["patient"]["ending"] == "time limit"
    assert min(row["reduction"] for row in report["comparators"].values()) >= 0
    shown = capsys.readouterr().out
    for part in ("proven optimal", "compared with", "patient", "reduction", f"predicted {objective}"):
        assert part in shown


@pytest.mark.parametrize("overlap", [{}, {"communication_with_compute": True}])
def test_comparators_are_emitted_and_simulated(overlap: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, "few", few)
    pool = pool_with((2, 2), **overlap)
    done = mars_onnx.compile(model(TEXT, WEIGHTS), pool, search="few", compare=["greedy", "single"])
    assert [own.found.method for own in done.comparisons] == ["greedy", "single"]
    for own in done.comparisons:
        assert own.latency_s == pytest.approx(simulated_latency(done, own.found.mapping, pool), rel=1e-12)
        assert own.fits


def test_a_comparator_that_ignores_memory_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """One weight fits into each accelerator, both do not: all on one is no answer."""

    def halves(problem: Problem, pool: Pool, options: SearchOptions) -> SearchResult:
        return answering(problem, pool, options, whole_on(problem, pool, 0, 1))

    def alone(problem: Problem, pool: Pool, options: SearchOptions) -> SearchResult:
        return answering(problem, pool, options, whole_on(problem, pool, 0))

    register(monkeypatch, "halves", halves)
    register(monkeypatch, "alone", alone)
    small = pool_of(2, memory_bytes=3 * 64 * 64 * 4 + 64)
    done = mars_onnx.compile(model(TEXT, WEIGHTS), small, search="halves", compare=["alone"])
    rows = done.report["comparators"]
    assert isinstance(rows, dict)
    assert rows["alone"]["fits"] is False
    with pytest.raises(CapacityError):
        mars_onnx.compile(model(TEXT, WEIGHTS), small, search="alone")


@pytest.mark.usefixtures("place")
def test_throughput_is_of_the_busiest_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def halves(problem: Problem, pool: Pool, options: SearchOptions) -> SearchResult:
        return answering(problem, pool, options, whole_on(problem, pool, 0, 1))

    register(monkeypatch, "halves", halves)
    report = report_of("--search", "halves", "--objective", "throughput")
    derived(report, Path("out"), load_pool("pool.json"))
    assert report["throughput_per_s"] == pytest.approx(1 / report["search"]["cost_s"])
    assert report["throughput_per_s"] > 1.2 / report["latency_s"]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("objective", list(Objective))
def test_the_default_search_has_every_objective(objective: Objective) -> None:
    report = report_of("--objective", objective, "--compare", "uniform,single,h2h", "--verify")
    derived(report, Path("out"), load_pool("pool.json"))
    assert (report["search"]["method"], report["objective"]) == ("exact", objective)
    assert (report["search"]["ending"], report["optimality_gap"]) == ("proven", 0)
    assert min(row["reduction"] for row in report["comparators"].values()) >= 0


@pytest.mark.usefixtures("place")
def test_a_time_limit_leaves_a_gap(capsys: pytest.CaptureFixture[str]) -> None:
    report = report_of("--search", "patient", "--time-limit", "0.05")
    derived(report, Path("out"), load_pool("pool.json"))
    assert report["optimality_gap"] == pytest.approx(0.5)
    assert report["search"]["ending"] == "time limit"
    assert "gap 50.0%; the search ended: time limit" in capsys.readouterr().out


@pytest.mark.usefixtures("place")
def test_a_given_mapping_claims_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    first = report_of("--search", "few")
    report = report_of("--mapping", "out/plan.json", "--compare", "all", "--time-limit", "0.05")
    derived(report, Path("out"), load_pool("pool.json"))
    assert (report["lower_bound_s"], report["optimality_gap"], report["search"]["method"]) == (None, None, "mapping")
    assert report["search"]["ending"] == "given"
    assert report["search"]["cost_s"] == first["search"]["cost_s"]
    assert report["comparators"]["few"]["reduction"] == 0
    assert "no lower bound: the mapping was given" in capsys.readouterr().out


@pytest.mark.usefixtures("place")
def test_a_pipeline_that_names_its_method_is_reported_as_such() -> None:
    pipeline = "canonicalize,select-accelerators{search=few objective=throughput},insert-sharding,emit-partitions"
    report = report_of("--pass-pipeline", pipeline)
    assert (report["search"]["method"], report["objective"]) == ("few", "throughput")
    derived(report, Path("out"), load_pool("pool.json"))


@pytest.mark.usefixtures("place")
def test_a_model_that_is_taken_up_has_no_proof() -> None:
    assert (
        main(["model.onnx", "--hw", "pool.json", "--search", "few", "--stop-after", "insert-sharding", "-o", "s.onnx"])
        == 0
    )
    assert main(["s.onnx", "--hw", "pool.json", "-o", "out", "--pass-pipeline", "emit-partitions"]) == 0
    report = json.loads(Path("out/report.json").read_text(encoding="utf-8"))
    assert (report["search"]["method"], report["lower_bound_s"], report["optimality_gap"]) == ("mapping", None, None)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--compare", "greedy,magic"], "'magic'"),
        (["--compare", "all", "--stop-after", "canonicalize", "-o", "m.onnx"], "--compare belongs into the report"),
        (["--time-limit", "0"], "--time-limit 0: must be a number of seconds above 0"),
        (["--time-limit", "nan"], "--time-limit nan"),
        (["--work-limit", "0"], "--work-limit 0: must be a number of units above 0"),
        (["--search", "greedy", "--objective", "throughput"], "has the objective latency, not throughput"),
    ],
)
def test_wrong_usage(
    options: list[str], part: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mars_onnx.search.method import Method
    from mars_onnx.search.registry import METHODS

    monkeypatch.setitem(METHODS, "greedy", Method(METHODS["greedy"].choose, "", (Objective.LATENCY,)))
    assert main(["model.onnx", "--hw", "pool.json", "-o", "out", *options]) == 2
    assert part in capsys.readouterr().err
    assert not Path("out").exists()


def test_unknown_objective() -> None:
    with pytest.raises(UsageError, match="no objective is called 'power'; there are latency, throughput"):
        mars_onnx.compile(model(TEXT, WEIGHTS), pool_of(2), objective="power")


@pytest.mark.usefixtures("place")
def test_limits_are_in_the_report() -> None:
    report = report_of("--work-limit", "1e-6")
    assert report["search"]["ending"] == "work limit"
    assert (report["search"]["work_limit"], report["search"]["time_limit_s"]) == (1e-6, None)
    assert report["search"]["work"] > 1e-6
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert f"<dt>work</dt><dd>{report['search']['work']:.2f} units of 1e-06</dd>" in page
    free = report_of("--work-limit", "none", "--time-limit", "3600")
    assert (free["search"]["work_limit"], free["search"]["time_limit_s"]) == (None, 3600)
    assert free["search"]["ending"] == "proven"
    unlimited = report_of("--search", "greedy")
    assert (unlimited["search"]["work"], unlimited["search"]["work_limit"]) == (None, 60)


@pytest.mark.usefixtures("place")
def test_the_message_of_what_does_not_fit_says_which_layer(capsys: pytest.CaptureFixture[str]) -> None:
    whole = {"one": "whole", "two": "whole", "three": "whole", "four": "whole"}
    mapping = {"schema": "mars-onnx/mapping/1", "sets": [{"accelerators": ["a0"], "layers": whole}]}
    Path("mapping.json").write_text(json.dumps(mapping), encoding="utf-8")
    enough = 2 * 64 * 64 * 4 + 2 * 64 * 64 * 4  # two weights, what a product reads and what it makes
    for memory, code in ((enough, 0), (enough - 1, 3)):
        Path("pool.json").write_text(json.dumps(pool_document((2,), memory_bytes=memory)), encoding="utf-8")
        assert main(["model.onnx", "--hw", "pool.json", "-o", "out", "-q", "--mapping", "mapping.json"]) == code
    message = capsys.readouterr().err
    for part in ("model.onnx: ", "'pool_2'", "a0: 1 bytes (1 B) are missing", f"needs {enough}", "layer 'one'"):
        assert part in message


@pytest.mark.usefixtures("place")
def test_capacity_is_that_of_the_run() -> None:
    found = mars_onnx.compile("model.onnx", "pool.json", search="few")
    models = [own.model for own in found.partitions.partitions]
    peaks = {
        rank: use.peak_bytes for rank, use in simulate(models, found.pool, found.canonical, ADDITIVE).ranks.items()
    }
    small = pool_of(2, 2, memory_bytes=max(peaks.values()) - 1)
    run = simulate(models, small, found.canonical)
    short = {own.accelerator.id for own in overflows(run, small)}
    assert short == {small.accelerators[rank].id for rank, peak in peaks.items() if peak == max(peaks.values())}
    with pytest.raises(CapacityError, match="1 bytes"):
        mars_onnx.compile("model.onnx", small, search="few")


SCRIPT = """
import sys
import pytest
from mars_onnx.__main__ import main
from tests.search.methods_for_tests import deaf, patient, register

register(pytest.MonkeyPatch(), "patient", patient)
register(pytest.MonkeyPatch(), "deaf", deaf)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("method", "interrupts", "code"), [("patient", 1, 0), ("deaf", 2, 130)])
def test_interrupts(method: str, interrupts: int, code: int, place: Path) -> None:
    """The first takes the best so far; the second ends the program, and nothing is left behind."""
    root = Path(__file__).parent.parent.parent
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'passes'}"}
    before = {path.name for path in place.iterdir()}
    run = subprocess.Popen(
        [
            sys.executable,
            "-c",
            SCRIPT,
            "model.onnx",
            "--hw",
            "pool.json",
            "-o",
            "out",
            "--search",
            method,
            "--time-limit",
            "none",
        ],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for _ in range(interrupts):
            marker = place / "searching"
            while not marker.exists() and run.poll() is None:
                time.sleep(0.02)
            marker.unlink()
            run.send_signal(signal.SIGINT)
        shown, errors = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == code, errors
    assert "Traceback" not in errors
    if code:
        assert errors == "mars-onnx: interrupted\n"
        assert {path.name for path in place.iterdir()} - {"searching"} == before
        return
    report = json.loads((place / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["search"]["ending"] == "interrupted"
    assert report["optimality_gap"] == pytest.approx(0.5)
    assert "the search ended: interrupted" in " ".join(shown.split())
    assert load_partition(place / "out" / "a0.onnx") is not None
