"""What a search works on: layers with their signatures, and where their inputs come from."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from mars_onnx.rules.base import Signature, TensorType
from mars_onnx.rules.signature import signature_of, tensor_type
from mars_onnx.stages.sharded import captured_inputs


@dataclass(frozen=True, slots=True)
class Source:
    """Where an input of a layer comes from.

    Attributes:
        layer: Index of the producing layer; ``None`` for a model input.
        output: Which output of that layer; of a model input, its index.
    """

    layer: int | None
    output: int


@dataclass(frozen=True, slots=True)
class Layer:
    """One node.

    Attributes:
        name: Its name in the canonical graph.
        signature: What its rule depends on.
        sources: Per input where it comes from; ``None`` for a weight or an absent input.
        captured: What bodies inside the node use of the graph around it; they need it whole.
        tied: Indices of earlier layers that must be on the same set, because what they give cannot be sent.
        tensors: Names of its outputs in the canonical graph.
        weights: Per input the name of the constant that it is; ``None`` for what is none.
    """

    name: str
    signature: Signature
    sources: tuple[Source | None, ...]
    captured: tuple[tuple[Source, TensorType], ...] = ()
    tied: tuple[int, ...] = ()
    tensors: tuple[str, ...] = ()
    weights: tuple[str | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """A model as a search sees it.

    Attributes:
        layers: In topological order.
        outputs: What makes the model's outputs; a model input that is also an output has no layer.
        inputs: Names of the model's inputs.
    """

    layers: tuple[Layer, ...]
    outputs: tuple[Source, ...] = ()
    inputs: tuple[str, ...] = ()

    def name_of(self, tensor: Source) -> str:
        """The name of a tensor in the canonical graph."""
        if tensor.layer is None:
            return self.inputs[tensor.output]
        return self.layers[tensor.layer].tensors[tensor.output]


def problem_of(model: ir.Model) -> Problem:
    """The problem that a canonical graph poses."""
    places = {value: Source(None, index) for index, value in enumerate(model.graph.inputs)}
    layers: list[Layer] = []
    #: Equal signatures are one object, so that they are found by identity.
    signatures: dict[Signature, Signature] = {}
    for number, node in enumerate(model.graph):
        sources = tuple(None if value is None else places.get(value) for value in node.inputs)
        taken = [value for value in (*node.inputs, *captured_inputs(node)) if value is not None]
        tied = sorted(
            {
                place.layer
                for value in taken
                if tensor_type(value) is None and (place := places.get(value)) and place.layer is not None
            }
        )
        names = tuple(value.name or "" for value in node.outputs)
        captured = tuple(
            (places[value], kind)
            for value in captured_inputs(node)
            if value in places and (kind := tensor_type(value)) is not None
        )
        weights = tuple(value.name if value is not None and value.is_initializer() else None for value in node.inputs)
        signature = signature_of(node)
        signature = signatures.setdefault(signature, signature)
        layers.append(Layer(node.name or "", signature, sources, captured, tuple(tied), names, weights))
        places.update((value, Source(number, index)) for index, value in enumerate(node.outputs))
    outputs = tuple(places[value] for value in model.graph.outputs if value in places)
    return Problem(tuple(layers), outputs, tuple(value.name or "" for value in model.graph.inputs))
