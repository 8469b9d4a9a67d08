"""Random layouts and needs: regular meshes, and anything at all."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import pairwise

from mars_onnx.geometry import Box, Layout, Range, Reduction, whole_box


def cut(extent: int, count: int, chooser: random.Random | None = None) -> list[Range | None]:
    """``count`` consecutive ranges of an extent, even or at random; empty ones are ``None``."""
    if chooser is None:
        cuts = [extent * i // count for i in range(count + 1)]
    else:
        cuts = [0, *sorted(chooser.randint(0, extent) for _ in range(count - 1)), extent]
    return [(a, b) if a < b else None for a, b in pairwise(cuts)]


def mesh_boxes(
    shape: Sequence[int],
    mesh: Sequence[int],
    placed: Sequence[int | None],
    halo: Sequence[int] | None = None,
    chooser: random.Random | None = None,
) -> tuple[Box | None, ...]:
    """Boxes of the members of a row-major mesh.

    ``placed[k]`` is the dimension that mesh axis ``k`` cuts, ``None`` where it replicates. A dimension cut by several
    mesh axes is cut by the first one into the coarsest pieces.
    """
    ranges: list[list[Range | None]] = []
    strides: list[list[int]] = []
    for dim, extent in enumerate(shape):
        axes = [k for k, d in enumerate(placed) if d == dim]
        ranges.append(cut(extent, math.prod(mesh[k] for k in axes), chooser))
        strides.append(axes)
    boxes: list[Box | None] = []
    for rank in range(math.prod(mesh)):
        place: list[int] = []
        rest = rank
        for size in reversed(mesh):
            place.insert(0, rest % size)
            rest //= size
        box: list[Range] | None = []
        for dim in range(len(shape)):
            index = 0
            for k in strides[dim]:
                index = index * mesh[k] + place[k]
            range_ = ranges[dim][index]
            if range_ is None:
                box = None
                break
            wide = halo[dim] if halo and strides[dim] else 0
            assert box is not None
            box.append((max(0, range_[0] - wide), min(shape[dim], range_[1] + wide)))
        boxes.append(None if box is None else tuple(box))
    return tuple(boxes)


def mesh_layout(
    shape: Sequence[int],
    mesh: Sequence[int],
    placed: Sequence[int | None],
    *,
    halo: Sequence[int] | None = None,
    partial_axis: int | None = None,
    reduction: Reduction = Reduction.SUM,
    chooser: random.Random | None = None,
    first: int = 0,
) -> Layout:
    """A layout on the mesh whose first rank is ``first``; mesh axis ``partial_axis`` numbers the parts."""
    count = math.prod(mesh)
    parts: tuple[int, ...] = (0,) * count
    num_parts = 1
    if partial_axis is not None:
        inner = math.prod(mesh[partial_axis + 1 :])
        num_parts = mesh[partial_axis]
        parts = tuple(rank // inner % num_parts for rank in range(count))
    members = tuple(range(first, first + count))
    boxes = mesh_boxes(shape, mesh, placed, halo, chooser)
    return Layout(tuple(shape), members, boxes, parts, num_parts, reduction)


MESHES = ((2,), (3,), (4,), (5,), (8,), (2, 2), (2, 3), (4, 2), (3, 2), (2, 2, 2))


def random_mesh_layout(chooser: random.Random, shape: Sequence[int], *, partial: bool) -> Layout:
    mesh = chooser.choice(MESHES)
    placed: list[int | None] = [chooser.choice([None, *range(len(shape))]) for _ in mesh]
    partial_axis = None
    if partial and mesh[axis := chooser.randrange(len(mesh))] > 1:
        partial_axis, placed[axis] = axis, None
    return mesh_layout(
        shape,
        mesh,
        placed,
        halo=[chooser.choice((0, 0, 0, 1, 2, 5)) for _ in shape],
        partial_axis=partial_axis,
        reduction=chooser.choice(list(Reduction)),
        chooser=chooser if chooser.random() < 0.5 else None,
        first=chooser.choice((0, 0, 0, 1, 2, 8)),
    )


def random_box(chooser: random.Random, shape: Sequence[int]) -> Box:
    return tuple(sorted(chooser.sample(range(extent + 1), 2)) for extent in shape)  # type: ignore[misc]


def random_needs(chooser: random.Random, shape: Sequence[int]) -> Layout:
    members = tuple(chooser.sample(range(10), chooser.randint(1, 8)))
    pool = [as_box(random_box(chooser, shape)) for _ in range(3)]
    return Layout(
        tuple(shape),
        members,
        tuple(chooser.choice([None, *pool, whole_box(shape), as_box(random_box(chooser, shape))]) for _ in members),
    )


def as_box(ranges: Sequence[Sequence[int]]) -> Box:
    return tuple((start, stop) for start, stop in ranges)


def random_layout(chooser: random.Random, shape: Sequence[int], *, partial: bool) -> Layout:
    """Boxes that overlap at will and cover the tensor, for every part."""
    num_parts = chooser.randint(2, 3) if partial else 1
    boxes: list[Box | None] = []
    parts: list[int] = []
    for part in range(num_parts):
        own: list[Box | None] = [None] * chooser.randint(0, 1)
        rest = [whole_box(shape)]
        while rest and chooser.random() < 0.6:
            box = rest.pop()
            dim = chooser.randrange(len(shape)) if shape else -1
            if dim >= 0 and box[dim][1] - box[dim][0] > 1:
                at = chooser.randint(box[dim][0] + 1, box[dim][1] - 1)
                rest += [
                    (*box[:dim], (box[dim][0], at), *box[dim + 1 :]),
                    (*box[:dim], (at, box[dim][1]), *box[dim + 1 :]),
                ]
            else:
                own.append(box)
        own += rest
        own += [chooser.choice([*own, as_box(random_box(chooser, shape))]) for _ in range(chooser.randint(0, 2))]
        boxes += own
        parts += [part] * len(own)
    order = chooser.sample(range(len(boxes)), len(boxes))
    members = tuple(chooser.sample(range(len(boxes) + 2), len(boxes)))
    reduction = chooser.choice(list(Reduction))
    return Layout(
        tuple(shape), members, tuple(boxes[i] for i in order), tuple(parts[i] for i in order), num_parts, reduction
    )


def random_pair(seed: int) -> tuple[Layout, Layout]:
    """A source and a target of any kind."""
    chooser = random.Random(seed)
    shape = [chooser.choice((1, 2, 3, 4, 6, 8, 9)) for _ in range(chooser.randint(0, 3))]
    partial = chooser.random() < 0.5
    mesh = bool(shape) and chooser.random() < 0.6
    make = random_mesh_layout if mesh else random_layout
    source = make(chooser, shape, partial=partial)
    while source.problems():
        source = (
            random_mesh_layout(chooser, shape, partial=partial)
            if mesh
            else random_layout(chooser, shape, partial=partial)
        )
    if shape and chooser.random() < 0.6:
        return source, random_mesh_layout(chooser, shape, partial=False)
    if chooser.random() < 0.3:
        boxes = chooser.sample(source.boxes, len(source.boxes))
        return source, Layout(source.shape, source.members, tuple(boxes))
    return source, random_needs(chooser, shape)
