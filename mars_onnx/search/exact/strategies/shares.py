"""What the shares of a layer take to compute: of all strategies on sets of several shapes, priced at once."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from mars_onnx.cost.performance import Workload, performance_model
from mars_onnx.cost.shares import Kind, member_kinds
from mars_onnx.cost.workload import workload
from mars_onnx.errors import InputError
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.axes import IntArray
from mars_onnx.rules.base import Signature
from mars_onnx.rules.registry import rule_for
from mars_onnx.search.exact.strategies.cuts import BoolArray, Levels
from mars_onnx.search.exact.strategies.grids import cells_of
from mars_onnx.search.exact.strategies.space import FloatArray, sound_cuts, unopposed


class ShareTables:
    """What the shares of layers take to compute on sets of some shapes; each layer's different ones are priced once."""

    def __init__(self, pool: Pool, family: Iterable[Levels], signatures: Iterable[Signature] = ()) -> None:
        """For sets of a pool.

        Args:
            pool: Where the accelerators are described.
            family: Levels of the sets that are going to be asked for.
            signatures: Layers that are; these are priced together. Others can be asked for, too.
        """
        self._pool, self._family = pool, tuple(family)
        self._signatures = tuple(dict.fromkeys(signatures))
        self._priced: dict[Kind, dict[Signature, _Seconds]] = {}
        self._kinds: dict[tuple[tuple[int, ...], tuple[str, ...]], tuple[Kind, ...]] = {}

    def compute_seconds(
        self, signature: Signature, levels: Levels, members: tuple[int, ...], designs: tuple[str, ...]
    ) -> FloatArray:
        """Seconds of the longest share, per pattern of the strategies that a rule has no objection to.

        Args:
            signature: Of the layer.
            levels: Of the set.
            members: The set.
            designs: Per member what it is configured as.
        """
        cuts, grids = sound_cuts(signature, levels), cells_of(rule_for(signature).axes, self._family).grids
        kinds = self._kinds_of(members, designs)
        if len(set(kinds)) == 1:
            return self._seconds(signature, kinds[0]).longest.take(grids.of(cuts))
        cells = grids.cells(cuts)
        columns = [self._seconds(signature, kind).cells.take(cells[:, place]) for place, kind in enumerate(kinds)]
        longest: FloatArray = np.max(columns, axis=0)
        return longest

    def least_compute(
        self, signature: Signature, levels: Levels, members: tuple[int, ...], designs: tuple[str, ...]
    ) -> float:
        """Seconds of the strategy that computes fastest; see :meth:`compute_seconds`."""
        kinds = set(self._kinds_of(members, designs))
        if len(kinds) == 1:
            return self._seconds(signature, kinds.pop()).least[levels]
        return float(self.compute_seconds(signature, levels, members, designs).min())

    def _kinds_of(self, members: tuple[int, ...], designs: tuple[str, ...]) -> tuple[Kind, ...]:
        key = members, designs
        if key not in self._kinds:
            self._kinds[key] = member_kinds(self._pool, members, designs)
        return self._kinds[key]

    def _seconds(self, signature: Signature, kind: Kind) -> _Seconds:
        """What the shares of a layer take.

        Raises:
            InputError: The design cannot run the layer.
        """
        if kind not in self._priced:
            self._priced[kind] = {}
            # Of a design that refuses one of them, each is asked for alone: the others may well be what is wanted.
            with suppress(InputError):
                if self._signatures:
                    self._priced[kind] = self._estimated(self._together, kind)
        known = self._priced[kind]
        if signature not in known:
            known |= self._estimated(_batch((signature,), self._family), kind)
        return known[signature]

    @cached_property
    def _together(self) -> _Batch:
        return _batch(self._signatures, self._family)

    def _estimated(self, batch: _Batch, kind: Kind) -> dict[Signature, _Seconds]:
        rank, design = kind
        accelerator = self._pool.accelerators[rank]
        found = accelerator.design(design)
        if found is None:
            raise ValueError(f"{accelerator.id} cannot take the design {design!r}")
        cells = np.zeros(len(batch.busy))
        cells[batch.busy] = performance_model(found, accelerator).estimate(batch.work).total_s
        longest = np.maximum.reduceat(cells, batch.starts)
        least = np.minimum.reduceat(longest.take(batch.sound), batch.levels).reshape(-1, len(self._family))
        every = zip(np.split(cells, batch.cells), np.split(longest, batch.grids), least.tolist(), strict=True)
        return {
            signature: _Seconds(own, grids, dict(zip(self._family, levels, strict=True)))
            for signature, (own, grids, levels) in zip(batch.signatures, every, strict=True)
        }


@dataclass(frozen=True, eq=False)
class _Seconds:
    """What the shares of a layer take.

    Attributes:
        cells: Each alone, ``[cells]``; one after the last that takes none, for nothing to do.
        longest: The longest one of each grid.
        least: By levels the least of these that a strategy has.
    """

    cells: FloatArray
    longest: FloatArray
    least: dict[Levels, float]


@dataclass(frozen=True, eq=False)
class _Batch:
    """The shares of some layers, of each layer those of all grids, one layer after the other.

    Attributes:
        signatures: Of the layers.
        work: Of the cells where there is something to do.
        busy: Per cell whether there is.
        starts: The first cell of every grid.
        sound: The grids of all strategies that a rule has no objection to: layer by layer, and of a layer by levels.
        levels: Where each of the levels of each layer starts among these.
        cells: Where the cells of each layer but the first start.
        grids: Where its grids start.
    """

    signatures: tuple[Signature, ...]
    work: Workload
    busy: BoolArray
    starts: IntArray
    sound: IntArray
    levels: IntArray
    cells: IntArray
    grids: IntArray


def _batch(signatures: tuple[Signature, ...], family: tuple[Levels, ...]) -> _Batch:
    every = [cells_of(rule_for(signature).axes, family) for signature in signatures]
    cells = np.cumsum([0, *(len(own.busy) for own in every)])
    grids = np.cumsum([0, *(len(own.fine) for own in every)])
    sound: list[IntArray] = []
    counts: list[IntArray] = []
    for signature, own, first in zip(signatures, every, grids, strict=False):
        fine = own.fine.copy()
        fine[fine] = unopposed(signature, own.grids.ways[:, fine])
        kept = fine[own.grids.listed]
        sound.append(first + own.grids.listed[kept])
        counts.append(np.bincount(own.grids.level[kept], minlength=len(family)))
    sizes = np.concatenate(counts)
    return _Batch(
        signatures,
        Workload.joined([_work(signature, family) for signature in signatures]),
        np.concatenate([own.busy for own in every]),
        np.concatenate([first + own.grids.starts for own, first in zip(every, cells, strict=False)]),
        np.concatenate(sound),
        np.cumsum(sizes) - sizes,
        cells[1:-1],
        grids[1:-1],
    )


@lru_cache(maxsize=2048)
def _work(signature: Signature, family: tuple[Levels, ...]) -> Workload:
    rule = rule_for(signature)
    return workload(rule, cells_of(rule.axes, family).ranges)
