"""No mapping needs more memory than there is called enough for all."""

from __future__ import annotations

import random

import pytest

from mars_onnx.errors import InputError
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.exact import plenty
from mars_onnx.search.exact.plenty import enough_bytes
from mars_onnx.search.exact.strategies.cuts import strategies
from mars_onnx.search.memory import memory_needs
from mars_onnx.sharding.mapping import AcceleratorSet, LayerChoice, Mapping
from mars_onnx.sharding.strategy import WHOLE
from tests.search.exact.test_against_brute_force import NETWORKS
from tests.search.networks import RESIDUAL, adaptive_pool, problem

#: Next to nothing but weights.
HEAVY = """
heavy (float[1,64] x) => (float[1,64] z) {
    [first] y = Gemm (x, w64x96)
    [last] z = Gemm (y, w96x64)
}"""
_EVERY = {"heavy": HEAVY, "residual": RESIDUAL, **NETWORKS}


@pytest.mark.parametrize("sizes", [(2, 2), (3, 5), (8,)])
@pytest.mark.parametrize("name", _EVERY)
def test_no_mapping_needs_more(name: str, sizes: tuple[int, ...]) -> None:
    pool = adaptive_pool(*sizes)
    network = problem(_EVERY[name], pool)
    most = enough_bytes(network, pool)
    rng = random.Random(f"{name} {sizes}")
    sets = (AcceleratorSet(tuple(range(pool.size)), (pool.accelerators[0].designs[0].name,) * pool.size),)
    tried = 0
    while tried < 60:
        chosen = tuple(
            LayerChoice(layer.name, 0, rng.choice(strategies(layer.signature, (pool.size,))))
            for layer in network.layers
        )
        mapping = Mapping(sets, chosen)
        try:
            evaluate(network, pool, mapping)
        except InputError:
            continue
        tried += 1
        assert all(need.total_bytes <= most for need in memory_needs(network, pool, mapping).values())


@pytest.mark.parametrize("name", _EVERY)
def test_where_nothing_moves_tensors_and_weights_are_enough(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what is added for pieces and constants; half of it is not enough."""
    pool = adaptive_pool(1)
    network = problem(_EVERY[name], pool)
    for constant, value in (("_PIECES", -1), ("_MARGIN", 1.0), ("_CONSTANTS_BYTES", 0), ("_VERSIONS", 1)):
        monkeypatch.setattr(plenty, constant, value)
    design = pool.accelerators[0].designs[0].name
    whole = tuple(LayerChoice(layer.name, 0, WHOLE) for layer in network.layers)
    (need,) = memory_needs(network, pool, Mapping((AcceleratorSet((0,), (design,)),), whole)).values()
    assert enough_bytes(network, pool) / 2 <= need.total_bytes <= enough_bytes(network, pool)
