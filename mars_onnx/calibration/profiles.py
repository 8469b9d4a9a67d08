"""Profiles of ONNX Runtime: parsing the JSON it writes, and finding out which nodes of a graph a kernel computed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from mars_onnx.cost.fusion import is_fused, joins_sum
from mars_onnx.errors import InputError
from mars_onnx.rules.signature import signature_of

_SUFFIX = "_kernel_time"
#: What ONNX Runtime adds to the name of a node that it has replaced.
_ADDED = re.compile(r"^fused |_nchwc$|/\w+Fusion/?$")
#: Largest profile that is read.
_MOST_BYTES = 512 * 2**20
#: Kernels that ONNX Runtime adds to change the layout.
REORDERS = ("ReorderInput", "ReorderOutput")
#: ONNX Runtime writes whole microseconds, rounded down: half of one is missing on average.
_ROUNDED_DOWN_S = 0.5e-6


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of a session.

    Attributes:
        name: What ONNX Runtime calls it.
        op_type: Its operator.
        inputs: Shapes of its inputs; ONNX Runtime leaves out weights that it keeps in a form of its own.
        outputs: Shapes of its outputs.
        seconds: Of every run, in order.
    """

    name: str
    op_type: str
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    seconds: tuple[float, ...]


def read_profile(path: str | Path) -> list[Kernel]:
    """The kernels of a profile, in the order of their first run.

    Raises:
        InputError: The file cannot be read, or is no profile of ONNX Runtime.
    """
    place = Path(path)
    try:
        if place.stat().st_size > _MOST_BYTES:
            raise InputError(f"{place}: larger than {_MOST_BYTES >> 20} MiB; profile fewer runs")
        events = json.loads(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{place}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not JSON ({error}); a profile that was cut off lacks its end") from None
    if not isinstance(events, list):
        raise InputError(f"{place}: not a profile of ONNX Runtime; it should be a JSON list of events")
    kernels = kernels_of(events)
    if not kernels:
        raise InputError(
            f"{place}: there is no kernel in it; it should be what SessionOptions.enable_profiling writes, "
            "with events whose names end in '_kernel_time'"
        )
    return kernels


def kernels_of(events: Sequence[object]) -> list[Kernel]:
    """The kernels among the events of a profile; others, and malformed ones, are passed over."""
    found: dict[tuple[str, str], tuple[Mapping[str, Any], list[float]]] = {}
    for event in events:
        if not isinstance(event, dict) or event.get("cat") != "Node":
            continue
        name, facts, spent = event.get("name"), event.get("args"), event.get("dur")
        if not (isinstance(name, str) and name.endswith(_SUFFIX) and isinstance(facts, dict)):
            continue
        if not isinstance(spent, int | float) or isinstance(spent, bool) or not 0 <= spent < 1e12:
            continue
        key = (str(facts.get("node_index")), name)
        found.setdefault(key, (facts, []))[1].append(spent * 1e-6 + _ROUNDED_DOWN_S)
    return [
        Kernel(
            name.removesuffix(_SUFFIX),
            str(facts.get("op_name", "")),
            _shapes(facts.get("input_type_shape")),
            _shapes(facts.get("output_type_shape")),
            tuple(seconds),
        )
        for (_, name), (facts, seconds) in found.items()
    ]


def _shapes(listed: object) -> tuple[tuple[int, ...], ...]:
    shapes: list[tuple[int, ...]] = []
    for entry in listed if isinstance(listed, list) else []:
        (dims,) = entry.values() if isinstance(entry, dict) and len(entry) == 1 else ([],)
        whole = isinstance(dims, list) and all(isinstance(extent, int) and 0 <= extent < 2**40 for extent in dims)
        shapes.append(tuple(dims) if whole else ())
    return tuple(shapes)


def leader_of(node: ir.Node) -> ir.Node:
    """The node whose kernel computes this one as well: itself, unless it is fused with what is before."""
    while is_fused(signature_of(node)):
        node = _before(node)
    return node


def _before(node: ir.Node) -> ir.Node:
    """The link before in the chain."""
    wanted = signature_of(node).chain[-1]
    for value in node.inputs:
        producer = value.producer() if value is not None else None
        if producer is not None and producer.op_type == wanted and value is not None and len(value.uses()) == 1:
            return producer
    raise ValueError(f"{node.name} has no link before it")


def _shape_of(node: ir.Node) -> tuple[int, ...]:
    shape = node.outputs[0].shape
    return () if shape is None else tuple(extent for extent in shape if isinstance(extent, int))


def nodes_of(kernels: Sequence[Kernel], graph: ir.Graph) -> list[tuple[Kernel, tuple[ir.Node, ...]]]:
    """Per kernel the nodes that it computes, the leader first; kernels that no node has given are left out."""
    by_name = {node.name: node for node in graph}
    # ONNX Runtime gives a normalisation that takes up a sum a name of its own; they come in the order of the graph.
    joined = [node for node in graph if joins_sum(signature_of(node))]
    by_value = {value.name: node for node in graph for value in node.outputs}
    groups: dict[ir.Node, list[ir.Node]] = {}
    for node in graph:
        groups.setdefault(leader_of(node), []).append(node)
    found: list[tuple[Kernel, tuple[ir.Node, ...]]] = []
    for kernel in kernels:
        if kernel.op_type in REORDERS:
            continue
        name = _ADDED.sub("", kernel.name)
        computed = by_name.get(name) or by_value.get(name)
        if computed is None and kernel.op_type == "SkipLayerNormalization":
            computed = next((node for node in joined if kernel.outputs and _shape_of(node) == kernel.outputs[0]), None)
            if computed is not None:
                joined.remove(computed)
        if computed is not None:
            found.append((kernel, tuple(groups[leader_of(computed)])))
    return found
