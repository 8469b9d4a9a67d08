"""What is known of branches side by side is never too much, and the more closely somebody looks, the more it is."""

from __future__ import annotations

import numpy as np
import pytest

from mars_onnx.pool.topology import Pool
from mars_onnx.search.exact.chain.chain import Chain
from mars_onnx.search.exact.chain.joins import branches_of
from mars_onnx.search.exact.joined.behind import Behind
from mars_onnx.search.exact.joined.branches import BranchSearch
from mars_onnx.search.exact.joined.choices import Choice, Choices
from mars_onnx.search.exact.joined.estimates import Estimates
from mars_onnx.search.exact.joined.floors import Floors
from mars_onnx.search.exact.joined.meeting import Joined, Meeting
from mars_onnx.search.exact.joined.split import Split
from mars_onnx.search.exact.ways.aims import LeastLatency
from mars_onnx.search.exact.ways.crossings import Between
from mars_onnx.search.exact.ways.forward import Forward
from mars_onnx.search.exact.ways.sets import Sets
from mars_onnx.search.exact.ways.shapes import Shapes
from tests.search.exact.random_pools import random_pool
from tests.search.networks import BRANCHES, adaptive_pool, problem

#: Seconds that differ by less, relatively, do so by rounding.
_ROUNDING = 1e-12


def split_on(pool: Pool) -> Split:
    posed = problem(BRANCHES, pool)
    branches = branches_of(posed)
    assert branches is not None
    return Split.of(posed, pool, branches)


@pytest.mark.parametrize("pool", [adaptive_pool(2, 1), random_pool(3, 3, fast=True), random_pool(8, 3)])
def test_a_closer_look_says_more(pool: Pool) -> None:
    split = split_on(pool)
    choices = Choices(split.tail, len(split.parts), grouped=split.closed)
    estimates = Estimates(split, choices)
    meeting = Meeting(split, estimates)
    rng = np.random.default_rng(0)
    placings = list(choices.placings())
    for number in rng.choice(len(placings), min(12, len(placings)), replace=False):
        placing = placings[int(number)]
        of_places, of_designs = estimates.of_places(placing), estimates.of_designs(placing)
        assert of_places <= of_designs.min() * (1 + _ROUNDING)
        designs = [int(rng.integers(0, size)) for size in of_designs.shape]
        choice = choices.choice(placing, designs)
        before = estimates.of(choice)
        assert before == pytest.approx(of_designs[tuple(designs)], rel=_ROUNDING)
        for part, group in zip(split.parts, choice.groups, strict=True):
            part.look(choice.states[group])
        looked = estimates.of(choice)
        assert before <= looked * (1 + _ROUNDING)
        assert looked <= _best(meeting, choice) * (1 + _ROUNDING)


def _best(meeting: Meeting, choice: Choice) -> float:
    """Seconds of the best way, and of its mapping."""
    while True:
        found = meeting.best(choice, float("inf"), float("inf"))
        assert isinstance(found, Joined)
        sharp = meeting.sharpened(found)
        if sharp.sharp:
            return found.seconds


@pytest.mark.parametrize("seed", [0, 3, 4, 5, 8, 9])
def test_what_is_behind_the_join_takes_no_less(seed: int) -> None:
    pool = random_pool(seed, 4, fast=True)
    split = split_on(pool)
    choices = Choices(split.tail, len(split.parts), grouped=True)
    behind, forward = Behind(split.tail), Forward(split.tail)
    afters = {
        choices.after(state, placing.used)
        for placing in choices.placings()
        for state in choices.states(placing.places[placing.home])
    }
    # Some are looked at: what is known of these counts for all.
    for state in list(afters)[::3]:
        split.tail.look(state, range(forward.count))
    for after in afters:
        start = split.tail.look(after, [0]).solve(0).seconds.min(axis=0)
        aim = LeastLatency(split.tail, None, float("inf"), [after])
        way = forward.way(aim, start={after: start})
        assert way is not None
        assert behind.left(after)[0] <= way.seconds * (1 + _ROUNDING)


@pytest.mark.parametrize("looks", [False, True])
def test_one_set_takes_no_less_than_its_branches_say(looks: bool) -> None:
    """Segment by segment, and from a gate to the end; also when somebody has looked at the branches."""
    pool = adaptive_pool(2, 1)
    split = split_on(pool)
    chain = Chain.of(split.problem)
    parts = list(zip(split.parts, split.branches.layers, strict=True))
    floors = Floors(chain, parts, split.tail, split.branches.join)
    sets = Sets(chain, pool, Shapes(pool))
    for state in sets.start():
        for part in split.parts if looks else ():
            part.look(state)
        floor = floors(state)
        sets.look(state, range(len(chain.segments)))
        known = sets.runs(state)
        assert (floor.own <= known.own * (1 + _ROUNDING)).all()
        assert (floor.end <= known.end * (1 + _ROUNDING)).all()
        # More than nothing, and all of it at the start.
        assert (floor.own > 0).all()
        assert floor.end[0] >= floor.own.sum() * (1 - _ROUNDING)


def test_pairs_of_sets_that_are_alike_share_what_is_between_them() -> None:
    pool = adaptive_pool(2, 2)
    between = Between(pool, Shapes(pool))
    assert between.likeness((0,), (1,)) == between.likeness((1,), (0,))
    assert between.likeness((0,), (2,)) == between.likeness((1,), (3,))
    assert between.likeness((0,), (1,)) != between.likeness((0,), (2,))
    assert between.likeness((0, 1), (2,)) != between.likeness((0,), (1, 2))
    assert between.likeness((0, 1), (0, 1)) != between.likeness((0, 1), (2, 3))


def test_a_queue_ends_with_the_best() -> None:
    """Steps never go back: what everything takes at least only grows."""
    pool = adaptive_pool(2, 1)
    posed = problem(BRANCHES, pool)
    branches = branches_of(posed)
    assert branches is not None
    search = BranchSearch(posed, pool, branches)
    limit, least = float("inf"), 0.0
    while search.least_s < limit:
        assert search.least_s >= least * (1 - _ROUNDING)
        least = search.least_s
        joined = search.step(limit)
        if joined is not None and joined.sharp:
            limit = min(limit, joined.seconds)
    assert np.isfinite(limit)
