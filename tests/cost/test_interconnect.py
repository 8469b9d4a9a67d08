"""Times of communication: closed forms by hand, a published table, and properties."""

import json
from dataclasses import replace
from math import ceil, log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_onnx.cost import Interconnect
from mars_onnx.geometry import Box
from mars_onnx.pool import Accelerator, Collectives, Link, Pool, load_pool
from mars_onnx.redistribution.plan import Collective, Fragment, Pattern, Plan

POOLS = Path(__file__).parent.parent / "pools"


def made(
    count: int,
    links: list[tuple[int, int]],
    bandwidth: float = 1e9,
    latency: float = 1e-6,
    full: bool = True,
    **rules: Any,
) -> Pool:
    return Pool(
        name="made",
        title="",
        accelerators=tuple(Accelerator(rank, f"a{rank}", "npu", (), 2**30, 1e10) for rank in range(count)),
        hosts=(),
        switches=("switch",) if any(count in ends for ends in links) else (),
        links=tuple(Link(i, ends, bandwidth, latency, full) for i, ends in enumerate(links)),
        inputs_at=0,
        outputs_at=0,
        sha256=json.dumps([count, links, bandwidth, latency, full, rules]),
        collectives=Collectives(**rules),
    )


#: One message out of and into every member at a time.
PLAIN = {
    "all_reduce": ("ring",),
    "all_gather": ("ring",),
    "reduce_scatter": ("ring",),
    "all_to_all": ("pairwise",),
    "broadcast": ("tree",),
}


def mesh(count: int, **numbers: Any) -> Interconnect:
    return Interconnect(made(count, [(i, j) for i in range(count) for j in range(i + 1, count)], **numbers))


def star(count: int, **numbers: Any) -> Interconnect:
    return Interconnect(made(count, [(i, count) for i in range(count)], **numbers))


@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_closed_forms_on_a_mesh(count: int) -> None:
    size, alpha, beta = 1e6, 1e-6, 1e-9
    net, group = mesh(count, algorithms=PLAIN), tuple(range(count))
    each = alpha + size / count * beta
    assert net.all_reduce(group, size) == pytest.approx(2 * (count - 1) * each)
    assert net.all_gather(group, [size / count] * count) == pytest.approx((count - 1) * each)
    assert net.reduce_scatter(group, [size / count] * count) == pytest.approx((count - 1) * each)
    assert net.all_to_all(group, np.full((count, count), size / count)) == pytest.approx((count - 1) * each)
    assert net.broadcast(group, size) == pytest.approx(ceil(log2(count)) * (alpha + size * beta))
    assert net.exchange([(0, 1)], [size]) == pytest.approx(alpha + size * beta)


def test_links_are_shared_within_a_step() -> None:
    # Two messages out of one port of a switch take twice as long; in and out at once do not disturb each other...
    assert star(3).exchange([(0, 1), (0, 2)], [1e6, 1e6]) == pytest.approx(2e-6 + 2e-3)
    assert star(3).exchange([(0, 1), (1, 0)], [1e6, 1e6]) == pytest.approx(2e-6 + 1e-3)
    # ... except on half-duplex links.
    half = Interconnect(made(2, [(0, 1)], full=False))
    assert half.exchange([(0, 1), (1, 0)], [1e6, 1e6]) == pytest.approx(1e-6 + 2e-3)


def test_the_slowest_link_of_a_ring_counts() -> None:
    pool = load_pool("fpga_pool")
    net = Interconnect(replace(pool, collectives=Collectives(algorithms=PLAIN)))
    inside, across = net.all_reduce((0, 1, 2, 3), 8e6), net.all_reduce((2, 3, 4, 5), 8e6)
    assert inside == pytest.approx(6 * (5e-6 + 2e6 / 1e9))
    assert across == pytest.approx(6 * (2e-5 + 2e6 / 0.25e9))
    # The ring goes group by group, whatever the order of the members: it crosses twice and never more.
    assert net.all_reduce((2, 4, 3, 5), 8e6) == across


def test_unequal_pieces() -> None:
    # Ring of 3, pieces 1, 2 and 6 MB: each step moves every piece one on, so the largest is always under way.
    assert mesh(3, algorithms=PLAIN).all_gather((0, 1, 2), [1e6, 2e6, 6e6]) == pytest.approx(2 * (1e-6 + 6e-3))
    # A piece of nothing is not sent: two steps of one transfer.
    assert mesh(3, algorithms=PLAIN).all_gather((0, 1, 2), [0, 0, 6e6]) == pytest.approx(2 * (1e-6 + 6e-3))
    assert mesh(3, algorithms=PLAIN).reduce_scatter((0, 1, 2), [0, 0, 6e6]) == pytest.approx(2 * (1e-6 + 6e-3))


def box(start: int, stop: int, columns: int = 10) -> Box:
    return ((start, stop), (0, columns))


def fragments(*boxes: Box | None) -> tuple[Fragment | None, ...]:
    return tuple(None if each is None else Fragment(each) for each in boxes)


def test_every_pattern_of_a_plan() -> None:
    net, group = mesh(2, algorithms=PLAIN), (0, 1)
    whole, top, bottom = box(0, 4), box(0, 2), box(2, 4)
    left, right = ((0, 4), (0, 5)), ((0, 4), (5, 10))
    parts = (Fragment(whole, 0), Fragment(whole, 1))
    collectives = (
        Collective(Pattern.ALL_REDUCE, group, parts, fragments(whole, whole)),
        Collective(Pattern.ALL_GATHER, group, fragments(top, bottom), fragments(whole, whole), axis=0),
        Collective(Pattern.REDUCE_SCATTER, group, parts, fragments(top, bottom), axis=0),
        Collective(Pattern.ALL_TO_ALL, group, fragments(top, bottom), fragments(left, right), axis=0, split_axis=1),
        Collective(Pattern.BROADCAST, group, fragments(whole, None), fragments(whole, whole)),
        Collective(Pattern.SEND_RECV, (1, 0), fragments(whole, None), fragments(None, whole)),
        Collective(Pattern.SHIFT, group, fragments(top, bottom), fragments(bottom, top), offset=1),
        Collective(Pattern.HALO_EXCHANGE, group, fragments(top, bottom), fragments(box(0, 3), box(2, 4)), axis=0),
        Collective(Pattern.HALO_EXCHANGE, group, fragments(top, bottom), fragments(top, bottom), axis=0),
    )
    assert {collective.pattern for collective in collectives} == set(Pattern)
    elements = [20, 20, 20, 10, 40, 40, 20, 10, 0]
    steps = [2, 1, 1, 1, 1, 1, 1, 1, 0]
    expected = [n * 1e-6 + n * size * 4e-9 for n, size in zip(steps, elements, strict=True)]
    assert net.plan(Plan(collectives, ()), 4) == pytest.approx(expected)


def test_vectorised() -> None:
    net, group = Interconnect(load_pool("fpga_pool")), (0, 1, 4)
    sizes = np.array([[1e3, 1e6], [0, 1e9]])
    pieces = np.stack([sizes, sizes / 2, sizes / 3], axis=-1)
    for many, one in (
        (net.all_reduce(group, sizes), lambda i, j: net.all_reduce(group, sizes[i, j])),
        (net.broadcast(group, sizes), lambda i, j: net.broadcast(group, sizes[i, j])),
        (net.all_gather(group, pieces), lambda i, j: net.all_gather(group, pieces[i, j])),
        (net.reduce_scatter(group, pieces), lambda i, j: net.reduce_scatter(group, pieces[i, j])),
    ):
        assert many.shape == (2, 2)
        assert many.tolist() == [[pytest.approx(float(one(i, j))) for j in range(2)] for i in range(2)]
        assert many[1, 0] == 0


@pytest.mark.parametrize("name", ["fpga_pool", "edge_pool", "mixed_pool", str(POOLS / "trio.json")])
@given(data=st.data())
def test_positive_finite_and_less_with_more_bandwidth(name: str, data: st.DataObject) -> None:
    pool = load_pool(name)
    group = data.draw(st.lists(st.integers(0, pool.size - 1), min_size=1, unique=True))
    size = data.draw(st.floats(1, 1e12))
    # All links alike, and latency with them, so that the routes stay.
    factor = data.draw(st.floats(1, 1e3))
    faster = tuple(
        replace(link, bandwidth_bytes_per_s=link.bandwidth_bytes_per_s * factor, latency_s=link.latency_s / factor)
        for link in pool.links
    )
    better = replace(pool, links=faster, _trees={}, _routes={})

    def times(net: Interconnect, amount: float) -> list[float]:
        count = len(group)
        pieces = np.full(count, amount)
        return [
            float(value)
            for value in (
                net.all_reduce(group, amount),
                net.all_gather(group, pieces),
                net.reduce_scatter(group, pieces),
                net.all_to_all(group, np.full((count, count), amount)),
                net.broadcast(group, amount),
                net.exchange([(group[0], group[-1])], [amount]),
            )
        ]

    now, then, less = (
        times(Interconnect(pool), size),
        times(Interconnect(better), size),
        times(Interconnect(pool), size / 2),
    )
    if len(group) == 1:
        assert now == [0.0] * len(now)
        return
    assert all(np.isfinite(value) and value > 0 for value in now)
    assert all(quick <= slow * (1 + 1e-9) for quick, slow in zip(then, now, strict=True))
    assert all(quick <= slow for quick, slow in zip(less, now, strict=True))


def test_inputs_come_from_the_host() -> None:
    pool = load_pool("fpga_pool")
    net = Interconnect(pool)
    scatter = net.exchange([(pool.inputs_at, rank) for rank in range(4)], [1e6] * 4)
    assert scatter == pytest.approx(1e-5 + 1e6 / 0.25e9)
