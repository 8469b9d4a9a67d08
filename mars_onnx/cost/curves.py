"""Seconds as a function of bytes: every algorithm of a collective is piecewise linear in the size of what it moves.

A message takes a latency and a time per byte; rounds add up, the slowest transfer ends a round, and of several
algorithms the fastest is taken. So for given proportions of the messages, sums, maxima and minima of linear functions
say it all, for every size.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

Line = tuple[float, float]
"""Value at 0, and slope."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A piecewise linear function of a positive number.

    Attributes:
        starts: Where the pieces start, in ascending order; the first is 0.
        lines: The pieces.
    """

    starts: tuple[float, ...]
    lines: tuple[Line, ...]

    def at(self, size: float) -> float:
        """The value at ``size``, which is greater than 0."""
        base, slope = self._line(size)
        return base + slope * size

    def _line(self, size: float) -> Line:
        return self.lines[bisect_right(self.starts, size) - 1]

    @staticmethod
    def straight(base: float, slope: float) -> Curve:
        """A single line."""
        return Curve((0.0,), ((base, slope),))

    @staticmethod
    def highest(lines: Iterable[Line]) -> Curve:
        """The maximum of lines, of which there is one at least."""
        different = sorted(set(lines))
        return Curve.straight(*different[0]) if len(different) == 1 else _curve(_envelope(different, 0.0, inf, -1.0))

    @staticmethod
    def sum(terms: Sequence[tuple[float, Curve]]) -> Curve:
        """The sum of curves, each so many times."""
        if len(terms) == 1 and terms[0][0] == 1:
            return terms[0][1]
        pieces: list[tuple[float, Line]] = []
        for low in _starts([curve for _, curve in terms]):
            lines = [(times, curve._line(low)) for times, curve in terms]
            base = sum([times * line[0] for times, line in lines])
            pieces.append((low, (base, sum([times * line[1] for times, line in lines]))))
        return _curve(pieces)

    @staticmethod
    def least(curves: Sequence[Curve]) -> Curve:
        """The minimum of curves, of which there is one at least."""
        return _extreme(curves, 1.0)

    @staticmethod
    def most(curves: Sequence[Curve]) -> Curve:
        """The maximum of curves, of which there is one at least."""
        return _extreme(curves, -1.0)


def _curve(pieces: Iterable[tuple[float, Line]]) -> Curve:
    """A curve of pieces, of which those that go on with the line before are left out."""
    starts: list[float] = []
    lines: list[Line] = []
    for start, line in pieces:
        if not lines or lines[-1] != line:
            starts.append(start)
            lines.append(line)
    return Curve(tuple(starts), tuple(lines))


def _intervals(curves: Sequence[Curve]) -> Iterator[tuple[float, float]]:
    """Where all curves are straight."""
    return pairwise([*_starts(curves), inf])


def _starts(curves: Sequence[Curve]) -> list[float]:
    """Where pieces of any of the curves start."""
    return sorted({start for curve in curves for start in curve.starts} or {0.0})


def _extreme(curves: Sequence[Curve], sign: float) -> Curve:
    if len(curves) == 1:
        return curves[0]
    pieces: list[tuple[float, Line]] = []
    for low, high in _intervals(curves):
        pieces += _envelope(sorted({curve._line(low) for curve in curves}), low, high, sign)
    return _curve(pieces)


def _envelope(lines: Sequence[Line], low: float, high: float, sign: float) -> list[tuple[float, Line]]:
    """The minimum of lines between two places; with ``sign`` -1 the maximum."""
    best = min(lines, key=lambda line: (sign * (line[0] + line[1] * low), sign * line[1]))
    pieces = [(low, best)]
    at = low
    while True:
        # Only what falls faster can get below. Lines that meet in one place may seem to have met just before it, and
        # then take over at once; so rounding cannot keep the wrong one for good.
        falling = [line for line in lines if sign * line[1] < sign * best[1]]
        meetings = [(max(at, (best[0] - line[0]) / (line[1] - best[1])), sign * line[1], line) for line in falling]
        place, _, line = min(meetings, default=(inf, 0.0, best))
        if place >= high:
            return pieces
        if place == at:
            pieces.pop()
        pieces.append((place, line))
        at, best = place, line
