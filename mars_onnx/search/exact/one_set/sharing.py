"""Takers of one tensor that share a move, as variables of their own.

Layers that need a tensor in the same layout share its redistribution: of all their needs, each different one is paid
once. A table of all needs would be too large. But where some needs are the same, one of them is a *hub*: the tensor is
brought there once, and whoever needs it there takes it for nothing. So the tensor has one more variable, which says
which layout the hub is, if there is one; and each taker takes it from where it has entered, or from the hub.

Of two or three takers no more than one layout is needed by several: one hub is exact. Of four, two and two may need the
same. Then each of them shares its move with exactly one other, and half of every move is the cost, if it is known of
each that it is not there already. This is one more value of the hub's variable. Of more takers, the largest of two
groups that share a move leaves two others at least: nobody shares with more than all but two, and each part is counted
so. What this value promises may be less than any mapping costs, but never more. Where it matters, there can be several
hubs at once, in wider tables: two are exact for five takers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.chain.chain import Chain
from mars_onnx.search.exact.communication.moves import FloatArray
from mars_onnx.search.exact.one_set.onset import Edge, SetLayouts
from mars_onnx.search.exact.one_set.takers import distinct, needs_of
from mars_onnx.search.exact.sums.elimination import Bond
from mars_onnx.search.problem import Source

#: Of so many takers one may share a move with another.
_PAIR = 2


@dataclass(frozen=True, eq=False)
class Sharing:
    """What takers of a tensor can share.

    Attributes:
        takers: How many take the tensor.
        entered: Layouts in which the tensor can have entered.
        hubs: Layouts that several can need.
        paid: Seconds to each of these.
        most: Hubs at once.
    """

    takers: int
    entered: IntArray
    hubs: IntArray
    paid: Edge
    most: int

    @property
    def open(self) -> bool:
        """Whether more moves may be shared than there are hubs at once."""
        return self.takers >= _PAIR * (self.most + 1) and len(self.hubs) > self.most

    @property
    def pairs(self) -> bool:
        """Whether everyone is in a pair that shares a move, if there are more of these than hubs at once."""
        return self.takers == _PAIR * (self.most + 1)

    @cached_property
    def chosen(self) -> tuple[IntArray, ...]:
        """For none, one and more hubs at once, the places of those, ``[choices, hubs]``."""
        found = []
        for count in range(min(self.most, len(self.hubs)) + 1):
            choices = list(combinations(range(len(self.hubs)), count))
            found.append(np.array(choices, np.int64).reshape(len(choices), count))
        return tuple(found)

    def seconds(self) -> FloatArray:
        """What hubs cost, ``[entered, states]``; in the last state there are more of them, if there may be."""
        paid = [self.paid.seconds[:, own].sum(axis=-1) for own in self.chosen]
        return np.concatenate([*paid, *([np.zeros((len(self.entered), 1))] if self.open else [])], axis=1)

    @property
    def states(self) -> int:
        """Values of the hub's variable."""
        return sum(map(len, self.chosen)) + self.open

    @property
    def sources(self) -> int:
        """From how many sources a taker has the tensor: as it has entered, from a hub, or for a part of the move."""
        return len(self.entered) * (1 + self.open) + len(self.hubs)

    def bond(self, entered: int, variable: int) -> Bond:
        """Which sources a taker has, as the tensor has entered and with each state of the hubs.

        Args:
            entered: The variable that says how it has.
            variable: The variable of the hubs.
        """
        count = len(self.entered)
        values = np.empty((count, self.states, self.most + 1), np.int64)
        values[:] = np.arange(count)[:, None, None]
        start = 0
        for own in self.chosen:
            values[:, start : start + len(own), 1 : 1 + own.shape[1]] = count + own
            start += len(own)
        if self.open:
            values[:, -1] += count + len(self.hubs)
        return Bond((entered, variable), values)


@dataclass(eq=False)
class SharedEdge:
    """Seconds at least from each source of a taker to each of its needs.

    Attributes:
        sharing: What it can share.
        edge: From where the tensor has entered.
        wanted: The needs.
    """

    sharing: Sharing
    edge: Edge
    wanted: IntArray

    def refresh(self) -> int:
        """Take in what has become exact since; returns the version."""
        return self.edge.refresh()

    def in_parts(self, source: int) -> bool:
        """Whether a source of a taker is that of those who share more moves than there are hubs."""
        return source >= len(self.sharing.entered) + len(self.sharing.hubs)

    @property
    def seconds(self) -> FloatArray:
        """``[sources, needs]``."""
        sharing, full = self.sharing, self.edge.seconds
        every = [full, self._at_hub(sharing.hubs[:, None])]
        return np.concatenate([*every, self._in_parts(full)] if sharing.open else every)

    def row(self, source: int) -> FloatArray:
        """Those from one source."""
        entered, hubs = len(self.sharing.entered), len(self.sharing.hubs)
        if source < entered:
            return self.edge.row(source)
        if source < entered + hubs:
            return self._at_hub(self.sharing.hubs[source - entered])
        return self._in_parts(self.edge.row(source - entered - hubs))

    def _at_hub(self, hub: IntArray) -> FloatArray:
        """From hubs there is nothing to pay to where they are, and no way to anywhere else."""
        return np.where(hub == self.wanted, 0.0, np.inf)

    def _in_parts(self, full: FloatArray) -> FloatArray:
        """Of a whole move, the part that everyone pays who shares one of many."""
        sharing, mutual = self.sharing, np.isin(self.wanted, self.sharing.hubs)
        if sharing.pairs:
            # Everyone has something to share: otherwise there are not so many pairs.
            return np.where((full > 0) & mutual, full / _PAIR, np.inf)
        # The others of so many groups are two at least.
        return np.where(mutual, full / (sharing.takers - _PAIR * sharing.most), full)


def hubs_of(chain: Chain, layouts: SetLayouts, tensor: Source) -> tuple[int, IntArray]:
    """How many times a tensor is taken, and the layouts that several takers can need."""
    takers = dict.fromkeys(chain.consumers.get(tensor, ()))
    every = [needed for taker in takers for needed in needs_of(chain, layouts, taker, tensor)]
    if len(every) < 2:
        return len(every), np.zeros(0, np.int64)
    numbers, which = distinct(np.concatenate([distinct(needed)[0] for needed in every]))
    return len(every), numbers[np.bincount(which) > 1]
