"""One golden case per pattern, and properties of all plans."""

from __future__ import annotations

import dataclasses
import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_onnx.geometry import Box, Layout, Reduction, box_shape, whole_box
from mars_onnx.redistribution import (
    Collective,
    Fragment,
    Pattern,
    Plan,
    direct_plan,
    received_volume,
    redistribute,
)
from tests.redistribution.interpreter import PlanError, deadlocks, run
from tests.redistribution.layouts import mesh_layout, random_layout, random_needs, random_pair

SEEDS = st.integers(0, 2**40)


def plan_of(source: Layout, target: Layout) -> Plan:
    """A plan that has been run."""
    plan = redistribute(source, target)
    run(plan, source, target)
    assert not deadlocks(plan)
    return plan


def groups_of(plan: Plan) -> list[tuple[int, ...]]:
    return [collective.group for collective in plan.collectives]


def rows(shape: tuple[int, ...], ranges: list[tuple[int, int] | None], first: int = 0) -> Layout:
    """Ranges of dimension 0 for consecutive ranks."""
    boxes = tuple(None if r is None else (r, *whole_box(shape)[1:]) for r in ranges)
    return Layout(shape, tuple(range(first, first + len(ranges))), boxes)


SHAPE = (12, 8, 4)
GOLDEN = {
    "local": (mesh_layout(SHAPE, (4,), (None,)), mesh_layout(SHAPE, (4,), (0,)), []),
    "all-gather": (mesh_layout(SHAPE, (4,), (0,)), Layout.replicated(SHAPE, (0, 1, 2, 3)), [(0, 1, 2, 3)]),
    "halo-exchange": (mesh_layout(SHAPE, (4,), (0,)), mesh_layout(SHAPE, (4,), (0,), halo=(1, 0, 0)), [(0, 1, 2, 3)]),
    "all-to-all": (mesh_layout(SHAPE, (4,), (0,)), mesh_layout(SHAPE, (4,), (1,)), [(0, 1, 2, 3)]),
    "broadcast": (
        Layout(SHAPE, (0,), (whole_box(SHAPE),)),
        Layout.replicated(SHAPE, (4, 5, 6)),
        [(0, 4, 5, 6)],
    ),
    "shift": (
        rows(SHAPE, [(0, 4), (4, 8), (8, 12)]),
        rows(SHAPE, [(8, 12), (0, 4), (4, 8)]),
        [(0, 1, 2)],
    ),
    "all-reduce": (
        mesh_layout(SHAPE, (2, 2), (0, None), partial_axis=1),
        mesh_layout(SHAPE, (2, 2), (0, None)),
        [(0, 1), (2, 3)],
    ),
    "reduce-scatter": (
        mesh_layout(SHAPE, (2, 2), (0, None), partial_axis=1),
        mesh_layout(SHAPE, (2, 2), (0, 1)),
        [(0, 1), (2, 3)],
    ),
    "scatter": (Layout(SHAPE, (0,), (whole_box(SHAPE),)), mesh_layout(SHAPE, (3,), (0,)), [(0, 1), (0, 2)]),
    "gather": (mesh_layout(SHAPE, (3,), (0,)), Layout(SHAPE, (1,), (whole_box(SHAPE),)), [(0, 1), (2, 1)]),
    "p2p": (mesh_layout(SHAPE, (2,), (0,)), mesh_layout(SHAPE, (2,), (0,), first=2), [(0, 2), (1, 3)]),
    "mixed": (
        mesh_layout(SHAPE, (4,), (0,)),
        mesh_layout(SHAPE, (4,), (1,), halo=(0, 1, 0)),
        [(0, 1, 2, 3), (0, 1, 2, 3)],
    ),
}


@pytest.mark.parametrize("kind", GOLDEN)
def test_each_kind_is_recognised(kind: str) -> None:
    source, target, groups = GOLDEN[kind]
    plan = plan_of(source, target)
    assert plan.kind == kind
    assert groups_of(plan) == groups


def test_uneven_pieces_are_gathered() -> None:
    source = rows((7,), [(0, 1), (1, 5), (5, 7)])
    plan = plan_of(source, Layout.replicated((7,), (0, 1, 2)))
    assert plan.kind == "all-gather"
    assert plan.received_elements() == {0: 6, 1: 3, 2: 5}


def test_uneven_pieces_are_exchanged_from_axis_to_axis() -> None:
    source = rows((5, 3), [(0, 1), (1, 5)])
    target = Layout((5, 3), (0, 1), (((0, 5), (0, 2)), ((0, 5), (2, 3))))
    assert plan_of(source, target).kind == "all-to-all"


def test_who_holds_nothing_is_left_out_of_the_group() -> None:
    source = rows((3,), [(0, 1), None, (1, 2), (2, 3)])
    plan = plan_of(source, Layout.replicated((3,), (0, 1, 2, 3)))
    assert [(c.pattern, c.group) for c in plan.collectives] == [
        (Pattern.ALL_GATHER, (0, 2, 3)),
        (Pattern.SEND_RECV, (0, 1)),
    ]


def test_who_needs_nothing_may_give_in_an_exchange() -> None:
    source = rows((4, 4), [(0, 1), (1, 2), (2, 3), (3, 4)])
    target = Layout((4, 4), (0, 1, 2, 3), (((0, 4), (0, 2)), ((0, 4), (2, 4)), None, None))
    plan = plan_of(source, target)
    assert plan.kind == "all-to-all"
    assert plan.collectives[0].outputs[2:] == (None, None)


def test_halo_reaches_past_the_next_neighbour() -> None:
    source = rows((8,), [(0, 1), (1, 2), (2, 6), (6, 8)])
    target = rows((8,), [(0, 3), (0, 4), (0, 8), (1, 8)])
    plan = plan_of(source, target)
    assert plan.kind == "halo-exchange"
    assert plan.received_elements() == {0: 2, 1: 3, 2: 4, 3: 5}


def test_windows_that_shrink_or_move_are_halo_exchanges() -> None:
    source = rows((9,), [(0, 4), (4, 6), (6, 9)])
    assert plan_of(source, rows((9,), [(0, 3), (3, 6), (5, 9)])).kind == "halo-exchange"


def test_halo_in_two_dimensions_takes_one_step_per_axis() -> None:
    source = mesh_layout((8, 8), (2, 2), (0, 1))
    target = mesh_layout((8, 8), (2, 2), (0, 1), halo=(1, 1))
    plan = plan_of(source, target)
    assert plan.kind == "halo-exchange"
    assert groups_of(plan) == [(0, 2), (1, 3), (0, 1), (2, 3)]
    assert plan.received_elements() == dict.fromkeys(range(4), 9)


def test_replicas_gather_among_their_own() -> None:
    source = mesh_layout((8,), (2, 2), (0, None))
    plan = plan_of(source, Layout.replicated((8,), (0, 1, 2, 3)))
    assert groups_of(plan) == [(0, 2), (1, 3)]


def test_the_nearest_replica_is_the_source() -> None:
    source = Layout.replicated((4,), (0, 7))
    target = Layout.replicated((4,), (2, 6))
    assert groups_of(plan_of(source, target)) == [(0, 2), (7, 6)]

    def turned(a: int, b: int) -> float:
        return -abs(a - b)

    assert groups_of(redistribute(source, target, turned)) == [(0, 6), (7, 2)]


def test_permutations_are_shifts_along_their_cycles() -> None:
    source = rows((5,), [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)])
    target = rows((5,), [(1, 2), (0, 1), (4, 5), (2, 3), (3, 4)])
    plan = plan_of(source, target)
    assert plan.kind == "shift"
    assert sorted(groups_of(plan)) == [(0, 1), (2, 3, 4)]


def test_uneven_reduce_scatter_and_its_halo() -> None:
    source = Layout((5,), (0, 1), (((0, 5),),) * 2, (0, 1), 2, Reduction.MAX)
    assert plan_of(source, rows((5,), [(0, 1), (1, 5)])).kind == "reduce-scatter"
    halo = plan_of(source, rows((5,), [(0, 3), (2, 5)]))
    assert all(c.pattern is not Pattern.SEND_RECV for c in halo.collectives)


def test_only_what_is_needed_is_reduced() -> None:
    source = Layout((8, 2), (0, 1), (whole_box((8, 2)),) * 2, (0, 1), 2)
    plan = plan_of(source, Layout((8, 2), (0, 1), (((2, 4), (0, 2)),) * 2))
    assert [c.outputs[0] for c in plan.collectives] == [Fragment(((2, 4), (0, 2)))]


def test_parts_for_one_other_are_reduced_there() -> None:
    source = Layout((6,), (0, 1, 2), (((0, 6),),) * 3, (0, 1, 2), 3)
    plan = plan_of(source, Layout((6,), (5,), (((0, 6),),)))
    assert plan.kind == "gather"
    assert len(plan.assemblies[0].terms) == 3


def test_parts_for_several_others_are_reduced_before() -> None:
    source = Layout((6,), (0, 1, 2), (((0, 6),),) * 3, (0, 1, 2), 3)
    plan = plan_of(source, Layout.replicated((6,), (5, 6, 7)))
    assert plan.collectives[0].pattern is Pattern.REDUCE_SCATTER
    assert sum(plan.received_elements().values()) == 2 * 6 + 3 * 6


def test_one_replica_group_reduces_for_others() -> None:
    source = mesh_layout((6,), (2, 2), (None, None), partial_axis=0)
    plan = plan_of(source, Layout.replicated((6,), (8, 9, 10)))
    reduced = [c for c in plan.collectives if c.pattern in (Pattern.ALL_REDUCE, Pattern.REDUCE_SCATTER)]
    assert [c.group for c in reduced] == [(0, 2)]


def test_scalars_and_tensors_without_elements() -> None:
    scalar = Layout((), (0, 1), ((), None))
    assert plan_of(scalar, Layout((), (0, 1), ((), ()))).kind == "p2p"
    parts = Layout((), (0, 1), ((), ()), (0, 1), 2)
    assert plan_of(parts, Layout((), (0, 1), ((), ()))).kind == "all-reduce"
    empty = Layout.replicated((0, 3), (0,))
    assert plan_of(empty, Layout.replicated((0, 3), (0, 1))).kind == "local"


def test_what_cannot_be_planned_is_refused() -> None:
    source = rows((4,), [(0, 2), None])
    with pytest.raises(ValueError, match="nobody holds"):
        redistribute(source, rows((4,), [None, (1, 3)]))
    with pytest.raises(ValueError, match="shape"):
        redistribute(source, rows((5,), [(0, 2)]))
    with pytest.raises(ValueError, match="partial"):
        redistribute(source, Layout((4,), (0, 1), (((0, 4),),) * 2, (0, 1), 2))
    with pytest.raises(ValueError, match="twice"):
        redistribute(source, Layout((4,), (0, 0), (None, None)))


@settings(max_examples=1000, deadline=None)
@given(SEEDS)
def test_plans_are_right_safe_and_repeatable(seed: int) -> None:
    source, target = random_pair(seed)
    assert source.problems() == []
    plan = redistribute.__wrapped__(source, target)
    run(plan, source, target, seed)
    assert not deadlocks(plan)
    assert redistribute.__wrapped__(source, target) == plan


REGULAR = [
    (mesh, placed, wanted, halo)
    for mesh in ((4,), (2, 2), (4, 2), (2, 2, 2))
    for placed in itertools.product((None, 0, 1), repeat=len(mesh))
    for wanted in {
        placed,
        (None,) * len(mesh),
        tuple(None if dim == 0 else dim for dim in placed),
        tuple(2 if dim == 0 else dim for dim in placed),
    }
    for halo in (None, (1, 1, 1))
]


@pytest.mark.parametrize("parts", [False, True])
def test_regular_strategies_need_no_sends(parts: bool) -> None:
    """Gathering, exchanging halos, or cutting another dimension with the same mesh axes; also from partial sums."""
    for mesh, placed, wanted, halo in REGULAR:
        source = mesh_layout((16, 32, 64), (*mesh, 2), (*placed, None), partial_axis=len(mesh) if parts else None)
        target = mesh_layout((16, 32, 64), (*mesh, 2), (*wanted, None), halo=halo)
        plan = redistribute(source, target)
        run(plan, source, target)
        assert all(c.pattern is not Pattern.SEND_RECV for c in plan.collectives), (mesh, placed, wanted, halo)


@settings(max_examples=300, deadline=None)
@given(SEEDS)
def test_vectorised_volume_is_the_planned_volume(seed: int) -> None:
    chooser = random.Random(seed)
    shape = [chooser.randint(1, 6) for _ in range(chooser.randint(1, 3))]
    source = random_layout(chooser, shape, partial=False)
    targets = [random_needs(chooser, shape) for _ in range(3)]
    ranks = range(12)
    nothing = ((0, 0),) * len(shape)
    held = np.array([[source.box_of(rank) or nothing for rank in ranks]])
    needed = np.array([[target.box_of(rank) or nothing for rank in ranks] for target in targets])
    priced = received_volume(held, needed)
    for target, row in zip(targets, priced[0], strict=True):
        planned = direct_plan(source, target).received_elements()
        assert [planned.get(rank, 0) for rank in ranks] == row.tolist()


def test_volumes_of_different_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="different"):
        received_volume(np.zeros((1, 2, 3, 2), int), np.zeros((1, 3, 3, 2), int))


def moved(fragment: Fragment | None, chooser: random.Random) -> Fragment | None:
    """The fragment with one edge moved by one."""
    if fragment is None or not fragment.box:
        return None
    dim = chooser.randrange(len(fragment.box))
    start, stop = fragment.box[dim]
    edge: tuple[int, int] = chooser.choice(((start + 1, stop), (start, stop + 1), (start - 1, stop), (start, stop - 1)))
    box: Box = (*fragment.box[:dim], edge, *fragment.box[dim + 1 :])
    return None if min(box_shape(box)) < 1 or edge[0] < 0 else Fragment(box, fragment.part)


def faulty(plan: Plan, chooser: random.Random) -> Plan | None:
    """The plan with one fault planted; ``None`` if this fault does not fit it."""
    collectives, assemblies = list(plan.collectives), list(plan.assemblies)
    fault = chooser.choice(("drop", "input", "output", "swap", "reduction", "offset", "term", "axis"))
    if fault == "term":
        i = chooser.randrange(len(assemblies))
        pieces = [list(term) for term in assemblies[i].terms]
        changed = moved(pieces[0][0], chooser)
        pieces[0][:1] = [changed] if changed else []
        assemblies[i] = dataclasses.replace(assemblies[i], terms=tuple(map(tuple, pieces)))
        return dataclasses.replace(plan, assemblies=tuple(assemblies))
    i = chooser.randrange(len(collectives))
    one: Collective = collectives[i]
    j = chooser.randrange(len(one.group))
    if fault == "drop":
        del collectives[i]
        return dataclasses.replace(plan, collectives=tuple(collectives))
    if fault in ("input", "output"):
        fragments = list(one.inputs if fault == "input" else one.outputs)
        changed = moved(fragments[j], chooser)
        # A halo that comes out wider than it has to is no fault.
        if changed is None or one.pattern is Pattern.HALO_EXCHANGE:
            return None
        fragments[j] = changed
        if fault == "input":
            one = dataclasses.replace(one, inputs=tuple(fragments))
        else:
            one = dataclasses.replace(one, outputs=tuple(fragments))
    elif fault == "swap":
        if one.pattern in (Pattern.ALL_REDUCE, Pattern.HALO_EXCHANGE) or len(set(one.outputs)) == 1:
            return None
        one = dataclasses.replace(one, outputs=(*one.outputs[1:], one.outputs[0]))
        if one.outputs == collectives[i].outputs:
            return None
    elif fault == "reduction":
        if one.pattern not in (Pattern.ALL_REDUCE, Pattern.REDUCE_SCATTER):
            return None
        other = next(reduction for reduction in Reduction if reduction is not one.reduction)
        one = dataclasses.replace(one, reduction=other)
    elif fault == "offset":
        if one.pattern is not Pattern.SHIFT or len(one.group) < 3:
            return None
        one = dataclasses.replace(one, offset=one.offset + 1)
    else:
        if one.axis is None or len(one.inputs) < 2 or one.pattern is Pattern.REDUCE_SCATTER:
            return None
        one = dataclasses.replace(one, axis=(one.axis + 1) % len(one.outputs[0].box) if one.outputs[0] else one.axis)
        if one.axis == collectives[i].axis:
            return None
    collectives[i] = one
    return dataclasses.replace(plan, collectives=tuple(collectives))


def test_the_interpreter_finds_planted_faults() -> None:
    """Else the properties above say nothing."""
    planted = 0
    for seed in range(3000):
        source, target = random_pair(seed)
        plan = redistribute(source, target)
        if not plan.collectives:
            continue
        broken = faulty(plan, random.Random(seed))
        if broken is None:
            continue
        planted += 1
        with pytest.raises(PlanError):
            run(broken, source, target, seed)
    assert planted > 500


def test_the_simulation_finds_a_deadlock() -> None:
    """Two ranks that both send first and then receive, as two orders of the same two messages."""
    source, target = rows((4,), [(0, 2), (2, 4)]), Layout.replicated((4,), (0, 1))
    plan = direct_plan(source, target)
    assert not deadlocks(plan)
    backwards = Plan(tuple(reversed(plan.collectives)), plan.assemblies)
    assert not deadlocks(backwards)
    assert deadlocks(plan, {0: [0, 1], 1: [1, 0]})
