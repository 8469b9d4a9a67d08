"""Takers of one tensor that share a move, as variables of their own.

Layers that need a tensor in the same layout share its redistribution: of all their needs, each different one is paid
once. A table of all needs would be too large. But where some needs are the same, one of them is a *hub*: the tensor is
brought there once, and whoever needs it there takes it for nothing. So the tensor has one more variable, which says
which layout the hub is, if there is one; and each taker takes it from where it has entered, or from the hub.

Of two or three takers no more than one layout is needed by several: this is exact. Of four, two and two may need the
same. Then each of them shares its move with exactly one other, and half of every move is the cost, if it is known of
each that it is not there already. This is one more value of the hub's variable. Of more takers, the largest of two
groups that share a move leaves two others at least: nobody shares with more than all but two, and each part is counted
so. What such a value promises may be less than any mapping costs, but never more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.chain import Chain
from mars_onnx.search.exact.moves import FloatArray
from mars_onnx.search.exact.onset import Edge, OnSet
from mars_onnx.search.exact.tables import Bond
from mars_onnx.search.exact.takers import needs_of
from mars_onnx.search.problem import Source

#: Of so many takers two moves can be shared, each by two of them.
_TWO_PAIRS = 4


@dataclass(frozen=True, eq=False)
class Sharing:
    """What takers of a tensor can share.

    Attributes:
        variable: That of the hub: none, one of the layouts, or, with four takers and more, several.
        takers: How many take the tensor.
        entered: Layouts in which the tensor can have entered.
        hubs: Layouts that several can need.
        paid: Seconds to each of these.
    """

    variable: int
    takers: int
    entered: IntArray
    hubs: IntArray
    paid: Edge

    @property
    def several(self) -> bool:
        """Whether more than one move may be shared."""
        return self.takers >= _TWO_PAIRS

    def seconds(self) -> FloatArray:
        """What the hub costs, ``[entered, states]``."""
        none = np.zeros((len(self.entered), 1))
        return np.concatenate([none, self.paid.seconds, *([none] if self.several else [])], axis=1)

    @property
    def states(self) -> int:
        """Values of the hub's variable."""
        return 1 + len(self.hubs) + self.several

    @property
    def sources(self) -> int:
        """From how many sources a taker has the tensor: as it has entered, from a hub, or for a part of the move."""
        return len(self.entered) * (1 + self.several) + len(self.hubs)

    def bond(self, entered: int) -> Bond:
        """Which sources a taker has, as the tensor has entered and with each state of the hub.

        Args:
            entered: The variable that says how it has.
        """
        count, hubs = len(self.entered), len(self.hubs)
        values = np.empty((count, self.states, 2), np.int64)
        values[:] = np.arange(count)[:, None, None]
        values[:, 1 : 1 + hubs, 1] = count + np.arange(hubs)[None]
        if self.several:
            values[:, -1] += count + hubs
        return Bond((entered, self.variable), values)


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

    @property
    def seconds(self) -> FloatArray:
        """``[sources, needs]``."""
        sharing, full = self.sharing, self.edge.seconds
        at_hub = np.where(sharing.hubs[:, None] == self.wanted[None], 0.0, np.inf)
        if not sharing.several:
            return np.concatenate([full, at_hub])
        mutual = np.isin(self.wanted, sharing.hubs)
        if sharing.takers == _TWO_PAIRS:
            # Two pairs: everyone is in one, and has something to share.
            parts = np.where((full > 0) & mutual[None], full / 2, np.inf)
        else:
            parts = np.where(mutual[None], full / (sharing.takers - 2), full)
        return np.concatenate([full, at_hub, parts])


def hubs_of(chain: Chain, on: OnSet, tensor: Source) -> tuple[int, IntArray]:
    """How many times a tensor is taken, and the layouts that several takers can need."""
    takers = dict.fromkeys(chain.consumers.get(tensor, ()))
    every = [np.unique(needed) for taker in takers for needed in needs_of(chain, on, taker, tensor)]
    numbers, counts = np.unique(np.concatenate(every), return_counts=True)
    return len(every), numbers[counts > 1]
