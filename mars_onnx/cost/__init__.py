"""The price of work and of communication on a pool: performance models, interconnect, timeline."""

from mars_onnx.cost.interconnect import Interconnect
from mars_onnx.cost.performance import Estimate, OpClass, PerformanceModel, Workload, performance_model
from mars_onnx.cost.timeline import Event, Step, Timeline, schedule, schedule_steps
from mars_onnx.cost.workload import op_class, workload

__all__ = [
    "Estimate",
    "Event",
    "Interconnect",
    "OpClass",
    "PerformanceModel",
    "Step",
    "Timeline",
    "Workload",
    "op_class",
    "performance_model",
    "schedule",
    "schedule_steps",
    "workload",
]
