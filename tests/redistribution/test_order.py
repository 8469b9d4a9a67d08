"""In which order plans go along the axes, what does not depend on it, and what exact search takes for granted of it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_onnx.geometry import Layout
from mars_onnx.redistribution import Pattern, communication, redistribute
from mars_onnx.redistribution.axes import layout_in
from mars_onnx.redistribution.plan import received
from mars_onnx.redistribution.stages import _keeps_places
from tests.redistribution.interpreter import run
from tests.redistribution.layouts import mesh_layout, random_layout, random_mesh_layout, random_needs

SEEDS = st.integers(0, 2**40)


@pytest.mark.parametrize(("near", "far"), [(0, 1), (1, 0)])
def test_of_two_gathers_the_one_from_afar_comes_first(near: int, far: int) -> None:
    """It moves the smaller pieces then, whatever the order of the axes is."""
    source = mesh_layout((8, 8), (2, 4), (far, near))
    plan = redistribute(source, Layout.replicated((8, 8), tuple(range(8))))
    assert [collective.axis for collective in plan.collectives] == [far] * 4 + [near] * 2


@settings(deadline=None, max_examples=300, derandomize=True, database=None)
@given(SEEDS)
def test_a_mirror_image_is_planned_alike(seed: int) -> None:
    chooser = random.Random(seed)
    partial = chooser.random() < 0.3
    shape = (chooser.choice((4, 6)),) * 2 + (3,)
    make = chooser.choice([random_mesh_layout, random_layout])
    source = make(chooser, shape, partial=partial)
    target = chooser.choice([random_mesh_layout(chooser, shape, partial=False), random_needs(chooser, shape)])
    if source.problems():
        return
    mirrored = layout_in(source, (1, 0, 2)), layout_in(target, (1, 0, 2))
    plans = redistribute(source, target), redistribute(*mirrored)
    run(plans[1], *mirrored)
    first, second = ([(own.pattern, own.group, received(own)) for own in plan.collectives] for plan in plans)
    assert first == second
    assert [own.pattern for own in communication(*mirrored)] == [own.pattern for own in plans[0].collectives]


@settings(deadline=None, max_examples=200, derandomize=True, database=None)
@given(SEEDS)
def test_who_keeps_its_place_gets_what_it_lacks_from_its_owners(seed: int) -> None:
    """Bounds of exact search count on it: halo exchanges, shifts and messages, and one step in every dimension."""
    chooser = random.Random(seed)
    shape = [chooser.choice((4, 8, 9)) for _ in range(chooser.randint(1, 3))]
    mesh = chooser.choice([(4,), (2, 2), (8,), (4, 2), (2, 3), (2, 2, 2)])
    placed = [chooser.choice([None, *range(len(shape))]) for _ in mesh]
    cut = chooser if chooser.random() < 0.5 else None
    source = mesh_layout(shape, mesh, placed, chooser=cut)
    target = mesh_layout(shape, mesh, placed, halo=[chooser.choice((0, 1, 2, 4)) for _ in shape], chooser=cut)
    if None in (*source.boxes, *target.boxes) or not all(
        map(_keeps_places, zip(*source.boxes, strict=True), zip(*target.boxes, strict=True))
    ):
        return
    plan = redistribute(source, target)
    run(plan, source, target)
    patterns = {collective.pattern for collective in plan.collectives}
    assert patterns <= {Pattern.HALO_EXCHANGE, Pattern.SHIFT, Pattern.SEND_RECV, Pattern.BROADCAST}
    steps = [(own.axis, rank) for own in plan.collectives if own.axis is not None for rank in own.group]
    assert len(steps) == len(set(steps))
