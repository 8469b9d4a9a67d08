"""Where the tensors that ranks share lie in their common memory. Every rank computes it, and all find the same.

A tensor that all members gather, and whose pieces follow one another in memory, is one stretch: each member computes
its piece at its place in it, and all read the whole. Any other tensor that is offered has a stretch of its own, from
which the others read or copy.

A stretch is written again in the next run, or within one run by a later tensor that takes it over. Who writes waits
for the readers of what was there. Nobody can wait in a circle: a rank waits only for steps with lower keys than its
own (see :func:`mars_onnx.runtime.native.steps.plan_steps`), in the run before or in this one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import accumulate

_ALIGNMENT_BYTES = 64


@dataclass(frozen=True, slots=True)
class Offer:
    """What a rank tells the others about its part in one communication.

    Steps are counted from 1: a rank has done step ``i`` of a run when its counter shows ``i``.

    Attributes:
        tag: Of the communication.
        group: Its members in their order.
        value: Name of the own tensor in it; the same for all communications of one tensor. Empty if there is none.
        shape: Of the own tensor; five dimensions if it is in blocks.
        size: Of the own tensor, in bytes.
        made: Whether a session computes it, and so can compute it in place.
        gathers: Sizes in bytes of all members' pieces if they follow one another in the result, otherwise empty.
        posted: The step after which it is there.
        written: The first step that writes to its place, and the key of that step.
        read: The last step that reads what the communication gives, and its key.
        reread: The last own step that reads the own tensor, and its key; (0, -1) if there is none.
        replaces: Tag of a tensor of the own rank in whose place this one would best be computed; -1 for none.
    """

    tag: int
    group: tuple[int, ...]
    value: str
    shape: tuple[int, ...]
    size: int
    made: bool
    gathers: tuple[int, ...]
    posted: int
    written: tuple[int, int]
    read: tuple[int, int]
    reread: tuple[int, int]
    replaces: int = -1


@dataclass(frozen=True, slots=True)
class Program:
    """What a rank tells the others: how many steps it has, and its offers in the order of its communications."""

    steps: int
    offers: tuple[Offer, ...]

    def dump(self) -> str:
        """As text."""
        return json.dumps(asdict(self))

    @staticmethod
    def load(data: str) -> Program:
        """From what :meth:`dump` gave."""
        fields = json.loads(data)
        offers = []
        for offer in fields["offers"]:
            for name in ("group", "shape", "gathers", "written", "read", "reread"):
                offer[name] = tuple(offer[name])
            offers.append(Offer(**offer))
        return Program(fields["steps"], tuple(offers))


@dataclass(frozen=True, slots=True)
class Wait:
    """Before a step: rank ``rank`` has done its step ``step``, of this run (0) or of the run before (-1)."""

    rank: int
    step: int
    run: int = 0


@dataclass(slots=True)
class Placement:
    """The result.

    Attributes:
        size: Bytes of common memory.
        pieces: Where the tensor ``value`` of a rank lies.
        whole: Where what the members of a tag have gathered lies; only of tags gathered in place.
        before_writing: What a rank waits for before it writes its tensor ``value`` to its place.
        taken_over: Tags whose tensor is computed in the place of another one, and the tag of that one.
    """

    size: int = 0
    pieces: dict[tuple[int, str], int] = field(default_factory=dict)
    whole: dict[int, int] = field(default_factory=dict)
    before_writing: dict[tuple[int, str], tuple[Wait, ...]] = field(default_factory=dict)
    taken_over: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Tenant:
    """Tensors that lie in a stretch together, and the tags through which they are read."""

    values: list[tuple[int, str]]
    tags: list[int]


@dataclass(slots=True)
class _Stretch:
    """A piece of memory, and who has it in turn in a run."""

    offset: int
    tenants: list[_Tenant]


def place(programs: Mapping[int, Program]) -> Placement:
    """Find a place for every tensor that is offered.

    Args:
        programs: Of all ranks of the region, each with the offers of those communications whose members all are in it.

    Returns:
        The same for the same programs.
    """
    return _Placing(programs).result()


class _Placing:
    def __init__(self, programs: Mapping[int, Program]) -> None:
        self.programs = programs
        self.members: dict[int, dict[int, Offer]] = {}
        for rank in sorted(programs):
            for offer in programs[rank].offers:
                self.members.setdefault(offer.tag, {})[rank] = offer
        self.uses: dict[tuple[int, str], list[int]] = {}
        for tag in sorted(self.members):
            for rank, offer in self.members[tag].items():
                if offer.value:
                    self.uses.setdefault((rank, offer.value), []).append(tag)
        self.placement = Placement()
        self.stretches: list[_Stretch] = []
        self.stretch_of: dict[int, _Stretch] = {}

    def result(self) -> Placement:
        """Place all tags, then find the waits."""
        for tag in sorted(self.members):
            offers = self.members[tag]
            if self._gathers(offers):
                self._place_whole(tag, offers)
                continue
            for rank, offer in offers.items():
                own = (rank, offer.value)
                if offer.value and own not in self.placement.pieces:
                    self.placement.pieces[own] = self._new(offer.size, _Tenant([own], self.uses[own])).offset
        for stretch in self.stretches:
            self._find_waits(stretch)
        return self.placement

    def _gathers(self, offers: Mapping[int, Offer]) -> bool:
        """Whether all members can compute their pieces in one stretch."""
        sizes = next(iter(offers.values())).gathers
        return bool(sizes) and all(
            offer.made and offer.gathers == sizes and (rank, offer.value) not in self.placement.pieces
            for rank, offer in offers.items()
        )

    def _place_whole(self, tag: int, offers: Mapping[int, Offer]) -> None:
        first = next(iter(offers.values()))
        values = [(rank, offers[rank].value) for rank in first.group]
        tags = sorted({other for value in values for other in self.uses[value]})
        stretch = self._taken_over(offers)
        if stretch is None:
            stretch = self._new(sum(first.gathers), _Tenant(values, tags))
        else:
            stretch.tenants.append(_Tenant(values, tags))
            self.placement.taken_over[tag] = first.replaces
        self.stretch_of[tag] = stretch
        self.placement.whole[tag] = stretch.offset
        for value, start in zip(values, accumulate(first.gathers, initial=0), strict=False):
            self.placement.pieces[value] = stretch.offset + start

    def _taken_over(self, offers: Mapping[int, Offer]) -> _Stretch | None:
        """The stretch of the tensor that all members would replace, if its readers are done by then."""
        before = next(iter(offers.values())).replaces
        stretch = self.stretch_of.get(before)
        if stretch is None or any(offer.replaces != before for offer in offers.values()):
            return None
        old = self.members[before]
        if stretch.tenants[-1].tags != [before] or old.keys() != offers.keys():
            return None
        if any((old[rank].group, old[rank].gathers) != (new.group, new.gathers) for rank, new in offers.items()):
            return None
        last = max(offer.read[1] for offer in old.values())
        if any(offer.written[1] <= last for offer in offers.values()):
            return None
        # The own old tensor may be read by the very step that writes the new one: that is the point of it.
        if any(old[rank].reread[0] > offer.written[0] for rank, offer in offers.items()):
            return None
        return stretch

    def _new(self, size: int, tenant: _Tenant) -> _Stretch:
        stretch = _Stretch(self.placement.size, [tenant])
        self.placement.size += -(-size // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        self.stretches.append(stretch)
        return stretch

    def _find_waits(self, stretch: _Stretch) -> None:
        for number, tenant in enumerate(stretch.tenants):
            last: dict[int, int] = {}
            for tag in stretch.tenants[number - 1].tags:
                for rank, offer in self.members[tag].items():
                    last[rank] = max(last.get(rank, 0), offer.read[0])
            run = 0 if number else -1
            for own in tenant.values:
                self.placement.before_writing[own] = tuple(
                    Wait(rank, step, run) for rank, step in sorted(last.items()) if rank != own[0]
                )
