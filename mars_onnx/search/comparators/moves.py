"""What moving a tensor costs: exactly, each plan found once; and about how little it can be, in far less time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from math import gcd, prod

import numpy as np
import numpy.typing as npt

from mars_onnx.cost.steps import move_seconds
from mars_onnx.geometry import Box, Layout, volume
from mars_onnx.pool.topology import Pool
from mars_onnx.stages.sharded import satisfied

#: Algorithms in which a member has one message coming in at a time.
_ONE_PORT = {"ring", "halving_doubling", "hierarchical", "pairwise", "tree", "chain"}


@dataclass(frozen=True, slots=True)
class _Ways:
    """How data reach the members of a target, at best; arrays of ``[targets]``, ``near`` of ``[targets, sources]``.

    Attributes:
        near: Whether a source is in the same group of the pool (and another accelerator).
        same: Whether it is the same accelerator.
        near_rate: Seconds per byte from the own group.
        far_rate: Seconds per byte from another group.
        latency_s: Of one message, at least.
        peers: How many targets are in the same group: what comes from afar may come once for all of them.
    """

    near: npt.NDArray[np.bool_]
    same: npt.NDArray[np.bool_]
    near_rate: npt.NDArray[np.float64]
    far_rate: npt.NDArray[np.float64]
    latency_s: npt.NDArray[np.float64]
    peers: npt.NDArray[np.float64]


class Moves:
    """Redistributions on a pool; those between sets of a kind are found once, and once for all sizes in proportion."""

    def __init__(self, pool: Pool) -> None:
        """Nothing is known yet."""
        self._pool = pool
        names = {name for own in pool.collectives.algorithms.values() for name in own}
        self._one_port = names <= _ONE_PORT
        self._seconds: dict[object, float] = {}
        self._least: dict[object, float] = {}
        self._ways: dict[tuple[tuple[int, ...], tuple[int, ...]], _Ways] = {}

    def seconds(self, kind: int, source: Layout, target: Layout, bits: int) -> float:
        """Of a redistribution between sets of a kind (a number that stands for it); 0 if everything is there."""
        if satisfied(source, target):
            return 0.0
        small_source, small_target, scale = in_proportion(source, target)
        key = (kind, _boxes(small_source), _boxes(small_target), bits * scale)
        if key not in self._seconds:
            self._seconds[key] = move_seconds(self._pool, small_source, small_target, bits * scale)
        return self._seconds[key]

    def least(self, kind: int, source: Layout, target: Layout, bits: int) -> float:
        """About how little a redistribution can take: the one who lacks most has to get it.

        From the own group of the pool what is there, else from afar, which may be shared out among the group. Who
        lacks something at both ends of what it holds may get both at once, as in a halo exchange.
        """
        if satisfied(source, target):
            return 0.0
        key = (kind, _boxes(source), _boxes(target), bits)
        if key not in self._least:
            self._least[key] = 0.0 if source.partial else self._bound(source, target, bits)
        return self._least[key]

    def _bound(self, source: Layout, target: Layout, bits: int) -> float:
        ways = self._ways_between(source.members, target.members)
        held, need = _array(source), _array(target)
        low = np.maximum(need[:, None, :, 0], held[None, :, :, 0])
        high = np.minimum(need[:, None, :, 1], held[None, :, :, 1])
        there = np.maximum(high - low, 0).prod(axis=-1)
        lacking = np.maximum(need[:, :, 1] - need[:, :, 0], 0).prod(axis=-1) - (there * ways.same).sum(axis=1)
        far = np.maximum(lacking - (there * ways.near).sum(axis=1), 0) / ways.peers
        own = (held[None] * ways.same[:, :, None, None]).sum(axis=1)
        beyond = (need[:, :, 0] < own[:, :, 0]) & (own[:, :, 1] < need[:, :, 1])
        sides = 1.0 + (beyond.any(axis=1) & ways.same.any(axis=1))
        seconds = (far * ways.far_rate + (lacking - far) * ways.near_rate) * (bits / 8) / sides
        return float(np.where(lacking > 0, seconds + ways.latency_s, 0.0).max(initial=0.0))

    def _ways_between(self, sources: tuple[int, ...], targets: tuple[int, ...]) -> _Ways:
        if (sources, targets) in self._ways:
            return self._ways[sources, targets]
        group = self._pool.group_of
        near_rate, far_rate, latency = [], [], []
        for rank in targets:
            routes = {other: self._pool.route(other, rank) for other in sources if other != rank}
            rates: dict[bool, dict[int, float]] = {True: {}, False: {}}
            for other, route in routes.items():
                rates[group[other] == group[rank]][route.channels[-1]] = route.bandwidth_bytes_per_s
            every = [*rates[True].values(), *rates[False].values()]
            if self._one_port:
                near, far = (max(own.values(), default=max(every, default=float("inf"))) for own in rates.values())
            else:
                near = far = sum(every) or float("inf")
            near_rate.append(1.0 / near)
            far_rate.append(1.0 / far)
            latency.append(min((route.latency_s for route in routes.values()), default=0.0))
        made = _Ways(
            np.array([[a != b and group[a] == group[b] for b in sources] for a in targets]),
            np.array([[a == b for b in sources] for a in targets]),
            np.array(near_rate),
            np.array(far_rate),
            np.array(latency),
            np.array([float(sum(group[a] == group[b] for b in targets)) for a in targets]),
        )
        self._ways[sources, targets] = made
        return made


def in_proportion(source: Layout, target: Layout) -> tuple[Layout, Layout, int]:
    """The same redistribution of the smallest tensor of these proportions, and how many elements there are to one.

    All edges along a dimension are divided by a common divisor; so all volumes are divided alike. What is left is still
    divisible by the number of members, since plans cut boxes further, among those who hold or need the same.
    """
    members = len({*source.members, *target.members})
    edges = [{0, extent} for extent in source.shape]
    for layout in (source, target):
        for box in layout.boxes:
            for own, ends in zip(edges, box or (), strict=bool(box)):
                own.update(ends)
    common = [reduce(gcd, own) for own in edges]
    units = [own // members if own and own % members == 0 else 1 for own in common]

    def small(layout: Layout) -> Layout:
        boxes = tuple(
            None
            if box is None
            else tuple((low // unit, high // unit) for (low, high), unit in zip(box, units, strict=True))
            for box in layout.boxes
        )
        shape = tuple(extent // unit for extent, unit in zip(layout.shape, units, strict=True))
        return Layout(shape, layout.members, boxes, layout.parts, layout.num_parts, layout.reduction)

    return small(source), small(target), prod(units)


def _boxes(layout: Layout) -> tuple[object, ...]:
    """A layout without the names of its members."""
    return layout.shape, layout.boxes, layout.parts, layout.num_parts, layout.reduction


def _array(layout: Layout) -> npt.NDArray[np.int64]:
    """Boxes as ``[members, dimensions, 2]``; nothing is an empty box."""
    nothing: Box = ((0, 0),) * len(layout.shape)
    boxes = [box if box is not None and volume(box) else nothing for box in layout.boxes]
    return np.array(boxes, np.int64).reshape(len(boxes), len(layout.shape), 2)
