"""Counts parameters and multiply-accumulate operations of a skeleton."""

import math

from .graph_writer import Skeleton


def parameter_count(skeleton: Skeleton) -> int:
    """Trainable parameters: all weight elements but the stored statistics of batch normalisation."""
    statistics = {
        name for node in skeleton.model.graph.node if node.op_type == "BatchNormalization" for name in node.input[3:5]
    }
    return sum(math.prod(shape) for name, shape in skeleton.weights.items() if name not in statistics)


def mac_count(skeleton: Skeleton) -> int:
    """Multiply-accumulate operations of all Conv, Gemm and MatMul nodes."""
    shapes = skeleton.infer_shapes()
    total = 0
    for node in skeleton.model.graph.node:
        if node.op_type == "Conv":
            total += math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type in ("Gemm", "MatMul"):
            total += math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return total
