"""From ranges of axes to the share of every member: cutting an axis, and evaluating a rule's maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from mars_onnx.geometry import Box, Range
from mars_onnx.rules.axes import Axis, IntArray, Ranges
from mars_onnx.rules.base import Dims, OpRule, Share


def cut(axis: Axis, shares: Sequence[int]) -> list[Range]:
    """Consecutive ranges that together are the whole axis, in proportion to integer shares.

    Cuts fall on multiples of the granularity. Where there are fewer granules than shares, and the axis allows it, every
    granule is cut inside among an equal number of consecutive shares; else some ranges are empty.

    Args:
        axis: What to cut.
        shares: One weight per range, none negative and not all 0. Equal ones give ranges that differ by one granule at
            most, the longer ones first.
    """
    if not shares or min(shares) < 0 or sum(shares) == 0:
        raise ValueError(f"cannot cut {axis.name} in the proportions {list(shares)}")
    granules = -(-axis.size // axis.granularity)
    if axis.divisible and 0 < granules < len(shares) and len(shares) % granules == 0:
        per_granule = len(shares) // granules
        groups = [shares[i * per_granule : (i + 1) * per_granule] for i in range(granules)]
        if all(map(sum, groups)):
            ranges: list[Range] = []
            for granule, group in enumerate(groups):
                start = granule * axis.granularity
                bounds = _bounds(min(axis.granularity, axis.size - start), group)
                ranges += [(start + low, start + high) for low, high in pairwise(bounds)]
            return ranges
    edges = [min(bound * axis.granularity, axis.size) for bound in _bounds(granules, shares)]
    return list(pairwise(edges))


def cut_equally(axis: Axis, sizes: IntArray, parts: IntArray, part: IntArray) -> tuple[IntArray, IntArray]:
    """The same as :func:`cut` for equal shares, of many axes at once that differ in size only.

    Args:
        axis: What to cut.
        sizes: Of each.
        parts: Into how many.
        part: Which of these is asked for.

    Returns:
        Starts and stops; all arrays broadcast together.
    """
    granules = -(-sizes // axis.granularity)
    low, high = (np.minimum(edge * axis.granularity, sizes) for edge in _piece(granules, parts, part))
    if not axis.divisible:
        return low, high
    inside = (granules > 0) & (granules < parts) & (parts % np.maximum(granules, 1) == 0)
    if not inside.any():
        return low, high
    per_granule = np.maximum(parts // np.maximum(granules, 1), 1)
    granule, place = np.divmod(part, per_granule)
    start = granule * axis.granularity
    first, last = _piece(np.minimum(axis.granularity, sizes - start), per_granule, place)
    return np.where(inside, start + first, low), np.where(inside, start + last, high)


def _piece(size: IntArray, parts: IntArray, part: IntArray) -> tuple[IntArray, IntArray]:
    """Start and stop of one of some equal parts, the longer ones first."""
    each, rest = np.divmod(size, parts)
    return part * each + np.minimum(part, rest), (part + 1) * each + np.minimum(part + 1, rest)


def _bounds(size: int, shares: Sequence[int]) -> list[int]:
    """Where to cut ``size`` units: one bound more than there are shares."""
    if len(set(shares)) == 1:
        each, rest = divmod(size, len(shares))
        return [i * each + min(i, rest) for i in range(len(shares) + 1)]
    total = sum(shares)
    return [0, *((2 * size * upto + total) // (2 * total) for upto in accumulate(shares))]


def boxes(dims: Dims, ranges: Ranges, shape: tuple[int, ...] = ()) -> list[Box | None]:
    """The boxes of one tensor for many members at once.

    Args:
        dims: The tensor's maps.
        ranges: All axes of the rule, each a pair of arrays that broadcast to ``shape``.
        shape: Shape of the arrays; the answer is flat, in C order.

    Returns:
        Per member its box; ``None`` where a member has no iterations at all (any axis empty) or touches nothing.
    """
    return _boxes(dims, ranges, _nothing(ranges, shape))


def _nothing(ranges: Ranges, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Who has no iterations at all."""
    nothing = np.zeros(shape, dtype=np.bool_)
    for low, high in ranges.values():
        nothing |= low >= high
    return nothing


def _boxes(dims: Dims, ranges: Ranges, nothing: npt.NDArray[np.bool_]) -> list[Box | None]:
    if not dims:
        return [None if flag else () for flag in nothing.reshape(-1).tolist()]
    edges = np.empty((*nothing.shape, len(dims), 2), np.int64)
    for place, dim in enumerate(dims):
        edges[..., place, 0], edges[..., place, 1] = dim(ranges)
    empty = nothing | (edges[..., 0] >= edges[..., 1]).any(axis=-1)
    rows = edges.reshape(-1, len(dims), 2).tolist()
    return [
        None if flag else tuple([(low, high) for low, high in row])
        for flag, row in zip(empty.reshape(-1).tolist(), rows, strict=True)
    ]


def shares_of(rule: OpRule, ranges: Sequence[Mapping[str, Range]]) -> list[Share]:
    """The shares of many members at once; members with equal ranges get one and the same.

    What counts once (a bias) counts in the shares that hold the start of every reduction axis.

    Args:
        rule: Rule of the node.
        ranges: Per member and axis of the rule its range.
    """
    names = [axis.name for axis in rule.axes]
    reductions = [axis.name for axis in rule.axes if axis.reduction]
    keys = [tuple(own[name] for name in names) for own in ranges]
    distinct = list(dict.fromkeys(keys))
    bounds = np.asarray(distinct, np.int64).reshape(len(distinct), len(names), 2)
    arrays = {name: (bounds[:, place, 0], bounds[:, place, 1]) for place, name in enumerate(names)}
    nothing = _nothing(arrays, (len(distinct),))
    nowhere: list[Box | None] = [None] * len(distinct)
    # Operands of which a share touches the same, such as those of an Add.
    touched = {
        dims: nowhere if dims is None else _boxes(dims, arrays, nothing)
        for dims in dict.fromkeys((*rule.inputs, *rule.outputs))
    }
    inputs, outputs = ([touched[dims] for dims in every] for every in (rule.inputs, rule.outputs))
    shares: dict[tuple[Range, ...], Share] = {}
    for place, key in enumerate(distinct):
        own = dict(zip(names, key, strict=True))
        shares[key] = Share(
            own,
            tuple(column[place] for column in inputs),
            tuple(column[place] for column in outputs),
            all(own[name][0] == 0 for name in reductions),
        )
    return [shares[key] for key in keys]


def share_text(ranges: Mapping[str, Range]) -> str:
    """Ranges of axes for metadata: ``Cout=0:32,H=0:14``; ``whole`` for a node without axes."""
    return ",".join(f"{axis}={low}:{high}" for axis, (low, high) in ranges.items()) or "whole"


def parse_share(text: str) -> dict[str, Range]:
    """The inverse of :func:`share_text`.

    Raises:
        ValueError: The text does not look like ranges.
    """
    ranges: dict[str, Range] = {}
    for entry in text.split(",") if text != "whole" else ():
        axis, _, bounds = entry.partition("=")
        low, _, high = bounds.partition(":")
        ranges[axis] = (int(low), int(high))
    return ranges
