"""From a node's signature to its rule. Rules register by operator name; an operator without one is computed whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import ClassVar

import onnx_ir as ir

from mars_onnx.rules.axes import Whole
from mars_onnx.rules.base import LocalGraph, OpRule, Share, Signature, TensorType

Builder = Callable[[Signature], OpRule | None]


@dataclass(frozen=True, slots=True)
class _Entry:
    build: Builder
    parameters: tuple[int, ...]


#: Before this opset of ONNX's own operators, broadcasting and others meant something else: nodes are computed whole.
OLDEST_OPSET = 7

_ENTRIES: dict[tuple[str, str], _Entry] = {}
#: Modules of this package that register rules when imported.
_MODULES = (
    "convolution",
    "elementwise",
    "gathering",
    "matmul",
    "movement",
    "normalization",
    "pooling",
    "quantization",
    "reductions",
    "reshape",
    "slicing",
    "spatial",
    "transposed_convolution",
)


def rule(*op_types: str, domain: str = "", parameters: tuple[int, ...] = ()) -> Callable[[Builder], Builder]:
    """Register a builder of rules for some operators.

    Args:
        op_types: Operator names.
        domain: Their domain.
        parameters: Inputs whose constant integer values the rule reads (``Signature.constants``).

    The builder returns ``None`` for a node that it cannot shard (an attribute it does not know, say): that node is
    then computed whole.
    """

    def register(build: Builder) -> Builder:
        for op_type in op_types:
            if (domain, op_type) in _ENTRIES:
                raise ValueError(f"two rules for {domain or 'ai.onnx'}::{op_type}")
            _ENTRIES[domain, op_type] = _Entry(build, parameters)
        return build

    return register


@cache
def _load() -> None:
    for module in _MODULES:
        import_module(f"mars_onnx.rules.{module}")


def parameter_inputs(domain: str, op_type: str) -> tuple[int, ...]:
    """Which inputs the rule of an operator reads as constants."""
    _load()
    entry = _ENTRIES.get((domain, op_type))
    return entry.parameters if entry else ()


def operators() -> tuple[tuple[str, str], ...]:
    """Domain and name of every operator with a rule."""
    _load()
    return tuple(sorted(_ENTRIES))


def families() -> dict[str, tuple[tuple[str, str], ...]]:
    """The same by the module that holds the rule, for tables."""
    found: dict[str, list[tuple[str, str]]] = {}
    for key in operators():
        found.setdefault(_ENTRIES[key].build.__module__.rpartition(".")[2], []).append(key)
    return {module: tuple(found[module]) for module in sorted(found)}


@cache
def rule_for(signature: Signature) -> OpRule:
    """The rule of a node. Never fails: without one, the node is computed whole on every member."""
    _load()
    entry = _ENTRIES.get((signature.domain, signature.op_type))
    known = not signature.opaque and (signature.domain != "" or signature.version >= OLDEST_OPSET)
    built = entry.build(signature) if entry and known else None
    return built or whole_rule(signature)


@dataclass(frozen=True)
class WholeRule(OpRule):
    """An operator without a rule: no axes, all inputs gathered, the node kept as it is."""

    is_fallback: ClassVar[bool] = True

    def local(self, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> tuple[ir.Value, ...]:
        signature = self.signature
        return graph.op(
            signature.op_type, inputs, dict(signature.attributes), signature.outputs, domain=signature.domain
        )


def whole_rule(signature: Signature) -> WholeRule:
    """The fallback rule of a node."""

    def dims(operand: TensorType | None) -> tuple[Whole, ...] | None:
        return None if operand is None else tuple(Whole(extent) for extent in operand.shape)

    return WholeRule(signature, inputs=tuple(map(dims, signature.inputs)), outputs=tuple(map(dims, signature.outputs)))
