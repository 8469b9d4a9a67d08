"""H2H (Zhang et al., DAC 2022, arXiv 2204.13852): whole layers on accelerators that each have one design.

Its four steps: layers that are ready go where they finish first, with every tensor coming from the host and going back
there; weights stay where they are used; so do activations; then layers move to the accelerator of a neighbour for as
long as that helps. docs/comparators.md says how that carries over to the cost model here, where weights never travel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mars_onnx.errors import InputError
from mars_onnx.pool.topology import Pool
from mars_onnx.search.comparators.trials import Stopwatch, best_of
from mars_onnx.search.comparators.whole_layers import WholeLayers, units_of
from mars_onnx.search.method import SearchOptions, SearchResult
from mars_onnx.search.problem import Problem, Source
from mars_onnx.sharding.mapping import Mapping

SPACE = "whole layers on single accelerators of one design each: all the same, or all designs in turn"
SPACE_FIXED = "whole layers on single accelerators of one given design each: all designs in turn within a group"
#: So many assignments of ready layers are enumerated at most; of more ready layers, some go first.
_MOST_ASSIGNMENTS = 4096


def h2h(problem: Problem, pool: Pool, options: SearchOptions) -> SearchResult:
    """The four steps, for every choice of designs that is looked at, also from the best single accelerator.

    Raises:
        InputError: No choice of designs can run all layers.
    """
    mappings = _mappings(problem, pool, options, design_choices(pool), from_single=True)
    return best_of(problem, pool, options, mappings, "H2H", SPACE)


def h2h_fixed(problem: Problem, pool: Pool, options: SearchOptions) -> SearchResult:
    """The four steps and nothing else, on accelerators that differ and are given: nobody chooses their designs.

    Raises:
        InputError: The designs cannot run all layers.
    """
    mappings = _mappings(problem, pool, options, [designs_in_turn(pool)], from_single=False)
    return best_of(problem, pool, options, mappings, "H2H, fixed designs", SPACE_FIXED)


def _mappings(
    problem: Problem, pool: Pool, options: SearchOptions, choices: Sequence[tuple[str, ...]], from_single: bool
) -> Iterator[Mapping]:
    stopwatch = Stopwatch(options)
    refused: InputError | None = None
    made = 0
    for designs in choices:
        try:
            costs = WholeLayers(problem, pool, designs, options.objective)
        except InputError as error:
            refused = refused or error
            continue
        made += 1
        units = units_of(problem, costs.takes)
        starts = [first_step(problem, costs, units)]
        if from_single:
            # H2H starts from its first step. So that it never loses to one accelerator alone, that is a start too.
            starts.append(min(([rank] * len(problem.layers) for rank in range(pool.size)), key=costs.cost))
        for start in starts:
            ranks = list(start)
            yield costs.mapping(ranks)
            while remap(problem, costs, units, ranks, stopwatch):
                yield costs.mapping(ranks)
    if not made and refused is not None:
        raise refused


def design_choices(pool: Pool) -> list[tuple[str, ...]]:
    """Per accelerator a design: the same for all that can take it, for every design; and all designs in turn."""
    found = [
        tuple(name if own.design(name) else own.designs[0].name for own in pool.accelerators) for name in pool.designs
    ]
    return list(dict.fromkeys([*found, designs_in_turn(pool)]))


def designs_in_turn(pool: Pool) -> tuple[str, ...]:
    """Per accelerator a design, all in turn within a group: as near as there is to H2H's own unlike accelerators."""
    turn = {rank: place for group in pool.groups() for place, rank in enumerate(group)}
    return tuple(own.designs[turn[own.rank] % len(own.designs)].name for own in pool.accelerators)


def first_step(problem: Problem, costs: WholeLayers, units: Sequence[Sequence[int]]) -> list[int]:
    """Step 1: all units that are ready at a time go where the last of them finishes first.

    A unit takes its compute time and the time of everything that it takes from the host, and gives back there.

    Returns:
        Per layer its accelerator.
    """
    size = costs.pool.size
    unit_of = {layer: number for number, unit in enumerate(units) for layer in unit}
    seconds = [[_alone(problem, costs, unit, rank) for rank in range(size)] for unit in units]
    before = [
        {unit_of[t.source.layer] for layer in unit for t in costs.takes[layer] if t.source.layer is not None}
        | {unit_of[other] for layer in unit for other in problem.layers[layer].tied}
        for unit in units
    ]
    together = _tied_units(problem, units, unit_of)
    free = [0.0] * size
    chosen: dict[int, int] = {}
    done: dict[int, float] = {}
    at_once = max(count for count in range(1, 13) if count == 1 or size**count <= _MOST_ASSIGNMENTS)
    open_ = list(range(len(units)))
    while open_:
        ready = [number for number in open_ if all(o in done or o == number for o in before[number])][:at_once]
        starts = [max((done[other] for other in before[number] if other in done), default=0.0) for number in ready]
        allowed = []
        for number in ready:
            bound = {chosen[other] for other in together[number] if other in chosen}
            allowed.append(sorted(bound) or list(range(size)))
        picks = _least_last_finish([seconds[number] for number in ready], starts, allowed, free)
        for number, start, rank in zip(ready, starts, picks, strict=True):
            free[rank] = done[number] = max(free[rank], start) + seconds[number][rank]
            chosen[number] = rank
        open_ = [number for number in open_ if number not in chosen]
    return [chosen[unit_of[layer]] for layer in range(len(problem.layers))]


def _alone(problem: Problem, costs: WholeLayers, unit: Sequence[int], rank: int) -> float:
    """Seconds of a unit whose first layer's inputs come from the host, and whose last one's outputs go there."""
    enter = sum(costs.from_host(take, rank) for take in costs.takes[unit[0]] if take.box is not None)
    outputs = problem.layers[unit[-1]].signature.outputs
    leave = sum(costs.leaving(Source(unit[-1], index), rank) for index, kind in enumerate(outputs) if kind is not None)
    return enter + sum(costs.compute[layer][rank] for layer in unit) + leave


def _least_last_finish(
    seconds: Sequence[Sequence[float]], starts: Sequence[float], allowed: Sequence[Sequence[int]], free: Sequence[float]
) -> list[int]:
    """Accelerators for units that are ready, such that the last finishes soonest, and then all of them.

    Args:
        seconds: Per unit and accelerator.
        starts: When what a unit needs is there.
        allowed: Per unit the accelerators that it may go to.
        free: When each accelerator is free.
    """
    best: tuple[float, float] = (float("inf"), float("inf"))
    picks: list[int] = []

    def place(number: int, last: float, total: float, now: list[float], done: list[int]) -> None:
        nonlocal best, picks
        if (last, total) >= best:
            return
        if number == len(seconds):
            best, picks = (last, total), list(done)
            return
        ends = [(max(now[rank], starts[number]) + seconds[number][rank], rank) for rank in allowed[number]]
        for end, rank in sorted(ends):
            before, now[rank] = now[rank], end
            place(number + 1, max(last, end), total + end, now, [*done, rank])
            now[rank] = before

    place(0, 0.0, 0.0, list(free), [])
    return picks


def _tied_units(problem: Problem, units: Sequence[Sequence[int]], unit_of: dict[int, int]) -> list[set[int]]:
    """Per unit those that must be on the same accelerator, itself included."""
    together = [{number} for number in range(len(units))]
    for layer, own in enumerate(problem.layers):
        for other in own.tied:
            joined = together[unit_of[layer]] | together[unit_of[other]]
            for number in joined:
                together[number] = joined
    return together


def remap(
    problem: Problem, costs: WholeLayers, units: Sequence[Sequence[int]], ranks: list[int], stopwatch: Stopwatch
) -> bool:
    """Step 4, once through all units: each moves to the accelerator of a neighbour if that makes the whole cheaper.

    Returns:
        Whether anything has moved; ``ranks`` is changed.
    """
    unit_of = {layer: number for number, unit in enumerate(units) for layer in unit}
    near: list[set[int]] = [set() for _ in units]
    for layer, takes in enumerate(costs.takes):
        for take in takes:
            if take.source.layer is not None:
                near[unit_of[layer]].add(take.source.layer)
                near[unit_of[take.source.layer]].add(layer)
    together = _tied_units(problem, units, unit_of)
    now = costs.cost(ranks)
    moved = False
    for number in range(len(units)):
        if stopwatch.over:
            break
        layers = [layer for other in sorted(together[number]) for layer in units[other]]
        home = ranks[units[number][0]]
        for rank in sorted({ranks[layer] for other in together[number] for layer in near[other]} - {home}):
            tried = list(ranks)
            for layer in layers:
                tried[layer] = rank
            cost = costs.cost(tried)
            if cost < now:
                now, moved = cost, True
                ranks[:] = tried
    return moved
