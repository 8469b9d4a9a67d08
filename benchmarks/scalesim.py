"""Compute cycles against SCALE-Sim 3.0.0, layer by layer: ``python -m benchmarks.scalesim [--venv FOLDER]``.

SCALE-Sim (PyPI ``scalesim``) needs older libraries than mars_onnx, so it runs in a virtual environment of its own,
which is made where it is not there yet. Every number has to agree exactly; the exit code says whether all do.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.oracles import convolution, systolic_cycles

PACKAGES = ("scalesim==3.0.0", "numpy<2", "pandas<3", "numba<0.62")
ARRAYS = ((8, 8), (16, 32), (32, 16), (64, 64), (128, 128))
DATAFLOWS = ("ws", "os", "is")
#: Name, input extent (padding included), kernel, channels, filters, stride. Ragged on purpose; the last two are matrix
#: products of one row and of 5 x 5 rows.
LAYERS = (
    ("first", 59, 11, 3, 40, 4),
    ("same", 15, 3, 24, 33, 1),
    ("strided", 17, 3, 20, 64, 2),
    ("point", 13, 1, 70, 50, 1),
    ("wide", 9, 5, 16, 100, 1),
    ("row", 1, 1, 300, 130, 1),
    ("rows", 5, 1, 129, 65, 1),
)
_RUN = "import sys; from scalesim.scale_sim import scalesim as s; s(save_disk_space=True, verbose=False, config=sys.argv[1], topology=sys.argv[2], layout=sys.argv[3]).run_scale(top_path=sys.argv[4])"  # noqa: E501
_CONFIG = """[general]
run_name = run
[architecture_presets]
ArrayHeight = {rows}
ArrayWidth = {columns}
ifmapsramszkB = 4096
filtersramszkB = 4096
ofmapsramszkB = 4096
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Bandwidth = 1000
Dataflow = {dataflow}
MemoryBanks = 1
ReadRequestBuffer = 512
WriteRequestBuffer = 512
[layout]
IfmapCustomLayout = False
IfmapSRAMBankBandwidth = 10
IfmapSRAMBankNum = 10
IfmapSRAMBankPort = 2
FilterCustomLayout = False
FilterSRAMBankBandwidth = 10
FilterSRAMBankNum = 10
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = false
SparseRep = ellpack_block
OptimizedMapping = false
BlockSize = 8
RandomNumberGeneratorSeed = 40
[run_presets]
InterfaceBandwidth = CALC
UseRamulatorTrace = False
"""


def simulated(python: Path, dataflow: str, rows: int, columns: int) -> list[int]:
    """Cycles that SCALE-Sim reports for every layer: its total less its stalls."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config, topology, layout = folder / "run.cfg", folder / "layers.csv", folder / "layout.csv"
        config.write_text(_CONFIG.format(rows=rows, columns=columns, dataflow=dataflow), encoding="utf-8")
        head = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"
        lines = [f"{n}, {i}, {i}, {k}, {k}, {c}, {m}, {s},\n" for n, i, k, c, m, s in LAYERS]
        topology.write_text(head + "".join(lines), encoding="utf-8")
        layout.write_text("Layer name,\n" + "".join(f"{layer[0]},{'1,' * 15}\n" for layer in LAYERS), encoding="utf-8")
        command = [str(python), "-c", _RUN, *map(str, (config, topology, layout, folder))]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        report = next(folder.rglob("COMPUTE_REPORT.csv"), None)
        if done.returncode or report is None:
            raise RuntimeError(f"SCALE-Sim failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        with report.open(encoding="utf-8") as file:
            table = [{key.strip(): value for key, value in row.items() if key} for row in csv.DictReader(file)]
        return [int(float(row["Total Cycles"]) - float(row["Stall Cycles"])) for row in table]


def environment(folder: Path) -> Path:
    """The interpreter of SCALE-Sim's environment, made if it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, and print every difference."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scalesim", description="Cycles against SCALE-Sim.")
    default = Path(tempfile.gettempdir()) / "mars-onnx-scalesim"
    parser.add_argument("--venv", type=Path, default=default, help="SCALE-Sim's environment; default: %(default)s")
    python = environment(parser.parse_args(arguments).venv)
    wrong = 0
    for dataflow in DATAFLOWS:
        for rows, columns in ARRAYS:
            known = simulated(python, dataflow, rows, columns)
            for (name, size, kernel, channels, filters, stride), cycles in zip(LAYERS, known, strict=True):
                # SCALE-Sim rounds the number of windows up.
                work = convolution(filters, channels, -(-(size - kernel) // stride) + 1, kernel, stride=stride)
                ours = systolic_cycles(dataflow, rows, columns, work)
                wrong += ours != cycles
                verdict = "exact" if ours == cycles else "DIFFERS"
                print(f"{dataflow} {rows:>3}x{columns:<3} {name:<8} {cycles:>9} {ours:>9.0f} {verdict}")
    print(f"{wrong} of {len(DATAFLOWS) * len(ARRAYS) * len(LAYERS)} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
