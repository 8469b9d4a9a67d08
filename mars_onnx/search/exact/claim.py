"""When the tables say all there is to say of a mapping's cost, and what is certain where they do not.

The tables add everything up. What does not depend on the tensor at a gate can go on beside the set before the gate: a
model input that comes in later, and an output that leaves earlier. Then the least sum is an answer, but no bound.
"""

from __future__ import annotations

from mars_onnx.cost.shares import twin
from mars_onnx.pool.topology import Pool
from mars_onnx.search.exact.chain import Chain
from mars_onnx.search.exact.least import least_seconds
from mars_onnx.search.exact.segments import inputs_of
from mars_onnx.search.problem import Problem


def sets_overlap(chain: Chain) -> bool:
    """Whether two sets may be at work at the same time, were a set to take over at some gate."""
    if len(chain.segments) < 2:
        return False
    first, last = chain.segments[0].layers, chain.segments[-1].layers
    late = any(
        not inputs_of(layer) or any(source.layer is None for source in inputs_of(layer))
        for layer in chain.problem.layers[len(first) :]
    )
    early = any(source.layer is not None and source.layer < last[0] for source in chain.outputs)
    return late or early


def certain_seconds(problem: Problem, pool: Pool, latency: bool) -> float:
    """What no mapping can be below: the work, evenly on all accelerators.

    Args:
        problem: The layers.
        pool: The accelerators.
        latency: Of one inference, and not between two: then also the longest path, with every layer on its best set.
    """
    ranks = {twin(pool, rank) for rank in range(pool.size)}
    kinds = frozenset((rank, design.name) for rank in ranks for design in pool.accelerators[rank].designs)
    work = 0.0
    ready: list[float] = []
    for layer in problem.layers:
        least = [least_seconds(pool, layer.signature, kinds, size) for size in range(1, pool.size + 1)]
        work += min(seconds * size for size, seconds in enumerate(least, 1))
        before = max((ready[source.layer] for source in inputs_of(layer) if source.layer is not None), default=0.0)
        ready.append(before + min(least))
    return max([work / pool.size, *(ready if latency else [])])
