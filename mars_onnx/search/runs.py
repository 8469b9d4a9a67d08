"""Contiguous runs of layers, and designs by compute time alone: what the simpler methods start from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

from mars_onnx.cost.shares import share_seconds, twin
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.base import Signature
from mars_onnx.search.problem import Layer, Problem
from mars_onnx.sharding.strategy import WHOLE

#: The finest distinction made between the speeds of unequal accelerators.
_SPEED_STEPS = 16
#: Speeds that differ by less than this are the same.
_SPEED_TOLERANCE = 1.05


def whole_seconds(pool: Pool, rank: int, design: str, signature: Signature) -> float:
    """Seconds of a layer, computed whole by one accelerator.

    Raises:
        InputError: The design cannot run it.
    """
    rank = twin(pool, rank)
    return share_seconds(pool, signature, WHOLE, (rank,), (design,))[0]


def least_seconds(pool: Pool, signature: Signature) -> float:
    """The same by the pool's first accelerator, in the design that is quickest at this layer."""
    return min(whole_seconds(pool, 0, design.name, signature) for design in pool.accelerators[0].designs)


def fastest_designs(pool: Pool, members: Sequence[int], layers: Iterable[Layer]) -> tuple[str, ...]:
    """Per member the design in which it computes these layers fastest, one after the other, each whole."""
    signatures = [layer.signature for layer in layers]
    found: list[str] = []
    for rank in members:
        priced = [
            (sum(whole_seconds(pool, rank, design.name, signature) for signature in signatures), place, design.name)
            for place, design in enumerate(pool.accelerators[rank].designs)
        ]
        found.append(min(priced)[2])
    return tuple(found)


def possible_cuts(problem: Problem) -> list[int]:
    """Before which layers a run can begin: where no layer from there on is tied to one before."""
    forbidden = {
        place
        for number, layer in enumerate(problem.layers)
        for place in range(min(layer.tied, default=number) + 1, number + 1)
    }
    return [place for place in range(1, len(problem.layers)) if place not in forbidden]


def balanced_runs(problem: Problem, weights: Sequence[float], count: int) -> list[int]:
    """Per layer the number of its run: at most ``count`` contiguous runs, cut as near to equal weight as can be.

    Args:
        problem: The layers.
        weights: Of each layer, not negative.
        count: How many runs; some are empty where layers cannot be parted, or are too few.
    """
    before = [0.0, *accumulate(weights)]
    cuts = [0]
    for number in range(1, count):
        goal = before[-1] * number / count
        later = [place for place in possible_cuts(problem) if place > cuts[-1]]
        if not later:
            break
        cuts.append(min(later, key=lambda place: (abs(before[place] - goal), place)))
    cuts.append(len(problem.layers))
    return [number for number, (start, stop) in enumerate(pairwise(cuts)) for _ in range(start, stop)]


def relative_speeds(seconds: Sequence[float]) -> tuple[int, ...]:
    """Speeds in small whole numbers, from the seconds that each accelerator takes; all 1 where they are about equal."""
    fastest = min(seconds)
    if fastest <= 0 or max(seconds) <= fastest * _SPEED_TOLERANCE:
        return (1,) * len(seconds)
    return tuple(round(_SPEED_STEPS * fastest / own) for own in seconds)
