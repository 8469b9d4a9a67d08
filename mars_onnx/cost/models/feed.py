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
    telescopes to the ends less one step per border: ``Sc``, or ``Sc + Sr I - Sc C`` where the border ends a row. Tiles
    start at addresses that agree modulo ``a = gcd(width, Sc tile, Sr I - Sc C)``; they are taken to be spread evenly
    over what that allows. The last tile, which may be ragged, is counted by itself. The padding above and below is not
    fetched; that at the sides is (on the right of a row lies the next one).
    """
    count, row = nest.pixels, nest.stride_rows * nest.in_cols
    step, turn = nest.stride_cols, row - nest.stride_cols * nest.cols
    above, beside = _padding(nest)
    reach = (nest.reach_rows - 1) * nest.in_cols + nest.reach_cols - 1

    def corner(pixel: IntArray) -> IntArray:
        address: IntArray = row * (pixel // nest.cols) + step * (pixel % nest.cols)
        return address - (above * nest.in_cols + beside)

    # The last tile by itself, since it may be ragged.
    full = ceil_div(count, tile) - 1
    image = nest.in_rows * nest.in_cols - 1
    first = np.clip(corner(full * tile), 0, image)
    last = np.clip(corner(count - 1) + reach, first, image)
    final = last // width - first // width + 1
    # All others together. Borders between two of them that are also ends of rows: a turn instead of a step.
    ends = (full - 1) // (nest.cols // np.gcd(nest.cols, tile))
    spans = corner(full * tile - 1) - corner(np.zeros_like(full)) - (full - 1) * step - ends * turn + full * reach
    edge = np.minimum(full, ceil_div(nest.cols, tile))
    clipped = above * nest.in_cols * (edge + np.minimum(full, np.maximum(edge - 1, 0)))
    span = np.clip((spans - clipped) / np.maximum(full, 1), 0.0, image)
    align = np.gcd(np.gcd(width, step * tile), np.abs(turn))
    phase = -(above * nest.in_cols + beside) % align
    rest = (step * (tile - 1) + reach + phase) % align
    others: FloatArray = full * (1.0 + np.maximum(span + phase - rest, 0.0) / width)
    return np.where(full > 0, others, 0.0) + final


def _padding(nest: Loops) -> tuple[IntArray, IntArray]:
    """Rows above and columns to the left of the image that windows reach for; both sides are taken to be alike."""

    def half(extent: IntArray, step: IntArray, reach: IntArray, given: IntArray) -> IntArray:
        result: IntArray = np.maximum(0, (extent - 1) * step + reach - given + 1) // 2
        return result

    return (
        half(nest.rows, nest.stride_rows, nest.reach_rows, nest.in_rows),
        half(nest.cols, nest.stride_cols, nest.reach_cols, nest.in_cols),
    )
