"""Two ranks of one thread each against one ONNX Runtime session: ``python -m benchmarks.execution``.

ResNet-50 (batch 1, 224 x 224) cut by output channels, and a transformer encoder (6 layers, 512 wide, 128 tokens) cut as
in Megatron, on two cores of this machine. Everything is measured in one run, in turns: a session with one thread, one
with two, and two MPI processes in several ways. Blocks in which others took
the cores are left out, if any were quiet.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.markdown import table, write_between_markers
from mars_onnx.errors import UsageError

POOL = {
    "schema": "mars-onnx/pool/1",
    "name": "two_cores",
    "title": "Two cores of one host",
    "accelerators": [
        {
            "id": f"core{number}",
            "kind": "cpu",
            "designs": ["cpu_avx2"],
            "memory_bytes": 4 * 2**30,
            "memory_bandwidth_bytes_per_s": 1e10,
            "source": "made up: the mapping is given, and nothing is predicted here",
        }
        for number in range(2)
    ],
    "links": [
        {
            "between": [["core0", "core1"]],
            "bandwidth_bytes_per_s": 1e10,
            "latency_s": 2e-6,
            "duplex": "full",
            "source": "made up",
        }
    ],
    "inputs_at": "core0",
    "outputs_at": "core0",
    "source": "made up",
}

MAPPINGS = {
    "resnet50": {
        "fc": "ES(N=2)",
        "conv1": "ES(Cout=2)",
        "*conv?": "ES(Cout=2)",
        "*downsample*": "ES(Cout=2)",
        "*relu*": "ES(C=2)",
        "*.add": "ES(C=2)",
        "*pool": "ES(C=2)",
        "*": "auto",
    },
    "transformer": {
        "*.query.matmul": "ES(N=2)",
        "*.key.matmul": "ES(N=2)",
        "*.value.matmul": "ES(N=2)",
        "*.scores": "ES(B1=2)",
        "*.mix": "ES(B1=2)",
        "*.output_projection.matmul": "ES(K=2)",
        "*.output_projection.add": "whole",
        "*.fc1.matmul": "ES(N=2)",
        "*.fc2.matmul": "ES(K=2)",
        "*.fc2.add": "whole",
        "*.add[12]": "whole",
        "*.norm?": "whole",
        "*.split": "ES(H=2)",
        "*.add": "ES(C=2)",
        "*.scale": "ES(C=2)",
        "*.softmax": "ES(C=2)",
        "*.merge": "ES(C=2)",
        "*": "auto",
    },
}

ONE, TWO, NATIVE = "one session, 1 thread", "one session, 2 threads", "2 ranks"
PLAIN, SEGMENTS = "2 ranks, plain layout", "2 ranks, segments and messages"
_RESTING_S = 0.08
"""The second thread of a session goes on spinning for a while."""

_PAUSE_S = 1.0


@dataclass
class Times:
    """Seconds of every run by variant, one list per block, and the share of the cores that others had meanwhile."""

    runs: dict[str, list[list[float]]] = field(default_factory=dict)
    foreign: dict[str, list[float]] = field(default_factory=dict)
    difference: float = 0.0

    def kept(self, name: str, most_foreign: float) -> tuple[list[float], str]:
        """The runs of quiet blocks, and how many of the blocks these are; of all blocks if none was quiet."""
        pairs = list(zip(self.runs[name], self.foreign[name], strict=True))
        quiet = [runs for runs, share in pairs if share <= most_foreign]
        chosen = quiet or [runs for runs, _ in pairs]
        return [seconds for runs in chosen for seconds in runs], f"{len(quiet)} of {len(pairs)}"


def build(folder: Path, network: str) -> Path:
    """Write model and partitions of one network; returns the folder of the partitions."""
    import onnx

    from mars_onnx.__main__ import main as compile_main
    from mars_onnx.models import load_builder

    builder = load_builder()
    if network == "resnet50":
        model = builder.build("resnet50")
    else:
        package = builder.__name__.rpartition(".")[0]
        encoder = importlib.import_module(f"{package}.encoder").encoder
        fill = importlib.import_module(f"{package}.random_weights").fill
        model = fill(encoder(batch=1, blocks=6, sequence=128, hidden=512, heads=8, inner=2048), 0)
    onnx.save(model, folder / f"{network}.onnx")
    sets = [{"accelerators": ["core0", "core1"], "layers": MAPPINGS[network]}]
    (folder / "pool.json").write_text(json.dumps(POOL), encoding="utf-8")
    mapping = folder / f"{network}.json"
    mapping.write_text(json.dumps({"schema": "mars-onnx/mapping/1", "sets": sets}), encoding="utf-8")
    target = folder / f"{network}.mars"
    arguments = [str(folder / f"{network}.onnx"), "--hw", str(folder / "pool.json"), "--mapping", str(mapping)]
    if compile_main([*arguments, "-q", "-o", str(target)]) != 0:
        raise UsageError(f"{network} could not be partitioned")
    return target


def measure(folder: Path, network: str, options: argparse.Namespace, cores: _Cores) -> Times | None:
    """Measure in the processes of mpiexec; the first one returns the times."""
    import numpy as np
    from mpi4py import MPI

    from mars_onnx.runtime.mpi.rank import Rank
    from mars_onnx.runtime.random_inputs import random_inputs
    from mars_onnx.runtime.sessions import FASTEST

    ways = {NATIVE: FASTEST}
    if options.all:
        ways |= {PLAIN: replace(FASTEST, blocked=False), SEGMENTS: replace(FASTEST, native=False)}
    comm = MPI.COMM_WORLD
    ranks = {name: Rank(folder / f"{network}.mars", options=options) for name, options in ways.items()}
    first = next(iter(ranks.values()))
    inputs = random_inputs(first.plan, 0)
    times = Times()
    with cores:
        # A thread of a session has the priority of the one that makes it.
        one, two = (_session(folder / f"{network}.onnx", n) if first.is_host else None for n in (1, 2))
    for _ in range(options.blocks):
        for name, session in ((ONE, one), (TWO, two)):
            if session is not None:
                with cores:
                    _block(times, name, lambda: session.run(None, inputs), options.runs, None)  # noqa: B023 - run at once
                time.sleep(_RESTING_S)
        for name, rank in ranks.items():
            _meet(comm)
            with cores:
                _block(times, name, lambda: rank.run(inputs if rank.is_host else None), options.runs, comm)  # noqa: B023
    if one is not None:
        expected = one.run(None, inputs)
    for rank in ranks.values():
        found = rank.run(inputs if rank.is_host else None)
        if found is not None:
            pairs = zip(expected, found.values(), strict=True)
            times.difference = max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)
        rank.close()
    return times if first.is_host else None


def _session(path: Path, threads: int) -> Any:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    return ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])


def _block(times: Times, name: str, once: Callable[[], object], runs: int, comm: Any) -> None:
    """Some runs in a row after one that warms up; ``comm`` has all processes that take part."""
    cores = os.cpu_count() or 1
    # On cores that this way leaves idle others do no harm.
    spare = cores - (1 if name == ONE else 2)
    once()
    before, own = _busy_s(), _own_s(comm)
    start = time.perf_counter()
    taken = []
    for _ in range(runs):
        begin = time.perf_counter()
        once()
        taken.append(time.perf_counter() - begin)
    wall = time.perf_counter() - start
    own = _own_s(comm) - own
    times.runs.setdefault(name, []).append(taken)
    times.foreign.setdefault(name, []).append(max(0.0, (_busy_s() - before - own) / wall - spare) / cores)


def _busy_s() -> float:
    """Seconds that all cores together have worked, or that the host has taken from them."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, interrupt, soft, steal = (int(number) for number in fields[:8])
    return (user + nice + system + interrupt + soft + steal) / os.sysconf("SC_CLK_TCK")


def _own_s(comm: Any) -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    own = usage.ru_utime + usage.ru_stime
    return own if comm is None else float(comm.allreduce(own))


def _meet(comm: Any) -> None:
    """Begin together. Who is early sleeps: MPI's own barrier would keep a core busy."""
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(0.001)


class _Cores:
    """Keeps other programs off the cores, block by block, where the system allows it.

    Blocks are shorter than a second, with pauses between, so that others come to their turn.
    """

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted

    def __enter__(self) -> None:
        if self._wanted:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))

    def __exit__(self, *_: object) -> None:
        if self._wanted:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            time.sleep(_PAUSE_S)


def rows(network: str, times: Times, most_foreign: float) -> list[list[str]]:
    """Rows of the table: minimum and median in ms, both against one thread, quiet blocks."""
    kept = {name: times.kept(name, most_foreign) for name in times.runs}
    base = kept[ONE][0]
    return [
        [
            network,
            name,
            f"{min(runs) * 1e3:.2f}",
            f"{statistics.median(runs) * 1e3:.2f}",
            f"{min(base) / min(runs):.2f}",
            f"{statistics.median(base) / statistics.median(runs):.2f}",
            quiet,
        ]
        for name, (runs, quiet) in kept.items()
    ]


def launch(folder: Path, network: str, options: argparse.Namespace) -> Times:
    """Start the processes and wait for what the first one has measured."""
    mpiexec = shutil.which("mpiexec", path=sysconfig.get_path("scripts")) or shutil.which("mpiexec")
    if mpiexec is None:
        raise UsageError("there is no mpiexec; pip install 'mars-onnx[mpi]' mpich")
    result = folder / f"{network}.times.json"
    arguments = ["--folder", folder, "--network", network, "--blocks", options.blocks, "--runs", options.runs]
    flags = [flag for flag, on in (("--all", options.all), ("--alone", options.alone)) if on]
    command = [mpiexec, "-n", "2", sys.executable, "-m", "benchmarks.execution", *map(str, arguments), *flags]
    subprocess.run([*command, "--result", str(result)], check=True)
    document = json.loads(result.read_text(encoding="utf-8"))
    return Times(document["runs"], document["foreign"], document["difference"])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.execution", description=__doc__)
    parser.add_argument("--network", choices=sorted(MAPPINGS), help="only this one")
    parser.add_argument("--blocks", type=int, default=12, help="how often all variants have their turn (default: 12)")
    parser.add_argument("--runs", type=int, default=10, help="runs in a turn (default: 10)")
    parser.add_argument("--all", action="store_true", help="also without the blocked layout, and with messages")
    parser.add_argument("--alone", action="store_true", help="keep others off the cores meanwhile (needs the right to)")
    parser.add_argument("--most-foreign", type=float, default=0.03, help="share of the cores that others may have")
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="also write the table into this document")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.result is not None:
        times = measure(options.folder, options.network, options, _Cores(options.alone))
        if times is not None:
            document = {"runs": times.runs, "foreign": times.foreign, "difference": times.difference}
            options.result.write_text(json.dumps(document), encoding="utf-8")
        return 0
    found: list[list[str]] = []
    differences: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        for network in [options.network] if options.network else list(MAPPINGS):
            build(Path(name), network)
            times = launch(Path(name), network, options)
            found += rows(network, times, options.most_foreign)
            differences.append(f"{network}: {times.difference:.1e}")
    headings = [
        "network",
        "way",
        "min, ms",
        "median, ms",
        "min: times as fast",
        "median: times as fast",
        "quiet blocks",
    ]
    text = table(headings, found, numbers=5)
    text += f"\nLargest difference from one session, relative to the largest value: {'; '.join(differences)}.\n"
    print(text)
    if options.write is not None:
        write_between_markers(options.write, "execution", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
