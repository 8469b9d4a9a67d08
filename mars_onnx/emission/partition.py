"""The graph of one accelerator while it is written: what it holds of every tensor, its token, its metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import onnx_ir as ir

from mars_onnx.comm.attributes import Communication, token_start
from mars_onnx.comm.domain import DOMAIN
from mars_onnx.emission.local_graph import LocalGraphBuilder
from mars_onnx.emission.weights import slice_initializer, sliced_name
from mars_onnx.geometry import Box, Reduction, box_shape, box_text, contains, intersect, relative
from mars_onnx.redistribution.plan import Fragment
from mars_onnx.rules.base import Share
from mars_onnx.rules.shares import share_text
from mars_onnx.rules.signature import tensor_type


class PartitionBuilder(LocalGraphBuilder):
    """Builds the graph of one accelerator.

    Attributes:
        rank: Its rank.
        held: Per tensor of the global graph (by identity) its box here and the local value of that.
        opaque: Local copies of global values without static tensor shape.
        inputs: Graph inputs.
        token: The end of the chain of communication nodes; ``None`` while there is none.
        step: Number of the step that is being written: of the model input, of the node of the sharded graph, or of the
            model output; ``None`` for what belongs to none.
    """

    def __init__(self, opset: int, rank: int) -> None:
        super().__init__(opset)
        self.rank = rank
        self.held: dict[ir.Value, tuple[Box, ir.Value]] = {}
        self.opaque: dict[ir.Value, ir.Value] = {}
        self.inputs: list[ir.Value] = []
        self.token: ir.Value | None = None
        self.step: int | None = 0
        self._weights: dict[tuple[ir.Value, Box], ir.Value] = {}
        self._slices: dict[tuple[ir.Value, Box], ir.Value] = {}
        self._facts: dict[str, str] = {}
        self._names: dict[str, int] = {}
        self._node_names: dict[str, int] = {}
        self._title, self._op_type = "", ""

    def begin(self, node: ir.Node, *, origin: str | None = None, phase: int | None = None) -> None:
        """Every node written from now on says that it belongs to ``node`` of the global graph.

        A redistribution is no node of the canonical graph: it says which tensor (``origin``) it moves.
        """
        self._facts = {"mars.source": node.name or ""} if origin is None else {"mars.tensor": origin}
        self._title, self._op_type = (node.name or "", node.op_type) if origin is None else (origin, "")
        strategy = node.metadata_props.get("mars.strategy")
        if strategy is not None:
            self._facts["mars.strategy"] = strategy
        if phase is not None:
            self._facts["mars.phase"] = str(phase)

    def begin_output(self, name: str, step: int | None) -> None:
        """What is written from now on is there to give the graph output ``name``."""
        self.step = step
        self._facts = {"mars.tensor": name}
        self._title, self._op_type = name, ""

    def begin_share(self, share: Share) -> None:
        """Nodes written from now on compute this share; what is written outside one only moves data."""
        self._facts["mars.share"] = share_text(share.ranges)

    def end_share(self) -> None:
        """The share has been computed."""
        self._facts.pop("mars.share", None)

    def unique(self, name: str) -> str:
        """``name``, with a number behind it if it has been taken."""
        return _unique(self._names, name)

    def fresh(self, name: str) -> str:
        return self.unique(name)

    def communicate(self, communication: Communication, x: ir.Value | None, tensor: str) -> ir.Value | None:
        """Append a communication node behind the last one, and return its data output if it has one."""
        if self.token is None:
            self.token = token_start()
            self.inputs.append(self.token)
            self.initializers[self.token.name or ""] = self.token
        name = f"{communication.op_type}_{communication.tag}"
        node = communication.to_node(
            x,
            self.token,
            name=name,
            output=self.unique(f"{tensor}.{communication.tag}") if communication.gives_data else None,
            token_output=self.unique(f"token_{communication.tag}"),
        )
        self.nodes.append(node)
        self.annotate(node)
        node.metadata_props["mars.tensor"] = tensor
        self.token = node.outputs[-1]
        return node.outputs[0] if communication.gives_data else None

    def append(self, node: ir.Node) -> None:
        """Append a node that is finished, such as the copy of one that is computed whole."""
        self.nodes.append(node)
        self.annotate(node)

    def annotate(self, node: ir.Node) -> None:
        """Attach the facts that a person who opens the partition needs, and name the node after what it works for."""
        node.metadata_props.update(self._facts)
        if self.step is not None:
            node.metadata_props["mars.step"] = str(self.step)
        if node.domain != DOMAIN:
            name = self._title if node.op_type == self._op_type else f"{self._title}.{node.op_type}"
            node.name = _unique(self._node_names, name)

    def name_after(self, value: ir.Value, source: str, box: Box, part: str = "", reduce: str = "") -> None:
        """Say of a local value which box of which global tensor it is, and name it like that tensor."""
        if "mars.box" in value.metadata_props or value.is_graph_input() or value.is_initializer():
            return
        value.name = self.unique(source)
        value.metadata_props["mars.source"] = source
        value.metadata_props["mars.box"] = box_text(box)
        if part:
            value.metadata_props["mars.part"] = part
            value.metadata_props["mars.reduce"] = reduce

    def add_input(self, source: ir.Value, box: Box) -> None:
        """A box of a model input becomes a graph input."""
        kind = tensor_type(source)
        if kind is None:
            raise ValueError(f"model input {source.name!r} is no tensor of static shape")
        value = ir.Value(name=source.name, shape=ir.Shape(box_shape(box)), type=ir.TensorType(kind.dtype))
        facts = {"mars.source": source.name or "", "mars.box": box_text(box), "mars.step": str(self.step)}
        value.metadata_props.update(facts)
        self.unique(source.name or "")
        self.inputs.append(value)
        self.held[source] = (box, value)

    def fetch(self, source: ir.Value, box: Box) -> ir.Value:
        """The local value of a box of a global tensor that this accelerator holds, or slices out of a weight."""
        if source.is_initializer():
            key = (source, box)
            if key not in self._weights:
                name = self.unique(sliced_name(source, box))
                self._weights[key] = self.initializer(slice_initializer(source, box, name))
            return self._weights[key]
        held, value = self.held[source]
        return self.cut(value, held, box)

    def cut(self, value: ir.Value, held: Box, box: Box) -> ir.Value:
        """Part ``box`` of a local value that is the box ``held``; made once."""
        if held == box:
            return value
        key = (value, box)
        if key not in self._slices:
            self._slices[key] = self.slice(value, relative(box, held))
        return self._slices[key]


def _unique(taken: dict[str, int], name: str) -> str:
    number = taken[name] = taken.get(name, 0) + 1
    return name if number == 1 else _unique(taken, f"{name}.{number}")


@dataclass
class Fragments:
    """The pieces of one tensor that an accelerator has while a redistribution runs."""

    builder: PartitionBuilder
    pieces: list[tuple[Fragment, ir.Value]] = field(default_factory=list)

    def find(self, wanted: Fragment) -> ir.Value:
        """The local value of a fragment, cut out of one that contains it."""
        for fragment, value in self.pieces:
            if fragment.part == wanted.part and contains(fragment.box, wanted.box):
                return self.builder.cut(value, fragment.box, wanted.box)
        raise ValueError(f"accelerator {self.builder.rank} has nothing that contains {wanted}")

    def assemble(self, need: Box, terms: Sequence[Sequence[Fragment]], reduction: Reduction) -> ir.Value:
        """Tiles joined per part, and the parts reduced."""
        joined = [self._join(need, [(tile.box, self.find(tile)) for tile in tiles]) for tiles in terms]
        return self.builder.combine(joined, reduction)

    def _join(self, need: Box, tiles: list[tuple[Box, ir.Value]]) -> ir.Value:
        """Tiles that make up a box, joined by Concat along one dimension after another."""
        if len(tiles) == 1:
            return tiles[0][1]
        for dim in range(len(need)):
            starts = sorted({box[dim][0] for box, _ in tiles})[1:]
            cuts = [c for c in starts if all(not box[dim][0] < c < box[dim][1] for box, _ in tiles)]
            if cuts:
                edges = [need[dim][0], *cuts, need[dim][1]]
                parts: list[ir.Value] = []
                for low, high in pairwise(edges):
                    inside = [(box, value) for box, value in tiles if low <= box[dim][0] < high]
                    parts.append(self._join((*need[:dim], (low, high), *need[dim + 1 :]), inside))
                return self.builder.concat(parts, dim)
        # No straight cut goes through (a pinwheel): cut the tiles themselves along the first edge inside the box.
        dim, edge = next((d, box[d][0]) for box, _ in tiles for d in range(len(need)) if box[d][0] > need[d][0])
        split: list[tuple[Box, ir.Value]] = []
        for box, value in tiles:
            for side in ((need[dim][0], edge), (edge, need[dim][1])):
                half = intersect(box, (*box[:dim], side, *box[dim + 1 :]))
                if half is not None:
                    split.append((half, self.builder.cut(value, box, half)))
        return self._join(need, split)
