"""How much the members of a collective give each other, in elements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from mars_onnx.geometry import Range, volume
from mars_onnx.redistribution.groups import overlap
from mars_onnx.redistribution.plan import Collective, Fragment, Pattern

Sizes = tuple[int, ...]
IntArray = npt.NDArray[np.int64]

#: Messages of more members are looked at together.
_FEW = 4


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
            if len(inputs) > _FEW:
                return tuple((width * _all_common(given_ranges, taken_ranges)).ravel().tolist())
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


def _all_common(given: Sequence[Sequence[Range] | None], taken: Sequence[Sequence[Range] | None]) -> IntArray:
    """The same from every box to every other, ``[given, taken]``; nothing to itself."""
    axes = range(max(len(own) for own in given if own))
    nothing = [(0, 0) for _ in axes]
    low, high = np.asarray([own or nothing for own in given], np.int64).T[..., None]
    start, stop = np.asarray([own or nothing for own in taken], np.int64).T[:, :, None]
    common: IntArray = np.maximum(np.minimum(high, stop) - np.maximum(low, start), 0).prod(axis=0)
    np.fill_diagonal(common, 0)
    return common
