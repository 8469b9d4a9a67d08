"""What it costs to redistribute a tensor: for all pairs of layouts a lower bound at once, exactly one pair at a time.

A plan takes milliseconds to find, and a network has hundreds of thousands of pairs. So a search works with bounds, and
asks for the exact cost of the pairs on its best way only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt

from mars_onnx.cost.steps import move_seconds
from mars_onnx.geometry import Layout
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.communication.bounds import Asked, move_bounds
from mars_onnx.search.exact.communication.mirrors import Fold, fold, mirrors
from mars_onnx.search.exact.communication.ports import Ports, ports
from mars_onnx.search.exact.communication.sides import Sides, keys_of, of_rank, sides
from mars_onnx.search.exact.work import BOUND, BOUND_TABLE, spend, spend_on_plan

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Clock:
    """Counts costs that have become exact, over many tables."""

    now: int = 0

    def tick(self) -> None:
        """One more."""
        self.now += 1


class Moves:
    """Layouts of tensors of one shape and width on some accelerators, and what it takes between them."""

    def __init__(
        self, pool: Pool, shape: tuple[int, ...], bits: int, ranks: tuple[int, ...], clock: Clock | None = None
    ) -> None:
        """For tensors of a shape and width on some accelerators; ``clock`` ticks whenever a cost becomes exact."""
        self.pool, self.shape, self.bits, self.ranks = pool, shape, bits, ranks
        self._clock = Clock() if clock is None else clock
        self._ids: dict[tuple[int, ...], dict[bytes, int]] = {}
        #: What boxes fit into: short keys are sooner compared.
        self._narrow = np.min_scalar_type(max(shape, default=1))
        #: Boxes of layouts, ``[layouts, ranks, rank, 2]``, in pieces.
        self._pieces: list[IntArray] = []
        self._members: list[tuple[int, ...]] = []
        self._exact: dict[tuple[int, int], float] = {}
        #: When each became that.
        self._since: dict[tuple[int, int], int] = {}
        self._layouts: dict[int, Layout] = {}
        #: Dimensions that have something to cut; of a scalar, the one that its boxes have.
        self._dims = [dim for dim, size in enumerate(shape) if size > 1] or [0]
        self._sizes = tuple(size for size in shape if size > 1) or (1,)
        self._sides: Sides | None = None
        #: Per layout the number of its mirror image, or -1.
        self._images: IntArray = np.zeros(0, np.int64)
        #: Pairs in the order in which their costs became exact.
        self.log: list[tuple[int, int]] = []

    def register(self, boxes: IntArray, members: tuple[int, ...]) -> IntArray:
        """Numbers of layouts.

        Args:
            boxes: ``[layouts, members, rank, 2]``, inside the tensor: keys have room for no more.
            members: Ranks, among those of the table.
        """
        if members != self.ranks:
            spread = np.zeros((len(boxes), len(self.ranks), *boxes.shape[2:]), np.int64)
            spread[:, [self.ranks.index(rank) for rank in members]] = boxes
            boxes = spread
        ids = self._ids.setdefault(members, {})
        keys = self._keys(boxes)
        fresh = [key for key in dict.fromkeys(keys) if key not in ids]
        if fresh:
            ids.update(zip(fresh, count(len(self._members)), strict=False))
            more = np.frombuffer(b"".join(fresh), self._narrow).astype(np.int64)
            self._pieces.append(more.reshape(len(fresh), *boxes.shape[1:]))
            self._members += [members] * len(fresh)
        return np.asarray([ids[key] for key in keys], np.int64)

    def _keys(self, boxes: IntArray) -> list[bytes]:
        """What layouts ``[layouts, ranks, rank, 2]`` are known by."""
        return keys_of(np.ascontiguousarray(boxes, self._narrow).reshape(len(boxes), boxes[:1].size))

    @property
    def _boxes(self) -> IntArray:
        """Boxes of all layouts, ``[layouts, ranks, rank, 2]``."""
        if len(self._pieces) > 1:
            self._pieces = [np.concatenate(self._pieces)]
        return self._pieces[0]

    def layout(self, number: int) -> Layout:
        """A registered layout."""
        if number not in self._layouts:
            self._layouts[number] = layout_of(self._boxes[number], self.shape, self.ranks, self._members[number])
        return self._layouts[number]

    def exact(self, source: int, target: int) -> float:
        """Seconds of a redistribution, which are also those of its mirror images."""
        key = (source, target)
        if key not in self._exact:
            spend_on_plan(len(self.ranks))
            seconds = move_seconds(self.pool, self.layout(source), self.layout(target), self.bits)
            for pair in dict.fromkeys((key, *self._mirrored(source, target))):
                self._exact[pair] = seconds
                self.log.append(pair)
                self._clock.tick()
                self._since[pair] = self._clock.now
        return self._exact[key]

    def _mirrored(self, source: int, target: int) -> Iterator[tuple[int, int]]:
        """The same redistribution with axes of equal size exchanged, where both layouts are known."""
        for order in mirrors(self.shape):
            held, needed = self._mirror(source, order), self._mirror(target, order)
            if held is not None and needed is not None:
                yield held, needed

    def _mirror(self, number: int, order: tuple[int, ...]) -> int | None:
        """A layout with its axes in another order, if it is known."""
        return self._ids[self._members[number]].get(self._keys(self._boxes[[number]][:, :, order])[0])

    def _folded(self, sources: IntArray, targets: IntArray) -> Fold | None:
        """How a table of some layouts follows from a part of it, as far as mirror images are known."""
        orders = mirrors(self.shape)
        # With more orders than one there is hardly ever more to gain.
        return fold(self._image(orders[0]), sources, targets) if len(orders) == 1 and len(self._ids) == 1 else None

    def _image(self, order: tuple[int, ...]) -> IntArray:
        """Per layout the number of the one that has its axes in another order, or -1; all are of the same members."""
        start, stop = len(self._images), len(self._members)
        if start < stop:
            ids = self._ids[self._members[0]]
            more = [ids.get(key, -1) for key in self._keys(self._boxes[start:, :, order])]
            images = np.concatenate([self._images, np.asarray(more, np.int64)])
            own = np.arange(start, stop)[images[start:] >= 0]
            images[images[own]] = own
            self._images = images
        return self._images

    def since(self, source: int, target: int) -> int:
        """The time from which on the cost of a pair is exact, if it is: 0 where nothing moves."""
        return self._since.get((source, target), 0)

    def sharpen(self, source: int, target: int) -> bool:
        """Make the cost of a pair exact; says whether it was not."""
        if (source, target) in self._exact:
            return False
        held, needed = self._boxes[source], self._boxes[target]
        if source == target or (self._members[source] == self._members[target] and _inside(needed, held)):
            return False
        self.exact(source, target)
        return True

    def boxes(self, numbers: IntArray) -> IntArray:
        """Boxes of layouts, ``[layouts, ranks, rank, 2]``."""
        found: IntArray = self._boxes.take(numbers, axis=0)
        return found

    def unseen(self) -> IntArray:
        """Boxes of layouts whose sides are not known yet, without dimensions that have nothing to cut."""
        start = 0 if self._sides is None else len(self._sides.held)
        return self._boxes[start:].take(self._dims, axis=2)

    def see(self, more: Sides) -> None:
        """Take in their sides."""
        self._sides = more if self._sides is None else self._sides.with_more(more)

    def bounds(self, sources: IntArray, targets: IntArray) -> FloatArray:
        """Seconds at least, ``[sources, targets]``; exact where that is known, and where nothing moves."""
        return bounds_of([(self, sources, targets)])[0]

    def asked(self, sources: IntArray, targets: IntArray) -> Asked:
        """What there is to move from some layouts to some others, whose sides are known."""
        if self._sides is None:
            raise RuntimeError("layouts whose sides nobody has worked out")
        held, needed = self._sides.held.take(sources, axis=0), self._sides.needed.take(targets, axis=0)
        return Asked(len(self.ranks), self._sizes, held, needed, self.bits, self._folded(sources, targets))

    def with_exact(self, seconds: FloatArray, sources: IntArray, targets: IntArray) -> FloatArray:
        """Bounds ``[sources, targets]`` with the exact cost where that is known."""
        if not self._exact:
            return seconds
        columns = {number: place for place, number in enumerate(targets.tolist())}
        rows = {number: place for place, number in enumerate(sources.tolist())}
        for (source, target), value in self._exact.items():
            if source in rows and target in columns:
                seconds[rows[source], columns[target]] = value
        return seconds


def bounds_of(wanted: Sequence[tuple[Moves, IntArray, IntArray]]) -> list[FloatArray]:
    """Bounds of several tensors on the same accelerators, as of each alone."""
    if not wanted:
        return []
    first = wanted[0][0]
    port = ports(first.pool, first.ranks)
    _see([moves for moves, _, _ in wanted], port)
    asked = [moves.asked(sources, targets) for moves, sources, targets in wanted]
    for (moves, _, _), own in zip(wanted, asked, strict=True):
        spend(BOUND, BOUND_TABLE + own.pairs * len(moves.ranks))
    found = move_bounds(asked, port)
    return [moves.with_exact(own, *of) for own, (moves, *of) in zip(found, wanted, strict=True)]


def _see(every: Sequence[Moves], port: Ports) -> None:
    """Work out the sides of all layouts of some tensors that are not known yet, together."""
    unseen = {moves: boxes for moves in dict.fromkeys(every) if len(boxes := moves.unseen())}
    if not unseen:
        return
    rank = max(boxes.shape[2] for boxes in unseen.values())
    found = sides(np.concatenate([of_rank(boxes, rank) for boxes in unseen.values()]), port)
    stop = 0
    for moves, boxes in unseen.items():
        start, stop = stop, stop + len(boxes)
        moves.see(found.part(start, stop, boxes.shape[2]))


def _inside(needed: IntArray, held: IntArray) -> bool:
    """Whether every member holds what it needs."""
    nothing = (needed[..., 0] >= needed[..., 1]).any(axis=-1)
    within = ((held[..., 0] <= needed[..., 0]) & (needed[..., 1] <= held[..., 1])).all(axis=-1)
    return bool((nothing | within).all())


def layout_of(boxes: IntArray, shape: tuple[int, ...], ranks: tuple[int, ...], members: tuple[int, ...]) -> Layout:
    """Boxes ``[ranks, rank, 2]`` as a layout of some of the ranks."""
    own = {
        rank: tuple((low, high) for low, high in box) if all(low < high for low, high in box) else None
        for rank, box in zip(ranks, boxes.tolist(), strict=True)
    }
    empty = not shape
    return Layout(
        shape, members, tuple((() if own[rank] is not None else None) if empty else own[rank] for rank in members)
    )
