"""Times of collectives beside those of ASTRA-sim 2.0's analytical network.

``python -m benchmarks.collectives`` prints the published ring table beside ours, then rows for other topologies and
collectives; ``--write docs/cost-model.md`` puts them between the markers there. One row of one's own:
``python -m benchmarks.collectives --topology switch --op all_to_all --members 16 --mib 1 8 --gib-per-s 100``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from math import floor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.markdown import table, write_between_markers
from mars_onnx.cost import Interconnect
from mars_onnx.pool import Pool, load_pool

SOURCE = "ASTRA-sim 2.0 (Won et al., ISPASS 2023), analytical network without congestion, and its sample systems"
MIB = 2**20

OPS = ("all_reduce", "reduce_scatter", "all_gather", "all_to_all")

#: Published: all-reduce, unidirectional ring, 50 "GB/s" (GiB/s in fact), 500 ns, 4 chunks; ns by members and MiB.
PUBLISHED = {
    4: {1: 43_000, 4: 135_316, 16: 504_604, 64: 1_981_636},
    8: {1: 64_440, 4: 172_100, 16: 602_908, 64: 2_326_112},
}
#: Algorithms of its sample systems; other collectives of ours have no counterpart there.
ALGORITHMS = {
    "ring": {op: ["ring"] for op in OPS},
    "fully_connected": {op: ["direct"] for op in OPS},
    "switch": {op: ["direct" if op == "all_to_all" else "halving_doubling"] for op in OPS},
}


def document(
    topology: str,
    members: int,
    *,
    gib_per_s: float = 50,
    latency_ns: float = 500,
    chunks: int = 4,
    endpoint_ns: float = 10,
    memory_gb_per_s: float = 1600,
    algorithms: dict[str, list[str]] | None = None,
    shared: bool = False,
    forwarding: str = "cut_through",
) -> dict[str, Any]:
    """A pool file that declares what ASTRA-sim is told: nothing of it is known to the cost model otherwise.

    A sum reads two operands and writes one through the memory of ``memory_gb_per_s``. ``shared``: with contention,
    which together with ``store_and_forward`` switches is close to its congestion-aware variant.
    """
    names = [f"npu{rank}" for rank in range(members)]
    pairs = {
        "ring": [[names[i], names[(i + 1) % members]] for i in range(members if members > 2 else members - 1)],
        "fully_connected": [[a, b] for i, a in enumerate(names) for b in names[i + 1 :]],
        "switch": [[name, "switch"] for name in names],
    }[topology]
    return {
        "schema": "mars-onnx/pool/1",
        "name": f"{topology}_{members}",
        "title": "A topology of ASTRA-sim's analytical network",
        "source": SOURCE,
        "accelerators": [
            {
                "id": name,
                "kind": "npu",
                "designs": ["cpu_avx2"],
                "memory_bytes": 2**40,
                "memory_bandwidth_bytes_per_s": memory_gb_per_s * 1e9,
                "source": "any design: only communication is priced",
            }
            for name in names
        ],
        "switches": [{"id": "switch", "forwarding": forwarding}] if topology == "switch" else [],
        "links": [
            {
                "between": pairs,
                "bandwidth_bytes_per_s": gib_per_s * 2.0**30,
                "latency_s": latency_ns * 1e-9,
                "shared": shared,
                "source": SOURCE,
            }
        ],
        "collectives": {
            "chunks": chunks,
            "endpoint_latency_s": endpoint_ns * 1e-9,
            "reduction_bytes_per_s": memory_gb_per_s * 1e9 / 3,
            "reductions": "overlapped",
            "algorithms": algorithms or ALGORITHMS[topology],
            "source": SOURCE,
        },
    }


def load(content: dict[str, Any]) -> Pool:
    """A pool from the content of its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pool.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return load_pool(path)


def ours_ns(pool: Pool, op: str, nbytes: float) -> float:
    """Our time in ns. ``nbytes``: of every member's tensor before the collective."""
    net, group, n = Interconnect(pool), range(pool.size), pool.size
    if op == "all_to_all":
        return float(net.all_to_all(group, np.full((n, n), nbytes / n))) * 1e9
    if op == "all_gather":
        return float(net.all_gather(group, np.full(n, nbytes))) * 1e9
    if op == "reduce_scatter":
        return float(net.reduce_scatter(group, np.full(n, nbytes / n))) * 1e9
    return float(net.all_reduce(group, nbytes)) * 1e9


def derived_ns(
    topology: str,
    op: str,
    n: int,
    nbytes: int,
    gib_per_s: float = 50,
    latency_ns: int = 500,
    chunks: int = 4,
    endpoint_ns: int = 10,
    memory_gb_per_s: float = 1600,
) -> int:
    """What ASTRA-sim's source computes, in whole ns as there; derived by reading it, not by running it.

    Chunks follow each other (one is active per dimension). Messages wait for each other unless sent together; each
    takes hops * latency + bytes / bandwidth, and an endpoint delay before the first and after every one.
    """
    rate = gib_per_s * 2**30 / 1e9
    size = nbytes // chunks
    hops = 2 if topology == "switch" else 1
    algorithm = ALGORITHMS[topology][op][0]
    piece = size if op == "all_gather" else size // n
    levels = n.bit_length() - 1
    known: dict[tuple[str, str], tuple[list[int], list[int]]] = {
        ("ring", "all_reduce"): ([piece] * (2 * n - 2), [piece] * (n - 1)),
        ("ring", "reduce_scatter"): ([piece] * (n - 1), [piece] * (n - 1)),
        ("ring", "all_gather"): ([piece] * (n - 1), []),
        ("ring", "all_to_all"): ([piece] * (n * (n - 1) // 2), []),
        ("direct", "all_reduce"): ([piece] * 2, [piece]),
        ("direct", "reduce_scatter"): ([piece], [piece]),
        ("direct", "all_gather"): ([piece], []),
        ("direct", "all_to_all"): ([piece], []),
        ("halving_doubling", "all_reduce"): (
            [size >> level for level in (*range(1, levels + 1), *range(levels, 0, -1))],
            [size >> level for level in range(2, levels + 1)],
        ),
        ("halving_doubling", "reduce_scatter"): (
            [size >> level for level in range(1, levels + 1)],
            [size >> level for level in range(2, levels + 1)],
        ),
        ("halving_doubling", "all_gather"): ([size << level for level in range(levels)], []),
    }
    sent, summed = known[algorithm, op]
    one = endpoint_ns * (len(sent) + 1)
    one += sum(floor(hops * latency_ns + message / rate) for message in sent)
    one += sum(3 * floor(amount / memory_gb_per_s) for amount in summed)
    return chunks * one


def tables() -> str:
    """Both tables, as Markdown."""
    published = []
    for members, row in PUBLISHED.items():
        for mib, figure in row.items():
            ours = ours_ns(load(document("ring", members)), "all_reduce", mib * MIB)
            published.append((str(members), str(mib), f"{figure:,}", f"{ours:,.0f}", f"{ours / figure - 1:+.2%}"))
    derived = []
    for topology, algorithms in ALGORITHMS.items():
        for op in OPS:
            for members, mib in ((4, 1), (8, 16)):
                ours = ours_ns(load(document(topology, members)), op, mib * MIB)
                figure = derived_ns(topology, op, members, mib * MIB)
                error = f"{ours / figure - 1:+.2%}"
                names = (topology, op, algorithms[op][0])
                derived.append((*names, str(members), str(mib), f"{figure:,}", f"{ours:,.0f}", error))
    first = table(("members", "MiB", "published, ns", "ours, ns", "error"), published, numbers=5)
    headings = ("topology", "collective", "algorithm", "members", "MiB", "derived, ns", "ours, ns", "error")
    return f"All-reduce round a ring:\n\n{first}\nDerived from its source:\n\n{table(headings, derived, numbers=5)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Times of collectives beside those of ASTRA-sim 2.0.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the tables between the markers of a file")
    parser.add_argument("--topology", choices=ALGORITHMS, help="print one row of this topology instead")
    parser.add_argument("--op", choices=OPS, default="all_reduce")
    parser.add_argument("--algorithm", help="instead of the sample system's")
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--mib", type=float, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--gib-per-s", type=float, default=50)
    parser.add_argument("--latency-ns", type=float, default=500)
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--endpoint-ns", type=float, default=10)
    parser.add_argument("--memory-gb-per-s", type=float, default=1600, help="of sums: three accesses per byte")
    parser.add_argument("--contention", action="store_true", help="messages share links, as our pools do")
    parser.add_argument("--store-and-forward", action="store_true", help="switches pass whole messages on")
    options = parser.parse_args(arguments)
    if options.topology:
        content = document(
            options.topology,
            options.members,
            gib_per_s=options.gib_per_s,
            latency_ns=options.latency_ns,
            chunks=options.chunks,
            endpoint_ns=options.endpoint_ns,
            memory_gb_per_s=options.memory_gb_per_s,
            algorithms={options.op: [options.algorithm]} if options.algorithm else None,
            shared=options.contention,
            forwarding="store_and_forward" if options.store_and_forward else "cut_through",
        )
        pool = load(content)
        for mib in options.mib:
            print(f"{options.topology} {options.op} {options.members} members {mib:g} MiB:", end=" ")
            print(f"{ours_ns(pool, options.op, mib * MIB):,.0f} ns")
        return 0
    text = tables()
    if options.write:
        write_between_markers(options.write, "collectives", text)
    else:
        print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
