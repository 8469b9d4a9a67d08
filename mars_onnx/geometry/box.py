"""Axis-aligned boxes of tensor indices.

A box is one ``(start, stop)`` pair per dimension, half open, in the coordinates of the whole tensor. A box is never
empty: where a member holds nothing there is ``None`` instead, so that a scalar (whose box is ``()``) and "nothing"
stay apart.
"""

from collections.abc import Iterable

Range = tuple[int, int]
Box = tuple[Range, ...]


def whole_box(shape: Iterable[int]) -> Box:
    """The box of a whole tensor of the given shape."""
    return tuple((0, extent) for extent in shape)


def box_shape(box: Box) -> tuple[int, ...]:
    """Extent per dimension."""
    return tuple(stop - start for start, stop in box)


def volume(box: Box | None) -> int:
    """Number of elements; 0 for ``None``."""
    if box is None:
        return 0
    result = 1
    for start, stop in box:
        result *= stop - start
    return result


def intersect(first: Box | None, second: Box | None) -> Box | None:
    """The common part of two boxes of equal rank, or ``None`` if there is none."""
    if first is None or second is None:
        return None
    # Planning is made of this and the next function; loops and conditions are several times as fast as what would be
    # shorter.
    common: list[Range] = []
    for (start, stop), (low, high) in zip(first, second, strict=True):
        begin = start if start > low else low
        end = stop if stop < high else high
        if begin >= end:
            return None
        common.append((begin, end))
    return tuple(common)


def contains(outer: Box | None, inner: Box | None) -> bool:
    """Whether every element of ``inner`` is in ``outer``; nothing (``None``) is contained in everything."""
    if inner is None:
        return True
    if outer is None:
        return False
    for (start, stop), (low, high) in zip(outer, inner, strict=True):
        if low < start or stop < high:
            break
    else:
        return True
    return False


def relative(inner: Box, outer: Box) -> Box:
    """``inner`` in the coordinates of ``outer``, which contains it: what a Slice of the local tensor takes."""
    return tuple((c - a, d - a) for (a, _), (c, d) in zip(outer, inner, strict=True))


def hull(boxes: Iterable[Box | None]) -> Box | None:
    """The smallest box around all of them; ``None`` if all are ``None``."""
    present = [box for box in boxes if box is not None]
    if not present:
        return None
    return tuple((min(r[0] for r in ranges), max(r[1] for r in ranges)) for ranges in zip(*present, strict=True))


def subtract(box: Box, taken: Box | None) -> tuple[Box, ...]:
    """``box`` without ``taken``, as disjoint boxes (at most two per dimension)."""
    common = intersect(box, taken)
    if common is None:
        return (box,)
    rest: list[Box] = []
    core = list(box)
    for dim, ((start, stop), (low, high)) in enumerate(zip(box, common, strict=True)):
        for side in ((start, low), (high, stop)):
            if side[0] < side[1]:
                rest.append((*core[:dim], side, *core[dim + 1 :]))
        core[dim] = (low, high)
    return tuple(rest)


def box_text(box: Box | None) -> str:
    """Text of a box as it stands in metadata: ``0:1,0:64,28:56``; ``-`` for nothing, ``()`` for a scalar."""
    if box is None:
        return "-"
    return ",".join(f"{start}:{stop}" for start, stop in box) or "()"


def parse_box(text: str) -> Box | None:
    """The inverse of :func:`box_text`.

    Raises:
        ValueError: The text is not a box.
    """
    if text == "-":
        return None
    if text == "()":
        return ()
    pairs = (pair.split(":") for pair in text.split(","))
    return tuple((int(start), int(stop)) for start, stop in pairs)
