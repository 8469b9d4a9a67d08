"""Layers that are priced together."""

from __future__ import annotations

import random

import numpy as np
import onnx_ir as ir
import pytest

from mars_onnx.cost.performance import Estimate, OpClass, Workload
from mars_onnx.cost.shares import strategy_seconds
from mars_onnx.cost.steps import PlacedLayer, layer_parts, layers_seconds
from mars_onnx.cost.timeline import seconds_of
from mars_onnx.errors import InputError
from mars_onnx.rules.base import Signature, TensorType
from mars_onnx.sharding.lowering import lower
from mars_onnx.sharding.strategy import WHOLE
from tests.mappings import random_strategy
from tests.search.exact.random_pools import random_pool
from tests.search.exact.signatures import random_signature


@pytest.mark.parametrize("seed", range(20))
def test_layers_take_together_what_each_takes_alone(seed: int) -> None:
    rng = random.Random(seed)
    pool = random_pool(seed, 6)
    layers: list[PlacedLayer] = []
    for _ in range(12):
        signature, members = random_signature(rng), tuple(rng.sample(range(pool.size), rng.randint(1, pool.size)))
        designs = tuple(rng.choice(pool.accelerators[rank].designs).name for rank in members)
        layers.append((signature, random_strategy(rng, signature, members), members, designs))
    parts = [
        layer_parts(pool, signature, lower(signature, strategy, members), designs)
        for signature, strategy, members, designs in layers
    ]
    alone = [seconds_of((part.event.ranks, part.event.seconds) for part in own) for own in parts]
    assert layers_seconds(pool, [*layers, *layers[:3]]) == [*alone, *alone[:3]]


def test_no_strategies_take_no_seconds() -> None:
    pool = random_pool(0, 2)
    designs = tuple(own.designs[0].name for own in pool.accelerators[:2])
    assert strategy_seconds(pool, random_signature(random.Random(0)), (), (0, 1), designs) == ()


class _NoSoftmax:
    """A model of hardware that takes a second for any share, and cannot run a Softmax."""

    def estimate(self, work: Workload) -> Estimate:
        if (refused := np.count_nonzero(work.op_class == OpClass.SOFTMAX)) > 0:
            raise InputError(f"no Softmax ({refused})")
        second = np.ones(work.shape)
        return Estimate(second, second, second, second, second, second)


def test_what_a_design_refuses_is_said_of_one_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mars_onnx.cost.shares.performance_model", lambda *_: _NoSoftmax())
    pool = random_pool(0, 2)
    designs = (pool.accelerators[0].designs[0].name,)
    relu, first, second = (
        (Signature("", name, 13, inputs=(kind,), outputs=(kind,)), WHOLE, (0,), designs)
        for name, kind in (
            ("Relu", TensorType(ir.DataType.FLOAT, (4, 61))),
            ("Softmax", TensorType(ir.DataType.FLOAT, (4, 62))),
            ("Softmax", TensorType(ir.DataType.FLOAT, (4, 63))),
        )
    )
    with pytest.raises(InputError, match=r"no Softmax \(1\)"):
        layers_seconds(pool, [relu, first, second])
    assert layers_seconds(pool, [relu]) == [1.0]
