"""From a rule, a strategy and the members of a set to what every member does, needs and holds.

The same answer serves the insertion of redistributions, the price of a layer and the emission of its nodes, so these
three cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice, product

from mars_onnx.errors import InputError
from mars_onnx.geometry import Box, Layout
from mars_onnx.redistribution.plan import Collective, Fragment, Pattern
from mars_onnx.rules.axes import Axis
from mars_onnx.rules.base import OpRule, Share, Signature
from mars_onnx.rules.registry import rule_for
from mars_onnx.rules.shares import cut, shares_of
from mars_onnx.sharding.strategy import REPLICAS, Placement, Resolution, Ring, Strategy

MemberRanges = dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class RingPlan:
    """Shared shards of one node.

    Attributes:
        operand: Index of the input that rotates.
        axis: Iteration axis along which it is cut.
        groups: Ranks of each ring, in ring order. Member ``i`` starts with piece ``i`` and, phase by phase, works on
            pieces ``i, i + 1, ...``, which come from member ``i + 1`` of the ring.
        pieces: Per ring and piece the box of the operand, ``None`` where there is nothing to work on.
    """

    operand: int
    axis: Axis
    groups: tuple[tuple[int, ...], ...]
    pieces: tuple[tuple[Box | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Sharding:
    """What a strategy means for one node on one set.

    Attributes:
        members: Ranks of the set, in its order.
        shares: Per member its whole share, ``None`` if it has nothing to do.
        phases: Per member the share of every ring phase in time order (without a ring: the whole share alone); ``None``
            for an idle phase.
        needs: Per input the boxes needed before the node starts; ``None`` where the rule takes nothing from the graph.
            The ring operand's are the first pieces.
        produced: Per output the layout that the node leaves; ``None`` where the output is absent.
        resolved: Per output the layout after partial sums are resolved as the strategy says.
        ring: Shared shards, ``None`` if there are none.
    """

    members: tuple[int, ...]
    shares: tuple[Share | None, ...]
    phases: tuple[tuple[Share | None, ...], ...]
    needs: tuple[Layout | None, ...]
    produced: tuple[Layout | None, ...]
    resolved: tuple[Layout | None, ...]
    ring: RingPlan | None = None


def ring_shift(group: Sequence[int], pieces: Sequence[Box | None], phase: int) -> list[Collective]:
    """The communication after a phase of a ring: every member gives its piece to the one before it.

    Args:
        group: Ranks in ring order.
        pieces: The box that each starts with, ``None`` for nothing.
        phase: The phase that has been computed.
    """
    count = len(group)
    now = [_fragment(pieces[(member + phase) % count]) for member in range(count)]
    after = [*now[1:], now[0]]
    if all(now):
        return [Collective(Pattern.SHIFT, tuple(group), tuple(now), tuple(after), offset=-1)]
    # An empty piece has no place in a collective; the others go one by one.
    return [
        Collective(Pattern.SEND_RECV, (group[(member + 1) % count], group[member]), (piece, None), (None, piece))
        for member, piece in enumerate(after)
        if piece is not None
    ]


def _fragment(box: Box | None) -> Fragment | None:
    return None if box is None else Fragment(box)


def lower(signature: Signature, strategy: Strategy, members: tuple[int, ...]) -> Sharding:
    """What ``strategy`` means for a node with ``signature`` on the accelerators ``members``.

    Raises:
        InputError: The strategy cannot be applied to this node or this number of members; the message says why. It does
            not name the layer, which the caller knows.
    """
    (lowered,) = lower_all(signature, (strategy,), members)
    if isinstance(lowered, InputError):
        raise InputError(str(lowered))
    return lowered


def lower_all(
    signature: Signature, strategies: Sequence[Strategy], members: tuple[int, ...]
) -> list[Sharding | InputError]:
    """What several strategies mean, or why they cannot be applied; their shares are evaluated all at once."""
    if len(_LOWERED) > _MOST_LOWERED:
        _LOWERED.clear()
    missing = [strategy for strategy in strategies if (signature, strategy, members) not in _LOWERED]
    if missing:
        _lower_missing(signature, missing, members)
    return [_LOWERED[signature, strategy, members] for strategy in strategies]


#: Everything lowered so far: the same few layers and strategies come up again and again.
_LOWERED: dict[tuple[Signature, Strategy, tuple[int, ...]], Sharding | InputError] = {}
_MOST_LOWERED = 65536


def forget() -> None:
    """Lower everything anew from now on; for tests that change the rules."""
    _LOWERED.clear()


def _lower_missing(signature: Signature, missing: Sequence[Strategy], members: tuple[int, ...]) -> None:
    rule = rule_for(signature)
    ranges: dict[Strategy, list[MemberRanges | None]] = {}
    for strategy in missing:
        try:
            ranges[strategy] = _member_ranges(rule, strategy, len(members))
        except InputError as error:
            _LOWERED[signature, strategy, members] = error.with_traceback(None)
    shares = iter(_shares(rule, [own for each in ranges.values() for own in each]))
    for strategy, own in ranges.items():
        try:
            lowered: Sharding | InputError = _lowered(rule, strategy, members, own, tuple(islice(shares, len(own))))
        except InputError as error:
            lowered = error.with_traceback(None)
        _LOWERED[signature, strategy, members] = lowered


def _lowered(
    rule: OpRule,
    strategy: Strategy,
    members: tuple[int, ...],
    ranges: list[MemberRanges | None],
    shares: tuple[Share | None, ...],
) -> Sharding:
    ring = _ring(rule, strategy.ring, members, ranges, shares) if strategy.ring else None
    phases = _phases(rule, ring, members, ranges) if ring else tuple((share,) for share in shares)
    for share in {id(s): s for own in phases for s in own if s is not None}.values():
        problem = rule.problem(share.ranges)
        if problem:
            raise InputError(f"{strategy}: {problem}")
    parts, num_parts = _parts(rule, ranges, shares)
    produced = tuple(
        None
        if kind is None
        else Layout(
            kind.shape,
            members,
            tuple(share.outputs[i] if share else None for share in shares),
            parts,
            num_parts,
            rule.reduction,
        )
        for i, kind in enumerate(rule.signature.outputs)
    )
    return Sharding(
        members,
        shares,
        phases,
        _needs(rule, members, shares, ring),
        produced,
        _resolve(rule, strategy, members, ranges, produced),
        ring,
    )


def _member_ranges(rule: OpRule, strategy: Strategy, count: int) -> list[MemberRanges | None]:
    """Per member its range of every axis; ``None`` for a member that computes nothing."""
    whole = {axis.name: (0, axis.size) for axis in rule.axes}
    if strategy.placement is Placement.AUTO:
        raise InputError("the strategy 'auto' stands for another one, which has not been chosen yet")
    if strategy.placement is Placement.SINGLE:
        return [whole, *[None] * (count - 1)]
    if strategy.placement is Placement.WHOLE:
        return [whole] * count
    cuts: list[tuple[str, list[tuple[int, int]]]] = []
    for split in strategy.splits:
        if split.axis == REPLICAS:
            cuts.append((REPLICAS, [(0, 0)] * len(split.shares)))
            continue
        axis = rule.axis(split.axis)
        if axis is None:
            known = ", ".join(axis.name for axis in rule.axes) or "none: it is computed whole"
            raise InputError(f"{strategy}: {rule.signature.op_type} has no axis {split.axis} (its axes: {known})")
        cuts.append((axis.name, cut(axis, split.shares)))
    if count % strategy.ways:
        raise InputError(f"{strategy}: {strategy.ways} shares do not divide a set of {count} accelerators")
    replicas = count // strategy.ways
    ranges: list[MemberRanges | None] = []
    for choice in product(*(pieces for _, pieces in cuts)):
        own = whole | {name: piece for (name, _), piece in zip(cuts, choice, strict=True) if name != REPLICAS}
        idle = any(low >= high for low, high in own.values())
        ranges.extend([None if idle else own] * replicas)
    return ranges


def _shares(rule: OpRule, ranges: Sequence[MemberRanges | None]) -> tuple[Share | None, ...]:
    """Per member its share, ``None`` where it has no ranges."""
    shares = iter(shares_of(rule, [own for own in ranges if own is not None]))
    return tuple(None if own is None else next(shares) for own in ranges)


def _parts(
    rule: OpRule, ranges: Sequence[MemberRanges | None], shares: Sequence[Share | None]
) -> tuple[tuple[int, ...], int]:
    """Per member the number of its part: one part per distinct combination of reduction ranges."""
    reductions = [axis.name for axis in rule.axes if axis.reduction]
    keys = [
        None if own is None or share is None else tuple(own[name] for name in reductions)
        for own, share in zip(ranges, shares, strict=True)
    ]
    numbers = {key: number for number, key in enumerate(sorted({key for key in keys if key is not None}))}
    return tuple(0 if key is None else numbers[key] for key in keys), max(1, len(numbers))


def _needs(
    rule: OpRule, members: tuple[int, ...], shares: Sequence[Share | None], ring: RingPlan | None
) -> tuple[Layout | None, ...]:
    needs: list[Layout | None] = []
    for index, (dims, kind) in enumerate(zip(rule.inputs, rule.signature.inputs, strict=False)):
        if dims is None or kind is None:
            needs.append(None)
            continue
        if ring is not None and index == ring.operand:
            first = {
                rank: piece
                for group, pieces in zip(ring.groups, ring.pieces, strict=True)
                for rank, piece in zip(group, pieces, strict=True)
            }
            boxes = tuple(first.get(rank) for rank in members)
        else:
            boxes = tuple(share.inputs[index] if share else None for share in shares)
        needs.append(Layout(kind.shape, members, boxes))
    return tuple(needs)


def _ring(
    rule: OpRule,
    ring: Ring,
    members: tuple[int, ...],
    ranges: Sequence[MemberRanges | None],
    shares: Sequence[Share | None],
) -> RingPlan:
    """Which members form rings, and the pieces that go round in them."""
    indices = {name: index for index, name in rule.operands.items()}
    operand = indices.get(ring.operand)
    dims = rule.inputs[operand] if operand is not None and operand < len(rule.inputs) else None
    if operand is None or dims is None:
        known = ", ".join(sorted(indices)) or "none"
        raise InputError(f"{ring}: {rule.signature.op_type} has no operand {ring.operand} to rotate (it has: {known})")
    touching = [name for dim in dims for name in dim.axes]
    # Members that need the same box of the operand would all hold it: they share it in a ring instead.
    rings: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for position, own in enumerate(ranges):
        if own is not None:
            rings.setdefault(tuple(own[name] for name in dict.fromkeys(touching)), []).append(position)
    positions = list(rings.values())
    axis = _ring_axis(rule, ring, touching, [ranges[group[0]] or {} for group in positions], positions)
    pieces: list[tuple[Box | None, ...]] = []
    for group in positions:
        share = shares[group[0]]
        own = ranges[group[0]]
        if share is None or own is None:
            raise InputError(f"{ring}: a ring of members with nothing to do")
        parts = _shares(rule, _piece_ranges(axis, own, len(group)))
        pieces.append(tuple(part.inputs[operand] if part else None for part in parts))
    return RingPlan(
        operand, axis, tuple(tuple(members[position] for position in group) for group in positions), tuple(pieces)
    )


def _ring_axis(
    rule: OpRule, ring: Ring, touching: Sequence[str], ranges: Sequence[MemberRanges], groups: Sequence[Sequence[int]]
) -> Axis:
    """The axis that a person named, or the first along which every ring can be cut; parallel axes come first."""
    if ring.axis is not None:
        named = rule.axis(ring.axis)
        if named is None or named.name not in touching:
            raise InputError(
                f"{ring}: the operand {ring.operand} has no axis {ring.axis} (it has {', '.join(touching)})"
            )
        return named
    candidates = sorted((axis for axis in rule.axes if axis.name in touching), key=lambda axis: axis.reduction)
    if not candidates:
        raise InputError(f"{ring}: the operand {ring.operand} cannot be cut")

    def idle_pieces(axis: Axis) -> int:
        return sum(
            max(0, len(group) - (own[axis.name][1] - own[axis.name][0]) // axis.granularity)
            for own, group in zip(ranges, groups, strict=True)
        )

    return min(candidates, key=idle_pieces)


def _pieces(axis: Axis, within: tuple[int, int], count: int) -> list[tuple[int, int]]:
    """A range of an axis cut into equal consecutive pieces; some are empty if it has fewer granules."""
    low, high = within
    local = replace(axis, size=high - low)
    return [(low + start, low + stop) for start, stop in cut(local, (1,) * count)]


def _piece_ranges(axis: Axis, own: MemberRanges, count: int) -> list[MemberRanges | None]:
    """A member's ranges with one axis cut in pieces; ``None`` for an empty piece."""
    pieces = _pieces(axis, own[axis.name], count)
    return [own | {axis.name: (low, high)} if low < high else None for low, high in pieces]


def _phases(
    rule: OpRule, ring: RingPlan, members: tuple[int, ...], ranges: Sequence[MemberRanges | None]
) -> tuple[tuple[Share | None, ...], ...]:
    """Per member its shares in time order: the pieces, starting with its own."""
    place = {rank: (group, start) for group in ring.groups for start, rank in enumerate(group)}
    phases: list[tuple[Share | None, ...]] = []
    for rank, own in zip(members, ranges, strict=True):
        if own is None:
            phases.append((None,))
            continue
        group, start = place[rank]
        pieces = _piece_ranges(ring.axis, own, len(group))
        phases.append(_shares(rule, pieces[start:] + pieces[:start]))
    return tuple(phases)


def _resolve(
    rule: OpRule,
    strategy: Strategy,
    members: tuple[int, ...],
    ranges: Sequence[MemberRanges | None],
    produced: tuple[Layout | None, ...],
) -> tuple[Layout | None, ...]:
    """The layouts after partial sums are resolved."""
    partial = any(layout is not None and layout.partial for layout in produced)
    if strategy.resolution is Resolution.REDUCE_SCATTER:
        axis = rule.axis(strategy.scatter_axis or "")
        if axis is None or axis.reduction:
            known = ", ".join(axis.name for axis in rule.axes if not axis.reduction)
            raise InputError(f"{strategy}: reduce-scatter needs a parallel axis of {rule.signature.op_type}: {known}")
    if not partial or strategy.resolution is Resolution.DEFERRED:
        return produced
    if strategy.resolution is Resolution.ALL_REDUCE:
        return tuple(layout and Layout(layout.shape, members, layout.boxes) for layout in produced)
    return tuple(layout and _scatter(rule, strategy, members, ranges, layout, i) for i, layout in enumerate(produced))


def _scatter(
    rule: OpRule,
    strategy: Strategy,
    members: tuple[int, ...],
    ranges: Sequence[MemberRanges | None],
    layout: Layout,
    output: int,
) -> Layout:
    """Every holder of a box of partial sums keeps, reduced, one piece of it; replicas of a part keep the same."""
    axis = rule.axis(strategy.scatter_axis or "")
    kept = [
        None if own is None or axis is None else _piece_ranges(axis, own, layout.num_parts)[part]
        for own, part in zip(ranges, layout.parts, strict=True)
    ]
    return Layout(
        layout.shape, members, tuple(share.outputs[output] if share else None for share in _shares(rule, kept))
    )
