"""Performance models against published numbers: ``python -m benchmarks.oracles [--write docs/cost-model.md]``.

Prints the table, or writes it between the markers of a document.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import cnn_accel
from benchmarks.markdown import table, write_between_markers
from mars_onnx.cost import Estimate, OpClass, Workload, performance_model
from mars_onnx.pool import Accelerator, Design
from mars_onnx.pool.model_parameters import SystolicParameters, TiledParameters
from mars_onnx.pool.numbers import Parameters


@dataclass(frozen=True)
class Oracle:
    """A published number and ours.

    Attributes:
        name: What of.
        source: Who published it.
        published: The number.
        ours: What the model says.
        unit: Of both.
        allowed: Relative error that a test allows; 0: exactly.
    """

    name: str
    source: str
    published: float
    ours: float
    unit: str
    allowed: float

    @property
    def error(self) -> float:
        """Relative to the published number."""
        return self.ours / self.published - 1


def estimate(model: str, parameters: Parameters, work: Workload, data_bits: int = 16) -> Estimate:
    """What a design with these parameters takes, on a memory that is never the bound."""
    card = Accelerator(0, "card", "fpga", (), 2**34, 1e16)
    return performance_model(Design("oracle", "oracle", model, parameters, data_bits, "oracle"), card).estimate(work)


def convolution(
    out_channels: int, in_channels: int, out: int, kernel: int, batch: int = 1, stride: int = 1
) -> Workload:
    """A convolution of a square image with a square kernel, of 16-bit words."""
    elements = batch * out_channels * out * out
    return Workload.of(
        (),
        op_class=OpClass.CONV,
        elements=elements,
        macs=elements * in_channels * kernel * kernel,
        dtype_bits=16,
        batch=batch,
        out_channels=out_channels,
        in_channels=in_channels,
        out_spatial=[1, out, out],
        kernel=[1, kernel, kernel],
        strides=[1, stride, stride],
    )


def tiled() -> Iterator[Oracle]:
    """Zhang et al. and Super-LIP."""
    lip = TiledParameters(
        clock_hz=2e8,
        tile_out_channels=8,
        tile_in_channels=32,
        tile_rows=13,
        tile_cols=13,
        halo=False,
        edge_tiles="whole",
        input_words_per_cycle=2.0,
        weight_words_per_cycle=2.0,
        output_words_per_cycle=2.0,
    )
    cycles = float(estimate("tiled", lip, convolution(128, 192, 13, 3, batch=2)).cycles)
    source = "Jiang et al., TECS 2019 (published script)"
    yield Oracle("Super-LIP, B2 M128 N192 13x13 K3, tiles 8,32,13,13", source, 519168, cycles, "cycles", 0)
    # Tiles of rows and columns do not matter to the compute cycles of ragged loops; ports are wide open.
    zhang = TiledParameters(
        clock_hz=1e8,
        tile_out_channels=64,
        tile_in_channels=7,
        tile_rows=13,
        tile_cols=13,
        input_words_per_cycle=1e9,
        weight_words_per_cycle=1e9,
        output_words_per_cycle=1e9,
    )
    layers = ((48, 3, 55, 11, 4), (128, 48, 27, 5, 1), (192, 256, 13, 3, 1), (192, 192, 13, 3, 1), (128, 192, 13, 3, 1))
    published = (366025, 255150, 168831, 127764, 85176)
    for number, (shape, known) in enumerate(zip(layers, published, strict=True), 1):
        filters, channels, out, kernel, stride = shape
        work = convolution(filters, channels, out, kernel, stride=stride)
        cycles = float(estimate("tiled", zhang, work).cycles)
        yield Oracle(f"AlexNet half-group, layer {number}", "Zhang et al., FPGA 2015", known, cycles, "cycles", 0)


#: The five convolutions of AlexNet as SCALE-Sim ships them, without padding: filters, channels, output, kernel, stride.
SCALE_SIM_ALEXNET = (
    (96, 3, 55, 11, 4),
    (256, 96, 23, 5, 1),
    (384, 256, 11, 3, 1),
    (384, 384, 11, 3, 1),
    (256, 384, 11, 3, 1),
)


def systolic_cycles(dataflow: str, rows: int, columns: int, work: Workload) -> float:
    """Cycles of an array of single multipliers."""
    parameters = SystolicParameters.model_validate(
        {
            "clock_hz": 1e9,
            "rows": rows,
            "columns": columns,
            "dataflow": dataflow,
            "input_buffer_bytes": 2**30,
            "weight_buffer_bytes": 2**30,
            "output_buffer_bytes": 2**30,
        }
    )
    return float(estimate("systolic", parameters, work).cycles)


def systolic() -> Iterator[Oracle]:
    """Totals of SCALE-Sim 3.0.0; layer by layer: ``python -m benchmarks.scalesim``."""
    for dataflow, known in (("ws", 139901), ("os", 67567), ("is", 146717)):
        work = [convolution(m, n, out, k, stride=s) for m, n, out, k, s in SCALE_SIM_ALEXNET]
        ours = sum(systolic_cycles(dataflow, 128, 128, layer) for layer in work)
        yield Oracle(f"AlexNet, five convolutions, 128x128, {dataflow}", "SCALE-Sim 3.0.0", known, ours, "cycles", 0)


def pixel_arrays() -> Iterator[Oracle]:
    """The 260 measured convolutions of cnn_accel on each of four designs."""
    data = cnn_accel.measured()
    source = "Chen and Wu, FPGA 2023, measured"
    for design in cnn_accel.DESIGNS:
        known, ours = data.nanoseconds[design], cnn_accel.predicted_ns(data.work, design)
        label = f"cnn_accel {design.upper()}"
        for kind in cnn_accel.CLASSES:
            count = int(data.count[data.layer_class == kind].sum())
            plain = cnn_accel.median(cnn_accel.compute_only_ns(data.work, design) / known, data, kind)
            name = f"{label}, {kind}, median of {count} (compute alone: {plain:.3f})"
            yield Oracle(name, source, 1.0, cnn_accel.median(ours / known, data, kind), "ours / measured", 0.1)
        for network in cnn_accel.NETWORKS:
            chosen = np.where(data.network == network, data.count, 0)
            totals = float(chosen @ known) / 1e6, float(chosen @ ours) / 1e6
            yield Oracle(f"{label}, {network}, all convolutions", source, *totals, "ms", 0.05)


def beside() -> Iterator[Oracle]:
    """Work of cnn_accel beside its array."""
    source = "Chen and Wu, FPGA 2023, measured"
    product = Workload.of((), op_class=OpClass.MATMUL, elements=4096, macs=4096 * 9216, dtype_bits=8, n=4096, k=9216)
    size = 256 * 56 * 56
    addition = Workload.of((), op_class=OpClass.ELEMENTWISE, elements=size, macs=size, dtype_bits=8, output_bytes=size)
    out = 64 * 56 * 56
    pooling = Workload.of(
        (),
        op_class=OpClass.POOL,
        elements=out,
        macs=out * 9,
        dtype_bits=8,
        out_channels=64,
        out_spatial=[1, 56, 56],
        in_spatial=[1, 112, 112],
        kernel=[1, 3, 3],
        strides=[1, 2, 2],
    )
    whole = Workload.of(
        (),
        op_class=OpClass.POOL,
        elements=2048,
        macs=2048 * 49,
        dtype_bits=8,
        out_channels=2048,
        out_spatial=[1, 1, 1],
        in_spatial=[1, 7, 7],
    )
    cases = (
        ("matrix product 1x9216 by 9216x4096", product, (2360356, 2360356, 2360356, 2360356)),
        ("addition of 256x56x56", addition, (50276, 50276, 50276, 50276)),
        ("max pooling 3x3 stride 2, 64x112x112", pooling, (136916, 93844, 79572, 93844)),
        ("global average pooling, 2048x7x7", whole, (100736, 100864, 100992, 100864)),
    )
    for name, work, known in cases:
        for design, nanoseconds in zip(cnn_accel.DESIGNS, known, strict=True):
            ours = float(cnn_accel.predicted_ns(work, design))
            yield Oracle(f"cnn_accel {design.upper()}, {name}", source, nanoseconds / 1e3, ours / 1e3, "us", 0.1)


def oracles() -> list[Oracle]:
    """All of them."""
    return [*tiled(), *systolic(), *pixel_arrays(), *beside()]


def oracle_table() -> str:
    """All of them, as Markdown."""
    rows = []
    for row in oracles():
        error = "exact" if row.ours == row.published else f"{row.error:+.1%}"
        rows.append((row.name, row.source, row.unit, _text(row.published), _text(row.ours), error))
    return table(("oracle", "source", "unit", "published", "ours", "error"), rows, numbers=3)


def _text(value: float) -> str:
    return f"{value:,.0f}" if value >= 1e4 or value == int(value) else f"{value:.4g}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, or write it into a document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.oracles", description="Models against publications.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between the markers of this document")
    options = parser.parse_args(arguments)
    if options.write:
        write_between_markers(options.write, "oracles", oracle_table())
    else:
        print(oracle_table())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
