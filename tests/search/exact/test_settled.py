"""What is settled in the tables of a set stays so: entries whose best way is exact cost the same ever after."""

from __future__ import annotations

import pytest

from mars_onnx.search.exact.one_set.build import SegmentTables, Solved
from mars_onnx.search.exact.one_set.factors import Decision
from mars_onnx.search.exact.search import exact_search
from mars_onnx.search.exact.ways import forward
from mars_onnx.search.method import SearchOptions
from tests.search.exact.random_pools import random_pool
from tests.search.exact.test_against_brute_force import NETWORKS
from tests.search.networks import RESIDUAL, problem


@pytest.mark.parametrize("several", [4, 64])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["residual", *NETWORKS])
def test_settled_entries_keep_their_cost(name: str, seed: int, several: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many of them are made exact together."""
    settled: list[tuple[SegmentTables, Solved, int, int]] = []
    sharpen = SegmentTables.sharpen

    def noted(self: SegmentTables, solved: Solved, row: int, column: int, decision: Decision) -> bool:
        kind = solved.build.shape.index
        known = len(self._settled.get(kind, ()))
        changed = sharpen(self, solved, row, column, decision)
        if len(self._settled.get(kind, ())) > known:
            settled.append((self, solved, row, column))
        return changed

    monkeypatch.setattr(SegmentTables, "sharpen", noted)
    monkeypatch.setattr(forward, "_ALTERNATIVES", several)
    pool = random_pool(seed, 4, fast=True)
    exact_search(problem({"residual": RESIDUAL, **NETWORKS}[name], pool), pool, SearchOptions(work_limit=None))
    for tables, solved, row, column in settled:
        now = tables.solve(solved.build.shape.index)
        if now.build is solved.build:
            assert now.seconds[row, column] == pytest.approx(solved.seconds[row, column], rel=1e-12)
