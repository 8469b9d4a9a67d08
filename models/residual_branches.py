"""Which normalisations end a residual branch: their scale is drawn small.

A deep network of standardised random filters is chaotic: each rectified layer lets a small difference grow by about a
fifth, a hundredfold over ResNet-50, so that even two orders of summation of the same model visibly disagree. Small
residual branches, as in trained networks and in zero-initialised ones (Goyal et al., "Accurate, large minibatch SGD",
2017, section 5.1), keep rounding errors as small as they are in practice.
"""

from collections.abc import Sequence

import onnx


def branch_ends(nodes: Sequence[onnx.NodeProto]) -> frozenset[str]:
    """Outputs of the BatchNormalization nodes that end a residual branch.

    Of the terms of an addition the deepest is the branch; the others are the skip, which may be a projection with a
    normalisation of its own.

    Args:
        nodes: In topological order.
    """
    depth: dict[str, int] = {}
    normalized: set[str] = set()
    ends: set[str] = set()
    for node in nodes:
        below = max((depth.get(name, 0) for name in node.input), default=0)
        depth.update((name, below + 1) for name in node.output)
        if node.op_type == "BatchNormalization":
            normalized.add(node.output[0])
        if node.op_type in ("Add", "Sum"):
            terms = [name for name in node.input if name in depth]
            deepest = max(terms, key=lambda name: depth[name], default="")
            if len(terms) > 1 and deepest in normalized:
                ends.add(deepest)
    return frozenset(ends)
