"""The timeline without overlap."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_onnx.cost import Event, schedule


def test_by_hand() -> None:
    timeline = schedule(
        [
            Event.compute(0, 2, "a"),
            Event.compute(1, 3, "b"),
            Event.collective((0, 1), 1, "c"),
            Event.compute(0, 4, "d"),
        ],
        3,
    )
    assert timeline.start_s == (0, 0, 3, 4)
    assert timeline.end_s == (2, 3, 4, 8)
    assert timeline.latency_s == 8
    assert timeline.compute_s == (6, 3, 0)
    assert timeline.communication_s == (1, 1, 0)
    assert timeline.idle_s == (1, 4, 8)


def test_nothing() -> None:
    timeline = schedule([])
    assert (timeline.latency_s, timeline.idle_s) == (0, ())
    assert schedule([], 2).idle_s == (0, 0)


EVENTS = st.lists(
    st.builds(
        Event,
        st.lists(st.integers(0, 4), min_size=1, unique=True).map(tuple),
        st.floats(0, 1e3),
        st.booleans(),
    )
)


@given(EVENTS)
def test_what_always_holds(events: list[Event]) -> None:
    timeline = schedule(events, 5)
    for rank in range(5):
        mine = [i for i, event in enumerate(events) if rank in event.ranks]
        for before, after in pairwise(mine):
            assert timeline.end_s[before] <= timeline.start_s[after]
        assert timeline.compute_s[rank] + timeline.communication_s[rank] == pytest.approx(
            sum(events[i].seconds for i in mine)
        )
        assert timeline.idle_s[rank] >= 0
    assert timeline.latency_s <= sum(event.seconds for event in events) * (1 + 1e-9)
