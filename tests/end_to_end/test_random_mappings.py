"""Random models x random pools x random mappings: whatever the rules allow must compute what the original computes."""

from __future__ import annotations

import random

import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.end_to_end.checking import Compiled, canonical, check, compile_with
from tests.end_to_end.random_graphs import random_model
from tests.mappings import random_mapping
from tests.pool_factory import pool_of

GROUPS = [(2,), (3,), (2, 1), (4,), (2, 2), (5,), (3, 3), (4, 3), (8,), (4, 4)]
COMMON = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)

examples = given(
    size=st.integers(1, 10),
    groups=st.sampled_from(GROUPS),
    graph_seed=st.integers(0, 2**32 - 1),
    mapping_seed=st.integers(0, 2**32 - 1),
)


def compiled(size: int, groups: tuple[int, ...], graph_seed: int, mapping_seed: int) -> Compiled:
    source = ir.from_proto(random_model(graph_seed, size))
    pool = pool_of(*groups)
    graph = canonical(source, pool)
    return compile_with(source, graph, random_mapping(random.Random(mapping_seed), graph, pool), pool)


@settings(COMMON, max_examples=60)
@examples
def test_a_few(size: int, groups: tuple[int, ...], graph_seed: int, mapping_seed: int) -> None:
    check(compiled(size, groups, graph_seed, mapping_seed))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(COMMON, max_examples=500)
@examples
def test_many(size: int, groups: tuple[int, ...], graph_seed: int, mapping_seed: int) -> None:
    check(compiled(size, groups, graph_seed, mapping_seed))
