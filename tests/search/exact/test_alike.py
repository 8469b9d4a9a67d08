"""Sets that exact search takes for alike cost the same, however their accelerators are numbered."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from mars_onnx.cost.steps import input_seconds, move_seconds, output_seconds
from mars_onnx.geometry import Layout
from mars_onnx.pool.loader import load_pool
from mars_onnx.pool.topology import Pool
from mars_onnx.search.exact.ways.crossings import Between
from mars_onnx.search.exact.ways.shapes import Shapes
from tests.search.exact.random_pools import random_pool

Members = tuple[int, ...]
Boxes = tuple[tuple[tuple[int, int], ...], ...]
SHAPE = (12, 7)


def boxes(rng: np.random.Generator, count: int) -> Boxes:
    """What so many members have of a tensor: pieces along both axes, some of them with halos, some several times."""
    rows = int(rng.integers(1, count + 1))
    found = []
    for member in range(count):
        row, column = member % rows, member // rows
        columns = -(-count // rows)
        halo = int(rng.integers(0, 2))
        low, high = 12 * row // rows, 12 * (row + 1) // rows
        found.append(((max(0, low - halo), min(12, high + halo)), (7 * column // columns, 7 * (column + 1) // columns)))
    order = rng.permutation(count)
    return tuple(found[place] if place < len(found) else found[0] for place in order.tolist())


def whole(
    own: tuple[tuple[tuple[int, int], ...], ...], rng: np.random.Generator
) -> tuple[tuple[tuple[int, int], ...], ...]:
    """The same, where everything is somewhere: one member has it all."""
    place = int(rng.integers(0, len(own)))
    return (*own[:place], tuple((0, size) for size in SHAPE), *own[place + 1 :])


def check(pool: Pool, sets: list[Members], pairs: list[tuple[Members, Members]], tries: int) -> int:
    """Price alike sets, and pairs of sets; says of how many there are others that are alike."""
    rng = np.random.default_rng(0)
    shapes = Shapes(pool)
    between = Between(pool, shapes)
    alike: dict[object, list[tuple[Members, Members]]] = {}
    for members in sets:
        alike.setdefault((shapes.likeness(members),), []).append((members, members))
    for first, second in pairs:
        alike.setdefault(between.likeness(first, second), []).append((first, second))
    found = 0
    for own in alike.values():
        if len(own) < 2:
            continue
        found += len(own)
        for _ in range(tries):
            held, wanted = whole(boxes(rng, len(own[0][0])), rng), boxes(rng, len(own[0][1]))
            chosen = [own[int(place)] for place in rng.choice(len(own), min(4, len(own)), replace=False)]
            seconds = {pair: _seconds(pool, *pair, held, wanted) for pair in chosen}
            assert len(set(seconds.values())) == 1, (seconds, held, wanted)
    return found


def _seconds(pool: Pool, first: Members, second: Members, held: Boxes, wanted: Boxes) -> tuple[float, ...]:
    source, target = Layout(SHAPE, first, held), Layout(SHAPE, second, wanted)
    ends = input_seconds(pool, target, 32), output_seconds(pool, source, 32)
    return tuple(float(f"{seconds:.12e}") for seconds in (move_seconds(pool, source, target, 32), *ends))


@pytest.mark.parametrize(
    ("name", "size", "tries"), [("fpga_pool", 8, 6), ("fpga_tree_pool", 16, 3), ("large_pool", 16, 3)]
)
def test_shipped_pools(name: str, size: int, tries: int) -> None:
    rng = np.random.default_rng(1)
    pool = load_pool(name)
    sets = [
        tuple(range(start, start + count))
        for count in (2, 3, 4, 6, 7)
        for start in range(size - count)
        if start % 8 < 7
    ]
    # Those that begin in another group, as where the first accelerators are used.
    sets += [(*range(8, 8 + count), *range(start, start + 3)) for count in (3, 4) for start in (0, 1, 4) if size > 8]
    sets += [(*range(4, 4 + count), *range(start, start + 2)) for count in (3, 4) for start in (0, 1, 2)]
    pairs = []
    for _ in range(150):
        ranks = rng.permutation(size)[: int(rng.integers(2, 7))].tolist()
        cut = int(rng.integers(1, len(ranks)))
        pairs.append((tuple(sorted(ranks[:cut])), tuple(sorted(ranks[cut:]))))
    assert check(pool, sets, pairs, 4) > 100


@pytest.mark.parametrize("seed", range(12))
def test_random_pools(seed: int) -> None:
    sets = [own for count in (2, 3, 4) for own in permutations(range(4), count)]
    pairs = [(own[:cut], own[cut:]) for own in permutations(range(4)) for cut in (1, 2, 3)]
    check(random_pool(seed, 4), sets, pairs, 3)
