"""What of memory suffices for all mappings: where there is as much, nobody has to look at what one needs."""

from __future__ import annotations

from itertools import accumulate
from math import prod

from mars_onnx.pool.topology import Pool
from mars_onnx.rules.base import TensorType
from mars_onnx.search.exact.chain.segments import consumers_of
from mars_onnx.search.problem import Problem, Source

#: What partitions hold beside tensors and weights: constants of slices, tokens.
_MARGIN = 1.125
_CONSTANTS_BYTES = 4096
#: A tensor is there as it was made, and as it has entered a set, besides as each of its takers needs it.
_VERSIONS = 2
#: Pieces of a tensor that is moved, in steps along its dimensions, put together and cut in the end.
_PIECES = 6


def enough_bytes(problem: Problem, pool: Pool) -> float:
    """What an accelerator needs at most, whatever the mapping: all weights, and all of every tensor while it is there.

    Of a tensor that is moved there may be pieces as well, of partial sums one for every member.
    """
    takers = consumers_of(problem)
    count, outputs = len(problem.layers), set(problem.outputs)
    change = [0.0] * (count + 1)
    touched = [0.0] * count
    weights = 0.0
    seen: set[Source] = set()

    def note(source: Source, kind: TensorType, number: int) -> None:
        size = prod(kind.shape) * kind.dtype.bitwidth / 8
        touched[number] += size
        if source not in seen:
            seen.add(source)
            taken = takers.get(source, ())
            versions = size * (_VERSIONS + len(taken))
            change[number if source.layer is not None else 0] += versions
            change[count if source in outputs else max((number, *taken)) + 1] -= versions

    for number, layer in enumerate(problem.layers):
        for index, kind in enumerate(layer.signature.inputs):
            source = layer.sources[index] if index < len(layer.sources) else None
            if kind is not None and source is None:
                weights += prod(kind.shape) * kind.dtype.bitwidth / 8
            elif kind is not None and source is not None:
                note(source, kind, number)
        for source, kind in layer.captured:
            note(source, kind, number)
        for index, made in enumerate(layer.signature.outputs):
            if made is not None:
                note(Source(number, index), made, number)
    pieces = _PIECES + pool.size
    most = max((alive + pieces * own for alive, own in zip(accumulate(change), touched, strict=False)), default=0.0)
    return _MARGIN * (weights + most) + _CONSTANTS_BYTES
