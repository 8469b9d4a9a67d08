"""Mirror images: a redistribution costs the same with axes of equal size exchanged, as those of an image.

So of a table of all pairs of some layouts, a part says what the rest is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.strategies.cuts import BoolArray
from mars_onnx.search.exact.strategies.space import FloatArray

Order = tuple[int, ...]
"""Axes of a tensor, each once."""

#: Of more axes of equal size than these, nobody looks for mirror images.
_MOST_ALIKE = 3


@lru_cache(maxsize=4096)
def mirrors(shape: tuple[int, ...]) -> tuple[Order, ...]:
    """Orders of the axes, besides the one that they have, in which a tensor has the same shape."""
    alike: dict[int, list[int]] = {}
    for axis, size in enumerate(shape):
        alike.setdefault(size, []).append(axis)
    groups = [axes for size, axes in alike.items() if size > 1 and len(axes) <= _MOST_ALIKE]
    found = []
    for exchanged in product(*(permutations(axes) for axes in groups)):
        order = list(range(len(shape)))
        for axes, places in zip(groups, exchanged, strict=True):
            for axis, place in zip(axes, places, strict=True):
                order[axis] = place
        found.append(tuple(order))
    # The first one changes nothing.
    return tuple(found[1:])


@dataclass(frozen=True, eq=False)
class Fold:
    """A table ``[sources, targets]`` of which rows are mirror images of other rows, where columns have an image, too.

    Attributes:
        rows: Rows that are mirror images of others.
        of: Of which.
        columns: Columns that have an image among the columns.
        images: Where that is.
    """

    rows: IntArray
    of: IntArray
    columns: IntArray
    images: IntArray

    def part(self, table: BoolArray) -> None:
        """Mark what is an image of something else as such."""
        table[self.rows[:, None], self.columns] = False

    def unfold(self, table: FloatArray) -> None:
        """Give it the values of that."""
        table[self.rows[:, None], self.columns] = table[self.of[:, None], self.images]


def fold(image: IntArray, sources: IntArray, targets: IntArray) -> Fold | None:
    """How a table of some layouts can be folded; ``None`` if it cannot.

    Args:
        image: Per layout the number of its mirror image, or -1.
        sources: Layouts by number.
        targets: Likewise.
    """
    held, needed = _places(image, sources), _places(image, targets)
    # A row of which another one is an image is never an image of one before itself.
    rows = np.flatnonzero((held >= 0) & (held < np.arange(len(sources))))
    columns = np.flatnonzero(needed >= 0)
    return Fold(rows, held[rows], columns, needed[columns]) if len(rows) and len(columns) else None


def _places(image: IntArray, layouts: IntArray) -> IntArray:
    """Per layout of some the place of its mirror image among them, or -1."""
    place = np.full(len(image) + 1, -1)
    place[layouts] = np.arange(len(layouts))
    # The image of none is behind all others.
    found: IntArray = place.take(image.take(layouts))
    return found
