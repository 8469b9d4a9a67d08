"""An event-driven run of emitted partitions on a pool: when what happens, what waits for what, memory."""

from mars_onnx.simulation.conditions import ADDITIVE, Conditions, declared
from mars_onnx.simulation.result import MemoryPoint, RankUse, Simulation, TaskRun
from mars_onnx.simulation.simulate import read_folder, simulate
from mars_onnx.simulation.stream import stream_period_s
from mars_onnx.simulation.trace import chrome_trace

__all__ = [
    "ADDITIVE",
    "Conditions",
    "MemoryPoint",
    "RankUse",
    "Simulation",
    "TaskRun",
    "chrome_trace",
    "declared",
    "read_folder",
    "simulate",
    "stream_period_s",
]
