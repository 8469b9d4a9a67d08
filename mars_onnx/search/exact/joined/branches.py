"""Branches from different model inputs on sets of their own, side by side, until one layer takes them all.

The branches of a network for several modalities have nothing to do with each other before they are joined. Each runs on
a set of its own; the set of one of them goes on with the join and what follows. Until then the longest counts, not the
sum.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count

import numpy as np

from mars_onnx.pool.topology import Pool
from mars_onnx.search.exact.chain.chain import Chain
from mars_onnx.search.exact.chain.joins import Branches
from mars_onnx.search.exact.joined.choices import Choice, Choices, Placing
from mars_onnx.search.exact.joined.estimates import Estimates
from mars_onnx.search.exact.joined.floors import Floors
from mars_onnx.search.exact.joined.meeting import Joined, Meeting
from mars_onnx.search.exact.joined.split import Split
from mars_onnx.search.problem import Problem
from mars_onnx.sharding.mapping import Mapping

#: Seconds at least, a number that tells apart what takes equally long, and what it is.
_Entry = tuple[float, int, Placing | Choice]


class BranchSearch:
    """The least latency with branches on sets of their own, side by side, or several on one set.

    All that branches could have is in a queue, by the least that it takes as far as is known. What looks best is looked
    at more closely, until it takes longer than something else.
    """

    def __init__(
        self, problem: Problem, pool: Pool, branches: Branches, check: Callable[[], None] = lambda: None
    ) -> None:
        """For the branches of a problem on a pool; ``check`` is called again and again in long work."""
        self._split = split = Split.of(problem, pool, branches, check)
        self._check = check
        #: Whether the tables say all there is to say where each branch is on one set.
        self.whole = split.whole
        # A model input that several take comes to all their sets at once; what that takes is known of sets apart only.
        self._choices = Choices(split.tail, len(split.parts), grouped=split.closed)
        self._estimates = Estimates(split, self._choices)
        self._meeting = Meeting(split, self._estimates)
        self._numbers = count()

    @cached_property
    def _queue(self) -> list[_Entry]:
        """What branches can have, as a heap."""
        queue: list[_Entry] = []
        for placing in self._choices.placings():
            self._check()
            queue.append((self._estimates.of_places(placing), next(self._numbers), placing))
        heapify(queue)
        return queue

    @property
    def least_s(self) -> float:
        """What every way takes at least, as far as is known."""
        return self._queue[0][0] if self._queue else float("inf")

    def step(self, limit: float) -> Joined | None:
        """Look more closely at what looks best; returns the best way on given sets if it looks best after that."""
        self._check()
        known, number, own = self._queue[0]
        if isinstance(own, Placing):
            heappop(self._queue)
            least = self._estimates.of_designs(own)
            for designs in np.argwhere(least < limit).tolist():
                choice = self._choices.choice(own, designs)
                heappush(self._queue, (float(least[tuple(designs)]), next(self._numbers), choice))
            return None
        # Until it takes longer than something else, or than is known already.
        enough = min(limit, max(known, min((least for least, *_ in self._queue[1:3]), default=limit)))
        found = self._closer(own, enough, limit)
        joined = None if isinstance(found, float) else self._meeting.sharpened(found)
        seconds = found if isinstance(found, float) else found.seconds
        if seconds >= limit or (joined is not None and joined.sharp):
            heappop(self._queue)
        else:
            heapreplace(self._queue, (max(known, seconds), number, own))
        return joined

    def _closer(self, choice: Choice, enough: float, limit: float) -> float | Joined:
        """What a choice takes at least, if that is more than enough; or the best way."""
        while (least := self._estimates.of(choice)) <= enough:
            parts = zip(self._split.parts, choice.groups, strict=True)
            missing = [(part, choice.states[group]) for part, group in parts if not part.known(choice.states[group])]
            if not missing:
                return self._meeting.best(choice, enough, limit)
            # What takes longest may say enough.
            part, state = max(missing, key=lambda own: own[0].least(own[1]))
            part.look(state)
        return least

    def floors(self, chain: Chain) -> Floors:
        """What is known of the whole problem on one set."""
        branches = self._split.branches
        parts = list(zip(self._split.parts, branches.layers, strict=True))
        return Floors(chain, parts, self._split.tail, branches.join)

    def mapping(self, joined: Joined) -> Mapping:
        """A way, as a mapping of the whole problem."""
        return self._meeting.mapping(joined)
