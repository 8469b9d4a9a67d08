"""Random pools: unequal links, switches, hosts, shared or not, with every kind of algorithm for collectives."""

from __future__ import annotations

import itertools
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from mars_onnx.pool.collectives import ALGORITHMS
from mars_onnx.pool.loader import load_pool
from mars_onnx.pool.topology import Pool

_MADE_UP = "made up for tests"
#: Algorithms in which a member takes one message at a time.
_ONE_PORT = {
    "all_reduce": ["ring", "halving_doubling", "hierarchical"],
    "all_gather": ["ring", "halving_doubling", "hierarchical"],
    "reduce_scatter": ["ring", "halving_doubling", "hierarchical"],
    "all_to_all": ["pairwise", "hierarchical", "ring"],
    "broadcast": ["tree", "chain", "hierarchical"],
}


def random_pool(seed: int, size: int, fast: bool = False, first_hand: bool = False) -> Pool:
    """A pool of so many accelerators.

    Args:
        seed: Of the draws.
        size: How many accelerators.
        fast: Whether links are so fast that it pays to cut small layers.
        first_hand: Whether a member takes one message at a time, and nothing goes round a ring in an exchange.
    """
    rng = random.Random(seed)
    document = random_document(rng, size)
    if first_hand:
        exchanges = rng.choice([["pairwise"], ["pairwise", "hierarchical"]])
        own = {**document.get("collectives", {"source": _MADE_UP}), "chunks": 1}
        document["collectives"] = {**own, "algorithms": {**_ONE_PORT, "all_to_all": exchanges}}
    if fast:
        for link in document["links"]:
            link["latency_s"] *= 0.01
            link["bandwidth_bytes_per_s"] *= 10
        for accelerator in document["accelerators"]:
            accelerator["memory_bandwidth_bytes_per_s"] = rng.choice([1e9, 1e9, 4e9])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pool.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return load_pool(path)


def random_document(rng: random.Random, size: int) -> dict[str, Any]:
    """A pool file."""
    ids = [f"a{number}" for number in range(size)]
    links: list[dict[str, Any]] = []
    switches: list[str] = []
    equal = rng.random() < 0.5
    common = _link(rng)

    def connect(first: str, second: str) -> None:
        links.append({"between": [[first, second]], **(common if equal else _link(rng))})

    groups = _groups(rng, ids)
    for number, group in enumerate(groups):
        kind = rng.choice(["all", "switch", "ring", "line"])
        if kind == "switch" and len(group) > 1:
            switches.append(f"s{number}")
            for name in group:
                connect(name, f"s{number}")
        elif kind == "all":
            for place, first in enumerate(group):
                for second in group[place + 1 :]:
                    connect(first, second)
        else:
            for first, second in itertools.pairwise(group):
                connect(first, second)
            if kind == "ring" and len(group) > 2:
                connect(group[-1], group[0])
    to_host = _link(rng)
    everyone = rng.random() < 0.5
    for group in groups:
        for name in group if everyone else group[:1]:
            links.append({"between": [["host", name]], **(to_host if equal else _link(rng))})
    collectives = _collectives(rng)
    return {
        "schema": "mars-onnx/pool/1",
        "name": "random",
        "title": "Random",
        "accelerators": [
            {
                "id": name,
                "kind": "npu",
                "designs": ["cpu_avx2"],
                "memory_bytes": 2**30,
                "memory_bandwidth_bytes_per_s": 1e10,
                "source": _MADE_UP,
            }
            for name in ids
        ],
        "hosts": [{"id": "host"}],
        **({"switches": [{"id": name} for name in switches]} if switches else {}),
        "links": links,
        **({"collectives": collectives} if collectives else {}),
        "source": _MADE_UP,
    }


def _groups(rng: random.Random, ids: list[str]) -> list[list[str]]:
    cuts = sorted(rng.sample(range(1, len(ids)), rng.randint(0, min(2, len(ids) - 1))))
    return [ids[low:high] for low, high in zip([0, *cuts], [*cuts, len(ids)], strict=True)]


def _link(rng: random.Random) -> dict[str, Any]:
    return {
        "bandwidth_bytes_per_s": rng.choice([1e8, 5e8, 1e9, 1e10]),
        "latency_s": rng.choice([0.0, 1e-7, 1e-6, 1e-5]),
        "duplex": rng.choice(["half", "full"]),
        "shared": rng.random() < 0.8,
        "source": _MADE_UP,
    }


def _collectives(rng: random.Random) -> dict[str, Any] | None:
    kind = rng.choice(["default", "one port", "one port", "some"])
    if kind == "default":
        return None
    found: dict[str, Any] = {"source": _MADE_UP}
    if kind == "one port":
        found["algorithms"] = _ONE_PORT
    else:
        found["algorithms"] = {
            name: rng.sample(known, rng.randint(1, len(known))) for name, known in ALGORITHMS.items()
        }
    if rng.random() < 0.3:
        found["chunks"] = rng.choice([1, 2, 4])
    if rng.random() < 0.3:
        found["endpoint_latency_s"] = 1e-6
    return found
