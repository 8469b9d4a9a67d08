"""Costs that are made exact together, where a table is too wide to be worked out often."""

from __future__ import annotations

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.search.exact.chain import Chain
from mars_onnx.search.exact.moves import Moves
from mars_onnx.search.exact.onset import OnSet
from mars_onnx.search.exact.takers import domain, needs_of
from mars_onnx.search.problem import Source

#: Of the other layouts from which, or to which, a move would be cheaper, so many.
_MOST = 6


def sharpen_nearby(moves: Moves, source: int, target: int, sources: IntArray, targets: IntArray) -> None:
    """Make the costs exact of what a search would look at next, in place of a move that has become dearer than thought.

    Args:
        moves: The layouts of the tensor.
        source: From where it went.
        target: To where.
        sources: From where it could go instead.
        targets: To where it could go instead.
    """
    seconds = moves.exact(source, target)
    fixed = np.asarray([target])
    bounds = moves.bounds(sources, fixed)[:, 0]
    left = _MOST
    for number in sources[np.argsort(bounds, kind="stable")][: int((bounds < seconds).sum())].tolist():
        left -= moves.sharpen(number, target)
        if not left:
            break
    bounds = moves.bounds(np.asarray([source]), targets)[0]
    left = _MOST
    for number in targets[np.argsort(bounds, kind="stable")][: int((bounds < seconds).sum())].tolist():
        left -= moves.sharpen(source, number)
        if not left:
            break


def ends_of(chain: Chain, on: OnSet, tensor: Source) -> tuple[IntArray, IntArray]:
    """The layouts from which a tensor can be moved on a set, and those to which it can."""
    sources = domain(chain, on, tensor)
    takers = dict.fromkeys(chain.consumers.get(tensor, ()))
    needs = [needed for taker in takers for needed in needs_of(chain, on, taker, tensor)]
    return sources, np.unique(np.concatenate([sources, *needs]))
