"""What a branch takes on a set until its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mars_onnx.pool.topology import Pool
from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.communication.moves import FloatArray
from mars_onnx.search.exact.communication.ports import crossing
from mars_onnx.search.exact.one_set.onset import SetLayouts
from mars_onnx.search.exact.ways.forward import Forward, Way
from mars_onnx.search.exact.ways.sets import Sets, State, needed_of


@dataclass(frozen=True, slots=True)
class _Ends:
    """What is known of a branch on a set.

    Attributes:
        least: Seconds at least until its end.
        reached: Per segment the least seconds until its end, per column; nothing if nobody has looked.
        layouts: Where this is from.
        version: What was exact there.
        wide: Whether there are only bounds of something, which may become better at any time.
    """

    least: float
    reached: Sequence[FloatArray] = ()
    layouts: SetLayouts | None = None
    version: int = 0
    wide: bool = False

    @property
    def old(self) -> bool:
        """Whether more may be known by now."""
        return self.layouts is not None and (self.wide or self.layouts.version != self.version)


@dataclass(eq=False)
class Part:
    """A branch, or several that are alike, on any set.

    Attributes:
        sets: With the layers of the branch, and the join as if it took nothing else.
        forward: Ways through them.
    """

    sets: Sets
    forward: Forward = field(init=False)
    _ends: dict[int, _Ends] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Ready for questions."""
        self.forward = Forward(self.sets)

    @property
    def count(self) -> int:
        """Segments of the branch, without that of the join."""
        return self.forward.count - 1

    def known(self, state: State) -> bool:
        """Whether somebody has looked at a set; whoever does, looks at all of the branch."""
        return self.sets.known(state, self.count - 1) is not None

    def look(self, state: State) -> None:
        """Look at a set."""
        self.sets.look(state, range(self.count))
        self._ends.pop(self.sets.key(state), None)

    def least(self, state: State) -> float:
        """Seconds at least until the end of the branch, its inputs included."""
        return self._now(state).least

    def reached(self, state: State) -> Sequence[FloatArray]:
        """Of a set at which somebody has looked: per segment the least seconds until its end, per column."""
        return self._now(state).reached

    def _now(self, state: State) -> _Ends:
        """What is known of a set by now."""
        key = self.sets.key(state)
        found = self._ends.get(key)
        if found is None or found.old:
            found = self._ends[key] = self._found(state)
        return found

    def _found(self, state: State) -> _Ends:
        if not self.known(state):
            compute = float(self.sets.least(state)[: self.count].sum())
            return _Ends(compute + _entering(self.sets, state))
        tables = self.sets.tables(state)
        layouts, version = tables.on.layouts, tables.on.layouts.version
        reached = self.forward.reach(state, self.count)
        return _Ends(float(reached[-1].min()), reached, layouts, version, tables.wide)

    def columns(self, state: State) -> IntArray:
        """Layouts in which the branch can end on a set at which somebody has looked."""
        return self.sets.tables(state).columns(self.count - 1)

    def way(self, state: State, column: int) -> Way:
        """The best way to one of these."""
        return self.forward.back_from(state, self.reached(state), column)


def _entering(sets: Sets, state: State) -> float:
    """Seconds at least of the model inputs of a branch, one after the other."""
    pool: Pool = sets.pool
    if pool.inputs_at in state.place.members:
        return 0.0
    latency_s, s_per_byte = crossing(pool, (pool.inputs_at,), state.place.members)
    taken = {source: takers for source, takers in sets.chain.consumers.items() if source.layer is None}
    needed = [
        needed_of(sets.chain.problem, source, sets.chain.kinds[source], takers) for source, takers in taken.items()
    ]
    return sum(latency_s + nbytes * s_per_byte for nbytes in needed if nbytes)
