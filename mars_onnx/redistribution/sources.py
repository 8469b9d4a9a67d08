"""Who gives which piece to whom, where no regular collective fits: the choice of sources, and sends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from itertools import combinations, pairwise, product
from math import prod
from typing import NamedTuple

from mars_onnx.geometry import Box, Range, contains, hull, intersect, subtract, volume
from mars_onnx.redistribution.plan import Collective, Fragment, Pattern

Distance = Callable[[int, int], float | tuple[float, int]]
"""How far it is from a source to a destination; only comparisons are made with it."""

_Preference = tuple[bool, float | tuple[float, int], int, Box]

Piece = tuple[int, Box]
"""A rank, and a box it gives."""

_Taken = tuple[int, Box, Box]
"""A rank, the box it has, and the piece it gives of that box: a piece is never of two boxes, which lie apart."""


def index_distance(source: int, destination: int) -> float:
    """The distance where nothing is known of the interconnect: how far the ranks are from each other."""
    return abs(source - destination)


class _Shared(NamedTuple):
    """What some box has of a need.

    Attributes:
        box: The box.
        common: What both have in common.
        sources: Who has the box; their places are their replica ranks.
    """

    box: Box
    common: Box
    sources: list[int]


class Holders:
    """Boxes of one tensor (or of one part of it) and the ranks that have them.

    The replica rank of a holder is its place among the holders of the same box. Preferring sources of the own replica
    rank is what keeps a mesh in regular, disjoint groups, whatever the distances are.
    """

    def __init__(self, held: Iterable[Piece], distance: Distance) -> None:
        self.entries = sorted(set(held))
        self.distance = distance
        self.own: dict[int, list[Box]] = {}
        self._replica: dict[Piece, int] = {}
        self._sources: dict[Box, list[int]] = {}
        self._shared: dict[Box, list[_Shared]] = {}
        self._along: dict[tuple[int, Range], list[Range]] = {}
        for rank, box in self.entries:
            sources = self._sources.setdefault(box, [])
            self._replica[rank, box] = len(sources)
            sources.append(rank)
            self.own.setdefault(rank, []).append(box)

    @cached_property
    def _ranges(self) -> list[list[Range]]:
        """Per dimension the ranges of all boxes."""
        return [sorted(set(column)) for column in zip(*self._sources, strict=True)]

    @cached_property
    def _apart(self) -> bool:
        """Whether different boxes have nothing in common: surely so if different ranges have not, in any dimension."""
        if all(stop <= start for column in self._ranges for (_, stop), (start, _) in pairwise(column)):
            return True
        return all(intersect(one, other) is None for one, other in combinations(self._sources, 2))

    def tile(self, rank: int, need: Box) -> list[Piece]:
        """Disjoint pieces that make up ``need`` at ``rank``, each with the one who has it.

        Own data first; then who has all that is missing (one message instead of several); then the own replica rank,
        the nearest, the lowest rank.

        Raises:
            ValueError: Nobody has some element of it.
        """
        if self._apart:
            return self._tile_of_disjoint(rank, need)
        pieces: list[_Taken] = []
        rest = [need]
        for box in self.own.get(rank, ()):
            rest = _take(rank, box, rest, pieces)
        missing = hull(rest)
        if missing is not None:
            replicas = {self._replica[rank, box] for box in self.own.get(rank, ())}
            candidates = sorted(
                (not contains(box, missing), *self._preference(rank, source, box, replicas))
                for source, box in self.entries
                if source != rank and intersect(box, missing) is not None
            )
            for *_, source, box in candidates:
                rest = _take(source, box, rest, pieces)
                if not rest:
                    break
        if rest:
            raise ValueError(f"nobody holds {rest[0]} of the box {need}")
        return [(source, piece) for source, _, piece in _merged(pieces)]

    def _tile_of_disjoint(self, rank: int, need: Box) -> list[Piece]:
        """The same where each element is in one box only: then a piece is what a box has of the need."""
        own = self.own.get(rank, ())
        replicas = {self._replica[rank, box] for box in own}
        kept: list[tuple[Box, Box]] = []
        found: list[tuple[_Preference, Box]] = []
        for box, common, sources in self._shared_with(need):
            if box in own:
                kept.append((box, common))
                continue
            # Who is of an own replica rank comes before all others.
            near = [sources[place] for place in replicas if place < len(sources)] or sources
            found.append((min([self._preference(rank, source, box, replicas) for source in near]), common))
        own_pieces = [(rank, common) for _, common in sorted(kept)]
        return own_pieces + [(source, common) for (_, _, source, _), common in sorted(found)]

    def _shared_with(self, need: Box) -> list[_Shared]:
        """The boxes that have something of a need, and what: many ranks need the same."""
        found = self._shared.get(need)
        if found is None:
            shared = [(box, intersect(box, need)) for box in self._near(need)]
            found = [_Shared(box, common, self._sources[box]) for box, common in shared if common is not None]
            if sum(volume(common) for _, common, _ in found) != volume(need):
                raise ValueError(f"nobody holds some of the box {need}")
            self._shared[need] = found
        return found

    def _near(self, need: Box) -> Iterable[Box]:
        """The boxes that may have something of a need: those that do in every dimension."""
        along = [self._along_dimension(dim, extent) for dim, extent in enumerate(need)]
        if prod(map(len, along)) >= len(self._sources):
            return self._sources
        return [box for box in product(*along) if box in self._sources]

    def _along_dimension(self, dim: int, extent: Range) -> list[Range]:
        """The ranges of boxes that have something of one in common."""
        found = self._along.get((dim, extent))
        if found is None:
            low, high = extent
            found = [(start, stop) for start, stop in self._ranges[dim] if start < high and low < stop]
            self._along[dim, extent] = found
        return found

    def _preference(self, rank: int, source: int, box: Box, replicas: set[int]) -> _Preference:
        """The less, the better is a source, for a rank whose own boxes are of some replica ranks."""
        other = bool(replicas) and self._replica[source, box] not in replicas
        return other, self.distance(source, rank), source, box


def _take(source: int, box: Box, rest: list[Box], pieces: list[_Taken]) -> list[Box]:
    """Move what ``source`` has of ``rest`` to ``pieces``; what is left."""
    left: list[Box] = []
    for wanted in rest:
        common = intersect(box, wanted)
        if common is None:
            left.append(wanted)
        else:
            pieces.append((source, box, common))
            left.extend(subtract(wanted, common))
    return left


def _merged(pieces: list[_Taken]) -> list[_Taken]:
    """The same elements out of the same boxes in as few pieces as pairwise merging finds."""
    result = list(pieces)
    merged = len(result) > 1
    while merged:
        merged = False
        for (i, (source, box, one)), (j, (*origin, other)) in combinations(enumerate(result), 2):
            if [source, box] == origin and (joined := _joined(one, other)) is not None:
                result[i] = (source, box, joined)
                del result[j]
                merged = True
                break
    return result


def _joined(one: Box, other: Box) -> Box | None:
    """The union of two disjoint boxes where it is a box."""
    differing = [dim for dim, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    if len(differing) != 1:
        return None
    dim = differing[0]
    (a, b), (c, d) = sorted((one[dim], other[dim]))
    return (*one[:dim], (a, d), *one[dim + 1 :]) if b == c else None


def sends(tiles: Mapping[int, list[Piece]], part: int | None = None) -> list[Collective]:
    """The messages that bring every rank its tiles: a send each, or a broadcast where several need the same piece."""
    takers: dict[Piece, list[int]] = {}
    for rank in sorted(tiles):
        for source, box in tiles[rank]:
            if source != rank:
                takers.setdefault((source, box), []).append(rank)
    messages: list[Collective] = []
    for (source, box), ranks in sorted(takers.items(), key=lambda item: (item[0][0], item[1], item[0][1])):
        piece = Fragment(box, part)
        if len(ranks) == 1:
            messages.append(Collective(Pattern.SEND_RECV, (source, ranks[0]), (piece, None), (None, piece)))
        else:
            nothing = (None,) * len(ranks)
            group = (source, *ranks)
            messages.append(Collective(Pattern.BROADCAST, group, (piece, *nothing), (piece,) * len(group)))
    return in_rounds(messages)


def in_rounds(messages: list[Collective]) -> list[Collective]:
    """Independent messages in an order in which as many as possible run side by side.

    Everyone does one after the other, in this order. By source, all of the first one's would come before the others
    begin. Where everyone sends to everyone, the exclusive or of places makes rounds in which all are busy; elsewhere it
    is a good start for picking, round by round, whoever is free.
    """
    order = sorted(range(len(messages)), key=lambda i: (messages[i].group[0] ^ messages[i].group[1], i))
    # Per rank, the rounds in which it is busy, as bits of a number.
    busy: dict[int, int] = {}
    round_of = [0] * len(messages)
    for i in order:
        taken = 0
        for rank in messages[i].group:
            taken |= busy.get(rank, 0)
        first = ~taken & (taken + 1)
        for rank in messages[i].group:
            busy[rank] = busy.get(rank, 0) | first
        round_of[i] = first
    return [messages[i] for i in sorted(range(len(messages)), key=lambda i: (round_of[i], i))]
