"""Where things happen at the same time, the best few mappings of a search are simulated and the fastest stays."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import mars_onnx
from mars_onnx.pool.topology import Pool
from mars_onnx.report.terminal import show
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.method import Ending, SearchOptions, SearchResult
from mars_onnx.search.problem import Problem
from mars_onnx.simulation import stream_period_s
from tests.end_to_end.test_search_options import TEXT, WEIGHTS
from tests.passes.onnx_text import model
from tests.search.methods_for_tests import few, register
from tests.simulation.partitions import pool_with, simulated_latency


def test_the_fastest_in_simulation_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a matrix product behind another, one accelerator computes while the other waits or both share."""
    looks: list[SearchResult] = []

    def worst_first(problem: Problem, pool: Pool, options: SearchOptions) -> SearchResult:
        """Proven, in a space in which the mapping that costs most is the only one."""
        found = few(problem, pool, options)
        *better, worst = (found.mapping, *found.others)
        cost_s = evaluate(problem, pool, worst).latency_s
        looks.append(SearchResult(worst, cost_s, cost_s, Ending.PROVEN, "one", (*better, worst)))
        return looks[-1]

    register(monkeypatch, "worst", worst_first)
    pool = pool_with((2, 2), communication_with_compute=True, contention=True)
    for own in (pool, pool_with((2, 2))):
        done = mars_onnx.compile(model(TEXT, WEIGHTS), own, search="worst")
        report = done.report
        rows = report["search"]["reranked"]  # type: ignore[index]
        asked = list(dict.fromkeys((looks[-1].mapping, *looks[-1].others)))
        if own is not pool:
            assert rows == []
            assert done.mapping == asked[0]
            continue
        assert len(rows) == len(asked)
        latencies = [simulated_latency(done, mapping, pool) for mapping in asked]
        assert [row["latency_s"] for row in rows] == pytest.approx(latencies, rel=1e-12)
        assert [row["cost_s"] for row in rows] == [
            evaluate(done.problem, pool, m).latency_s for m in dict.fromkeys(asked)
        ]
        (kept,) = [place for place, row in enumerate(rows) if row["kept"]]
        assert latencies[kept] == min(latencies) < latencies[0]
        assert done.mapping == asked[kept]
        assert (report["latency_s"], report["search"]["cost_s"]) == (rows[kept]["latency_s"], rows[kept]["cost_s"])  # type: ignore[index]
        # What was proven was proven of another mapping: no gap is claimed.
        assert report["optimality_gap"] is None


def test_the_fastest_stream_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For throughput, of the best few the one with the least time between two inferences that are simulated."""

    def worst_first(problem: Problem, pool: Pool, options: SearchOptions) -> SearchResult:
        found = few(problem, pool, options)
        *better, worst = (found.mapping, *found.others)
        cost_s = evaluate(problem, pool, worst).period_s
        return SearchResult(worst, cost_s, None, Ending.HEURISTIC, "one", tuple(better))

    register(monkeypatch, "worst", worst_first)
    pool = pool_with((2, 2), communication_with_compute=True, contention=True)
    done = mars_onnx.compile(model(TEXT, WEIGHTS), pool, search="worst", objective="throughput")
    rows = done.reranked
    assert len(rows) > 1
    periods = [row.period_s for row in rows if row.period_s is not None]
    assert len(periods) == len(rows)
    (kept,) = [place for place, row in enumerate(rows) if row.kept]
    assert periods[kept] == min(periods) < periods[0]
    models = [own.model for own in done.partitions.partitions]
    assert periods[kept] == pytest.approx(stream_period_s(models, pool, done.canonical), rel=1e-12)
    assert rows[kept].cost_s == evaluate(done.problem, pool, done.mapping).period_s
    assert rows[kept].latency_s == done.simulation.latency_s
    shown = StringIO()
    done.save(tmp_path / "out")
    show(done.report, tmp_path / "out", Console(file=shown, width=120), verbose=False)
    assert "between two" in shown.getvalue()
    assert "between two, simulated, ms" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    # One thing after the other, the search has counted all there is.
    assert not mars_onnx.compile(
        model(TEXT, WEIGHTS), pool_with((2, 2)), search="worst", objective="throughput"
    ).reranked
