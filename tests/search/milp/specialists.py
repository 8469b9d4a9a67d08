"""Pools whose accelerators take one design each, so that it pays to go from one to another."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

from mars_onnx.pool.loader import load_pool
from mars_onnx.pool.topology import Pool
from tests.pool_factory import MADE_UP, pool_document

#: Wide convolutions, at which the design ``dpu_b4096`` is best, and depthwise ones, at which ``winograd`` is.
SPECIALS = """
specials (float[1,32,24,24] x) => (float[1,32,24,24] z) {
    [wide] a = Conv <pads = [2,2,2,2]> (x, w32x32x5x5)
    [act] b = Relu (a)
    [deep] c = Conv <pads = [1,1,1,1], group = 32> (b, w32x1x3x3)
    [left] d = Conv <pads = [1,1,1,1], group = 32> (c, w32x1x3x3)
    [sum] e = Add (c, d)
    [right] f = Conv <pads = [1,1,1,1], group = 32> (e, w32x1x3x3)
    [last] z = Conv <pads = [2,2,2,2]> (f, w32x32x5x5)
}"""


@cache
def specialists(*designs: str, latency_s: float = 1e-9) -> Pool:
    """One accelerator per design, and links between all that are wide: what counts is how often something is sent."""
    document = pool_document([len(designs)])
    for accelerator, design in zip(document["accelerators"], designs, strict=True):
        accelerator["designs"] = [design]
        accelerator["source"] = MADE_UP
    for link in document["links"]:
        link["latency_s"] = latency_s
        link["bandwidth_bytes_per_s"] = 1e11
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pool.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return load_pool(path)
