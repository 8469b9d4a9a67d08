"""Runs until it is ended; every process says its number once it has run. Argument: the folder."""

import os
import sys

import mars_onnx
from tests.runtime.mpi import folder

with mars_onnx.load_rank(sys.argv[1]) as rank:
    given = folder.inputs(len(rank.ranks)) if rank.is_host else None
    rank.run(given)
    os.write(1, f"{rank.rank} {os.getpid()}\n".encode())
    while True:
        rank.run(given)
