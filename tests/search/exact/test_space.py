"""All strategies of a layer as arrays: the same as one strategy at a time."""

from __future__ import annotations

import random

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_onnx.cost.performance import Estimate, OpClass, Workload
from mars_onnx.cost.shares import share_seconds
from mars_onnx.errors import InputError
from mars_onnx.geometry import Layout
from mars_onnx.rules.base import Signature, TensorType
from mars_onnx.search.exact.strategies.cuts import strategies
from mars_onnx.search.exact.strategies.shares import ShareTables
from mars_onnx.search.exact.strategies.space import layer_space
from mars_onnx.search.exact.ways.shapes import Shapes
from mars_onnx.sharding.lowering import lower, lower_all
from tests.search.exact.random_pools import random_pool
from tests.search.exact.signatures import random_signature


def _boxes(layout: Layout) -> list[object]:
    return [None if box is None else tuple(box) for box in layout.boxes]


def _rows(boxes: np.ndarray, shape: tuple[int, ...]) -> list[object]:
    """What arrays say, in the form of a layout."""
    found: list[object] = []
    for box in boxes.tolist():
        empty = any(low >= high for low, high in box)
        found.append(None if empty else tuple((low, high) for low, high in box) if shape else ())
    return found


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_arrays_say_what_lowering_says(seed: int) -> None:
    rng = random.Random(seed)
    levels = rng.choice([(1,), (2,), (3,), (4,), (2, 2), (2, 4), (6,), (2, 3), (7,), (8,), (2, 2, 2)])
    signature = random_signature(rng)
    members = tuple(range(int(np.prod(levels))))
    space = layer_space(signature, levels)
    fine = [
        strategy
        for strategy, own in zip(
            strategies(signature, levels), lower_all(signature, strategies(signature, levels), members), strict=True
        )
        if not isinstance(own, InputError)
    ]
    assert [space.strategy(row) for row in range(space.count)] == fine
    resolved = [space.resolved(number) for number in range(len(signature.outputs))]
    for row in rng.sample(range(space.count), min(20, space.count)):
        sharding = lower(signature, space.strategy(row), members)
        for number, (need, kind) in enumerate(zip(sharding.needs, signature.inputs, strict=False)):
            boxes = space.needs(number)
            if boxes is not None and need is not None and kind is not None:
                assert _rows(boxes[row], kind.shape) == _boxes(need)
        outputs = zip(resolved, sharding.resolved, space.produced(row), sharding.produced, strict=True)
        for boxes, kept, before, produced in outputs:
            if boxes is not None and kept is not None and before is not None and produced is not None:
                assert _rows(boxes[row], kept.shape) == _boxes(kept)
                assert _rows(before, kept.shape) == _boxes(produced)
                assert space.parts[row] == produced.num_parts
                busy = [place for place, box in enumerate(produced.boxes) if box is not None]
                assert [int(space.part[row, place]) for place in busy] == [produced.parts[place] for place in busy]


@settings(deadline=None, max_examples=40, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_shares_take_as_long_as_one_at_a_time(seed: int) -> None:
    rng = random.Random(seed)
    pool = random_pool(seed, 8)
    sizes = sorted(rng.sample(range(1, 9), 3))
    sets = [tuple(range(size)) for size in sizes]
    family = tuple(sorted({Shapes(pool).levels(members) for members in sets}))
    signature = random_signature(rng)
    # Priced alone, or together with others.
    shares = ShareTables(pool, family, [random_signature(rng), signature] if rng.random() < 0.5 else ())
    for members in sets:
        levels, designs = Shapes(pool).levels(members), ("cpu_avx2",) * len(members)
        space = layer_space(signature, levels)
        seconds = shares.compute_seconds(signature, levels, members, designs)
        for row in rng.sample(range(space.count), min(10, space.count)):
            expected = max(share_seconds(pool, signature, space.strategy(row), members, designs))
            assert seconds[space.cuts.pattern[row]] == pytest.approx(expected, rel=1e-12)
        assert shares.least_compute(signature, levels, members, designs) == seconds.min()


class _NoSoftmax:
    """A model of hardware that takes a second for any share, and cannot run a Softmax."""

    def estimate(self, work: Workload) -> Estimate:
        if (work.op_class == OpClass.SOFTMAX).any():
            raise InputError("no Softmax")
        second = np.ones(work.shape)
        return Estimate(second, second, second, second, second, second)


def test_a_layer_that_a_design_refuses_leaves_the_others_priced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mars_onnx.search.exact.strategies.shares.performance_model", lambda *_: _NoSoftmax())
    kind = TensorType(ir.DataType.FLOAT, (4, 6))
    relu, softmax = (Signature("", name, 13, inputs=(kind,), outputs=(kind,)) for name in ("Relu", "Softmax"))
    pool = random_pool(0, 2)
    shares = ShareTables(pool, [(2,)], [relu, softmax])
    designs = tuple(pool.accelerators[rank].designs[0].name for rank in (0, 1))
    assert shares.least_compute(relu, (2,), (0, 1), designs) == 1.0
    with pytest.raises(InputError, match="no Softmax"):
        shares.least_compute(softmax, (2,), (0, 1), designs)
