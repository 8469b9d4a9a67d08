"""Passes: finding them, writing a pipeline of them as text, running it.

A pass is an ``onnx_ir.passes.PassBase`` that is a frozen dataclass; its fields are its options. See
``docs/writing-a-pass.md``.
"""

from mars_onnx.pipeline.callbacks import PrintAfter, StopAfter, Timing, VerifyStages
from mars_onnx.pipeline.listing import list_passes
from mars_onnx.pipeline.registry import RegisteredPass, Registry, default_registry
from mars_onnx.pipeline.runner import Callback, PassRun, run_pipeline
from mars_onnx.pipeline.text import Pipeline, parse_pipeline, pass_text

__all__ = [
    "Callback",
    "PassRun",
    "Pipeline",
    "PrintAfter",
    "RegisteredPass",
    "Registry",
    "StopAfter",
    "Timing",
    "VerifyStages",
    "default_registry",
    "list_passes",
    "parse_pipeline",
    "pass_text",
    "run_pipeline",
]
