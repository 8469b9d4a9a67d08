"""Decisions attached to a model: the pool, the mapping, a strategy per node, a layout per value.

They are kept as text in ``metadata_props`` and nowhere else, so a model that is saved between two passes and loaded
again is the same model. Reading parses the text; the parsers cache what they return.
"""

from __future__ import annotations

from functools import lru_cache

import onnx_ir as ir

from mars_onnx.errors import InvariantError
from mars_onnx.geometry import Layout
from mars_onnx.sharding.strategy import Strategy, parse_strategy

STAGE = "mars.stage"
POOL = "mars.pool"
MAPPING = "mars.mapping"
SET = "mars.set"
STRATEGY = "mars.strategy"
LAYOUT = "mars.layout"


def set_stage(model: ir.Model, stage: str) -> None:
    """Note which stage of the pipeline the model has reached."""
    model.metadata_props[STAGE] = stage


def get_stage(model: ir.Model) -> str:
    """The stage that the model has reached, ``""`` for a model as a user has it."""
    return model.metadata_props.get(STAGE, "")


def set_choice(node: ir.Node, set_index: int, strategy: Strategy) -> None:
    """Attach where a node is computed and how it is cut."""
    node.metadata_props[SET] = str(set_index)
    node.metadata_props[STRATEGY] = str(strategy)


def get_set(node: ir.Node) -> int:
    """Index of the set that computes a node."""
    return int(_required(node, SET))


def get_strategy(node: ir.Node) -> Strategy:
    """How a node is cut."""
    return parse_strategy(_required(node, STRATEGY))


def set_layout(value: ir.Value, layout: Layout) -> None:
    """Attach where a value is."""
    value.metadata_props[LAYOUT] = layout.to_text()


def get_layout(value: ir.Value) -> Layout:
    """Where a value is.

    Raises:
        InvariantError: It has no layout, or one that is malformed.
    """
    text = value.metadata_props.get(LAYOUT)
    if text is None:
        raise InvariantError(f"value {value.name!r} has no layout; insert-sharding gives it one")
    return _layout(text)


def has_layout(value: ir.Value) -> bool:
    """Whether a value has a layout (initializers have none: every member slices what it needs)."""
    return LAYOUT in value.metadata_props


@lru_cache(maxsize=16384)
def _layout(text: str) -> Layout:
    try:
        return Layout.from_text(text)
    except ValueError as error:
        raise InvariantError(f"{text!r} is no layout: {error}") from error


def _required(node: ir.Node, key: str) -> str:
    text = node.metadata_props.get(key)
    if text is None:
        raise InvariantError(f"node {node.name!r} has no {key}; select-accelerators gives it one")
    return text
