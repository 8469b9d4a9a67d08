"""Predicts mean and variance of the activations of a network with random weights, without running it.

Each rule takes the moments of the inputs of an operator, treated as independent and close to Gaussian, and
gives those of its output. The predictions need to be right within a factor of about two: they set the scale
of the next weights (``random_weights.py``), so that an error does not accumulate along the depth of the
network.
"""

import math
from dataclasses import dataclass

# The part of the variance that averaging does not remove, because activations are alike: neighbours much, a
# whole feature map little. Both, and the gain of maximum pooling, were measured on these networks.
_NEIGHBOUR_CORRELATION = 0.6
_MAP_CORRELATION = 0.15
_MAX_POOL_GAIN = 1.45


@dataclass(frozen=True)
class Moments:
    """Mean and variance over all elements of a tensor."""

    mean: float
    variance: float

    @property
    def deviation(self) -> float:
        """Standard deviation."""
        return math.sqrt(self.variance)

    @property
    def power(self) -> float:
        """Mean of the squares."""
        return self.mean**2 + self.variance


def add(*terms: Moments) -> Moments:
    """Moments of a sum."""
    return Moments(sum(t.mean for t in terms), sum(t.variance for t in terms))


def multiply(a: Moments, b: Moments) -> Moments:
    """Moments of a product."""
    mean = a.mean * b.mean
    return Moments(mean, a.power * b.power - mean**2)


def contract(a: Moments, b: Moments, length: int) -> Moments:
    """Moments of a matrix product over ``length`` terms."""
    term = multiply(a, b)
    return Moments(length * term.mean, length * term.variance)


def concatenate(parts: list[tuple[int, Moments]]) -> Moments:
    """Moments of a concatenation of (element count, moments)."""
    total = sum(count for count, _ in parts)
    mean = sum(count * m.mean for count, m in parts) / total
    return Moments(mean, sum(count * m.power for count, m in parts) / total - mean**2)


def relu(x: Moments) -> Moments:
    """Moments of the rectified Gaussian."""
    ratio = x.mean / x.deviation
    below = 0.5 * (1 + math.erf(ratio / math.sqrt(2)))
    density = x.deviation * math.exp(-0.5 * ratio**2) / math.sqrt(2 * math.pi)
    mean = x.mean * below + density
    return Moments(mean, x.power * below + x.mean * density - mean**2)


def gelu(x: Moments) -> Moments:
    """Moments of x * Phi(x), by its parts, so that Gelu and its decomposition lead to the same weights."""
    gate = erf(Moments(0.0, x.variance / 2))
    return multiply(multiply(x, add(gate, Moments(1.0, 0.0))), Moments(0.5, 0.0))


def erf(x: Moments) -> Moments:
    """Moments of the error function of a Gaussian of mean zero."""
    return Moments(0.0, 2 / math.pi * math.asin(2 * x.variance / (1 + 2 * x.variance)))


def sigmoid(x: Moments) -> Moments:
    """Moments of the logistic function, by its slope and the probit approximation."""
    mean = 1 / (1 + math.exp(-x.mean / math.sqrt(1 + math.pi * x.variance / 8)))
    return Moments(mean, 0.0625 * x.variance / (1 + 0.4 * x.variance))


def softmax(x: Moments, classes: int) -> Moments:
    """Moments of a softmax over ``classes`` Gaussian logits."""
    return Moments(1 / classes, math.expm1(min(x.variance, 4.0)) / classes**2)


def max_pool(x: Moments, window: int) -> Moments:
    """Moments of the maximum of ``window`` neighbours, rectified before: mean and variance rise."""
    return Moments(x.mean + x.deviation * math.sqrt(math.log(window) / 2), _MAX_POOL_GAIN * x.variance)


def average_pool(x: Moments, window: int, map_size: int) -> Moments:
    """Moments of the average of ``window`` neighbours out of the ``map_size`` elements of a feature map."""
    correlation = _NEIGHBOUR_CORRELATION if window < map_size else _MAP_CORRELATION
    return Moments(x.mean, x.variance * (correlation + (1 - correlation) / window))


def response_norm(x: Moments, bias: float, beta: float) -> Moments:
    """Moments after local response normalisation whose divisor is about ``bias ** beta``."""
    return Moments(x.mean / bias**beta, x.variance / bias ** (2 * beta))
