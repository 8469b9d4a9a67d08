"""A pool file of what was measured."""

from __future__ import annotations

import json
import math
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mars_onnx.calibration.links import LinkTimes
from mars_onnx.errors import InputError, UsageError
from mars_onnx.pool import Pool, load_pool
from mars_onnx.pool.collectives import Overhead
from mars_onnx.pool.cpu_parameters import CpuParameters
from mars_onnx.pool.format import POOL_FORMAT

DESIGN = "ort_cpu"
_HOST = "host"
#: A little less than two: going there and back has to take longer than going straight.
_DETOUR = 1.9


@dataclass(frozen=True, slots=True)
class Machine:
    """What was measured of the ranks.

    Attributes:
        name: Of the pool.
        kernels: Times of kernels, the same for all ranks.
        ranks: How many accelerators there are.
        memory_bytes: Of each.
        memory_bandwidth_bytes_per_s: Of each.
        links: Per pair of ranks.
        run_s: Overhead of a run.
        host_bandwidth_bytes_per_s: At which inputs come and outputs go.
        source: What was measured, where, how.
        overheads: Per pair and operator what communications take beyond the link.
    """

    name: str
    kernels: CpuParameters
    ranks: int
    memory_bytes: int
    memory_bandwidth_bytes_per_s: float
    links: Mapping[tuple[int, int], LinkTimes]
    run_s: float
    host_bandwidth_bytes_per_s: float
    source: str
    overheads: tuple[Mapping[str, Overhead], ...] = ()


def pool_text(machine: Machine) -> str:
    """The pool file: JSON, the same for the same figures."""
    ids = [f"core{rank}" for rank in range(machine.ranks)]
    accelerators = [
        {
            "id": name,
            "kind": "cpu",
            "designs": [DESIGN],
            "memory_bytes": machine.memory_bytes,
            "memory_bandwidth_bytes_per_s": _short(machine.memory_bandwidth_bytes_per_s),
            "source": "memory: what the system reports, by rank; bandwidth: copying 64 MiB, read and written",
        }
        for name in ids
    ]
    # The way through the host stores and forwards: with these bounds it never beats the link of a pair.
    slowest = min((times.bandwidth_bytes_per_s for times in machine.links.values()), default=math.inf)
    longest = max((times.latency_s for times in machine.links.values()), default=0.0)
    links: list[dict[str, object]] = [
        {
            "between": [[_HOST, name] for name in ids],
            "bandwidth_bytes_per_s": _short(min(machine.host_bandwidth_bytes_per_s, _DETOUR * slowest)),
            "latency_s": _short(max(machine.run_s, longest) / _DETOUR),
            "duplex": "full",
            "source": "a run of one kernel less that kernel, half each way; slow enough that no message takes this way",
        }
    ]
    for (first, second), times in sorted(machine.links.items()):
        links.append(
            {
                "between": [[ids[first], ids[second]]],
                "bandwidth_bytes_per_s": _short(times.bandwidth_bytes_per_s),
                "latency_s": _short(times.latency_s),
                "duplex": "full",
                "source": f"gathers and sums of 4 KiB to 2 MiB; median error {times.error:.1%}",
            }
        )
    content = {
        "schema": POOL_FORMAT,
        "name": machine.name,
        "title": f"{machine.ranks} rank{'s' if machine.ranks > 1 else ''} of ONNX Runtime, measured",
        "accelerators": accelerators,
        "hosts": [{"id": _HOST, "forwarding": "store_and_forward"}],
        "links": links,
        **_collectives(machine),
        "inputs_at": _HOST,
        "outputs_at": _HOST,
        "overlap": {
            "communication_with_compute": False,
            "double_buffering": False,
            "contention": False,
            "local_moves": True,
            "source": "a rank does one thing after the other",
        },
        "designs": [
            {
                "name": DESIGN,
                "title": "Kernels of ONNX Runtime on this machine, measured",
                "model": "cpu",
                "parameters": machine.kernels.model_dump(mode="json", exclude_defaults=True),
                "source": machine.source,
            }
        ],
        "source": machine.source,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _collectives(machine: Machine) -> dict[str, object]:
    """The median of all pairs, since a pool has one set of figures of this kind."""
    found: dict[str, object] = {}
    rates = [times.reduction_bytes_per_s for times in machine.links.values() if times.reduction_bytes_per_s]
    if rates:
        found["reduction_bytes_per_s"] = _short(statistics.median(rates))
    overheads: list[dict[str, object]] = []
    for op in dict.fromkeys(op for own in machine.overheads for op in own):
        known = [own[op] for own in machine.overheads if op in own]
        entry: dict[str, object] = {"ops": [op], "latency_s": _short(statistics.median(own.latency_s for own in known))}
        copies = [own.kept_bytes_per_s for own in known if own.kept_bytes_per_s]
        if copies:
            entry["kept_bytes_per_s"] = _short(statistics.median(copies))
        assemblies = [own.assembled_bytes_per_s for own in known if own.assembled_bytes_per_s]
        if assemblies:
            entry["assembled_bytes_per_s"] = _short(statistics.median(assemblies))
        overheads.append(entry)
    if overheads:
        found["overheads"] = overheads
    source = "chains that communicate between two ranks, less chains that do not"
    return {"collectives": {**found, "source": source}} if found else {}


def pool_of(machine: Machine) -> Pool:
    """The pool of what was measured, loaded and checked as any other."""
    with tempfile.TemporaryDirectory(prefix="mars-onnx-") as folder:
        file = Path(folder) / f"{machine.name}.json"
        file.write_text(pool_text(machine), encoding="utf-8")
        return load_pool(file)


def write_pool(machine: Machine, path: Path) -> None:
    """Write the file whole or not at all, after it has been checked.

    Raises:
        UsageError: It cannot be written there.
    """
    pool_of(machine)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            temporary.write_text(pool_text(machine), encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error


def memory_per_rank(ranks: int) -> int:
    """Physical memory of the machine, divided by ranks."""
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        raise InputError("the system does not say how much memory it has; use --memory-bytes") from None
    return max(1, whole // ranks)


def near_cache_bytes(default: int = 2**20) -> int:
    """Size of a core's own second-level cache, as Linux tells it."""
    for index in range(8):
        folder = Path(f"/sys/devices/system/cpu/cpu0/cache/index{index}")
        try:
            level = (folder / "level").read_text(encoding="ascii").strip()
            size = (folder / "size").read_text(encoding="ascii").strip()
        except OSError:
            continue
        if level == "2" and size[:-1].isdigit() and size[-1] in "KM":
            return int(size[:-1]) * (1024 if size[-1] == "K" else 2**20)
    return default


def vector_words(flags: Sequence[str] | None = None) -> int:
    """Channels of a block: 16 where the processor has 512-bit vectors, else 8."""
    if flags is None:
        try:
            text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return 8
        flags = next((line.split() for line in text.splitlines() if line.startswith(("flags", "Features"))), [])
    return 16 if "avx512f" in flags else 8


def _short(value: float) -> float:
    return float(f"{value:.4g}")
