"""Draws the weights of a skeleton: seeded, variance-preserving, free of data.

Filters and matrices are scaled weight-standardised (Brock, De, Smith, "Characterizing signal propagation to
close the performance gap in unnormalized ResNets", 2021): each filter sums to zero and is scaled so that
its output has variance one for the variance that ``signal_moments`` predicts for its input. Zero sums keep
the common mean of rectified activations from growing until all inputs look alike. Biases are small but not
zero and normalisation statistics differ from channel to channel, so that a wrong one shows in the output.
Residual branches are small (see ``residual_branches``).

Each weight has a random stream of its own, keyed by seed, graph and weight name. Scales are rounded far above
floating-point error, so that the bytes do not depend on how a processor orders a sum.
"""

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from . import signal_moments as moments
from .graph_writer import Shape, Skeleton
from .residual_branches import branch_ends
from .signal_moments import Moments

Array = npt.NDArray[np.float32]

_BIAS = Moments(0.0, 0.01)
_SCALE = Moments(1.0, 0.02)
_SCALE_RANGE = (0.75, 1.25)
_BRANCH_SCALE = Moments(0.2, 0.0012)
_BRANCH_SCALE_RANGE = (0.14, 0.26)
_VARIANCE_RANGE = (0.5, 1.5)
_MEAN_OF_INVERSE_VARIANCE = math.log(3.0)


def fill(skeleton: Skeleton, seed: int) -> onnx.ModelProto:
    """Complete the model of ``skeleton`` in place and return it, with all weights as initializers.

    Equal skeletons and seeds give equal bytes. A weight does not depend on the batch size.

    Raises:
        ValueError: An operator has no rule, or a weight is not used: a mistake in an architecture.
    """
    return _Filler(skeleton, seed).run()


def _rounded(value: float) -> float:
    """Round to three significant digits."""
    return float(f"{value:.3g}")


class _Filler:
    """One walk over the nodes: assigns weights by operand, predicts the moments of each tensor."""

    def __init__(self, skeleton: Skeleton, seed: int) -> None:
        self._model = skeleton.model
        self._weights = skeleton.weights
        self._shapes = skeleton.infer_shapes()
        self._seed = seed
        self._values: dict[str, onnx.TensorProto] = {}
        self._alias: dict[str, str] = {}
        self._branch_ends = branch_ends(self._model.graph.node)
        self._moments = {value.name: Moments(0.0, 1.0) for value in self._model.graph.input}
        for tensor in self._model.graph.initializer:
            constant = numpy_helper.to_array(tensor).astype(np.float64)
            self._moments[tensor.name] = Moments(float(constant.mean()), float(constant.var()))

    def run(self) -> onnx.ModelProto:
        for node in self._model.graph.node:
            weight = self._weight_of(node.input[0])
            if weight is not None and node.op_type in ("Reshape", "Unsqueeze"):
                self._alias[node.output[0]] = weight
                continue
            rule = _RULES.get(node.op_type)
            if rule is None:
                raise ValueError(f"random weights: no rule for operator {node.op_type} (node {node.name!r})")
            self._moments[node.output[0]] = rule(self, node)
        missing = [name for name in self._weights if name not in self._values]
        if missing:
            raise ValueError(f"random weights: no operator uses {', '.join(missing)}")
        self._model.graph.initializer.extend(self._values[name] for name in self._weights)
        return self._model

    # Rules, one per kind of operator.

    def filtered(self, node: onnx.NodeProto) -> Moments:
        """Conv, Gemm, and MatMul with a weight on its right."""
        x = self._of(node.input[0])
        if self._weight_of(node.input[1]) is None:
            return moments.contract(x, self._of(node.input[1]), self._shapes[node.input[0]][-1])
        shape = self._shapes[node.input[1]]
        if node.op_type == "MatMul" or (node.op_type == "Gemm" and not _attribute(node, "transB", 0)):
            self._matrix(node.input[1], shape[1], shape[0], x, transposed=True)
        else:
            self._matrix(node.input[1], shape[0], math.prod(shape[1:]), x, depthwise=shape[1] == 1)
        result = Moments(0.0, 1.0)
        return moments.add(result, self._bias(node.input[2])) if len(node.input) > 2 else result

    def batch_normalized(self, node: onnx.NodeProto) -> Moments:
        """BatchNormalization: stored statistics scatter around the predicted ones."""
        x = self._of(node.input[0])
        ends_branch = node.output[0] in self._branch_ends
        gain = self._branch_scale(node.input[1]) if ends_branch else self._scale(node.input[1])
        shift = self._bias(node.input[2])
        mean, variance = _rounded(x.mean), _rounded(x.variance)
        spread = _rounded(0.1 * x.deviation)
        self._draw(node.input[3], lambda rng, shape: mean + spread * rng.standard_normal(shape, np.float32))
        self._draw(node.input[4], lambda rng, shape: variance * rng.uniform(*_VARIANCE_RANGE, shape))
        return moments.add(moments.multiply(Moments(0.0, _MEAN_OF_INVERSE_VARIANCE), gain), shift)

    def layer_normalized(self, node: onnx.NodeProto) -> Moments:
        """LayerNormalization."""
        gain, shift = self._scale(node.input[1]), self._bias(node.input[2])
        return moments.add(moments.multiply(Moments(0.0, 1.0), gain), shift)

    def added(self, node: onnx.NodeProto) -> Moments:
        """Add and Sum, of activations or of a bias."""
        return moments.add(*(self._bias(name) for name in node.input))

    def multiplied(self, node: onnx.NodeProto) -> Moments:
        """Mul, of activations or with a scale."""
        return moments.multiply(self._scale(node.input[0]), self._scale(node.input[1]))

    def divided(self, node: onnx.NodeProto) -> Moments:
        """Div by a constant."""
        x, divisor = self._of(node.input[0]), self._of(node.input[1]).mean
        return Moments(x.mean / divisor, x.variance / divisor**2)

    def concatenated(self, node: onnx.NodeProto) -> Moments:
        """Concat."""
        return moments.concatenate([(math.prod(self._shapes[name]), self._of(name)) for name in node.input])

    def pooled(self, node: onnx.NodeProto) -> Moments:
        """MaxPool, AveragePool and GlobalAveragePool."""
        x = self._of(node.input[0])
        map_size = math.prod(self._shapes[node.input[0]][2:])
        window = math.prod(_attribute(node, "kernel_shape", [map_size]))
        if node.op_type == "MaxPool":
            return moments.max_pool(x, window)
        return moments.average_pool(x, window, map_size)

    def response_normalized(self, node: onnx.NodeProto) -> Moments:
        """LRN."""
        bias, beta = _attribute(node, "bias", 1.0), _attribute(node, "beta", 0.75)
        return moments.response_norm(self._of(node.input[0]), bias, beta)

    def softmaxed(self, node: onnx.NodeProto) -> Moments:
        """Softmax over the last axis, or over all but the first where an old opset flattens."""
        shape = self._shapes[node.input[0]]
        classes = shape[-1] if _attribute(node, "axis", 1) == -1 else math.prod(shape[1:])
        return moments.softmax(self._of(node.input[0]), classes)

    def passed(self, node: onnx.NodeProto) -> Moments:
        """Operators that only move elements."""
        return self._of(node.input[0])

    def mapped(self, node: onnx.NodeProto) -> Moments:
        """Elementwise functions."""
        return _FUNCTIONS[node.op_type](self._of(node.input[0]))

    # Weights.

    def _of(self, name: str) -> Moments:
        return self._moments[name]

    def _weight_of(self, name: str) -> str | None:
        return name if name in self._weights else self._alias.get(name)

    def _bias(self, name: str) -> Moments:
        return self._vector(name, _BIAS, lambda rng, shape: 0.1 * rng.standard_normal(shape, np.float32))

    def _scale(self, name: str) -> Moments:
        return self._vector(name, _SCALE, lambda rng, shape: rng.uniform(*_SCALE_RANGE, shape))

    def _branch_scale(self, name: str) -> Moments:
        return self._vector(name, _BRANCH_SCALE, lambda rng, shape: rng.uniform(*_BRANCH_SCALE_RANGE, shape))

    def _vector(
        self,
        name: str,
        nominal: Moments,
        draw: Callable[[np.random.Generator, Shape], npt.NDArray[np.floating]],
    ) -> Moments:
        """Draw ``name`` if it is a weight; return its moments, drawn or predicted."""
        if self._weight_of(name) is None:
            return self._of(name)
        self._draw(name, draw)
        return nominal

    def _matrix(
        self,
        name: str,
        rows: int,
        fan_in: int,
        x: Moments,
        *,
        transposed: bool = False,
        depthwise: bool = False,
    ) -> None:
        """Draw ``rows`` filters of ``fan_in``, each with zero sum unless it sees one channel only."""

        def draw(rng: np.random.Generator, shape: Shape) -> npt.NDArray[np.floating]:
            values = rng.standard_normal((rows, fan_in), np.float32)
            if not depthwise:
                means = values.mean(axis=1, keepdims=True, dtype=np.float64)
                values -= (np.round(means * 2**20) / 2**20).astype(np.float32)
            values *= np.float32(_rounded(1 / math.sqrt(fan_in * (x.power if depthwise else x.variance))))
            return (values.T if transposed else values).reshape(shape)

        self._draw(name, draw)

    def _draw(self, name: str, draw: Callable[[np.random.Generator, Shape], npt.NDArray[np.floating]]) -> None:
        weight = self._weight_of(name)
        if weight is None or weight in self._values:
            return
        key = zlib.crc32(f"{self._model.graph.name}/{weight}".encode())
        rng = np.random.Generator(np.random.PCG64([self._seed, key]))
        values = np.ascontiguousarray(draw(rng, self._weights[weight]), dtype=np.float32)
        self._values[weight] = numpy_helper.from_array(values, weight)


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Value of attribute ``name`` of ``node``."""
    found = (helper.get_attribute_value(item) for item in node.attribute if item.name == name)
    return next(found, default)


_FUNCTIONS: dict[str, Callable[[Moments], Moments]] = {
    "Relu": moments.relu,
    "Gelu": moments.gelu,
    "Erf": moments.erf,
    "Sigmoid": moments.sigmoid,
}

_RULES: dict[str, Callable[[_Filler, onnx.NodeProto], Moments]] = {
    **dict.fromkeys(("Conv", "Gemm", "MatMul"), _Filler.filtered),
    **dict.fromkeys(("Add", "Sum"), _Filler.added),
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalAveragePool"), _Filler.pooled),
    **dict.fromkeys(("Reshape", "Transpose", "Flatten", "Dropout"), _Filler.passed),
    **dict.fromkeys(_FUNCTIONS, _Filler.mapped),
    "BatchNormalization": _Filler.batch_normalized,
    "LayerNormalization": _Filler.layer_normalized,
    "LRN": _Filler.response_normalized,
    "Mul": _Filler.multiplied,
    "Div": _Filler.divided,
    "Concat": _Filler.concatenated,
    "Softmax": _Filler.softmaxed,
}
