"""Random strategies and mappings for tests: whatever the rules allow."""

from __future__ import annotations

import random
from collections.abc import Sequence

import onnx_ir as ir

from mars_onnx.errors import InputError
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.base import OpRule, Signature
from mars_onnx.rules.registry import rule_for
from mars_onnx.rules.signature import signature_of, tensor_type
from mars_onnx.sharding.entries import identity_signature
from mars_onnx.sharding.lowering import lower
from mars_onnx.sharding.mapping import AcceleratorSet, Entry, LayerChoice, Mapping
from mars_onnx.sharding.strategy import REPLICAS, SINGLE, WHOLE, Placement, Resolution, Ring, Split, Strategy
from mars_onnx.stages.sharded import captured_inputs


def random_strategy(rng: random.Random, signature: Signature, members: tuple[int, ...]) -> Strategy:
    """A random strategy that the rule accepts; whole if several tries find none."""
    rule = rule_for(signature)
    for _ in range(20):
        strategy = _guess(rng, rule, len(members))
        try:
            lower(signature, strategy, members)
        except InputError:
            continue
        return strategy
    return WHOLE


def _guess(rng: random.Random, rule: OpRule, count: int) -> Strategy:
    kind = rng.random()
    if kind < 0.08 or not rule.axes:
        return WHOLE
    if kind < 0.12:
        return SINGLE
    splits: list[Split] = []
    left = count
    for axis in rng.sample(rule.axes, k=min(len(rule.axes), rng.choice([0, 1, 1, 2, 2, 3]))):
        factor = rng.choice([n for n in range(1, left + 1) if left % n == 0 and (n > 1 or left == 1)] or [1])
        if factor > 1:
            splits.append(Split(axis.name, _shares(rng, factor)))
            left //= factor
    outer = rng.choice([n for n in range(2, left + 1) if left % n == 0] or [1])
    if outer > 1 and rng.random() < 0.5:
        splits.insert(rng.randrange(len(splits) + 1), Split(REPLICAS, (1,) * outer))
    ring = None
    if rule.operands and rng.random() < 0.3:
        operand, name = rng.choice(list(rule.operands.items()))
        axes = [axis for dim in rule.inputs[operand] or () for axis in dim.axes]
        ring = Ring(name, rng.choice(axes) if axes and rng.random() < 0.5 else None)
    parallel = [axis.name for axis in rule.axes if not axis.reduction]
    resolution = rng.choice(list(Resolution))
    scatter = rng.choice(parallel) if parallel and resolution is Resolution.REDUCE_SCATTER else None
    if resolution is Resolution.REDUCE_SCATTER and scatter is None:
        resolution = Resolution.ALL_REDUCE
    if not splits and ring is None:
        return WHOLE
    return Strategy(Placement.SHARDED, tuple(splits), ring, resolution, scatter)


def _shares(rng: random.Random, count: int) -> tuple[int, ...]:
    """Equal shares mostly, else unequal ones; now and then nothing at all for some."""
    kind = rng.random()
    if kind < 0.7:
        return (1,) * count
    lowest = 0 if kind > 0.95 else 1
    return (rng.randint(1, 4), *(rng.randint(lowest, 4) for _ in range(count - 1)))


def random_sets(rng: random.Random, count: int) -> list[tuple[int, ...]]:
    """Some disjoint sets of ranks below ``count``, in random order."""
    ranks = rng.sample(range(count), count)
    sets: list[tuple[int, ...]] = []
    while ranks:
        size = rng.randint(1, len(ranks))
        sets.append(tuple(ranks[:size]))
        ranks = ranks[size:]
        if rng.random() < 0.4:
            break
    return sets


def random_mapping(rng: random.Random, model: ir.Model, pool: Pool) -> Mapping:
    """Random sets, and for every node a random one of them and a random strategy."""
    sets = random_sets(rng, pool.size)
    stay = rng.choice([0.0, 0.5, 0.9, 1.0])
    choices: list[LayerChoice] = []
    current = rng.randrange(len(sets))
    for node in model.graph:
        if rng.random() > stay:
            current = rng.randrange(len(sets))
        signature = signature_of(node)
        strategy = WHOLE if signature.opaque else random_strategy(rng, signature, sets[current])
        choices.append(LayerChoice(node.name or "", current, strategy))
    return Mapping(
        tuple(with_designs(pool, members) for members in sets),
        tuple(choices),
        random_entries(rng, model, {choice.name: choice.set_index for choice in choices}, sets),
    )


def random_entries(
    rng: random.Random, model: ir.Model, where: dict[str, int], sets: Sequence[tuple[int, ...]]
) -> tuple[Entry, ...]:
    """Entries for some of the tensors that go from one set to another."""
    crossing: dict[tuple[str, int], ir.Value] = {}
    for node in model.graph:
        for value in (*node.inputs, *captured_inputs(node)):
            producer = None if value is None else value.producer()
            if value is not None and producer is not None and where[producer.name or ""] != where[node.name or ""]:
                crossing[value.name or "", where[node.name or ""]] = value
    often = rng.choice([0.0, 0.5, 1.0])
    entries: list[Entry] = []
    for (name, index), value in sorted(crossing.items(), key=lambda item: item[0]):
        kind = tensor_type(value)
        if kind is not None and rng.random() < often:
            entries.append(Entry(name, index, random_strategy(rng, identity_signature(kind), sets[index])))
    return tuple(sorted(entries, key=lambda entry: entry.set_index))


def with_designs(pool: Pool, members: Sequence[int]) -> AcceleratorSet:
    """A set whose accelerators take their first designs."""
    return AcceleratorSet(tuple(members), tuple(pool.accelerators[rank].designs[0].name for rank in members))
