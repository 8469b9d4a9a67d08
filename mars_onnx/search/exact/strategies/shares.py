"""What the shares of a layer take to compute: of all strategies on sets of several shapes, priced at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mars_onnx.cost.performance import Workload, performance_model
from mars_onnx.cost.shares import twin
from mars_onnx.cost.workload import workload
from mars_onnx.errors import InputError
from mars_onnx.pool.topology import Pool
from mars_onnx.rules.axes import Axis, IntArray
from mars_onnx.rules.base import Signature
from mars_onnx.rules.registry import rule_for
from mars_onnx.search.exact.strategies.cuts import Levels, RangeArrays, cuts
from mars_onnx.search.exact.strategies.pieces import Pieces
from mars_onnx.search.exact.strategies.space import FloatArray, sound_cuts

#: An accelerator among those that are like it, and its design.
_Kind = tuple[int, str]


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
        self._priced: dict[_Kind, dict[Signature, FloatArray]] = {}
        self._least: dict[tuple[Signature, _Kind], dict[Levels, float]] = {}
        self._kinds: dict[tuple[tuple[int, ...], tuple[str, ...]], tuple[_Kind, ...]] = {}

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
        number = _shares(rule_for(signature).axes, self._family).number[levels][sound_cuts(signature, levels).origin]
        kinds = self._kinds_of(members, designs)
        if len(set(kinds)) == 1:
            alike: FloatArray = self._seconds(signature, kinds[0]).take(number).max(axis=1)
            return alike
        columns = [self._seconds(signature, kind).take(number[:, place]) for place, kind in enumerate(kinds)]
        longest: FloatArray = np.max(columns, axis=0)
        return longest

    def least_compute(
        self, signature: Signature, levels: Levels, members: tuple[int, ...], designs: tuple[str, ...]
    ) -> float:
        """Seconds of the strategy that computes fastest; see :meth:`compute_seconds`."""
        kinds = set(self._kinds_of(members, designs))
        if len(kinds) == 1:
            return self._least_if_alike(signature, kinds.pop())[levels]
        return float(self.compute_seconds(signature, levels, members, designs).min())

    def _kinds_of(self, members: tuple[int, ...], designs: tuple[str, ...]) -> tuple[_Kind, ...]:
        key = members, designs
        if key not in self._kinds:
            every = zip(members, designs, strict=True)
            self._kinds[key] = tuple((twin(self._pool, rank), design) for rank, design in every)
        return self._kinds[key]

    def _least_if_alike(self, signature: Signature, kind: _Kind) -> dict[Levels, float]:
        """The same on sets of all levels whose members are alike."""
        if (signature, kind) not in self._least:
            every = _every_share(signature, self._family)
            longest = np.maximum.reduceat(self._seconds(signature, kind).take(every.number), every.rows)
            least = np.minimum.reduceat(longest, every.starts).tolist()
            self._least[signature, kind] = dict(zip(self._family, least, strict=True))
        return self._least[signature, kind]

    def _seconds(self, signature: Signature, kind: _Kind) -> FloatArray:
        """Per share its seconds, and none for nothing to do.

        Raises:
            InputError: The design cannot run the layer.
        """
        if kind not in self._priced:
            # Of a design that refuses one of them, each is asked for alone: the others may well be what is wanted.
            with suppress(InputError):
                self._priced[kind] = self._estimated(self._signatures, kind)
        known = self._priced.setdefault(kind, {})
        if signature not in known:
            known |= self._estimated([signature], kind)
        return known[signature]

    def _estimated(self, signatures: Sequence[Signature], kind: _Kind) -> dict[Signature, FloatArray]:
        rank, design = kind
        accelerator = self._pool.accelerators[rank]
        found = accelerator.design(design)
        if found is None:
            raise ValueError(f"{accelerator.id} cannot take the design {design!r}")
        if not signatures:
            return {}
        works = [_work(signature, self._family) for signature in signatures]
        work = Workload.joined(works)
        total = np.broadcast_to(performance_model(found, accelerator).estimate(work).total_s, work.shape)
        pieces = np.split(total, np.cumsum([own.elements.size for own in works[:-1]]))
        return {own: np.append(seconds, 0.0) for own, seconds in zip(signatures, pieces, strict=True)}


@dataclass(frozen=True, eq=False)
class _EveryShare:
    """The shares of all strategies that a rule has no objection to, on sets of all levels, one after the other.

    Attributes:
        number: Which share each member has.
        rows: Where each strategy starts.
        starts: At which of the strategies each of the levels starts.
    """

    number: IntArray
    rows: IntArray
    starts: IntArray


@lru_cache(maxsize=2048)
def _every_share(signature: Signature, family: tuple[Levels, ...]) -> _EveryShare:
    shares = _shares(rule_for(signature).axes, family)
    every = [shares.number[levels][sound_cuts(signature, levels).origin] for levels in family]
    sizes = np.concatenate([np.full(len(own), own.shape[1]) for own in every])
    rows = np.cumsum([0, *sizes[:-1]])
    starts = np.cumsum([0, *(len(own) for own in every[:-1])])
    return _EveryShare(np.concatenate([own.ravel() for own in every]), rows, starts)


@dataclass(frozen=True, eq=False)
class _Shares:
    """The different shares of all strategies of layers with some axes.

    Attributes:
        ranges: Per axis the range of each share; one after the last is nothing to do.
        number: Per levels which of the shares each member has, ``[patterns, members]``.
    """

    ranges: RangeArrays
    number: dict[Levels, IntArray]


@lru_cache(maxsize=2048)
def _shares(axes: tuple[Axis, ...], family: tuple[Levels, ...]) -> _Shares:
    every = [cuts(axes, levels) for levels in family]
    idle = np.concatenate([own.idle.ravel() for own in every])
    number = np.zeros(len(idle), np.int64)
    taken: list[tuple[Pieces, IntArray]] = []
    for along in range(len(axes)):
        # Smaller tables of pieces are how larger ones begin.
        pieces = max((own.pieces[along] for own in every), key=lambda table: len(table.low))
        places = pieces.same.take(np.concatenate([own.places[along].ravel() for own in every]))
        taken.append((pieces, places))
        number = number * len(pieces.same) + places
        if along + 1 < len(axes) and int(number.max()) > 1 << 40:
            number = np.unique(number, return_inverse=True)[1]
    _, first, number = np.unique(np.where(idle, -1, number), return_index=True, return_inverse=True)
    # Those who are idle come first, if there are any: they go last.
    some = int(idle.any())
    number = np.where(idle, len(first) - some, number - some)
    examples = first[some:]
    ranges = {
        axis.name: (pieces.low.take(places[examples]), pieces.high.take(places[examples]))
        for axis, (pieces, places) in zip(axes, taken, strict=True)
    }
    starts = np.cumsum([0, *(own.idle.size for own in every)])
    return _Shares(
        ranges,
        {
            levels: number[start : start + own.idle.size].reshape(own.idle.shape)
            for levels, own, start in zip(family, every, starts, strict=False)
        },
    )


@lru_cache(maxsize=2048)
def _work(signature: Signature, family: tuple[Levels, ...]) -> Workload:
    rule = rule_for(signature)
    return workload(rule, _shares(rule.axes, family).ranges)
