"""Algorithms of collectives, as rounds of transfers. Knows nothing of links or time.

Every function takes several groups that run the same collective side by side (the upper level of a hierarchical
collective has one group per place in the lower ones), so that the links they share are shared in the price. Byte counts
may have any further dimensions in front.

Sources: rings, Patarasuk and Yuan (2009); halving and doubling, pairwise exchange, binomial trees, Thakur, Rabenseifner
and Gropp (2005); chains and broadcast by scattering, Chan, Heimlich, Purkayastha and van de Geijn (2007).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Pair = tuple[int, int]
Groups = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Rounds:
    """Rounds that have the same transfers, one after the other.

    Attributes:
        pairs: Source and target of every transfer.
        nbytes: What each moves, ``[..., rounds, transfers]``.
        summed: Received bytes that a member sums after each round before it goes on, ``[..., rounds]``; ``None``: none.
        times: How often all of this happens.
    """

    pairs: tuple[Pair, ...]
    nbytes: FloatArray
    summed: FloatArray | None = None
    times: int = 1


Algorithm = Callable[[Groups, FloatArray, bool], list[Rounds]]


def _around(groups: Groups, step: int = 1) -> tuple[Pair, ...]:
    return tuple((rank, group[(i + step) % len(group)]) for group in groups for i, rank in enumerate(group))


def _everyone(groups: Groups) -> tuple[Pair, ...]:
    return tuple((a, b) for group in groups for a in group for b in group if a != b)


def _rows(sizes: FloatArray) -> FloatArray:
    """``[..., groups, rounds, transfers]`` to ``[..., rounds, groups * transfers]``."""
    moved = sizes.swapaxes(-3, -2)
    return moved.reshape(*moved.shape[:-2], -1)


def _passed_on(pieces: FloatArray, lag: int, direction: int) -> tuple[FloatArray, int]:
    """What every place of a ring passes on in each step, and how often: piece ``i - s - lag`` in step ``s``."""
    count = pieces.shape[-1]
    if (pieces == pieces[..., :1]).all():
        return _rows(pieces[..., None, :]), count - 1
    steps, places = np.arange(count - 1)[:, None], np.arange(count)[None, :]
    return _rows(pieces[..., (places - direction * (steps + lag)) % count]), 1


def _ring(groups: Groups, pieces: FloatArray, lag: int, *, both_ways: bool) -> list[Rounds]:
    """Each piece goes round; ``both_ways``: one half of it in each direction."""
    directions = (1, -1) if both_ways else (1,)
    sent = [_passed_on(pieces / len(directions), lag, direction) for direction in directions]
    nbytes = np.concatenate([rows for rows, _ in sent], axis=-1)
    summed = sum(rows.max(axis=-1) for rows, _ in sent) if lag else None
    pairs = tuple(pair for direction in directions for pair in _around(groups, direction))
    return [Rounds(pairs, nbytes, summed, sent[0][1])]


def ring_gather(groups: Groups, pieces: FloatArray, overlap: bool = False) -> list[Rounds]:
    """``n - 1`` rounds; every member passes on one piece. ``pieces``: ``[..., groups, members]``, as below."""
    return _ring(groups, pieces, 0, both_ways=False)


def ring_scatter(groups: Groups, pieces: FloatArray, overlap: bool = False) -> list[Rounds]:
    """``n - 1`` rounds; every member passes on the sum of one piece so far."""
    return _ring(groups, pieces, 1, both_ways=False)


def two_ring_gather(groups: Groups, pieces: FloatArray, overlap: bool = False) -> list[Rounds]:
    """A ring in each direction, for one half of every piece."""
    return _ring(groups, pieces, 0, both_ways=True)


def two_ring_scatter(groups: Groups, pieces: FloatArray, overlap: bool = False) -> list[Rounds]:
    """A ring in each direction, for one half of every piece."""
    return _ring(groups, pieces, 1, both_ways=True)


def _partners(groups: Groups, offset: int) -> tuple[Pair, ...]:
    return tuple((rank, group[i ^ offset]) for group in groups for i, rank in enumerate(group))


def _block(pieces: FloatArray, modulus: int, shift: int) -> FloatArray:
    """Per place ``i`` the sum of pieces ``j`` with ``j = i xor shift`` modulo ``modulus``, as one round."""
    places = np.arange(pieces.shape[-1])
    wanted = (places[:, None] ^ shift) % modulus == places[None, :] % modulus
    return _rows((pieces[..., None] * wanted.T).sum(axis=-2)[..., None, :])


def halving_scatter(groups: Groups, pieces: FloatArray, overlap: bool = False) -> list[Rounds]:
    """``log2 n`` rounds; halves of what is left go to a partner twice as far each time. ``n``: a power of two."""
    count = pieces.shape[-1]
    offsets = [1 << bit for bit in range(count.bit_length() - 1)]
    sent = [_block(pieces, 2 * offset, offset) for offset in offsets]
    most = [rows.max(axis=-1) for rows in sent]
    summed = [*most[1:], np.zeros_like(most[0])] if overlap else most
    return [
        Rounds(_partners(groups, offset), rows, due) for offset, rows, due in zip(offsets, sent, summed, strict=True)
    ]


def doubling_gather(groups: Groups, pieces: FloatArray, overlap: bool = False) -> list[Rounds]:
    """``log2 n`` rounds; all that a member has goes to a partner half as far each time. ``n``: a power of two."""
    count = pieces.shape[-1]
    offsets = [1 << bit for bit in reversed(range(count.bit_length() - 1))]
    return [Rounds(_partners(groups, offset), _block(pieces, 2 * offset, 0)) for offset in offsets]


def _others(count: int) -> tuple[list[int], list[int]]:
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    return [i for i, _ in pairs], [j for _, j in pairs]


def direct_gather(groups: Groups, pieces: FloatArray, overlap: bool = False) -> list[Rounds]:
    """One round; every member sends its piece to all others."""
    sources, _ = _others(pieces.shape[-1])
    return [Rounds(_everyone(groups), _rows(pieces[..., None, sources]))]


def direct_scatter(groups: Groups, pieces: FloatArray, overlap: bool = False) -> list[Rounds]:
    """One round; every member gets its piece of all others."""
    count = pieces.shape[-1]
    nbytes = _rows(pieces[..., None, _others(count)[1]])
    return [Rounds(_everyone(groups), nbytes, nbytes.max(axis=-1) * (1 if overlap else count - 1))]


def pairwise_exchange(groups: Groups, matrix: FloatArray, overlap: bool = False) -> list[Rounds]:
    """``n - 1`` rounds; in round ``r`` place ``i`` sends to ``i + r``. ``matrix``: ``[..., groups, from, to]``."""
    count = matrix.shape[-1]
    places, steps = np.arange(count), np.arange(1, count)[:, None]
    sent = _rows(matrix[..., places, (places + steps) % count])
    return [Rounds(_around(groups, step), sent[..., step - 1 : step, :]) for step in range(1, count)]


def direct_exchange(groups: Groups, matrix: FloatArray, overlap: bool = False) -> list[Rounds]:
    """One round; everyone sends to everyone."""
    sources, targets = _others(matrix.shape[-1])
    return [Rounds(_everyone(groups), _rows(matrix[..., None, sources, targets]))]


def ring_exchange(groups: Groups, matrix: FloatArray, overlap: bool = False) -> list[Rounds]:
    """``n (n - 1) / 2`` rounds; what is for the member ``d`` places on is passed on ``d`` times, piece by piece."""
    count = matrix.shape[-1]
    hops = np.array([(distance, hop) for distance in range(1, count) for hop in range(distance)])
    places = np.arange(count)[None, :]
    origins = (places - hops[:, 1:]) % count
    return [Rounds(_around(groups), _rows(matrix[..., origins, (origins + hops[:, :1]) % count]))]


def _copies(pairs: Sequence[Pair], nbytes: FloatArray) -> Rounds:
    return Rounds(tuple(pairs), np.repeat(nbytes[..., None, None], len(pairs), axis=-1))


def tree_broadcast(groups: Groups, nbytes: FloatArray) -> list[Rounds]:
    """``ceil(log2 n)`` rounds from the first of every group; all who have it send it on. Groups may differ in size."""
    made, have = [], 1
    while pairs := [(group[i], group[i + have]) for group in groups for i in range(min(have, len(group) - have))]:
        made.append(_copies(pairs, nbytes))
        have *= 2
    return made


def direct_broadcast(groups: Groups, nbytes: FloatArray) -> list[Rounds]:
    """One round; the first of every group sends to the others."""
    return [_copies([(group[0], rank) for group in groups for rank in group[1:]], nbytes)]


def chain_broadcast(groups: Groups, nbytes: FloatArray, chunks: int) -> list[Rounds]:
    """``n - 2 + chunks`` rounds; every member passes a chunk on while it gets the next."""
    rounds = max(map(len, groups)) - 2 + chunks
    return [
        _copies(
            [
                (group[place], group[place + 1])
                for group in groups
                for place in range(len(group) - 1)
                if 0 <= number - place < chunks
            ],
            nbytes / chunks,
        )
        for number in range(rounds)
    ]


def scatter_broadcast(groups: Groups, nbytes: FloatArray) -> list[Rounds]:
    """One round that scatters pieces, then a ring gathers them. Groups of one size."""
    count = len(groups[0])
    pieces = np.repeat(np.repeat(nbytes[..., None, None] / count, count, axis=-1), len(groups), axis=-2)
    return [*direct_broadcast(groups, nbytes / count), *ring_gather(groups, pieces)]


#: Flat algorithms by collective and name.
GATHERS: dict[str, Algorithm] = {
    "ring": ring_gather,
    "ring_both_ways": two_ring_gather,
    "halving_doubling": doubling_gather,
    "direct": direct_gather,
}
SCATTERS: dict[str, Algorithm] = {
    "ring": ring_scatter,
    "ring_both_ways": two_ring_scatter,
    "halving_doubling": halving_scatter,
    "direct": direct_scatter,
}
EXCHANGES: dict[str, Algorithm] = {
    "pairwise": pairwise_exchange,
    "direct": direct_exchange,
    "ring": ring_exchange,
}


def reduces(name: str) -> Algorithm:
    """All-reduce of that name: its reduce-scatter, then its all-gather, without a pause."""

    def both(groups: Groups, pieces: FloatArray, overlap: bool = False) -> list[Rounds]:
        return [*SCATTERS[name](groups, pieces, overlap), *GATHERS[name](groups, pieces, overlap)]

    return both


REDUCES: dict[str, Algorithm] = {name: reduces(name) for name in SCATTERS}


def applies(name: str, members: int) -> bool:
    """Whether a flat algorithm can run on so many members."""
    return name != "halving_doubling" or members & (members - 1) == 0
