"""Runs a plan on numpy arrays, strictly by the documented semantics, and simulates its message order.

Shares no code with the planner: boxes are index sets here wherever that is cheap enough.
"""

from __future__ import annotations

import functools
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mars_onnx.geometry import Box, Layout, Reduction
from mars_onnx.redistribution.plan import Collective, Fragment, Pattern, Plan

Array = NDArray[np.int64]
Memory = dict[int, list[tuple[Fragment, Array]]]
COMBINE = {Reduction.SUM: np.add, Reduction.MAX: np.maximum, Reduction.MIN: np.minimum}


class PlanError(AssertionError):
    """The plan breaks its own semantics, or computes something wrong."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise PlanError(message)


def region(box: Box) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in box)


def random_parts(value: Array, layout: Layout, generator: np.random.Generator) -> list[Array]:
    """Arrays of the whole shape, one per part, whose reduction is ``value``."""
    if layout.num_parts == 1:
        return [value]
    shape = (layout.num_parts, *value.shape)
    noise = generator.integers(1, 1000, shape)
    if layout.reduction is Reduction.SUM:
        noise[-1] = value - noise[:-1].sum(axis=0)
        return list(noise)
    # One part, another for every element, has the value; the others are beaten by it.
    winner = generator.integers(0, layout.num_parts, value.shape)
    sign = 1 if layout.reduction is Reduction.MIN else -1
    return [np.where(winner == part, value, value + sign * noise[part]) for part in range(layout.num_parts)]


def run(plan: Plan, source: Layout, target: Layout, seed: int = 0) -> None:
    """Run ``plan`` on random data.

    Raises:
        PlanError: It breaks the semantics, or somebody ends up with something else than the box it needs.
    """
    generator = np.random.default_rng(seed)
    value = generator.integers(-1000, 1000, source.shape, dtype=np.int64)
    parts = random_parts(value, source, generator)
    memory: Memory = {}
    for rank, box, part in zip(source.members, source.boxes, source.parts, strict=True):
        memory[rank] = []
        if box is not None:
            fragment = Fragment(box, part if source.partial else None)
            memory[rank].append((fragment, parts[part][region(box)]))
    for collective in plan.collectives:
        communicate(collective, memory, source)
    needs = {r: box for r, box in zip(target.members, target.boxes, strict=True) if box is not None}
    require([assembly.rank for assembly in plan.assemblies] == sorted(needs), "not one assembly per need")
    for assembly in plan.assemblies:
        require(assembly.need == needs[assembly.rank], "an assembly of another box than the needed one")
        result = assemble(assembly.terms, assembly.need, memory.get(assembly.rank, []), source, plan)
        require(np.array_equal(result, value[region(assembly.need)]), f"rank {assembly.rank} has wrong values")


def load(fragment: Fragment, has: list[tuple[Fragment, Array]]) -> Array:
    """The data of a box in a member's memory."""
    for held, data in has:
        if held.part == fragment.part and all(
            a <= c and d <= b for (a, b), (c, d) in zip(held.box, fragment.box, strict=True)
        ):
            return data[tuple(slice(c - a, d - a) for (a, _), (c, d) in zip(held.box, fragment.box, strict=True))]
    raise PlanError(f"{fragment} is in no fragment of this member")


def assemble(
    terms: tuple[tuple[Fragment, ...], ...], need: Box, has: list[tuple[Fragment, Array]], source: Layout, plan: Plan
) -> Array:
    shape = [stop - start for start, stop in need]
    results: list[Array] = []
    require(len(terms) in (1, source.num_parts), "neither one term nor one per part")
    for number, term in enumerate(terms):
        result, count = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for piece in term:
            require(piece.part == (None if len(terms) == 1 else number), "a term of another part")
            data = load(piece, has)
            at = tuple(slice(c - a, d - a) for (a, _), (c, d) in zip(need, piece.box, strict=True))
            require(
                all(a <= c < d <= b for (a, b), (c, d) in zip(need, piece.box, strict=True)), "a piece beyond the need"
            )
            result[at] = data
            count[at] += 1
        require(bool(np.all(count == 1)), "the pieces do not tile the need")
        results.append(result)
    if len(results) > 1:
        require(plan.reduction is source.reduction, "the reduction of another tensor")
    return functools.reduce(COMBINE[plan.reduction], results)


def communicate(collective: Collective, memory: Memory, source: Layout) -> None:
    """Check one collective against the semantics and carry it out."""
    group, inputs, outputs = collective.group, collective.inputs, collective.outputs
    n = len(group)
    require(n > 1 and len(set(group)) == n == len(inputs) == len(outputs), "a group is not a set of members")
    for fragment in (*inputs, *outputs):
        require(fragment is None or all(start < stop for start, stop in fragment.box), "an empty box is not None")
    data = [None if x is None else load(x, memory.get(r, [])) for r, x in zip(group, inputs, strict=True)]
    made = EXECUTE[collective.pattern](collective, data, source)
    for rank, output, result in zip(group, outputs, made, strict=True):
        require((output is None) == (result is None), "an output too many or too few")
        if output is not None and result is not None:
            require(result.shape == tuple(b - a for a, b in output.box), "an output of another shape")
            memory.setdefault(rank, []).append((output, result))


def _given(collective: Collective) -> list[Fragment]:
    given = [fragment for fragment in collective.inputs if fragment is not None]
    require(len(given) == len(collective.inputs), "a member gives nothing")
    return given


def _values(fragments: list[Fragment]) -> None:
    require(all(fragment.part is None for fragment in fragments), "a part where a value belongs")


def _ordered(boxes: list[Box], axis: int) -> None:
    """Boxes are disjoint along the axis, in order, and equal elsewhere."""
    for one, other in pairwise(boxes):
        require(one[axis][1] <= other[axis][0], "not disjoint and in order along the axis")
        for dim in range(len(one)):
            require(dim == axis or one[dim] == other[dim], "different in another dimension")


def _union(boxes: list[Box], axis: int) -> Box:
    _ordered(boxes, axis)
    for one, other in pairwise(boxes):
        require(one[axis][1] == other[axis][0], "a gap along the axis")
    return (*boxes[0][:axis], (boxes[0][axis][0], boxes[-1][axis][1]), *boxes[0][axis + 1 :])


def _send(c: Collective, data: list[Array | None], source: Layout) -> list[Array | None]:
    require(len(c.group) == 2, "a send between more than two")
    require(c.inputs[1] is None and c.outputs[0] is None and c.inputs[0] is not None, "a send both ways")
    require(c.outputs[1] == c.inputs[0], "something else arrives")
    return [None, data[0]]


def _broadcast(c: Collective, data: list[Array | None], source: Layout) -> list[Array | None]:
    require(c.inputs[0] is not None and all(x is None for x in c.inputs[1:]), "not only the root gives")
    require(all(output == c.inputs[0] for output in c.outputs), "something else arrives")
    return [data[0]] * len(c.group)


def _reduce(c: Collective, data: list[Array | None], source: Layout) -> Array:
    given = _given(c)
    require(c.reduction is source.reduction, "the reduction of another tensor")
    require(len({x.box for x in given}) == 1, "parts of different boxes")
    require(sorted(-1 if x.part is None else x.part for x in given) == list(range(source.num_parts)), "not all parts")
    return functools.reduce(COMBINE[c.reduction], [x for x in data if x is not None])


def _all_reduce(c: Collective, data: list[Array | None], source: Layout) -> list[Array | None]:
    total = _reduce(c, data, source)
    require(all(output == Fragment(_given(c)[0].box) for output in c.outputs), "an output is not the whole box")
    return [total] * len(c.group)


def _reduce_scatter(c: Collective, data: list[Array | None], source: Layout) -> list[Array | None]:
    total = _reduce(c, data, source)
    box = _given(c)[0].box
    outputs = [output for output in c.outputs if output is not None]
    _values(outputs)
    require(c.axis is not None and bool(outputs), "nothing to scatter, or no axis")
    assert c.axis is not None
    require(_union([output.box for output in outputs], c.axis) == box, "the pieces do not tile the box")
    return [
        None if x is None else total[tuple(slice(p - a, q - a) for (a, _), (p, q) in zip(box, x.box, strict=True))]
        for x in c.outputs
    ]


def _cut(c: Collective, data: list[Array | None], axis: int) -> list[Array | None]:
    """Outputs as ranges of the inputs along the axis, of which a part may be taken elsewhere too."""
    given = _given(c)
    low = given[0].box
    width = given[-1].box[axis][1] - low[axis][0]
    shape = [b - a for a, b in low]
    shape[axis] = width
    joined, known = np.zeros(shape, np.int64), np.zeros(width, bool)
    for fragment, array in zip(given, data, strict=True):
        assert array is not None
        a, b = (edge - low[axis][0] for edge in fragment.box[axis])
        joined[(slice(None),) * axis + (slice(a, b),)] = array
        known[a:b] = True
    results: list[Array | None] = []
    for output in c.outputs:
        if output is None:
            results.append(None)
            continue
        at = [slice(p - a, q - a) for (a, _), (p, q) in zip(low, output.box, strict=True)]
        require(0 <= at[axis].start < at[axis].stop <= width and bool(known[at[axis]].all()), "beyond the union")
        results.append(joined[tuple(at)])
    return results


def _all_gather(c: Collective, data: list[Array | None], source: Layout) -> list[Array | None]:
    assert c.axis is not None
    given = _given(c)
    _values(given)
    union = _union([x.box for x in given], c.axis)
    require(all(output == Fragment(union) for output in c.outputs), "an output is not the union")
    return _cut(c, data, c.axis)


def _halo(c: Collective, data: list[Array | None], source: Layout) -> list[Array | None]:
    assert c.axis is not None
    given = _given(c)
    _values(given)
    _ordered([x.box for x in given], c.axis)
    for output in c.outputs:
        require(output is not None and output.part is None, "an output that is no value")
        assert output is not None
        for dim in range(len(output.box)):
            require(dim == c.axis or output.box[dim] == given[0].box[dim], "different in another dimension")
    return _cut(c, data, c.axis)


def _all_to_all(c: Collective, data: list[Array | None], source: Layout) -> list[Array | None]:
    assert c.axis is not None
    assert c.split_axis is not None
    require(c.axis != c.split_axis, "splits what it gathers")
    given = _given(c)
    outputs = [output for output in c.outputs if output is not None]
    _values([*given, *outputs])
    whole = _union([x.box for x in given], c.axis)
    require(_union([x.box for x in outputs], c.split_axis) == whole, "outputs do not tile what the inputs tile")
    return _cut(c, data, c.axis)


def _shift(c: Collective, data: list[Array | None], source: Layout) -> list[Array | None]:
    n = len(c.group)
    require(0 < c.offset < n, "no offset")
    for i, fragment in enumerate(_given(c)):
        require(c.outputs[(i + c.offset) % n] == fragment, "something else arrives")
    return [data[(i - c.offset) % n] for i in range(n)]


EXECUTE = {
    Pattern.SEND_RECV: _send,
    Pattern.ALL_REDUCE: _all_reduce,
    Pattern.ALL_GATHER: _all_gather,
    Pattern.REDUCE_SCATTER: _reduce_scatter,
    Pattern.ALL_TO_ALL: _all_to_all,
    Pattern.BROADCAST: _broadcast,
    Pattern.HALO_EXCHANGE: _halo,
    Pattern.SHIFT: _shift,
}


def deadlocks(plan: Plan, programs: dict[int, list[int]] | None = None) -> bool:
    """Whether ranks that run their collectives in order, each waiting for its whole group, get stuck.

    ``programs`` has the collectives of every rank by number, in its order; the default is the order of the plan.
    """
    if programs is None:
        programs = {}
        for number, collective in enumerate(plan.collectives):
            for rank in collective.group:
                programs.setdefault(rank, []).append(number)
    while programs:
        ready = {
            program[0]
            for program in programs.values()
            if all(programs[rank][0] == program[0] for rank in plan.collectives[program[0]].group)
        }
        if not ready:
            return True
        programs = {
            rank: rest
            for rank, program in programs.items()
            if (rest := program[1:] if program[0] in ready else program)
        }
    return False
