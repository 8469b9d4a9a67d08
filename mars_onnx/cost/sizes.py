"""How much the members of a collective give each other, in elements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mars_onnx.geometry import Range, volume
from mars_onnx.redistribution.groups import overlap
from mars_onnx.redistribution.plan import Collective, Fragment, Pattern

Sizes = tuple[int, ...]


def _elements(fragments: Iterable[Fragment | None]) -> Sizes:
    return tuple([volume(fragment.box) if fragment else 0 for fragment in fragments])


def assembled(collective: Collective) -> int:
    """Elements of a gathered result, where its pieces do not follow one another in memory."""
    if collective.pattern is not Pattern.ALL_GATHER or collective.axis is None:
        return 0
    boxes = [taken.box for taken in collective.outputs if taken]
    # A piece is one stretch if there is one of everything before the axis of the pieces.
    apart = (box for box in boxes if volume(box[: collective.axis]) > 1)
    return max(map(volume, apart), default=0)


def sizes_of(collective: Collective) -> Sizes:
    """Elements of every member's piece, or of every message that takes place, from every member to every other."""
    inputs, outputs = collective.inputs, collective.outputs
    match collective.pattern:
        case Pattern.REDUCE_SCATTER:
            return _elements(outputs)
        case Pattern.ALL_TO_ALL | Pattern.HALO_EXCHANGE:
            # Boxes differ along one axis, or two, and are equal in all others.
            axes = [axis for axis in (collective.axis, collective.split_axis) if axis is not None]
            first = next(given.box for given in inputs if given)
            width = volume(tuple(extent for axis, extent in enumerate(first) if axis not in axes))
            given_ranges = [[given.box[axis] for axis in axes] if given else None for given in inputs]
            taken_ranges = [[taken.box[axis] for axis in axes] if taken else None for taken in outputs]
            return tuple(
                [
                    width * _common(given, taken) if given and taken and i != j else 0
                    for i, given in enumerate(given_ranges)
                    for j, taken in enumerate(taken_ranges)
                ]
            )
        case _:
            return _elements(inputs)


def _common(given: Sequence[Range], taken: Sequence[Range]) -> int:
    """Number of places that two boxes have in common."""
    result = 1
    for one, other in zip(given, taken, strict=True):
        result *= overlap(one, other)
    return result
