"""The least sum over the first dimension, after some entries have changed, is what all entries give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_onnx.search.exact.sums import minimum
from mars_onnx.search.exact.sums.minimum import least_sum, least_sum_again
from mars_onnx.search.exact.work import Meter, metered


@settings(deadline=None, max_examples=300, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_again_is_as_from_the_start(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, [9, 7, 7, 4][: int(rng.integers(2, 5))]).tolist())
    # Each array lacks some dimensions; ties and what is impossible are there, too.
    sizes = [[size if rng.random() < 0.7 else 1 for size in shape] for _ in range(int(rng.integers(1, 4)))]
    arrays = [np.where(rng.random(own) < 0.05, np.inf, rng.integers(0, 9, own) * 0.1) for own in sizes]
    arrays[0] = np.broadcast_to(arrays[0], shape).copy()
    least = least_sum(arrays)
    for _ in range(4):
        after = list(arrays)
        for number in rng.choice(len(arrays), int(rng.integers(0, len(arrays) + 1)), replace=False).tolist():
            changed = arrays[number].copy()
            places = rng.random(changed.shape) < rng.choice([0.01, 0.1, 0.5])
            # Costs become more as they become exact; another tariff may make them less.
            changed[places] += rng.choice([-0.2, 0.3, 1.0], changed.shape)[places]
            after[number] = changed
        with pytest.MonkeyPatch.context() as patch:
            # As of large sums, a part alone is worth it; and places are picked as if there were many.
            patch.setattr(minimum, "_MOST_CHANGED", rng.choice([0.7, 100.0]))
            patch.setattr(minimum, "_FEW", rng.choice([0, 100]))
            again = least_sum_again(least, arrays, after)
        expected = sum(after[1:], after[0]).min(axis=0)
        assert np.array_equal(again, expected)
        assert np.array_equal(least_sum(after), expected)
        arrays, least = after, again


def test_a_few_changes_in_a_large_sum() -> None:
    """Each way to work out only a part: one value of a kept dimension, one that is minimised over, single places."""
    rng = np.random.default_rng(1)
    left, right = rng.random((40, 30, 1)), rng.random((40, 1, 20))
    whole = Meter()
    with metered(whole):
        least = least_sum([left, right])
    for place in ((slice(None), 7), (13,), (13, 7), (slice(None),)):
        after = left.copy()
        after[place] += 0.5
        meter = Meter()
        with metered(meter):
            again = least_sum_again(least, [left, right], [after, right])
        assert np.array_equal(again, (after + right).min(axis=0))
        assert (meter.parts < whole.parts) == (place != (slice(None),))


def test_nothing_has_changed() -> None:
    arrays = [np.ones((3, 4)), np.zeros((3, 1))]
    least = least_sum(arrays)
    assert least_sum_again(least, arrays, [arrays[0].copy(), arrays[1]]) is least


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (3, 1)])
def test_small_ones(shape: tuple[int, int]) -> None:
    before, after = np.zeros(shape), np.ones(shape)
    assert np.array_equal(least_sum_again(least_sum([before]), [before], [after]), np.ones(shape[1:]))
