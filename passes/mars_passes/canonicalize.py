"""The first pass: any ONNX model becomes one clean graph."""

from dataclasses import dataclass
from operator import is_
from typing import ClassVar

import onnx_ir as ir

from mars_onnx.skeleton import skeleton
from mars_passes.canonical.bindings import bind_shapes
from mars_passes.canonical.cleaning import (
    empty_values_become_initializers,
    give_outputs_a_node,
    inline_constant_ifs,
    inline_functions,
    lift_constants,
    remove_idle_nodes,
    remove_unused,
    separate_initializers_from_inputs,
    sort,
    strip_exporter_metadata,
)
from mars_passes.canonical.folding import fold_constants
from mars_passes.canonical.inference import forget_inferable, infer_shapes, recall
from mars_passes.canonical.naming import name_nodes, name_values
from mars_passes.canonical.normalization import fold_normalizations
from mars_passes.canonical.refusals import refuse_text, refuse_unrepeatable

_IR_VERSION = 10
_OPSET = 20


@dataclass(frozen=True)
class Canonicalize(ir.passes.InPlacePass):
    """Make one clean graph of a model: static shapes, constants folded, unique names.

    Contract: takes any valid model of opset 7 or newer and leaves the canonical form (docs/canonical-form.md), which
    computes the same. Weights in external files are not read. Running it again changes nothing.

    Before::

        <ir_version: 3, opset_import: ["": 9]>
        g (float[N, 3, 8, 8] x, float[4, 3, 1, 1] w) => (float[N, 4, 8, 8] y) <float[4, 3, 1, 1] w = {...}, ...>
        {
            c = Conv (x, w)
            b = BatchNormalization (c, scale, bias, mean, variance)
            y = Identity (b)
        }

    After ``canonicalize{dim=N=1}``::

        <ir_version: 10, opset_import: ["": 9]>
        g (float[1, 3, 8, 8] x) => (float[1, 4, 8, 8] y) <float[4, 3, 1, 1] w = {...}, float[4] w_bias = {...}>
        {
            [Conv_0] y = Conv (x, w, w_bias)
        }

    Options:
        dim: ``NAME=VALUE`` gives a symbolic dimension a size; once per dimension.
        input_shape: ``NAME:1,3,224,224`` gives an input a shape; once per input.
        keep_metadata: Keep what exporters note on nodes and values (stack traces, doc strings).
    """

    stage: ClassVar[str] = "canonical"

    dim: tuple[str, ...] = ()
    input_shape: tuple[str, ...] = ()
    keep_metadata: bool = False

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        before = _State.of(model)
        model.ir_version = max(model.ir_version or 0, _IR_VERSION)
        # A model of other domains' operators alone may lack it, but an Identity may have to be added.
        model.opset_imports.setdefault("", _OPSET)
        refuse_unrepeatable(model)
        inline_functions(model)
        if not self.keep_metadata:
            strip_exporter_metadata(model)
        sort(model)
        separate_initializers_from_inputs(model)
        bind_shapes(model, self.dim, self.input_shape)
        name_values(model)
        _simplify(model)
        fold_normalizations(model.graph)
        remove_unused(model)
        refuse_text(model.graph)
        give_outputs_a_node(model.graph)
        name_values(model)
        name_nodes(model)
        return ir.passes.PassResult(model, modified=not _State.of(model).same_as(before))


def _simplify(model: ir.Model) -> None:
    """Infer shapes and fold what they make constant, until nothing more comes of it."""
    lift_constants(model)
    declared = forget_inferable(model)
    progress = True
    while progress:
        remove_idle_nodes(model.graph)
        remove_unused(model)
        infer_shapes(model)
        recall(model, declared)
        progress = empty_values_become_initializers(model.graph)
        remove_unused(model)
        progress = fold_constants(model) or progress
        progress = inline_constant_ifs(model.graph) or progress
        if progress:
            name_values(model)


@dataclass(frozen=True)
class _State:
    """What tells two states of a model apart, without reading weights."""

    proto: bytes
    tensors: list[object]

    @classmethod
    def of(cls, model: ir.Model) -> "_State":
        tensors: list[object] = [v.const_value for graph in model.graphs() for v in graph.initializers.values()]
        return cls(skeleton(model, small_bytes=0).SerializeToString(deterministic=True), tensors)

    def same_as(self, other: "_State") -> bool:
        # Tensors are immutable: a weight that changed is another object.
        same_count = len(self.tensors) == len(other.tensors)
        return same_count and self.proto == other.proto and all(map(is_, self.tensors, other.tensors))
