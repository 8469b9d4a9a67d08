"""What a search says a mapping needs against what its partitions need."""

from __future__ import annotations

from hypothesis import settings

from mars_onnx.search.memory import memory_needs
from mars_onnx.search.problem import problem_of
from mars_onnx.simulation import ADDITIVE
from tests.end_to_end.test_random_mappings import compiled
from tests.simulation.partitions import simulated
from tests.simulation.test_simulate import COMMON, graphs


@settings(COMMON, max_examples=60)
@graphs
def test_needs_are_those_of_the_partitions(
    size: int, groups: tuple[int, ...], graph_seed: int, mapping_seed: int
) -> None:
    found = compiled(size, groups, graph_seed, mapping_seed)
    needs = memory_needs(problem_of(found.canonical), found.pool, found.mapping)
    for rank, use in simulated(found, ADDITIVE).ranks.items():
        assert needs[rank].weight_bytes == use.peak.weight_bytes
        assert needs[rank].total_bytes == use.peak_bytes
