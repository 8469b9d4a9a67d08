"""The judge of searches agrees with the price of the sharded graph, whatever the mapping."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mars_onnx.cost.price import price
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.problem import problem_of
from tests.end_to_end.test_random_mappings import GROUPS, compiled


@settings(deadline=None, derandomize=True, max_examples=60, database=None, suppress_health_check=list(HealthCheck))
@given(
    size=st.integers(1, 12),
    groups=st.sampled_from(GROUPS),
    graph_seed=st.integers(0, 2**32 - 1),
    mapping_seed=st.integers(0, 2**32 - 1),
)
def test_agrees_with_the_price(size: int, groups: tuple[int, ...], graph_seed: int, mapping_seed: int) -> None:
    found = compiled(size, groups, graph_seed, mapping_seed)
    priced = price(found.sharded)
    evaluated = evaluate(problem_of(found.canonical), found.pool, found.mapping)
    assert evaluated.latency_s == pytest.approx(priced.latency_s, rel=1e-12)
    for own, busy_s in zip(found.mapping.sets, evaluated.busy_s, strict=True):
        steps = zip(priced.steps, priced.timeline.steps, strict=True)
        spans = [end - start for step, (start, end) in steps if set(own.members) <= set(step.ranks)]
        assert busy_s == pytest.approx(sum(spans), rel=1e-9, abs=1e-12 * priced.latency_s)
