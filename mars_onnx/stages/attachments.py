"""Decisions attached to a model: the pool, the mapping, a strategy per node, a layout per value.

Decisions are kept as text in ``metadata_props`` and nowhere else, so a model that is saved between two passes and
loaded again is the same model. Reading parses the text; the parsers cache what they return. The pool is no decision but
an input of the whole pipeline, and the partitions are its result: these two are held as objects, in ``meta``. So is how
the mapping was found: a bound that is read from a file, which anybody may have changed, would prove nothing.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from mars_onnx.errors import InvariantError, UsageError
from mars_onnx.geometry import Layout
from mars_onnx.pool.topology import Pool
from mars_onnx.sharding.mapping import Mapping
from mars_onnx.sharding.mapping_file import parse_mapping
from mars_onnx.sharding.strategy import Strategy, parse_strategy

if TYPE_CHECKING:
    from mars_onnx.emission.finish import Partitions
    from mars_onnx.search.find import Found

STAGE = "mars.stage"
POOL = "mars.pool"
PARTITIONS = "mars.partitions"
MAPPING = "mars.mapping"
SEARCH = "mars.search"
SET = "mars.set"
STRATEGY = "mars.strategy"
LAYOUT = "mars.layout"
#: On a value that has another name than in the canonical graph: that name.
SOURCE = "mars.source"


def set_stage(model: ir.Model, stage: str) -> None:
    """Note which stage of the pipeline the model has reached."""
    model.metadata_props[STAGE] = stage


def get_stage(model: ir.Model) -> str:
    """The stage that the model has reached, ``""`` for a model as a user has it."""
    return model.metadata_props.get(STAGE, "")


def set_pool(model: ir.Model, pool: Pool) -> None:
    """Attach the pool that the passes work for."""
    model.meta[POOL] = pool


def get_pool(model: ir.Model) -> Pool:
    """The pool that the passes work for.

    Raises:
        UsageError: None was given.
    """
    pool = model.meta.get(POOL)
    if not isinstance(pool, Pool):
        raise UsageError("this pass needs a pool of accelerators; name one with --hw")
    return pool


def set_mapping(model: ir.Model, mapping: Mapping) -> None:
    """Attach the mapping to the model, and to every node its set and strategy."""
    model.metadata_props[MAPPING] = json.dumps(mapping.to_json(_ids(get_pool(model))))
    choices = {choice.name: choice for choice in mapping.layers}
    for node in model.graph:
        choice = choices[node.name or ""]
        set_choice(node, choice.set_index, choice.strategy)


def get_mapping(model: ir.Model) -> Mapping:
    """The mapping of the model, with its layers in the order of the graph.

    Raises:
        UsageError: It has none.
    """
    text = model.metadata_props.get(MAPPING)
    if text is None:
        raise UsageError("this pass needs a mapping; run select-accelerators before it")
    mapping = _mapping(text, get_pool(model))
    # As text, layers are listed set by set.
    place = {node.name: number for number, node in enumerate(model.graph)}
    layers = tuple(sorted(mapping.layers, key=lambda choice: place.get(choice.name, len(place))))
    return replace(mapping, layers=layers)


def set_found(model: ir.Model, found: Found) -> None:
    """Attach how the mapping was found."""
    model.meta[SEARCH] = found


def get_found(model: ir.Model) -> Found | None:
    """How the mapping was found; ``None`` if that was in an earlier run, of which only the mapping is left."""
    found: Found | None = model.meta.get(SEARCH)
    return found


def set_partitions(model: ir.Model, partitions: Partitions) -> None:
    """Attach what emit-partitions made."""
    model.meta[PARTITIONS] = partitions


def get_partitions(model: ir.Model) -> Partitions:
    """What emit-partitions made.

    Raises:
        UsageError: It has not run.
    """
    partitions: Partitions | None = model.meta.get(PARTITIONS)
    if partitions is None:
        raise UsageError("there are no partitions; run emit-partitions first")
    return partitions


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


def _ids(pool: Pool) -> tuple[str, ...]:
    return tuple(accelerator.id for accelerator in pool.accelerators)


@lru_cache(maxsize=8)
def _mapping(text: str, pool: Pool) -> Mapping:
    layers = [name for own in json.loads(text)["sets"] for name in own["layers"]]
    return parse_mapping(text, Path("the mapping in the model"), pool, layers)


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
