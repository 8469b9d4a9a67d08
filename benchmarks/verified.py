"""Every model on every pool, compared with the original: ``python -m benchmarks.verified [--write README.md]``.

Every model and pool has a process of its own, so memory is bounded by the largest; files are deleted as it goes.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.markdown import table, write_between_markers

_ROOT = Path(__file__).parent.parent
POOLS = ("fpga_pool", "mixed_pool", "edge_pool")
MODELS = (
    *("alexnet", "vgg16", "resnet18", "resnet34", "resnet50", "resnet101", "wideresnet50_2"),
    *("casia_surf", "facebagnet", "encoder"),
    *("light_bvlc_alexnet", "light_densenet121", "light_inception_v1", "light_inception_v2", "light_resnet50"),
    *("light_shufflenet", "light_squeezenet", "light_vgg19", "light_zfnet512"),
)
_SHORT = {"AllGather": "AG", "AllReduce": "AR", "AllToAll": "A2A", "Broadcast": "B", "HaloExchange": "H"}
_SHORT |= {"ReduceScatter": "RS", "SendRecv": "P2P", "Shift": "S"}
_LEGEND = (
    "Seeded random weights and inputs. *Sets*: accelerators per set. *Communication*: "
    + ", ".join(f"{short} {name}" for name, short in sorted(_SHORT.items()))
    + ". *Boxes*: boxes of tensors on some accelerator that were compared with the original, partial sums included. "
    "*Error*: the largest difference over all of them and the outputs, relative to the largest element. *Seconds*: "
    "partitioning, running and comparing."
)


def verify_here(path: Path, pool: str) -> dict[str, Any]:
    """Partition one model over one pool and compare everything with the original."""
    from mars_onnx import compile

    start = time.perf_counter()
    compilation = compile(path, pool)
    verification = compilation.verify(deep=True)
    seconds = time.perf_counter() - start
    verification.raise_if_failed()
    deep = verification.deep
    assert deep is not None
    compared = [*verification.outputs, *([deep.worst] if deep.worst else [])]
    return {
        "sets": [len(own.members) for own in compilation.mapping.sets],
        "operators": Counter(event.op for event in compilation.partitions.events),
        "boxes": deep.boxes + deep.partial_boxes,
        "error": max(comparison.max_rel_error for comparison in compared),
        "latency_s": compilation.simulation.latency_s,
        "seconds": seconds,
        "kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def verify_all(models: Sequence[str], pools: Sequence[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every model on every pool, one after the other; what failed has an ``error_text``."""
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            built = _run("mars_onnx.models", model, "-o", folder)
            path = f"{folder}/{model}.onnx"
            for pool in pools:
                done = built if built.returncode else _run("benchmarks.verified", "--once", path, "--pool", pool)
                if done.returncode:
                    text = (done.stderr.strip() or f"ended with {done.returncode}").splitlines()[-1]
                    yield model, pool, {"error_text": text}
                else:
                    yield model, pool, json.loads(done.stdout)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=_ROOT, capture_output=True, text=True, check=False)


def row(model: str, pool: str, facts: dict[str, Any]) -> tuple[str, ...]:
    """A line of the table."""
    if "error_text" in facts:
        return model, pool, "**failed**", facts["error_text"].replace("|", "/"), "", "", "", ""
    counts = ", ".join(f"{_SHORT.get(op, op)} {count}" for op, count in sorted(facts["operators"].items()))
    return (
        model,
        pool,
        " + ".join(map(str, facts["sets"])),
        counts or "none",
        str(facts["boxes"]),
        f"{facts['error']:.1e}",
        f"{facts['latency_s'] * 1e3:.3g}",
        f"{facts['seconds']:.1f}",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.verified", description="Verify every model over every pool.")
    parser.add_argument("--model", action="append", help="only this one (repeatable)")
    parser.add_argument("--pool", action="append", help="only this one (repeatable)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into FILE, between its markers")
    parser.add_argument("--once", type=Path, metavar="FILE", help="verify this model in this process and print JSON")
    options = parser.parse_args(arguments)
    if options.once:
        print(json.dumps(verify_here(options.once, (options.pool or POOLS)[0])))
        return 0
    rows, failed = [], 0
    for model, pool, facts in verify_all(options.model or MODELS, options.pool or POOLS):
        failed += "error_text" in facts
        rows.append(row(model, pool, facts))
        print(*rows[-1], f"{facts.get('kib', 0) / 2**20:.1f} GiB", sep=" | ", file=sys.stderr, flush=True)
    headings = ("model", "pool", "sets", "communication", "boxes", "error", "predicted ms", "seconds")
    text = f"{len(rows) - failed} of {len(rows)} verified. {_LEGEND}\n\n{table(headings, rows, 4)}"
    if options.write:
        write_between_markers(options.write, "verified", text)
    else:
        print(text)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
