"""Boxes and layouts: who holds which part of a tensor. Knows nothing of ONNX."""

from mars_onnx.geometry.box import (
    Box,
    Range,
    box_shape,
    box_text,
    contains,
    hull,
    intersect,
    parse_box,
    relative,
    subtract,
    volume,
    whole_box,
)
from mars_onnx.geometry.layout import Layout, Reduction

__all__ = [
    "Box",
    "Layout",
    "Range",
    "Reduction",
    "box_shape",
    "box_text",
    "contains",
    "hull",
    "intersect",
    "parse_box",
    "relative",
    "subtract",
    "volume",
    "whole_box",
]
