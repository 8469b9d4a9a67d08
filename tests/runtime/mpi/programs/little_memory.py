"""Runs a folder, with little memory for one process. Arguments: the folder, the process, and its bytes from now on."""

import os
import resource
import sys
from pathlib import Path

# What every run needs is there before memory gets short.
import mars_onnx.runtime.mpi.rank  # noqa: F401
from mars_onnx.run import main

folder, victim, spare_bytes = sys.argv[1:]
if os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK")) == victim:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(spare_bytes)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(main([folder, "--random", "0"]))
