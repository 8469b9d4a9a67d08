"""Four of the eight accelerators of a shipped pool, with the links between them."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from mars_onnx.pool.loader import load_pool
from mars_onnx.pool.topology import Pool

_HWDB = Path(__file__).parents[3] / "hwdb"


@cache
def some_of_fpga_pool(*numbers: int) -> Pool:
    """The accelerators of ``fpga_pool`` with these numbers: 0 to 3 are one group, 4 to 7 the other."""
    document: dict[str, Any] = json.loads((_HWDB / "fpga_pool.json").read_text(encoding="utf-8"))
    kept = {"host", *(document["accelerators"][number]["id"] for number in numbers)}
    document["accelerators"] = [own for own in document["accelerators"] if own["id"] in kept]
    for link in document["links"]:
        link["between"] = [pair for pair in link["between"] if kept.issuperset(pair)]
    document["links"] = [link for link in document["links"] if link["between"]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pool.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return load_pool(path)
