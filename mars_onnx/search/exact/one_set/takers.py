"""In which layouts a tensor can be taken on a set, and by whom."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from mars_onnx.rules.axes import IntArray
from mars_onnx.rules.base import TensorType
from mars_onnx.search.exact.chain.chain import Chain
from mars_onnx.search.exact.communication.moves import BoolArray, FloatArray
from mars_onnx.search.exact.one_set.onset import SetLayouts
from mars_onnx.search.problem import Source


def domain(chain: Chain, layouts: SetLayouts, tensor: Source) -> IntArray:
    """Layouts from which the takers of a tensor may take it: those that it is made in, and those it can enter in.

    Where one layer alone takes it, also what that layer needs: it may be moved there at once.
    """
    identity, _ = layouts.identity(chain.kinds[tensor])
    numbers = [identity]
    if tensor.layer is not None:
        made = layouts.layer(chain.problem.layers[tensor.layer].signature).outs[tensor.output]
        if made is not None:
            numbers.append(made)
    takers = chain.consumers.get(tensor, ())
    if len(takers) == 1:
        numbers += needs_of(chain, layouts, takers[0], tensor)
    return distinct(np.concatenate(numbers))[0]


def distinct(numbers: IntArray) -> tuple[IntArray, IntArray]:
    """The different ones of some numbers, in order, and for each which of these it is."""
    return _distinct(numbers.tobytes())


@lru_cache(maxsize=256)
def _distinct(numbers: bytes) -> tuple[IntArray, IntArray]:
    # Layers that are alike need the same layouts, and sets that are alike number them in the same way.
    found = np.unique(np.frombuffer(numbers, np.int64), return_inverse=True)
    for own in found:
        # Whoever asks for the same has the same array.
        own.setflags(write=False)
    return found


def unstated(layouts: SetLayouts, kind: TensorType, made: IntArray, entered: IntArray) -> BoolArray:
    """Which changes of a layout no mapping can state: a tensor enters as the operator that does nothing would leave it.

    Args:
        layouts: Of the set.
        kind: Type of the tensor.
        made: Layout numbers.
        entered: Layout numbers.
    """
    stated = np.isin(entered, layouts.identity(kind)[0])
    closed: BoolArray = ~stated[None] & (made[:, None] != entered[None])
    return closed


def needs_of(chain: Chain, layouts: SetLayouts, number: int, tensor: Source) -> list[IntArray]:
    """Per input of a layer that is this tensor, the layouts that its strategies need."""
    layer = chain.problem.layers[number]
    taken = [index for index, source in enumerate(layer.sources) if source == tensor]
    found = [needs for index in taken if (needs := layouts.needs(layer.signature, index)) is not None]
    if any(source == tensor for source, _ in layer.captured):
        # Idle members are counted as if they needed it too, which is at most too much.
        kind = chain.kinds[tensor]
        boxes = np.zeros((1, len(layouts.members), max(1, len(kind.shape)), 2), np.int64)
        boxes[..., 1] = kind.shape or (1,)
        whole = layouts.moves(kind).register(boxes, layouts.members)
        found.append(np.repeat(whole, layouts.layer(layer.signature).space.count))
    return found


def charged(chain: Chain, layouts: SetLayouts, tensor: Source, needs: IntArray) -> FloatArray:
    """Per strategy what part of the move to its layout a layer is charged, as others may share that."""
    takers = dict.fromkeys(chain.consumers.get(tensor, ()))
    every = [needed for taker in takers for needed in needs_of(chain, layouts, taker, tensor)]
    if len(every) < 2:
        return np.ones(len(needs))
    sharing = np.sum([np.isin(needs, needed) for needed in every], axis=0)
    parts: FloatArray = 1.0 / np.maximum(sharing, 1)
    return parts
