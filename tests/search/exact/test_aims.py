"""At which sets and segments a search looks next."""

from __future__ import annotations

import pytest

from mars_onnx.search.exact.chain.chain import Chain
from mars_onnx.search.exact.ways.aims import LeastLatency
from mars_onnx.search.exact.ways.sets import Sets
from mars_onnx.search.exact.ways.shapes import Shapes
from tests.search.networks import RESIDUAL, adaptive_pool, problem


@pytest.mark.parametrize("quick", [1, 3, 5])
def test_sets_that_could_do_everything_in_time_are_looked_at_together(quick: int) -> None:
    """If one of them does so on what looks best. Those that take longer can only be of use together with others."""
    pool = adaptive_pool(2, 2)
    sets = Sets(Chain.of(problem(RESIDUAL, pool)), pool, Shapes(pool))
    least = {sets.key(state): float(sets.runs(state).end[0]) for state in sets.start()}
    limit = sorted(set(least.values()))[quick]
    aim = LeastLatency(sets, None, limit)
    wanted = aim.unknown()
    single = {key for key, seconds in least.items() if seconds < limit}
    best = min(least, key=least.__getitem__)
    assert aim.least_s == pytest.approx(least[best])
    assert {sets.key(state) for state, _ in wanted} == single
    assert len(wanted) == len(set(wanted))
    # Nothing of it again.
    sets.look_at(wanted)
    assert not set(wanted) & set(LeastLatency(sets, None, limit).unknown())
