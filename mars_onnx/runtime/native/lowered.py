"""The opened partition as ONNX Runtime has optimised it for this machine, and its communications in that graph.

ONNX Runtime computes convolutions in a layout of its own, in which channels come in blocks (``com.microsoft.nchwc``).
It converts at the borders of a graph. Here those conversions are taken away where all members of a communication have
the tensor in blocks: then blocks travel.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx
import onnx.helper
import onnx_ir as ir

from mars_onnx.errors import InvariantError
from mars_onnx.runtime.native.opened import Exchange, OpenedPartition, Opening
from mars_onnx.runtime.sessions import ExecutorOptions, Weights, make_session

BLOCKED_DOMAIN = "com.microsoft.nchwc"
_PROBED_CHANNELS = 64


@dataclass(frozen=True, slots=True)
class Settled:
    """What the graph gives: per tag what the communication takes (``None`` if it is no value of the graph); by name."""

    taken: dict[int, ir.Value | None]
    outputs: dict[str, ir.Value]


@dataclass(frozen=True, slots=True)
class Lowered:
    """The optimised graph. It reads and writes its communications through these values.

    Attributes:
        model: The graph; weights are mapped from the file that ONNX Runtime wrote.
        exchanges: As in the opened partition.
        folder: Where that file is; it has to live as long as the model.
    """

    model: ir.Model
    exchanges: tuple[Exchange, ...]
    folder: tempfile.TemporaryDirectory[str]

    def takes_blocks(self, exchange: Exchange) -> bool:
        """Whether x is computed in blocks and y is read in blocks, as far as the graph does either."""
        source = self._source(exchange)
        if exchange.x is not None and (source is None or not _is_reorder(source, "ReorderOutput")):
            return False
        return all(self._blocked_marker(opening) is not None for opening in exchange.openings)

    def input(self, name: str) -> ir.Value:
        """An input of the graph."""
        return _input(self.model.graph, name)

    def settle(self, blocked: Collection[int]) -> Settled:
        """Give the communications with the tags ``blocked`` blocks, and all others plain tensors."""
        taken: dict[int, ir.Value | None] = {}
        graph = self.model.graph
        names = [str(value.name) for value in graph.outputs]
        for exchange in self.exchanges:
            for opening in exchange.openings:
                self._settle_opening(opening, exchange.operator.tag in blocked)
        # An output may have become an input by another name, where only a mark was between them.
        outputs = dict(zip(names, graph.outputs, strict=True))
        for exchange in self.exchanges:
            value = outputs.get(str(exchange.x))
            source = None if value is None else value.producer()
            if exchange.operator.tag in blocked and source is not None:
                value = source.inputs[0]
            taken[exchange.operator.tag] = value
        return Settled(taken, outputs)

    def _source(self, exchange: Exchange) -> ir.Node | None:
        value = None if exchange.x is None else _output(self.model.graph, exchange.x)
        return None if value is None else value.producer()

    def _blocked_marker(self, opening: Opening) -> ir.Node | None:
        """The marking node, if it has been drawn into the blocked layout."""
        reorder = _only_user(_input(self.model.graph, opening.name))
        if reorder is None or not _is_reorder(reorder, "ReorderInput"):
            return None
        marker = _only_user(reorder.outputs[0])
        if marker is None or (marker.domain, marker.op_type) != (BLOCKED_DOMAIN, "MaxPool"):
            return None
        return marker

    def _settle_opening(self, opening: Opening, blocked: bool) -> None:
        value = _input(self.model.graph, opening.name)
        if opening.name == opening.marker or not value.uses():
            return
        marker = self._blocked_marker(opening)
        if marker is None:
            if blocked:
                raise InvariantError(f"{opening.name} is not read in blocks")
            plain = _only_user(value)
            if plain is None:
                raise InvariantError(f"{opening.name} has lost its mark")
            plain.outputs[0].replace_all_uses_with(value)
            self.model.graph.remove(plain, safe=True)
            return
        reorder = marker.inputs[0].producer() if marker.inputs[0] is not None else None
        if reorder is None:
            raise InvariantError(f"{opening.name}: nothing brings it into blocks")
        result = marker.outputs[0]
        if blocked:
            result.replace_all_uses_with(value)
            self.model.graph.remove([marker, reorder], safe=True)
            return
        for node in [use.node for use in result.uses()]:
            if _is_reorder(node, "ReorderOutput") and not node.outputs[0].is_graph_output():
                node.outputs[0].replace_all_uses_with(value)
                self.model.graph.remove(node, safe=True)
        result.replace_all_uses_with(reorder.outputs[0])
        self.model.graph.remove(marker, safe=True)
        if not reorder.outputs[0].uses():
            self.model.graph.remove(reorder, safe=True)


def lower(opened: OpenedPartition, options: ExecutorOptions) -> Lowered:
    """Let ONNX Runtime optimise the opened partition.

    Raises:
        What ONNX Runtime raises when it refuses a model; see ``RUNTIME_ERRORS``.
    """
    folder = tempfile.TemporaryDirectory(prefix="mars-onnx-")
    path = Path(folder.name) / "partition.onnx"
    if not opened.proto.graph.output:
        # An accelerator that only passes tensors on: ONNX Runtime knows no empty models.
        del opened.proto.graph.node[:]
        return Lowered(ir.from_proto(opened.proto), opened.exchanges, folder)
    make_session(opened.proto, opened.large, Weights(), options, write_to=path)
    return Lowered(ir.load(path), opened.exchanges, folder)


@cache
def block_size() -> int:
    """Channels in a block of ONNX Runtime's blocked layout on this machine; 1 if it has none.

    It pads the output channels of a convolution to whole blocks: a convolution with one of them tells.
    """
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1])
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "probe",
        [info("x", onnx.TensorProto.FLOAT, [1, _PROBED_CHANNELS, 4, 4])],
        [info("y", onnx.TensorProto.FLOAT, [1, 1, 4, 4])],
        [onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1, _PROBED_CHANNELS, 1, 1], [0.0] * _PROBED_CHANNELS)],
    )
    opset = onnx.helper.make_opsetid("", 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    with tempfile.TemporaryDirectory(prefix="mars-onnx-") as folder:
        path = Path(folder) / "probe.onnx"
        make_session(model, options=ExecutorOptions(optimization="all", prepack=True), write_to=path)
        optimised = onnx.load(path).graph
    weights = {tensor.name: tensor.dims[0] for tensor in optimised.initializer}
    for found in optimised.node:
        if (found.domain, found.op_type) == (BLOCKED_DOMAIN, "Conv"):
            return int(weights[found.input[1]])
    return 1


def _is_reorder(node: ir.Node, op_type: str) -> bool:
    channels_last = node.attributes.get("channels_last")
    return (node.domain, node.op_type) == (BLOCKED_DOMAIN, op_type) and (
        channels_last is None or channels_last.as_int() == 0
    )


def _only_user(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 else None


def _output(graph: ir.Graph, name: str) -> ir.Value | None:
    return next((value for value in graph.outputs if value.name == name), None)


def _input(graph: ir.Graph, name: str) -> ir.Value:
    for value in graph.inputs:
        if value.name == name:
            return value
    raise InvariantError(f"the optimised partition has lost its input {name}")
