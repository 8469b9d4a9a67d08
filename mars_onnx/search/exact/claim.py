"""When the tables say all there is to say of a mapping's cost, and what is certain where they do not.

The tables add everything up. The judge counts less in two cases, so that the least sum is an answer, but no bound:

- What does not depend on the tensor at a gate can go on beside the set before the gate: a model input that comes in
  later, and an output that leaves earlier.
- Layers that take one tensor in the same layout, other than the one in which it is there for all, share its move.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from mars_onnx.cost.shares import twin
from mars_onnx.pool.topology import Pool
from mars_onnx.search.exact.build import needs_of
from mars_onnx.search.exact.chain import Chain
from mars_onnx.search.exact.least import least_seconds
from mars_onnx.search.exact.onset import OnSet
from mars_onnx.search.exact.segments import inputs_of
from mars_onnx.search.problem import Problem, Source


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


def moves_shared(chain: Chain, on: OnSet) -> bool:
    """Whether layers on a set may share a move that the tables charge each of them."""
    return any(_shared(chain, on, tensor) for tensor in chain.consumers if tensor in chain.kinds)


def _shared(chain: Chain, on: OnSet, tensor: Source) -> bool:
    takers = list(dict.fromkeys(chain.consumers[tensor]))
    needs = [needed for taker in takers for needed in needs_of(chain, on, taker, tensor)]
    if len(needs) < 2 or len(on.layouts.members) < 2:
        return False
    # Two takers that need the same do as well if the tensor enters in that layout, where it can.
    enters = on.layouts.identity(chain.kinds[tensor])[0] if len(needs) == 2 else np.zeros(0, np.int64)
    return any(
        bool(np.setdiff1d(np.intersect1d(first, second), enters).size) for first, second in combinations(needs, 2)
    )


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
