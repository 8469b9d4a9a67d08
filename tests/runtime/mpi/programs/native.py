"""Runs a folder several times with other inputs each, and says how: ``native.py FOLDER MODEL.onnx``."""

import sys

import numpy as np

from mars_onnx.runtime.mpi.rank import Rank
from mars_onnx.runtime.random_inputs import random_inputs
from mars_onnx.runtime.reference import run_reference

with Rank(sys.argv[1]) as rank:
    for seed in range(4):
        inputs = random_inputs(rank.plan, seed)
        outputs = rank.run(inputs if rank.is_host else None)
        if outputs is not None:
            for name, value in run_reference(sys.argv[2], inputs).items():
                np.testing.assert_allclose(outputs[name], value, rtol=1e-4, atol=1e-5)
    native = rank._executor._native
    blocked = sum(link.blocked for link in native.links) if native is not None else -1
    places = sorted(native.placement.whole.items()) if native is not None else []
    lines = rank._comm.allgather(f"{blocked} {places}")
    if rank.is_host:
        print("\n".join(lines))
