"""Tiled loops with double buffering: the accelerators of Zhang et al. (FPGA 2015) and Super-LIP (TECS 2019)."""

from __future__ import annotations

from itertools import product
from typing import ClassVar

import numpy as np

from mars_onnx.cost.models.engine import ArrayTime, Engine
from mars_onnx.cost.models.loops import Loops, ceil_div
from mars_onnx.cost.performance import FloatArray, IntArray
from mars_onnx.pool import Accelerator, Design, Parameters
from mars_onnx.pool.model_parameters import TiledParameters


class TiledLoops(Engine):
    """Tm x Tn multipliers; loops over tiles of rows, columns, output and input channels; three ports.

    Per tile of ``r x c`` pixels, ``m`` output and ``n`` input channels, in cycles (Super-LIP, section 4; Zhang et al.,
    section 4.2):

    - ``tComp = K^2 r c`` (Tm and Tn are unrolled, so channels beyond the tensor's idle),
    - ``tI = n i / Ip``, where ``i`` is ``r c``, or with ``halo`` the ``((r - 1) S + K) ((c - 1) S + K)`` that it reads,
    - ``tW = m n K^2 / Wp``, ``tO = m r c / Op``,
    - ``Lat1 = max(tI, tW, tComp)``, ``Lat2 = max(sum of Lat1 over tiles of input channels, tO)``,

    and the sum of Lat2 over tiles of output channels, rows, columns, images and groups. With ``edge_tiles`` "whole"
    every tile has Tr x Tc pixels and Tm, Tn channels, and this is Super-LIP's product of ceilings.

    The m rows of a matrix are laid out as an image of width Tc.
    """

    Parameters: ClassVar[type[Parameters]] = TiledParameters

    def __init__(self, design: Design, accelerator: Accelerator) -> None:
        """Prepare for a design on an accelerator."""
        super().__init__(design, accelerator)
        if not isinstance(design.parameters, TiledParameters):
            raise TypeError("TiledLoops takes TiledParameters")
        self._parameters = design.parameters

    def array(self, nest: Loops, bytes_per_word: FloatArray) -> ArrayTime:
        """Cycles, traffic and buffers; see the class."""
        own = self._parameters
        cols = np.where(nest.matrix, np.minimum(nest.cols, own.tile_cols), nest.cols)
        rows = np.where(nest.matrix, ceil_div(nest.cols, own.tile_cols), nest.rows)
        whole = own.edge_tiles == "whole"
        compute = words = cycles = np.zeros(nest.rows.shape, np.float64)
        parts = (
            _tiles(rows, own.tile_rows, whole),
            _tiles(cols, own.tile_cols, whole),
            _tiles(nest.out_channels, own.tile_out_channels, whole),
        )
        for (tiles_r, r), (tiles_c, c), (tiles_m, m) in product(*parts):
            count = tiles_r * tiles_c * tiles_m
            t_comp = nest.taps * r * c
            image = r * c
            if own.halo:
                image = ((r - 1) * nest.stride_rows + nest.reach_rows) * ((c - 1) * nest.stride_cols + nest.reach_cols)
            t_out = m * r * c / own.output_words_per_cycle
            steps = fetched = computed = np.zeros(nest.rows.shape)
            for tiles_n, n in _tiles(nest.in_channels, own.tile_in_channels, whole):
                t_in, t_weight = n * image / own.input_words_per_cycle, m * n * nest.taps / own.weight_words_per_cycle
                steps = steps + tiles_n * np.maximum(np.maximum(t_in, t_weight), t_comp)
                fetched = fetched + tiles_n * (n * image + m * n * nest.taps)
                computed = computed + tiles_n * t_comp
            cycles = cycles + count * np.maximum(steps, t_out)
            compute = compute + count * computed
            words = words + count * (fetched + m * r * c)
        repeats = nest.passes * nest.batch
        return ArrayTime(
            repeats * compute, repeats * cycles, repeats * words * bytes_per_word, self._buffers(nest) * bytes_per_word
        )

    def _buffers(self, nest: Loops) -> FloatArray:
        """Words of the three buffers, twice each."""
        own = self._parameters
        tile_in = ((own.tile_rows - 1) * nest.stride_rows + nest.reach_rows) * (
            (own.tile_cols - 1) * nest.stride_cols + nest.reach_cols
        )
        out = own.tile_out_channels * own.tile_rows * own.tile_cols
        weights = own.tile_out_channels * own.tile_in_channels * nest.taps
        words = 2 * (own.tile_in_channels * tile_in + weights + out)
        return words.astype(np.float64)


def _tiles(extent: IntArray, tile: int, whole: bool) -> tuple[tuple[IntArray, IntArray], ...]:
    """Kinds of tiles along a loop: how many there are, and their extent (at least 1, for those that are none)."""
    if whole:
        return ((ceil_div(extent, tile), np.full_like(extent, tile)),)
    rest = extent % tile
    return (extent // tile, np.full_like(extent, tile)), ((rest > 0).astype(np.int64), np.maximum(rest, 1))
