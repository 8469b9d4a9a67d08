"""How one layer is cut over the members of its set, and the text that a person writes for it.

Grammar::

    strategy  := "whole" | "single" | "auto" | term { " " term }
    term      := "ES(" split { "," split } ")" | "SS(" operand [ "@" axis ] ")" | resolution
    split     := axis "=" count | axis "=" share ":" share { ":" share } | "*" "=" count
    resolution:= "all-reduce" | "reduce-scatter(" axis ")" | "deferred"

``ES(Cout=2,H=4)`` are exclusive shards: the first split is the outermost digit of a member's position in the set.
``H=3:2:2`` gives unequal shares. Where the product of the splits is smaller than the set, the rest are replicas, next
to each other. ``*=2`` are replicas at another digit: in ``ES(*=2,Cout=4)`` the first four members of eight do the same
as the last four.
``SS(weight)`` are shared shards: the operand is cut in pieces that rotate round the members that would otherwise all
hold it. The resolution says what happens to partial sums: reduced everywhere (the default), reduced and scattered along
an output axis, or left to whoever needs the tensor.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from math import prod

from mars_onnx.errors import InputError

#: What stands for an axis in a split that cuts nothing.
REPLICAS = "*"


class Placement(StrEnum):
    """Which members compute a layer at all."""

    SHARDED = "sharded"
    WHOLE = "whole"
    SINGLE = "single"
    AUTO = "auto"


class Resolution(StrEnum):
    """What becomes of partial sums."""

    ALL_REDUCE = "all-reduce"
    REDUCE_SCATTER = "reduce-scatter"
    DEFERRED = "deferred"


@dataclass(frozen=True, slots=True)
class Split:
    """An axis and the relative shares of consecutive members in it; equal shares are all 1.

    The axis :data:`REPLICAS` is none: members that differ in this digit only do the same.
    """

    axis: str
    shares: tuple[int, ...]

    def __str__(self) -> str:
        """As in the grammar: a count where the shares are equal."""
        equal = len(set(self.shares)) == 1
        return f"{self.axis}={len(self.shares) if equal else ':'.join(map(str, self.shares))}"


@dataclass(frozen=True, slots=True)
class Ring:
    """Shared shards: the operand that rotates, and the axis along which it is cut (``None``: the rule's first)."""

    operand: str
    axis: str | None = None

    def __str__(self) -> str:
        """As in the grammar."""
        return f"SS({self.operand}{'@' + self.axis if self.axis else ''})"


@dataclass(frozen=True, slots=True)
class Strategy:
    """How one layer is cut; see the module's text for the meaning.

    Attributes:
        placement: SHARDED, or one of the strategies that have no further terms.
        splits: Exclusive shards, outermost first. Replicas that say nothing (innermost, or one only) are left out.
        ring: Shared shards.
        resolution: What becomes of partial sums.
        scatter_axis: Output axis of a reduce-scatter.
    """

    placement: Placement = Placement.WHOLE
    splits: tuple[Split, ...] = ()
    ring: Ring | None = None
    resolution: Resolution = Resolution.ALL_REDUCE
    scatter_axis: str | None = None

    def __post_init__(self) -> None:
        """Of ways to say the same, keep one."""
        kept = [split for split in self.splits if split.axis != REPLICAS or len(split.shares) > 1]
        while kept and kept[-1].axis == REPLICAS:
            kept.pop()
        if len(kept) < len(self.splits):
            object.__setattr__(self, "splits", tuple(kept))
        nothing = not self.splits and self.ring is None and self.resolution is Resolution.ALL_REDUCE
        if self.placement is Placement.SHARDED and nothing:
            # Where nothing is cut, everyone computes everything, and the text of that must not be empty.
            object.__setattr__(self, "placement", Placement.WHOLE)

    @property
    def ways(self) -> int:
        """How many members it takes; of more, neighbours do the same."""
        return prod(len(split.shares) for split in self.splits)

    def __str__(self) -> str:
        """Text that :func:`parse_strategy` reads back."""
        if self.placement is not Placement.SHARDED:
            return str(self.placement)
        terms = [f"ES({','.join(map(str, self.splits))})"] if self.splits else []
        if self.ring:
            terms.append(str(self.ring))
        if self.resolution is Resolution.REDUCE_SCATTER:
            terms.append(f"reduce-scatter({self.scatter_axis})")
        elif self.resolution is Resolution.DEFERRED:
            terms.append("deferred")
        return " ".join(terms)


#: What stands for an axis in a split that cuts nothing: its members are replicas of each other.
REPLICAS = "*"

WHOLE = Strategy(Placement.WHOLE)
SINGLE = Strategy(Placement.SINGLE)
AUTO = Strategy(Placement.AUTO)

_TERM = re.compile(r"(?P<name>[A-Za-z-]+)(?:\((?P<body>[^()]*)\))?(?:\s+|$)")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_SPLIT_AXIS = re.compile(r"[A-Za-z][A-Za-z0-9_]*|\*")
#: More ways to cut a layer than any pool has accelerators: what is beyond is a slip of the pen, not a strategy.
_MOST_SHARES = 4096


@cache
def parse_strategy(text: str) -> Strategy:
    """Read a strategy.

    Raises:
        InputError: The text does not follow the grammar; the message says where and what would be right.
    """
    stripped = text.strip()
    for fixed in (WHOLE, SINGLE, AUTO):
        if stripped == str(fixed):
            return fixed
    splits: tuple[Split, ...] = ()
    ring: Ring | None = None
    resolution, scatter_axis = Resolution.ALL_REDUCE, None
    position = 0
    seen: set[str] = set()
    while position < len(stripped):
        match = _TERM.match(stripped, position)
        if match is None:
            raise _malformed(text, f"cannot read {stripped[position:]!r}")
        name, body = match["name"], match["body"]
        kind = "resolution" if name in set(Resolution) else name
        if kind in seen:
            raise _malformed(text, f"{name} stands twice")
        seen.add(kind)
        match name, body:
            case "ES", str():
                splits = _parse_splits(text, body)
            case "SS", str():
                operand, _, axis = body.partition("@")
                if not _NAME.fullmatch(operand) or (axis and not _NAME.fullmatch(axis)):
                    raise _malformed(text, f"SS takes an operand, as in SS(weight) or SS(weight@Cin), not {body!r}")
                ring = Ring(operand, axis or None)
            case "reduce-scatter", str() if _NAME.fullmatch(body):
                resolution, scatter_axis = Resolution.REDUCE_SCATTER, body
            case "all-reduce", None:
                pass
            case "deferred", None:
                resolution = Resolution.DEFERRED
            case _:
                raise _malformed(text, f"unknown term {match[0].strip()!r}")
        position = match.end()
    if not seen:
        raise _malformed(text, "it is empty")
    return Strategy(Placement.SHARDED, splits, ring, resolution, scatter_axis)


def _parse_splits(text: str, body: str) -> tuple[Split, ...]:
    splits: list[Split] = []
    for entry in body.split(","):
        axis, equals, amount = (part.strip() for part in entry.partition("="))
        numbers = amount.split(":")
        if not equals or not _SPLIT_AXIS.fullmatch(axis) or not all(n.isascii() and n.isdigit() for n in numbers):
            raise _malformed(text, f"a split is AXIS=COUNT or AXIS=SHARE:SHARE, not {entry.strip()!r}")
        if any(len(number) > 9 for number in numbers):
            raise _malformed(text, f"a number in {entry.strip()!r} is too large")
        values = tuple(map(int, numbers))
        shares = (1,) * min(values[0], _MOST_SHARES + 1) if len(values) == 1 else values
        if not shares or sum(shares) == 0 or len(shares) > _MOST_SHARES:
            raise _malformed(text, f"{entry.strip()!r} must make between 1 and {_MOST_SHARES} shares")
        if axis == REPLICAS and len(values) > 1:
            raise _malformed(text, f"replicas have no shares: *=COUNT, not {entry.strip()!r}")
        if any(split.axis == axis for split in splits):
            raise _malformed(text, "* stands twice" if axis == REPLICAS else f"axis {axis} is split twice")
        splits.append(Split(axis, shares))
    return tuple(splits)


def _malformed(text: str, why: str) -> InputError:
    return InputError(
        f"strategy {text!r}: {why}; a strategy is whole, single, auto, or terms like 'ES(Cout=2,H=4) SS(weight)'"
    )
