"""Mappings that fit, where the best one does not: exact search with a price on memory.

For every price of memory the best way is found as ever. A higher price gives a mapping that holds fewer bytes: two
prices whose mappings lie on both sides of what fits enclose the one that is worth trying next, where both mappings cost
the same, until nothing new comes up between them. Each price gives a lower bound for everything that fits (see
:mod:`mars_onnx.search.exact.strategies.tariff`), the best of which is stated. What the prices leave open is then
closed as far as it goes by taking layers one run at a time from the mapping that just does not fit into the one that
does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from mars_onnx.errors import CapacityError
from mars_onnx.pool.topology import Pool
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.exact.chain.chain import Chain
from mars_onnx.search.exact.claim import SAME, SPACE
from mars_onnx.search.exact.limits import Limits
from mars_onnx.search.exact.plenty import enough_bytes
from mars_onnx.search.exact.strategies.tariff import Tariff
from mars_onnx.search.exact.ways.aims import LeastLatency
from mars_onnx.search.exact.ways.answer import mapping_of
from mars_onnx.search.exact.ways.forward import Forward, Way
from mars_onnx.search.exact.ways.sets import Sets
from mars_onnx.search.exact.ways.shapes import Shapes
from mars_onnx.search.exact.work import spend_on_judging
from mars_onnx.search.ledger import Need
from mars_onnx.search.memory import memory_needs
from mars_onnx.search.method import Ending, Objective, SearchResult
from mars_onnx.search.problem import Problem
from mars_onnx.sharding.mapping import Mapping

#: What the answer says of the strategies that are looked at in addition.
SPACE_THAT_FITS = (
    "; as memory binds, also shared shards of large weights for the cuts with the smallest shares, and only what fits: "
    "the bound counts weights, and of other tensors those of one layer at a time"
)

#: The first price makes bytes that are there twice as dear as this share of the time; then it grows by a factor.
_FIRST = 1 / 64
_GROWTH = 3.0
_MOST_GROWTHS = 24
#: Prices between the two that enclose what fits.
_MOST_PRICES = 10
#: Times that tensors of one layer are given less room, where they are too large, and how much less.
_MOST_TIGHTENINGS = 10
_AT_ONCE = 4
_TIGHTER = 0.8
#: Runs of layers that are tried in the end, and mappings that are kept for a second look.
_MOST_RUNS = 48
_KEPT = 4


@dataclass(frozen=True, eq=False)
class Tried:
    """A mapping that was best at some price.

    Attributes:
        mapping: The mapping.
        cost_s: What it costs without the price.
        excess_bytes: What it takes of memory, as the tariff counts.
        missing_bytes: Of the accelerator that lacks most, what it lacks; 0 or less if it fits.
        need: What that one needs.
    """

    mapping: Mapping
    cost_s: float
    excess_bytes: float
    missing_bytes: int
    need: Need


@dataclass(eq=False)
class Fitting:
    """The search for a mapping that fits.

    Attributes:
        problem: The model.
        pool: Its accelerators.
        objective: What is to be small; the bound is one of the latency.
        over: Whether to stop once there is something that fits.
        best: What fits, with its cost, best first.
        bound_s: Of the latency of whatever fits.
    """

    problem: Problem
    pool: Pool
    objective: Objective = Objective.LATENCY
    over: Callable[[], bool] = lambda: False
    best: list[tuple[float, Mapping]] = field(default_factory=list)
    bound_s: float = 0.0
    _tried: list[Tried] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start with memory that costs nothing."""
        self.tariff = Tariff(self.problem, self.pool)
        sets = Sets(Chain.of(self.problem), self.pool, Shapes(self.pool), tariff=self.tariff)
        self.forward = Forward(sets)
        self._whole = [state for state in sets.start() if len(state.place.members) == self.pool.size]

    def run(self) -> None:
        """Find mappings that fit, and the bound.

        Raises:
            CapacityError: None was found; the message says whether there can be one.
        """
        first = self.solve(0.0)
        if first is None:
            raise CapacityError(self._impossible())
        if first.missing_bytes <= 0:
            return
        low, high = self._enclosed(first)
        self._between(low, high, lambda own: own.missing_bytes > 0)
        self._raise_bound()
        self._exchange()

    def solve(self, price: float) -> Tried | None:
        """The best mapping at a price per byte; ``None`` if no way is open."""
        self.tariff.seconds_per_byte = price
        self.forward.sets.charge()
        limit, found = float("inf"), None
        for own in self._tried if self.tariff.most_bytes == float("inf") else ():
            if own.cost_s + price * own.excess_bytes < limit:
                limit, found = own.cost_s + price * own.excess_bytes, own
        # Equal ways are as good as what is known: nothing has to be better by less than rounding.
        limit *= 1 - 1e-9
        for states in (self._whole, None):
            while (way := self.forward.way(LeastLatency(self.forward.sets, states, limit), states)) is not None:
                if not self.forward.sharpen(way):
                    found, limit = self._note(way), way.seconds * (1 - 1e-9)
                    if states is None:
                        break
        if found is not None and self.tariff.most_bytes == float("inf"):
            self.bound_s = max(self.bound_s, limit - price * self.tariff.spare_bytes)
        return found

    def _note(self, way: Way) -> Tried:
        mapping = mapping_of(self.forward, way)
        spend_on_judging(self.problem, mapping)
        missing, _, need = self._worst(mapping)
        cost_s = evaluate(self.problem, self.pool, mapping).latency_s
        tried = Tried(mapping, cost_s, self.tariff.excess_of(mapping), missing, need)
        self._tried.append(tried)
        if tried.missing_bytes <= 0:
            self._keep(mapping)
        return tried

    def _keep(self, mapping: Mapping) -> None:
        if any(mapping == other for _, other in self.best):
            return
        cost_s = evaluate(self.problem, self.pool, mapping).cost_s(self.objective)
        self.best = sorted([*self.best, (cost_s, mapping)], key=lambda entry: entry[0])[:_KEPT]

    def _missing(self, mapping: Mapping) -> int:
        return self._worst(mapping)[0]

    def _worst(self, mapping: Mapping) -> tuple[int, int, Need]:
        return max(overflows(self.problem, self.pool, mapping), key=lambda entry: (entry[0], -entry[1]))

    def _enclosed(self, first: Tried) -> tuple[Tried, Tried]:
        """Raise the price until something fits: the last that does not, and the first that does."""
        low = first
        price = _FIRST * first.cost_s / max(first.excess_bytes, 1.0)
        left = _MOST_TIGHTENINGS
        for _ in range(_MOST_GROWTHS):
            found = self.solve(price) or low
            if (fits := self._that_fits()) is not None:
                return low, fits
            smallest = min(own.need.activation_bytes for own in self._tried)
            if found.missing_bytes - found.need.activation_bytes + smallest <= 0:
                # Few enough weights: it is other tensors that take too much room, which others took less of.
                most = float(found.need.activation_bytes)
                for _ in range(min(left, _AT_ONCE)):
                    left -= 1
                    most *= _TIGHTER
                    self.tariff.most_bytes = most
                    self.solve(price)
                    if (fits := self._that_fits()) is not None:
                        return low, fits
                self.tariff.most_bytes = float("inf")
            low = found
            if low.excess_bytes <= 0:
                break
            price *= _GROWTH
        raise CapacityError(self._nearest())

    def _that_fits(self) -> Tried | None:
        """The best that fits of all that was tried: on the way to what is best at a price there may be some, too."""
        return min((own for own in self._tried if own.missing_bytes <= 0), key=lambda own: own.cost_s, default=None)

    def _between(self, low: Tried, high: Tried, too_much: Callable[[Tried], bool]) -> None:
        """Try the prices at which the two mappings that enclose what fits cost the same."""
        for _ in range(_MOST_PRICES):
            if self.over() or low.excess_bytes <= high.excess_bytes:
                return
            found = self.solve(max(0.0, (high.cost_s - low.cost_s) / (low.excess_bytes - high.excess_bytes)))
            if found is None or found.mapping in (low.mapping, high.mapping):
                return
            low, high = (found, high) if too_much(found) else (low, found)

    def _raise_bound(self) -> None:
        """Try the price that gives the highest bound as far as mappings are known, until no new one comes up."""
        self.tariff.most_bytes = float("inf")
        for _ in range(_MOST_PRICES):
            known = len(self._tried)
            if self.over() or self.solve(self._best_price()) is None or len(self._tried) == known:
                return

    def _best_price(self) -> float:
        """Where the least over all known mappings, of the bound that each alone would give, is highest."""
        spare = self.tariff.spare_bytes
        lines = [(own.cost_s, own.excess_bytes - spare) for own in self._tried]
        prices = [0.0]
        for cost_s, over in lines:
            prices += [(cost_s - their) / (other - over) for their, other in lines if other > over and cost_s > their]
        return max(prices, key=lambda price: min(cost_s + price * over for cost_s, over in lines))

    def _exchange(self) -> None:
        """Exchange runs of layers between the best mapping that fits and those that nearly do."""
        left = _MOST_RUNS
        over = sorted((own for own in self._tried if own.missing_bytes > 0), key=lambda own: own.missing_bytes)
        for own in over[:2]:
            for layers in list(self._runs(own.mapping)):
                cost_s, mapping = self.best[0]
                if left == 0 or self.over():
                    return
                left -= 1
                for base, other in ((mapping, own.mapping), (own.mapping, mapping)):
                    mixed = replace(
                        base,
                        layers=tuple(
                            other.layers[place] if place in layers else choice
                            for place, choice in enumerate(base.layers)
                        ),
                    )
                    spend_on_judging(self.problem, mixed)
                    cheaper = evaluate(self.problem, self.pool, mixed).cost_s(self.objective) < cost_s
                    if cheaper and self._missing(mixed) <= 0:
                        self._keep(mixed)

    def _runs(self, other: Mapping) -> Iterator[range]:
        """Layers in a row for which another mapping onto the same sets has other strategies; and each alone."""
        mapping = self.best[0][1]
        if mapping.sets != other.sets:
            return
        differ = [own != their for own, their in zip(mapping.layers, other.layers, strict=True)]
        start = None
        for place, own in enumerate((*differ, False)):
            if own and start is None:
                start = place
            elif not own and start is not None:
                yield range(start, place)
                if place - start > 1:
                    yield from (range(single, single + 1) for single in range(start, place))
                start = None

    def _nearest(self) -> str:
        """What to say if nothing was found that fits."""
        least = min(self._tried, key=lambda own: own.missing_bytes)
        missing, rank, need = self._worst(least.mapping)
        total, there = self.tariff.weight_bytes, sum(own.memory_bytes for own in self.pool.accelerators)
        why = (
            f"all weights together take {total} bytes, all accelerators together have {there}"
            if total > there
            else "no mapping was found that takes less"
        )
        own = self.pool.accelerators[rank]
        place = (
            "at the start or the end" if need.layer is None else f"at layer {self.problem.layers[need.layer].name!r}"
        )
        return (
            f"the model does not fit the pool {self.pool.name!r}: {own.id}: {missing} bytes are missing: it has "
            f"{own.memory_bytes} and needs {need.total_bytes} {place}: weights {need.weight_bytes}, everything else "
            f"{need.activation_bytes}; {why}"
        )

    def _impossible(self) -> str:
        """What to say if a layer alone is too much for every set."""
        places = range(len(self.problem.layers))
        least = {place: self._least(place) for place in places}
        place = max(places, key=lambda number: (least[number][0], -number))
        missing, rank = least[place]
        own = self.pool.accelerators[rank]
        return (
            f"the model does not fit the pool {self.pool.name!r}: {own.id}: {missing} bytes are missing: it has "
            f"{own.memory_bytes}, and layer {self.problem.layers[place].name!r} alone needs "
            f"{own.memory_bytes + missing} for its weights, its largest input and its outputs, however it is cut"
        )

    def _least(self, place: int) -> tuple[int, int]:
        """The least that a layer lacks on any set that somebody looked at, and of which member."""
        signature = self.problem.layers[place].signature
        found = [
            self.tariff.lacking(signature, layouts.layer(signature).space, layouts.members)
            for layouts in self.forward.sets.looked()
        ]
        return min(found, default=(0, 0))


def fits(problem: Problem, pool: Pool, mapping: Mapping) -> bool:
    """Whether every accelerator has the memory that a mapping needs; without a closer look where it is plenty."""
    if enough_bytes(problem, pool) <= min(own.memory_bytes for own in pool.accelerators):
        return True
    return all(missing <= 0 for missing, _, _ in overflows(problem, pool, mapping))


def overflows(problem: Problem, pool: Pool, mapping: Mapping) -> list[tuple[int, int, Need]]:
    """Per accelerator of a mapping how many bytes it lacks (negative for what it has left), its rank and its need."""
    return [
        (need.total_bytes - pool.accelerators[rank].memory_bytes, rank, need)
        for rank, need in memory_needs(problem, pool, mapping).items()
    ]


def fitted(problem: Problem, pool: Pool, objective: Objective, limits: Limits) -> SearchResult:
    """The best mapping found that fits, where the best one does not.

    Raises:
        CapacityError: None was found; the message says whether there can be one.
    """
    fitting = Fitting(problem, pool, objective, lambda: limits.over is not None)
    ending = Ending.GAP
    try:
        fitting.run()
    except KeyboardInterrupt:
        ending = Ending.INTERRUPTED
        if not fitting.best:
            raise
    cost_s, mapping = fitting.best[0]
    others = tuple(other for _, other in fitting.best[1:])
    if objective is not Objective.LATENCY:
        # The prices say what an inference takes at least, and nothing of the busiest set.
        ending = Ending.HEURISTIC if ending is Ending.GAP else ending
        return SearchResult(mapping, cost_s, None, ending, SPACE + SPACE_THAT_FITS, others)
    bound = min(cost_s, fitting.bound_s)
    if bound >= cost_s * (1 - SAME):
        ending, bound = Ending.PROVEN, cost_s
    elif limits.over is not None:
        ending = limits.over
    return SearchResult(mapping, cost_s, bound, ending, SPACE + SPACE_THAT_FITS, others)
