"""What a mapping needs of every accelerator's memory, from the problem alone: before anything is emitted.

The walk goes through the layers as insert-sharding and emission do and counts the same values: slices of weights,
boxes of tensors from the node that makes them to the last one that reads them, pieces that communication brings, what
local nodes make in between. A test compares it with the emitted partitions, as the simulation without overlap sees
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from mars_onnx.geometry import Box, Layout, hull
from mars_onnx.pool.topology import Pool
from mars_onnx.redistribution.plan import Collective, Fragment, Pattern
from mars_onnx.redistribution.planner import redistribute
from mars_onnx.rules.base import OpRule, Share, TensorType
from mars_onnx.rules.registry import rule_for
from mars_onnx.search.evaluate import needs_of
from mars_onnx.search.ledger import Ledger, Need, Pieces
from mars_onnx.search.problem import Layer, Problem, Source
from mars_onnx.sharding.entries import entry_layout
from mars_onnx.sharding.lowering import RingPlan, Sharding, lower, ring_shift
from mars_onnx.sharding.mapping import Mapping
from mars_onnx.stages.sharded import satisfied


def memory_needs(problem: Problem, pool: Pool, mapping: Mapping) -> dict[int, Need]:
    """Per rank of a mapping, what its partition needs; lengths in bytes.

    Args:
        problem: The model.
        pool: Its accelerators; distances between them decide how tensors travel.
        mapping: One whose strategies are all decided.

    Raises:
        InputError: A strategy cannot be applied.
    """
    return _Walk(problem, pool, mapping).run()


@dataclass(eq=False)
class _Version:
    """A tensor as it lies in memory: its layout, and per rank the box and the local value."""

    layout: Layout
    local: dict[int, tuple[Box, ir.Value]] = field(default_factory=dict)


class _Walk:
    def __init__(self, problem: Problem, pool: Pool, mapping: Mapping) -> None:
        self.problem, self.pool, self.mapping = problem, pool, mapping
        self.ledgers = {rank: Ledger() for rank in sorted(rank for own in mapping.sets for rank in own.members)}
        self.held: dict[Source, _Version] = {}
        self.moved: dict[tuple[_Version, Layout], _Version] = {}
        self.entered: dict[tuple[Source, int], _Version] = {}
        self.entries = {(entry.tensor, entry.set_index): entry.strategy for entry in mapping.entries}
        self.shardings = [
            lower(layer.signature, choice.strategy, mapping.sets[choice.set_index].members)
            for layer, choice in zip(problem.layers, mapping.layers, strict=True)
        ]

    def run(self) -> dict[int, Need]:
        self.inputs()
        for number in range(len(self.problem.layers)):
            self.layer(number)
        for ledger in self.ledgers.values():
            ledger.layer = None
        self.outputs()
        for ledger in self.ledgers.values():
            ledger.end()
        return {rank: ledger.need() for rank, ledger in self.ledgers.items()}

    def inputs(self) -> None:
        """Model inputs: per member the smallest box around all that it needs."""
        wanted: dict[Source, tuple[TensorType, dict[int, list[Box | None]]]] = {}
        for number, (layer, sharding) in enumerate(zip(self.problem.layers, self.shardings, strict=True)):
            for source, kind, need in needs_of(layer, sharding):
                if source.layer is None:
                    _, boxes = wanted.setdefault(source, (kind, {}))
                    entry = self.entry(source, kind, self.mapping.layers[number].set_index)
                    own = need if entry is None else entry
                    for rank, box in zip(own.members, own.boxes, strict=True):
                        boxes.setdefault(rank, []).append(box)
        for source in sorted(wanted, key=lambda source: source.output):
            kind, boxes = wanted[source]
            hulls = {rank: hull(boxes[rank]) for rank in sorted(boxes)}
            version = self.held[source] = _Version(Layout(kind.shape, tuple(hulls), tuple(hulls.values())))
            for rank, box in hulls.items():
                if box is not None:
                    version.local[rank] = box, self.ledgers[rank].enter(kind, box)

    def entry(self, source: Source, kind: TensorType, own: int) -> Layout | None:
        """In which layout the mapping says that a tensor comes to a set, if it does."""
        strategy = self.entries.get((self.problem.name_of(source), own)) if self.entries else None
        return None if strategy is None else entry_layout(kind, strategy, self.mapping.sets[own].members)

    def layer(self, number: int) -> None:
        """What a layer needs, then the layer, then what becomes of its partial sums."""
        layer, sharding = self.problem.layers[number], self.shardings[number]
        own = self.mapping.layers[number].set_index
        for ledger in self.ledgers.values():
            ledger.layer = number
        # A tensor may be needed in two layouts by two inputs, so versions go by place.
        taken = [self.provide(source, kind, need, own) for source, kind, need in needs_of(layer, sharding)]
        made: list[_Version | None] = [None if layout is None else _Version(layout) for layout in sharding.produced]
        rule = rule_for(layer.signature)
        places = _places(layer, sharding)
        versions = dict(zip(places, taken, strict=False))
        captured = taken[len(places) :]
        for rank, values in self.computed(layer, rule, sharding, versions, captured):
            share = sharding.shares[sharding.members.index(rank)]
            for index, version in enumerate(made):
                box = None if share is None else share.outputs[index]
                if version is not None and box is not None:
                    version.local[rank] = box, values[index]
        for index, (kind, version, resolved) in enumerate(
            zip(layer.signature.outputs, made, sharding.resolved, strict=True)
        ):
            if kind is not None and version is not None and resolved is not None:
                self.held[Source(number, index)] = (
                    version if version.layout == resolved else self.move(version, resolved, kind)
                )

    def provide(self, source: Source, kind: TensorType, need: Layout, own: int) -> _Version:
        """The version of a tensor from which a layer takes what it needs."""
        version = self.held[source]
        entry = self.entry(source, kind, own)
        if entry is not None:
            if (source, own) not in self.entered:
                same = source.layer is not None and version.layout == entry
                self.entered[source, own] = version if same else self.move(version, entry, kind)
            version = self.entered[source, own]
        elif source.layer is None:
            return version
        if satisfied(version.layout, need):
            return version
        if (version, need) not in self.moved:
            self.moved[version, need] = self.move(version, need, kind)
        return self.moved[version, need]

    def move(self, version: _Version, target: Layout, kind: TensorType) -> _Version:
        """A redistribution: its collectives, and what is put together of what they bring."""
        source = version.layout
        plan = redistribute(source, target, self.pool.distance)
        pieces = {rank: Pieces(ledger) for rank, ledger in self.ledgers.items()}
        for rank, box, part in zip(source.members, source.boxes, source.parts, strict=True):
            if box is not None:
                held, local = version.local[rank]
                pieces[rank].pieces.append((Fragment(held, part if source.partial else None), local))
        for collective in plan.collectives:
            fed = {
                rank: pieces[rank].find(given)
                for rank, given in zip(collective.group, collective.inputs, strict=True)
                if given is not None
            }
            for rank, value, taken in self.collective(collective, fed, kind):
                pieces[rank].pieces.append((taken, value))
        moved = _Version(target)
        for own in plan.assemblies:
            moved.local[own.rank] = own.need, pieces[own.rank].assemble(own.need, own.terms)
        return moved

    def collective(
        self, collective: Collective, fed: dict[int, ir.Value], kind: TensorType
    ) -> Iterator[tuple[int, ir.Value, Fragment]]:
        """What every member of a group gets."""
        for member, rank in enumerate(collective.group):
            taken = collective.outputs[member]
            sends = collective.pattern is Pattern.SEND_RECV and member == 0
            shape = () if taken is None else tuple(high - low for low, high in taken.box)
            # Who gets nothing has an empty output, but for the one that sends.
            got = None if sends else TensorType(kind.dtype, (0,) if taken is None else shape)
            value = self.ledgers[rank].communicate(fed.get(rank), got)
            if taken is not None and value is not None:
                yield rank, value, taken

    def computed(
        self,
        layer: Layer,
        rule: OpRule,
        sharding: Sharding,
        versions: dict[int, _Version],
        captured: Sequence[_Version],
    ) -> Iterator[tuple[int, Sequence[ir.Value]]]:
        """Per busy member the values of its outputs."""
        if sharding.ring is not None:
            yield from self.ring(layer, rule, sharding, sharding.ring, versions)
            return
        for rank, share in zip(sharding.members, sharding.shares, strict=True):
            if share is None:
                continue
            ledger = self.ledgers[rank]
            inputs = self.operands(layer, share, rank, versions)
            if rule.is_fallback:
                inner = [version.local[rank][1] for version in captured if rank in version.local]
                yield rank, ledger.op("", [*inputs, *inner], {}, layer.signature.outputs)
            else:
                yield rank, _compute(ledger, rule, share, inputs)

    def operands(
        self, layer: Layer, share: Share, rank: int, versions: dict[int, _Version], skipped: int = -1
    ) -> list[ir.Value | None]:
        """The local values that a share takes."""
        found: list[ir.Value | None] = []
        for index, (box, kind) in enumerate(zip(share.inputs, layer.signature.inputs, strict=True)):
            if box is None or kind is None or index == skipped:
                found.append(None)
            else:
                found.append(self.fetch(layer, index, kind, box, rank, versions))
        return found

    def fetch(
        self, layer: Layer, index: int, kind: TensorType, box: Box, rank: int, versions: dict[int, _Version]
    ) -> ir.Value:
        """A box of an input: cut from what is held, or of a weight."""
        ledger = self.ledgers[rank]
        if index in versions:
            held, local = versions[index].local[rank]
            return ledger.cut(local, held, box)
        name = layer.weights[index] if index < len(layer.weights) else None
        return ledger.weight(name or (layer.name, index), kind, box)

    def ring(
        self, layer: Layer, rule: OpRule, sharding: Sharding, ring: RingPlan, versions: dict[int, _Version]
    ) -> Iterator[tuple[int, Sequence[ir.Value]]]:
        """Shared shards: every phase computes on one piece, then the pieces move on by one."""
        kind = layer.signature.input(ring.operand)
        phases = dict(zip(sharding.members, sharding.phases, strict=True))
        results: dict[int, list[tuple[Share, Sequence[ir.Value]]]] = {rank: [] for rank in sharding.members}
        for group, pieces in zip(ring.groups, ring.pieces, strict=True):
            here = {
                rank: self.fetch(layer, ring.operand, kind, piece, rank, versions)
                for rank, piece in zip(group, pieces, strict=True)
                if piece is not None
            }
            for phase in range(len(group)):
                for rank in group:
                    share = phases[rank][phase]
                    if share is not None:
                        inputs = self.operands(layer, share, rank, versions, ring.operand)
                        inputs[ring.operand] = here.get(rank)
                        results[rank].append((share, _compute(self.ledgers[rank], rule, share, inputs)))
                if phase + 1 < len(group):
                    here = self.shifted(group, pieces, phase, here, kind)
        for rank, share in zip(sharding.members, sharding.shares, strict=True):
            if share is not None:
                yield rank, _joined(self.ledgers[rank], rule, ring, results[rank])

    def shifted(
        self,
        group: Sequence[int],
        pieces: Sequence[Box | None],
        phase: int,
        here: dict[int, ir.Value],
        kind: TensorType,
    ) -> dict[int, ir.Value]:
        """Every member gives its piece to the one before it."""
        got: dict[int, ir.Value] = {}
        for shift in ring_shift(group, pieces, phase):
            fed = {rank: here[rank] for rank, given in zip(shift.group, shift.inputs, strict=True) if given is not None}
            got.update((rank, value) for rank, value, _ in self.collective(shift, fed, kind))
        return got

    def outputs(self) -> None:
        """Model outputs are values; of replicas the first gives its own."""
        leaving: list[tuple[int, ir.Value]] = []
        for source in self.problem.outputs:
            version = self.held.get(source)
            if version is None:
                continue
            layout = version.layout
            if layout.partial and source.layer is not None:
                kind = self.problem.layers[source.layer].signature.output(source.output)
                version = self.move(version, Layout(layout.shape, layout.members, layout.boxes), kind)
                layout = version.layout
            boxes: dict[Box, int] = {}
            for rank, box in zip(layout.members, layout.boxes, strict=True):
                if box is not None:
                    boxes.setdefault(box, rank)
            leaving += [(rank, version.local[rank][1]) for rank in boxes.values()]
        for rank, value in leaving:
            self.ledgers[rank].leave(value)


def _places(layer: Layer, sharding: Sharding) -> list[int]:
    """Which inputs :func:`needs_of` speaks of before it comes to what is captured."""
    return [
        index
        for index, (source, need, kind) in enumerate(
            zip(layer.sources, sharding.needs, layer.signature.inputs, strict=False)
        )
        if source is not None and need is not None and kind is not None
    ]


def _compute(ledger: Ledger, rule: OpRule, share: Share, inputs: Sequence[ir.Value | None]) -> Sequence[ir.Value]:
    """The values of a share's outputs; each is one of its own, for emission puts an Identity where it is not."""
    values = rule.local(ledger, share, inputs)
    taken = {id(value) for value in inputs if value is not None}
    kinds = rule.signature.outputs
    return [
        ledger.op("Identity", [value], {}, [kind])[0] if id(value) in taken and kind is not None else value
        for value, kind in zip(
            values,
            [
                None if kind is None or box is None else TensorType(kind.dtype, tuple(high - low for low, high in box))
                for kind, box in zip(kinds, share.outputs, strict=True)
            ],
            strict=False,
        )
    ]


def _joined(
    ledger: Ledger, rule: OpRule, ring: RingPlan, results: list[tuple[Share, Sequence[ir.Value]]]
) -> Sequence[ir.Value]:
    """The outputs of all phases as one, pieces in their own order."""
    ordered = sorted(results, key=lambda result: result[0].ranges[ring.axis.name])
    if ring.axis.reduction:
        return [ledger.combine(values, rule.reduction) for values in zip(*(own for _, own in ordered), strict=True)]
    joined: list[ir.Value] = []
    for index, values in enumerate(zip(*(own for _, own in ordered), strict=True)):
        dims = rule.outputs[index] or ()
        dim = next(place for place, dim_map in enumerate(dims) if ring.axis.name in dim_map.axes)
        joined.append(ledger.concat(values, dim))
    return joined
