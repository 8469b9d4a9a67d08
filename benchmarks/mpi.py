"""Partitions under MPI: right for all networks, steady over many runs, and what a communication node costs.

``python -m benchmarks.mpi verify [--model NAME]`` runs every network over a pool of eight, a process per accelerator,
and compares with the original. ``soak`` repeats one network and looks at memory and results. ``reduce`` measures an
AllReduce node beside the bare MPI call, alternating in one run. ``--mpiexec`` names another launcher.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.markdown import table
from benchmarks.verified import MODELS

_ROOT = Path(__file__).parent.parent
_POOL = "fpga_pool"
_ROUNDS = 200
_CHAIN = 20
"""AllReduce nodes in the partition that is measured."""


def partition(model: str, folder: Path) -> tuple[Path, int]:
    """Build a network and partition it; returns the folder of the partitions and how many there are."""
    _python("mars_onnx.models", model, "-o", str(folder))
    target = folder / f"{model}.mars"
    _python("mars_onnx", str(folder / f"{model}.onnx"), "--hw", _POOL, "-q", "-o", str(target))
    return target, len(json.loads((target / "plan.json").read_text(encoding="utf-8"))["partitions"])


def verify(model: str, launcher: Sequence[str]) -> tuple[str, ...]:
    """Run one network under MPI and compare with the original; a line of the table."""
    from mars_onnx.runtime.compare import compare
    from mars_onnx.runtime.plan_file import load_plan
    from mars_onnx.runtime.random_inputs import random_inputs
    from mars_onnx.runtime.reference import run_reference

    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        folder, count = partition(model, base)
        inputs = random_inputs(load_plan(folder), 1)
        np.savez(base / "in.npz", **inputs)  # type: ignore[arg-type]
        start = time.perf_counter()
        _launch(
            launcher, count, "-m", "mars_onnx.run", str(folder), "--input", str(base / "in.npz"),
            "--output", str(base / "out.npz"), "-q",
        )  # fmt: skip
        seconds = time.perf_counter() - start
        expected = run_reference(base / f"{model}.onnx", inputs)
        with np.load(base / "out.npz") as archive:
            found = compare(expected, {key: archive[key] for key in archive.files})
    status = "equal" if all(comparison.passed for comparison in found) else "DIFFERENT"
    return model, str(count), status, f"{max(c.max_rel_error for c in found):.1e}", f"{seconds:.1f}"


def soak(folder: Path, runs: int) -> None:
    """One process of the soak: prints, on the host, memory of all processes and whether results ever differed."""
    import mars_onnx
    from mars_onnx.runtime.random_inputs import random_inputs

    # What a heap needs at most it only has after some hundred runs; a leak goes on.
    marks = (runs // 10, runs // 2, runs - 1)
    with mars_onnx.load_rank(folder) as rank:
        inputs = random_inputs(rank.plan, 1)
        first: dict[str, Any] | None = None
        different = 0
        resident: list[int] = []
        start = time.perf_counter()
        for number in range(runs):
            outputs = rank.run(inputs if rank.is_host else None)
            if outputs is not None:
                first = first or outputs
                different += any(outputs[name].tobytes() != first[name].tobytes() for name in first)
            if number in marks:
                resident.append(_resident_kib())
        seconds = time.perf_counter() - start
        from mpi4py import MPI

        memory = MPI.COMM_WORLD.gather(resident)
        if memory is not None:
            rows = [
                (
                    str(process),
                    *(f"{kib / 1024:.1f}" for kib in own),
                    f"{own[-1] - own[0]:+d}",
                    f"{own[-1] - own[-2]:+d}",
                )
                for process, own in enumerate(memory)
            ]
            heads = [f"MiB after {mark + 1}" for mark in marks]
            print(f"{runs} runs in {seconds:.1f} s, {different} with another result than the first")
            print(table(("process", *heads, "KiB more", "KiB more in the second half"), rows, 1))


def reduce(size: int) -> None:
    """One process of the measurement of AllReduce: the bare call, the node alone, and nodes in a partition."""
    from mars_onnx.runtime.mpi.library import load_mpi

    world = load_mpi().COMM_WORLD
    n, count = world.Get_size(), size // 4
    x = np.random.default_rng(world.Get_rank()).standard_normal(count).astype(np.float32)
    y = np.empty_like(x)

    def bare() -> None:
        for _ in range(_CHAIN):
            world.Allreduce(x, y)

    several = [x, *(np.empty_like(x) for _ in range(_CHAIN))]

    def chained() -> None:
        # As a partition has them: every result in memory of its own, which is the operand of the next call.
        for operand, result in pairwise(several):
            world.Allreduce(operand, result)

    ways: dict[str, Callable[[], object]] = {
        "bare Allreduce": bare,
        "bare Allreduce, each into its own memory": chained,
        **_nodes(world, n, count, x),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(max(10, _ROUNDS // _CHAIN)):
        for name, way in ways.items():
            world.Barrier()
            start = time.perf_counter()
            way()
            times[name].append((time.perf_counter() - start) / _CHAIN)
    if world.Get_rank() == 0:
        rows = [
            (
                name,
                f"{min(own) * 1e6:.0f}",
                f"{np.median(own) * 1e6:.0f}",
                f"{np.median(own) / np.median(times['bare Allreduce']):.2f}",
            )
            for name, own in times.items()
        ]
        print(f"{n} processes, {size} bytes of float32, microseconds per AllReduce")
        print(table(("way", "fastest", "median", "of the bare call"), rows, 1))


def _nodes(world: Any, n: int, count: int, x: np.ndarray[Any, Any]) -> dict[str, Callable[[], object]]:
    from mars_onnx.comm import AllReduce
    from mars_onnx.geometry import Reduction
    from mars_onnx.runtime.executor import PartitionExecutor
    from mars_onnx.runtime.mpi.transport import MpiTransport
    from mars_onnx.runtime.native.region import MpiRegion
    from mars_onnx.runtime.sessions import FASTEST, SEGMENTS
    from mars_onnx.runtime.transport import ArrayKind

    ranks = tuple(range(n))
    transport = MpiTransport(world.Dup(), ranks)
    operator = AllReduce(tag=_CHAIN, group=ranks, reduce_op=Reduction.SUM)
    bound = transport.bind(operator, ArrayKind(x.shape, x.dtype))
    if bound is None:
        raise SystemExit("MPI binds no AllReduce")

    def node() -> None:
        for _ in range(_CHAIN):
            bound.start(x)
            bound.finish()

    found: dict[str, Callable[[], object]] = {"node, prepared": node}
    model = _chain(ranks, count)
    for name, options in (("nodes of a partition, messages", SEGMENTS), ("nodes of a partition, fastest", FASTEST)):
        region = MpiRegion(world.Dup(), ranks) if options.native else None
        executor = PartitionExecutor(model, MpiTransport(world.Dup(), ranks), options, region)
        executor.prepare()
        executor.bind()
        found[name] = lambda executor=executor: executor.run({"x": x})  # type: ignore[misc]
    return found


def _chain(ranks: tuple[int, ...], count: int) -> Any:
    """A partition of AllReduce nodes, each of the result of the one before: nobody can run ahead."""
    import onnx_ir as ir

    from mars_onnx import comm
    from mars_onnx.geometry import Reduction

    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([count]))
    token = start = comm.token_start()
    nodes, value = [], x
    for tag in range(_CHAIN):
        operator = comm.AllReduce(tag=tag, group=ranks, reduce_op=Reduction.SUM)
        last = comm.TOKEN_NAME if tag == _CHAIN - 1 else f"token{tag}"
        node = operator.to_node(value, token, name=f"reduce{tag}", output=f"y{tag}", token_output=last)
        nodes.append(node)
        value, token = node.outputs
    graph = ir.Graph([x, start], [value, token], nodes=nodes, initializers=[start], opset_imports={"": 17}, name="g")
    model = ir.Model(graph, ir_version=10)
    comm.add_functions(model)
    return model


def _resident_kib() -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def _python(*command: str) -> str:
    return _run([sys.executable, "-m", *command])


def _launch(launcher: Sequence[str], processes: int, *command: str) -> str:
    return _run([*launcher, "-n", str(processes), sys.executable, *command])


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.mpi", description="Partitions under MPI.")
    parser.add_argument("what", choices=("verify", "soak", "reduce"))
    parser.add_argument("--model", action="append", help="only this one (repeatable)")
    parser.add_argument("--runs", type=int, default=1000, help="of soak")
    parser.add_argument("--bytes", type=int, default=2**20, help="of reduce")
    parser.add_argument("-n", type=int, action="append", help="processes of reduce (repeatable)")
    parser.add_argument("--mpiexec", default="mpiexec", help="the launcher and its options")
    parser.add_argument("--process", type=Path, metavar="DIR", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    launcher = options.mpiexec.split()
    own = ("-m", "benchmarks.mpi", options.what, "--runs", str(options.runs), "--bytes", str(options.bytes))
    if options.process is not None:
        if options.what == "soak":
            soak(options.process, options.runs)
        else:
            reduce(options.bytes)
        return 0
    if options.what == "reduce":
        for n in options.n or (2, 4, 8):
            print(_launch(launcher, n, *own, "--process", "."))
        return 0
    if options.what == "soak":
        with tempfile.TemporaryDirectory() as name:
            folder, count = partition((options.model or ["resnet18"])[0], Path(name))
            print(_launch(launcher, count, *own, "--process", str(folder)))
        return 0
    rows = []
    for model in options.model or MODELS:
        rows.append(verify(model, launcher))
        print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    print(table(("model", "processes", "result", "largest error, relative", "seconds"), rows, 2))
    return 0 if all(row[2] == "equal" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
