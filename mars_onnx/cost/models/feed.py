"""The packets that bring a tile's inputs to a pixel-parallel array."""

from __future__ import annotations

import numpy as np

from mars_onnx.cost.models.loops import Loops, ceil_div
from mars_onnx.cost.performance import FloatArray, IntArray


def packets(nest: Loops, tile: int, width: int) -> FloatArray:
    """Packets of ``width`` pixels that all tiles of one image take, for one slice of input channels.

    A tile is ``tile`` consecutive output pixels in row-major order. It fetches whatever lies, row-major, between the
    first and the last input pixel of its windows: pixels that a stride skips and the ends of rows between come along.
    Packets are aligned to their width.

    Summed over tiles without a loop. Let ``g(f) = Sr I (f // C) + Sc (f % C)`` be the address of window f's corner in
    rows of I pixels. First and last window of neighbouring tiles are neighbours, so the sum of ``g(last) - g(first)``
    telescopes to ``g(end)`` less one step per border: ``Sc``, or ``Sc + Sr I - Sc C`` where the border ends a row.
    Tiles start at addresses that agree modulo ``a = gcd(width, Sc tile, Sr I - Sc C)``; they are taken to be spread
    evenly over what that allows. The padding above and below is not fetched; that at the sides is (on the right of a
    row lies the next one).
    """
    count = nest.pixels
    tiles = ceil_div(count, tile)
    step = nest.stride_cols
    turn = nest.stride_rows * nest.in_cols - step * nest.cols
    last = count - 1
    corner = nest.stride_rows * nest.in_cols * (last // nest.cols) + step * (last % nest.cols)
    # Borders of tiles that are also ends of rows.
    ends = (tiles - 1) // (nest.cols // np.gcd(nest.cols, tile))
    reach = (nest.reach_rows - 1) * nest.in_cols + nest.reach_cols - 1
    above, beside = _padding(nest)
    spans = corner - (tiles - 1) * step - ends * turn + tiles * reach
    spans = spans - 2 * above * nest.in_cols * ceil_div(nest.cols, tile)
    span = np.clip(spans / tiles, 0.0, nest.in_rows * nest.in_cols - 1)
    align = np.gcd(np.gcd(width, step * tile), np.abs(turn))
    phase = -(above * nest.in_cols + beside) % align
    rest = (step * (tile - 1) + reach + phase) % align
    several: FloatArray = tiles * (1.0 + np.maximum(span + phase - rest, 0.0) / width)
    single: FloatArray = 1.0 + span // width
    return np.where(tiles == 1, single, several)


def _padding(nest: Loops) -> tuple[IntArray, IntArray]:
    """Rows above and columns to the left of the image that windows reach for; both sides are taken to be alike."""

    def half(extent: IntArray, step: IntArray, reach: IntArray, given: IntArray) -> IntArray:
        result: IntArray = np.maximum(0, (extent - 1) * step + reach - given + 1) // 2
        return result

    return (
        half(nest.rows, nest.stride_rows, nest.reach_rows, nest.in_rows),
        half(nest.cols, nest.stride_cols, nest.reach_cols, nest.in_cols),
    )
