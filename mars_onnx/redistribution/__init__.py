"""From a layout to another: which collectives, between whom, of which boxes. Makes all communication choices."""

from mars_onnx.redistribution.plan import Assembly, Collective, Fragment, Pattern, Plan
from mars_onnx.redistribution.planner import communication, direct_plan, redistribute
from mars_onnx.redistribution.sources import Distance, index_distance
from mars_onnx.redistribution.volume import received_volume

__all__ = [
    "Assembly",
    "Collective",
    "Distance",
    "Fragment",
    "Pattern",
    "Plan",
    "communication",
    "direct_plan",
    "index_distance",
    "received_volume",
    "redistribute",
]
