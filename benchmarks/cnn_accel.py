"""The convolutions that Chen and Wu measured on FPGAs (FPGA 2023, doi 10.1145/3543622.3573131), as workloads."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mars_onnx.cost import OpClass, Workload, performance_model
from mars_onnx.data import data_folder
from mars_onnx.pool import Accelerator, load_design

FILE = Path(__file__).parent / "data" / "cnn_accel_convolutions.csv"
DESIGNS = ("m32p32", "m32p64", "m32p96", "m64p64")
#: The networks whose totals are held against the model, and the classes of layers, in the order of the table.
NETWORKS = ("alexnet", "vgg16", "resnet34")
CLASSES = ("3x3 stride 1", "3x3 stride 2", "1x1 stride 1", "1x1 stride 2", "first 7x7", "first 3x3")


@dataclass(frozen=True)
class Measured:
    """All measured convolutions; arrays with an entry per row of the file.

    Attributes:
        network: Its name.
        layer_class: What kind of convolution.
        count: Equal ones in the network.
        work: The convolutions.
        nanoseconds: Measured, per design.
    """

    network: npt.NDArray[np.str_]
    layer_class: npt.NDArray[np.str_]
    count: npt.NDArray[np.int64]
    work: Workload
    nanoseconds: dict[str, npt.NDArray[np.float64]]


def measured() -> Measured:
    """Read the file."""
    with FILE.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))

    def column(name: str) -> npt.NDArray[np.int64]:
        return np.array([int(row[name]) for row in rows], np.int64)

    channels, given, kernel, stride = column("in_channels"), column("input"), column("kernel"), column("stride")
    out, filters = column("output"), column("out_channels")
    one = np.ones(len(rows), np.int64)
    elements = filters * out * out
    work = Workload.of(
        (len(rows),),
        op_class=OpClass.CONV,
        elements=elements,
        macs=elements * channels * kernel * kernel,
        dtype_bits=8,
        input_bytes=channels * given * given,
        weight_bytes=filters * channels * kernel * kernel,
        output_bytes=elements,
        out_channels=filters,
        in_channels=channels,
        out_spatial=np.stack([one, out, out], axis=-1),
        in_spatial=np.stack([one, given, given], axis=-1),
        kernel=np.stack([one, kernel, kernel], axis=-1),
        strides=np.stack([one, stride, stride], axis=-1),
    )
    kinds = [
        f"first {k}x{k}" if c == 3 else f"{k}x{k} stride {s}" for c, k, s in zip(channels, kernel, stride, strict=True)
    ]
    return Measured(
        np.array([row["network"] for row in rows]),
        np.array(kinds),
        column("count"),
        work,
        {design: column(f"{design}_ns").astype(np.float64) for design in DESIGNS},
    )


def predicted_ns(work: Workload, design: str) -> npt.NDArray[np.float64]:
    """What the shipped design says."""
    found = load_design(data_folder("hwdb") / "designs" / f"cnn_accel_{design}.json")
    card = Accelerator(0, "card", "fpga", (found,), 2**34, 1.92e10)
    return performance_model(found, card).estimate(work).total_s * 1e9


def compute_only_ns(work: Workload, design: str) -> npt.NDArray[np.float64]:
    """The published formula without a feed: ``ceil(M / O) ceil(pixels / P) K^2 N`` cycles of 400 MHz."""
    parallel_channels, pixels = (int(part) for part in design[1:].split("p"))
    size = work.out_spatial.prod(axis=-1)
    sweeps = -(-work.out_channels // parallel_channels) * -(-size // pixels)
    nanoseconds: npt.NDArray[np.float64] = sweeps * work.kernel.prod(axis=-1) * work.in_channels * 2.5
    return nanoseconds


def median(ratio: npt.NDArray[np.float64], data: Measured, layer_class: str) -> float:
    """Median over the measured convolutions of a class, equal ones counted as often as they were measured."""
    chosen = data.layer_class == layer_class
    return float(np.median(np.repeat(ratio[chosen], data.count[chosen])))
