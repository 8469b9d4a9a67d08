"""Accelerators, links and designs: the file format, its loading, and the topology. Knows nothing of ONNX."""

from mars_onnx.pool.collectives import ALGORITHMS, Collectives
from mars_onnx.pool.loader import find_pool, load_design, load_pool, shipped_pools
from mars_onnx.pool.model_parameters import KernelGain, RooflineParameters
from mars_onnx.pool.numbers import Parameters
from mars_onnx.pool.topology import REFERENCE_BYTES, Accelerator, Design, Link, Overlap, Pool, Route

__all__ = [
    "ALGORITHMS",
    "REFERENCE_BYTES",
    "Accelerator",
    "Collectives",
    "Design",
    "KernelGain",
    "Link",
    "Overlap",
    "Parameters",
    "Pool",
    "RooflineParameters",
    "Route",
    "find_pool",
    "load_design",
    "load_pool",
    "shipped_pools",
]
