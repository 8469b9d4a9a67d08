"""Pools made in memory: as many equal accelerators as a test wants, in groups that only a host connects."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mars_onnx.pool.loader import load_pool
from mars_onnx.pool.topology import Pool

MADE_UP = "made up for tests"


def pool_document(groups: Sequence[int], memory_bytes: int = 2**30) -> dict[str, Any]:
    """A pool file with groups of some sizes: everyone linked to everyone inside a group, all to one host."""
    ids = [[f"{letter}{number}" for number in range(size)] for letter, size in zip("abcdefgh", groups, strict=False)]
    pairs = [[first, second] for own in ids for i, first in enumerate(own) for second in own[i + 1 :]]
    links = [
        {
            "between": pairs,
            "bandwidth_bytes_per_s": 1e9,
            "latency_s": 1e-6,
            "duplex": "full",
            "source": MADE_UP,
        }
    ]
    to_host = {
        "between": [["host", name] for own in ids for name in own],
        "bandwidth_bytes_per_s": 5e8,
        "latency_s": 2e-6,
        "duplex": "half",
        "source": MADE_UP,
    }
    return {
        "schema": "mars-onnx/pool/1",
        "name": "pool_" + "_".join(map(str, groups)),
        "title": "Equal accelerators for tests",
        "accelerators": [
            {
                "id": name,
                "kind": "npu",
                "designs": ["cpu_avx2"],
                "memory_bytes": memory_bytes,
                "memory_bandwidth_bytes_per_s": 1e10,
                "source": MADE_UP,
            }
            for own in ids
            for name in own
        ],
        "hosts": [{"id": "host"}],
        "links": [*(links if pairs else []), to_host],
        "source": MADE_UP,
    }


@cache
def pool_of(*groups: int, memory_bytes: int = 2**30) -> Pool:
    """A pool with groups of the given sizes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pool.json"
        path.write_text(json.dumps(pool_document(groups, memory_bytes)), encoding="utf-8")
        return load_pool(path)
