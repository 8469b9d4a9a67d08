"""Random operators that move, cut, resize, gather or scatter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.rules.cases import Case, Operand, Rng, extents, ints, makes, maybe, opset_for, pick, signed


def regrouped(rng: Rng) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes with the same number of elements, often with common factors."""
    source: list[int] = []
    result: list[int] = []
    for _ in range(int(rng.integers(1, 4))):
        factors = [int(f) for f in rng.choice([1, 2, 2, 3, 4, 6], int(rng.integers(1, 4)))]
        for side in (source, result):
            groups = [1]
            for factor in factors if rng.random() < 0.7 else factors[::-1]:
                if rng.random() < 0.5:
                    groups.append(factor)
                else:
                    groups[-1] *= factor
            side += groups if rng.random() < 0.3 else [g for g in groups if g > 1] or [1]
    return tuple(source), tuple(result)


@makes("Reshape")
def reshape(op_type: str, rng: Rng) -> Case:
    source, result = regrouped(rng)
    target = list(result)
    if rng.random() < 0.4:
        target[int(rng.integers(len(target)))] = -1
    return Case(op_type, opset_for(op_type, rng), [Operand(source), ints(target)])


@makes("Flatten")
def flatten(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 1, 5, 5)
    return Case(op_type, opset_for(op_type, rng), [Operand(shape)], {"axis": int(rng.integers(0, len(shape) + 1))})


@makes("Squeeze", "Unsqueeze")
def squeeze(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    shape = list(extents(rng, 2, 5))
    axes = sorted(int(a) for a in rng.permutation(len(shape))[: int(rng.integers(1, len(shape)))])
    if op_type == "Squeeze":
        for axis in axes:
            shape[axis] = 1
        if rng.random() < 0.3:
            return Case(op_type, opset, [Operand(tuple(shape))])
    if opset >= 13:
        return Case(op_type, opset, [Operand(tuple(shape)), ints(axes)])
    return Case(op_type, opset, [Operand(tuple(shape))], {"axes": axes})


@makes("Transpose")
def transpose(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 1, 5, 5)
    order = [int(a) for a in rng.permutation(len(shape))]
    return Case(op_type, opset_for(op_type, rng), [Operand(shape)], {"perm": maybe(rng, order, 0.8)})


@makes("Concat")
def concat(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    shape = list(extents(rng, 1, 4, 5))
    axis = int(rng.integers(len(shape)))
    operands = []
    for _ in range(int(rng.integers(1, 4))):
        shape[axis] = int(rng.integers(1, 5))
        operands.append(Operand(tuple(shape)))
    return Case(op_type, opset, operands, {"axis": signed(rng, axis, len(shape)) if opset >= 11 else axis})


@makes("Split")
def split(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    shape = list(extents(rng, 1, 4, 5))
    axis = int(rng.integers(len(shape)))
    count = int(rng.integers(1, 5))
    attributes: dict[str, object] = {"axis": signed(rng, axis, len(shape)) if opset >= 11 else axis}
    if rng.random() < 0.4:
        shape[axis] = count * int(rng.integers(1, 4))
        operands: list[Operand | None] = [Operand(tuple(shape))]
        if opset >= 18:
            attributes["num_outputs"] = count
    else:
        sizes = [int(v) for v in rng.integers(1, 4, count)]
        shape[axis] = sum(sizes)
        operands = [Operand(tuple(shape))]
        if opset >= 13:
            operands.append(ints(sizes))
        else:
            attributes["split"] = sizes
    return Case(op_type, opset, operands, attributes, outputs=count)


@makes("Expand")
def expand(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 1, 4, 5)
    target = [1 if rng.random() < 0.2 else extent for extent in shape]
    source = tuple(
        extent if small == 1 or rng.random() < 0.5 else 1 for extent, small in zip(shape, target, strict=True)
    )
    return Case(op_type, opset_for(op_type, rng), [Operand(source), ints(target)])


@makes("Tile")
def tile(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 1, 4, 4)
    repeats = [int(pick(rng, 1, 1, 2, 3)) for _ in shape]  # type: ignore[call-overload]
    return Case(op_type, opset_for(op_type, rng), [Operand(shape), ints(repeats)])


@makes("Slice")
def slice_(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    shape = tuple(int(v) for v in rng.integers(2, 8, int(rng.integers(1, 5))))
    axes, starts, ends, steps = [], [], [], []
    for axis, extent in enumerate(shape):
        if rng.random() < 0.3:
            continue
        low, high = sorted(int(v) for v in rng.choice(extent + 1, 2, replace=False))
        step = int(pick(rng, 1, 1, 2, 3, -1, -2)) if opset >= 10 else 1  # type: ignore[call-overload]
        start, end = (low, high) if step > 0 else (high - 1, low - 1 if low > 0 else -extent - 1)
        if step > 0 and rng.random() < 0.3:
            start, end = start - extent, (end if end < extent else 2**31)
        axes.append(axis if opset < 10 else signed(rng, axis, len(shape)))
        starts.append(start)
        ends.append(end)
        steps.append(step)
    if not axes:
        axes, starts, ends, steps = [0], [0], [1], [1]
    if opset < 10:
        return Case(op_type, opset, [Operand(shape)], {"axes": axes, "starts": starts, "ends": ends})
    return Case(op_type, opset, [Operand(shape), ints(starts), ints(ends), ints(axes), ints(steps)])


@makes("Pad")
def pad(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    mode = pick(rng, "constant", "constant", "reflect", "edge")
    shape = tuple(int(v) for v in rng.integers(3, 7, int(rng.integers(1, 5))))
    axes = list(range(len(shape)))
    if opset >= 18 and rng.random() < 0.4:
        axes = sorted(int(a) for a in rng.permutation(len(shape))[: int(rng.integers(1, len(shape) + 1))])
    low = -1 if mode == "constant" else 0
    most = 6 if mode == "constant" else 3
    pads = [0 if rng.random() < 0.3 else int(v) for v in rng.integers(low, most, 2 * len(axes))]
    if opset < 11:
        return Case(op_type, opset, [Operand(shape)], {"pads": pads, "mode": mode, "value": maybe(rng, 1.5)})
    value = Operand(values=np.asarray(2.5, np.float32)) if rng.random() < 0.5 else None
    operands: list[Operand | None] = [Operand(shape), ints(pads), value]
    if opset >= 18 and len(axes) < len(shape):
        operands.append(ints([signed(rng, a, len(shape)) for a in axes]))
    return Case(op_type, opset, operands, {"mode": mode})


@makes("Resize", "Upsample")
def resize(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng, 10 if op_type == "Resize" else 7)
    shape = (*extents(rng, 2, most=4), *(int(v) for v in rng.integers(2, 6, 2)))
    scales = [1.0, 1.0, float(pick(rng, 1.0, 2.0, 3.0)), float(pick(rng, 1.0, 2.0, 4.0, 1.5, 0.5))]  # type: ignore[arg-type]
    attributes: dict[str, object] = {"mode": pick(rng, "nearest", "linear")}
    factors = Operand(values=np.asarray(scales, np.float32), constant=True)
    if op_type == "Upsample":
        if opset < 9:
            return Case(op_type, opset, [Operand(shape)], attributes | {"scales": scales})
        return Case(op_type, opset, [Operand(shape), factors], attributes)
    if opset < 11:
        return Case(op_type, opset, [Operand(shape), factors], attributes)
    attributes["coordinate_transformation_mode"] = pick(rng, "half_pixel", "asymmetric", "align_corners", None)
    attributes["nearest_mode"] = pick(rng, None, "floor", "ceil", "round_prefer_ceil")
    nothing = Operand(values=np.zeros(0, np.float32), constant=True) if opset < 13 or rng.random() < 0.5 else None
    if rng.random() < 0.5:
        return Case(op_type, opset, [Operand(shape), nothing, factors], attributes)
    sizes = [int(extent * scale) for extent, scale in zip(shape, scales, strict=True)]
    absent = nothing
    if opset >= 18 and rng.random() < 0.5:
        return Case(op_type, opset, [Operand(shape), None, None, ints(sizes[2:])], attributes | {"axes": [2, 3]})
    return Case(op_type, opset, [Operand(shape), absent, absent, ints(sizes)], attributes)


@makes("DepthToSpace", "SpaceToDepth")
def blocks(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    n, c, h, w = extents(rng, 4, most=4)
    size = int(rng.integers(1, 4))
    shape = (n, c * size * size, h, w) if op_type == "DepthToSpace" else (n, c, h * size, w * size)
    mode = pick(rng, "DCR", "CRD") if op_type == "DepthToSpace" and opset >= 11 else None
    return Case(op_type, opset, [Operand(shape)], {"blocksize": size, "mode": mode})


def indices(rng: Rng, shape: Sequence[int], size: int, *, negative: bool) -> Operand:
    dtype = pick(rng, np.int32, np.int64)
    values = rng.integers(-size if negative else 0, size, tuple(shape)).astype(dtype)  # type: ignore[call-overload]
    return Operand(values=values, constant=bool(rng.random() < 0.3))


@makes("Gather")
def gather(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    shape = extents(rng, 1, 4)
    axis = int(rng.integers(len(shape)))
    chosen = indices(rng, extents(rng, 0, 3, 4), shape[axis], negative=opset >= 11)
    dtype = pick(rng, np.float32, np.float32, np.int64, np.bool_)
    return Case(op_type, opset, [Operand(shape, dtype), chosen], {"axis": signed(rng, axis, len(shape))})  # type: ignore[arg-type]


@makes("GatherElements")
def gather_elements(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 1, 4)
    axis = int(rng.integers(len(shape)))
    outer = [int(rng.integers(1, extent + 1)) for extent in shape]
    outer[axis] = int(rng.integers(1, 6))
    chosen = indices(rng, outer, shape[axis], negative=True)
    return Case(op_type, opset_for(op_type, rng), [Operand(shape), chosen], {"axis": signed(rng, axis, len(shape))})


@makes("GatherND")
def gather_nd(op_type: str, rng: Rng) -> Case:
    opset = opset_for(op_type, rng)
    shape = extents(rng, 1, 4)
    batches = int(rng.integers(0, len(shape))) if opset >= 12 else 0
    depth = int(rng.integers(1, len(shape) - batches + 1))
    outer = (*shape[:batches], *extents(rng, 0 if batches else 1, 2, 4))
    tuples = np.stack([rng.integers(0, shape[batches + i], outer) for i in range(depth)], axis=-1)
    chosen = Operand(values=np.asarray(tuples, np.int64))
    return Case(op_type, opset, [Operand(shape), chosen], {"batch_dims": batches or None})


@makes("Scatter", "ScatterElements")
def scatter_elements(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 1, 4)
    axis = int(rng.integers(len(shape)))
    outer = [extent if rng.random() < 0.6 else int(rng.integers(1, extent + 1)) for extent in shape]
    outer[axis] = int(rng.integers(1, shape[axis] + 1))
    # No place is written twice: what happens then is up to the runtime.
    order = np.argsort(rng.random((*outer[:axis], shape[axis], *outer[axis + 1 :])), axis=axis)
    chosen = np.take(order, range(outer[axis]), axis=axis).astype(np.int64)
    operands = [Operand(shape), Operand(values=chosen), Operand(tuple(outer))]
    return Case(op_type, opset_for(op_type, rng), operands, {"axis": axis})


@makes("ScatterND")
def scatter_nd(op_type: str, rng: Rng) -> Case:
    shape = extents(rng, 1, 4)
    depth = int(rng.integers(1, len(shape) + 1))
    places = np.stack(np.unravel_index(rng.permutation(int(np.prod(shape[:depth]))), shape[:depth]), axis=-1)
    chosen = places[: int(rng.integers(1, len(places) + 1))].astype(np.int64)
    operands = [Operand(shape), Operand(values=chosen), Operand((len(chosen), *shape[depth:]))]
    return Case(op_type, opset_for(op_type, rng), operands)
