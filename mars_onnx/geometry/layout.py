"""Layouts: for every member of an accelerator set, the box of a tensor it holds and which partial sum it is of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mars_onnx.geometry.box import Box, box_text, intersect, parse_box, volume, whole_box


class Reduction(StrEnum):
    """How the parts of a partial tensor combine to its value."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a tensor is.

    The value of an element is the reduction, over the parts, of what *any* holder of that part has for it; holders of
    the same part and element are replicas. A tensor that is not partial has one part.

    Attributes:
        shape: Shape of the whole tensor.
        members: Ranks of the accelerators, in the order of the set.
        boxes: Per member what it holds, in whole-tensor coordinates; ``None`` for nothing.
        parts: Per member the number of the part it holds, ``0 <= part < num_parts``.
        num_parts: How many parts add up to the value.
        reduction: How they do; only read where ``num_parts > 1``.
    """

    shape: tuple[int, ...]
    members: tuple[int, ...]
    boxes: tuple[Box | None, ...]
    parts: tuple[int, ...] = ()
    num_parts: int = 1
    reduction: Reduction = Reduction.SUM

    def __post_init__(self) -> None:
        """Fill in the parts of a tensor that is not partial."""
        if not self.parts:
            object.__setattr__(self, "parts", (0,) * len(self.members))

    @staticmethod
    def replicated(shape: tuple[int, ...], members: tuple[int, ...]) -> Layout:
        """Every member holds everything."""
        return Layout(shape, members, (whole_box(shape),) * len(members))

    @property
    def partial(self) -> bool:
        """Whether holders have to be reduced to get the value."""
        return self.num_parts > 1

    def box_of(self, rank: int) -> Box | None:
        """What accelerator ``rank`` holds; ``None`` also where it is no member."""
        return self.boxes[self.members.index(rank)] if rank in self.members else None

    def problems(self) -> list[str]:
        """What makes this no layout: boxes outside the tensor, or a part that does not cover it. Empty if fine."""
        found: list[str] = []
        whole = whole_box(self.shape)
        if not len(self.members) == len(self.boxes) == len(self.parts):
            return ["members, boxes and parts differ in number"]
        for rank, box, part in zip(self.members, self.boxes, self.parts, strict=True):
            if box is not None and (len(box) != len(whole) or intersect(box, whole) != box):
                found.append(f"accelerator {rank} holds {box_text(box)}, which is not inside {box_text(whole)}")
            if not 0 <= part < self.num_parts:
                found.append(f"accelerator {rank} holds part {part} of {self.num_parts}")
        if found:
            return found
        for part in range(self.num_parts):
            boxes = {b for b, p in zip(self.boxes, self.parts, strict=True) if p == part and b is not None}
            if not _covers(whole, sorted(boxes)):
                found.append(f"part {part} of {self.num_parts} does not cover the tensor")
        return found

    def to_text(self) -> str:
        """One line for metadata: ``shape|reduction/num_parts|rank=box+part;...``."""
        held = ";".join(
            f"{rank}={box_text(box)}" + (f"+{part}" if self.partial else "")
            for rank, box, part in zip(self.members, self.boxes, self.parts, strict=True)
        )
        return f"{','.join(map(str, self.shape))}|{self.reduction}/{self.num_parts}|{held}"

    @staticmethod
    def from_text(text: str) -> Layout:
        """The inverse of :meth:`to_text`.

        Raises:
            ValueError: The text is not a layout.
        """
        shape_text, reduction_text, held_text = text.split("|")
        reduction, num_parts = reduction_text.split("/")
        members: list[int] = []
        boxes: list[Box | None] = []
        parts: list[int] = []
        for entry in filter(None, held_text.split(";")):
            rank, held = entry.split("=")
            box, _, part = held.partition("+")
            members.append(int(rank))
            boxes.append(parse_box(box))
            parts.append(int(part or 0))
        shape = tuple(int(extent) for extent in shape_text.split(",") if extent)
        return Layout(shape, tuple(members), tuple(boxes), tuple(parts), int(num_parts), Reduction(reduction))


def _covers(whole: Box, boxes: list[Box]) -> bool:
    """Whether the boxes together contain the whole box (they may overlap)."""
    if whole in boxes or volume(whole) == 0:
        return True
    cuts = [sorted({edge for box in (whole, *boxes) for edge in box[dim]}) for dim in range(len(whole))]
    # The cells between cuts are either inside or outside each box, so counting one point per cell is exact; the
    # volume test first, because it settles the usual disjoint case without making cells.
    if sum(map(volume, boxes)) < volume(whole):
        return False
    return _cells_covered(cuts, boxes, ())


def _cells_covered(cuts: list[list[int]], boxes: list[Box], prefix: tuple[int, ...]) -> bool:
    """Whether every cell whose first coordinates are ``prefix`` lies in one of ``boxes``."""
    dim = len(prefix)
    if not boxes:
        return False
    if dim == len(cuts):
        return True
    return all(
        _cells_covered(cuts, [b for b in boxes if b[dim][0] <= low < b[dim][1]], (*prefix, low))
        for low in cuts[dim][:-1]
    )
