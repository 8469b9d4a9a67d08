"""The event loop and the sharing of channels, by hand and against simpy."""

from __future__ import annotations

import random
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulation import made_up
from mars_onnx.errors import InvariantError
from mars_onnx.simulation.core import run_tasks
from mars_onnx.simulation.sharing import Channels, fair_rates
from tests.simulation.independent import Job, rates, run_again


def test_a_diamond() -> None:
    run = run_tasks([1.0, 2.0, 5.0, 1.0], [[1, 2], [3], [3], []])
    assert run.start_s == [0, 1, 1, 6]
    assert run.end_s == [1, 3, 6, 7]
    assert run.waited_for == [-1, 0, 0, 2]
    assert run.log == [0, ~0, 1, 2, ~1, ~2, 3, ~3]


def test_ends_come_before_starts_of_the_same_moment() -> None:
    assert run_tasks([1.0, 1.0, 1.0], [[2], [], []]).log == [0, 1, ~0, ~1, 2, ~2]


def test_nothing() -> None:
    assert run_tasks([], []).log == []


def test_a_circle_is_refused() -> None:
    with pytest.raises(InvariantError, match="2 of 3 tasks wait for each other"):
        run_tasks([1.0] * 3, [[], [2], [1]])


def test_two_transfers_on_one_channel() -> None:
    # Both need all of the channel: half the rate each until the short one is done after 2 s; then 1 s is left at full.
    run = run_tasks([1.0, 2.0], [[], []], {0: ((7, 1.0),), 1: ((7, 1.0),)})
    assert run.end_s == [2, 3]


def test_who_comes_later_slows_down_who_is_there() -> None:
    # Task 1 starts after 1 s; 3 of the 4 s of task 2 are left and take 2 per second of work until task 1 is done.
    run = run_tasks([1.0, 1.0, 4.0], [[1], [], []], {1: ((0, 1.0),), 2: ((0, 1.0),)})
    assert run.start_s == [0, 1, 0]
    assert run.end_s == [1, 3, 5]


def test_channels_that_are_not_full_slow_nobody_down() -> None:
    run = run_tasks([1.0, 2.0], [[], []], {0: ((0, 0.5),), 1: ((0, 0.5), (1, 1.0))})
    assert run.end_s == [1, 2]


def test_fair_rates() -> None:
    # Channel 0 gives its two users half each; the third then has the other half of channel 1, and no more.
    found = fair_rates({0: ((0, 1.0),), 1: ((0, 1.0), (1, 1.0)), 2: ((1, 1.0),)})
    assert found == {0: 0.5, 1: 0.5, 2: 0.5}
    found = fair_rates({0: ((0, 1.0),), 1: ((0, 1.0), (1, 0.2)), 2: ((1, 1.0),)})
    assert found == pytest.approx({0: 0.5, 1: 0.5, 2: 0.9})


DEMANDS = st.dictionaries(
    st.integers(0, 9), st.dictionaries(st.integers(0, 4), st.floats(0.01, 1), min_size=1), max_size=8
)


@given(DEMANDS)
def test_rates_are_those_of_exact_arithmetic(demands: dict[int, dict[int, float]]) -> None:
    found = fair_rates({job: tuple(sorted(own.items())) for job, own in demands.items()})
    assert found == pytest.approx(rates(demands), rel=1e-6)


@given(DEMANDS)
def test_rates_change_only_where_something_is_shared(demands: dict[int, dict[int, float]]) -> None:
    channels = Channels({job: tuple(sorted(own.items())) for job, own in demands.items()})
    now: dict[int, float] = {}
    for job in demands:
        channels.add(job)
        now |= channels.changed()
    assert now == pytest.approx(rates(demands), rel=1e-6)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("contention", [False, True])
def test_random_tasks_against_simpy(seed: int, overlap: bool, contention: bool) -> None:
    rng = random.Random(seed)
    ranks = rng.randint(1, 5)
    jobs: list[Job] = []
    order: dict[int, list[int]] = {rank: [] for rank in range(ranks)}
    for number in range(rng.randint(1, 60)):
        moves = rng.random() < 0.4
        group = tuple(rng.sample(range(ranks), rng.randint(1, ranks) if moves else 1))
        before = [n for rank in group for n in order[rank]]
        after = tuple(rng.sample(before, min(len(before), rng.randint(0, 2))))
        demand = {channel: rng.uniform(0.1, 1) for channel in rng.sample(range(4), 2)} if moves else {}
        jobs.append(Job(rng.choice([0.0, 1.0, rng.random()]), group, moves, after, demand))
        for rank in group:
            order[rank].append(number)
    followers: list[set[int]] = [set() for _ in jobs]
    for own in order.values():
        streams = [[n for n in own if jobs[n].moves == moves] for moves in (False, True)] if overlap else [own]
        for stream in streams:
            for before_, after_ in pairwise(stream):
                followers[before_].add(after_)
    if overlap:
        for number, job in enumerate(jobs):
            for other in job.after:
                followers[other].add(number)
    demands = {n: tuple(sorted(job.demand.items())) for n, job in enumerate(jobs) if job.demand and job.seconds}
    for n, job in enumerate(jobs):
        job.demand = job.demand if n in demands else {}
    run = run_tasks([job.seconds for job in jobs], [sorted(own) for own in followers], demands if contention else None)
    expected = run_again(jobs, order, overlap=overlap, contention=contention)
    assert run.start_s == pytest.approx([start for start, _ in expected], rel=1e-9, abs=1e-9)
    assert run.end_s == pytest.approx([end for _, end in expected], rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_sharing_makes_nothing_end_before_it_would_alone(seed: int) -> None:
    rng = random.Random(seed)
    count = rng.randint(1, 20)
    seconds = [rng.random() for _ in range(count)]
    demands = {n: ((rng.randrange(3), rng.uniform(0.1, 1)),) for n in range(count)}
    run = run_tasks(seconds, [[] for _ in range(count)], demands)
    for start, end, own in zip(run.start_s, run.end_s, seconds, strict=True):
        assert end - start >= own * (1 - 1e-9)
    # Nor can a channel carry more than all of the time.
    for channel in range(3):
        busy = sum(seconds[n] * share for n, ((c, share),) in demands.items() if c == channel)
        assert busy <= max(run.end_s) * (1 + 1e-9)


def test_a_hundred_thousand_events_take_less_than_a_second() -> None:
    seconds, followers = made_up(50_000, 8)
    start = time.process_time()
    run = run_tasks(seconds, followers)
    assert time.process_time() - start < 1
    assert len(run.log) == 100_000
