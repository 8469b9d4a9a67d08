"""The mapping: accelerator sets, their designs, and the strategy of every layer; as JSON that a person can write.

::

    {"schema": "mars-onnx/mapping/1",
     "sets": [{"accelerators": ["fpga0", "fpga1"], "design": "superlip",
               "layers": {"conv1": "ES(H=2)", "layer1.*": "auto"},
               "enters": {"pool1_out": "ES(D2=2)"}}]}

How a file is read is said in ``mapping_file``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mars_onnx.sharding.strategy import Strategy

SCHEMA = "mars-onnx/mapping/1"
PLAN_SCHEMA = "mars-onnx/plan/1"


@dataclass(frozen=True, slots=True)
class AcceleratorSet:
    """Accelerators that compute the same layers together, configured with the same design.

    Attributes:
        members: Their ranks, in the order in which shares are dealt out.
        designs: Name of the design that each of them takes; they differ only where the accelerators do.
    """

    members: tuple[int, ...]
    designs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """Where a layer is computed and how it is cut.

    Attributes:
        name: Name of the node in the canonical graph.
        set_index: Index of its set.
        strategy: How it is cut over the members of the set.
    """

    name: str
    set_index: int
    strategy: Strategy


@dataclass(frozen=True, slots=True)
class Entry:
    """How a tensor that one set makes comes to another: all layers there take it from this one crossing.

    Without an entry, every different need of a layer is a crossing of its own.

    Attributes:
        tensor: Its name in the canonical graph.
        set_index: The set that it comes to.
        strategy: The layout in which it arrives is that of the output of an Identity on that tensor, so cut on that
            set.
    """

    tensor: str
    set_index: int
    strategy: Strategy


@dataclass(frozen=True, slots=True)
class Mapping:
    """What runs where and how.

    Attributes:
        sets: Accelerators that work together, with their designs.
        layers: A choice for every layer, in topological order.
        entries: How tensors enter sets, in the order of the sets; at most one per tensor and set.
    """

    sets: tuple[AcceleratorSet, ...]
    layers: tuple[LayerChoice, ...]
    entries: tuple[Entry, ...] = ()

    def choice(self, name: str) -> LayerChoice:
        """The choice for a layer, found by going through all of them.

        Raises:
            KeyError: No layer has this name.
        """
        for choice in self.layers:
            if choice.name == name:
                return choice
        raise KeyError(name)

    def to_json(self, accelerator_ids: Sequence[str]) -> dict[str, object]:
        """The mapping as it is written to plan.json; layers keep their order."""
        sets: list[dict[str, object]] = []
        for index, own in enumerate(self.sets):
            enters = {entry.tensor: str(entry.strategy) for entry in self.entries if entry.set_index == index}
            fields: dict[str, object] = {
                "accelerators": [accelerator_ids[rank] for rank in own.members],
                "design": own.designs[0] if len(set(own.designs)) == 1 else list(own.designs),
                "layers": {choice.name: str(choice.strategy) for choice in self.layers if choice.set_index == index},
            }
            sets.append(fields | ({"enters": enters} if enters else {}))
        return {"schema": SCHEMA, "sets": sets}
