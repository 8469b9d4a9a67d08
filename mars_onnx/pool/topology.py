"""A pool as the rest of mars_onnx sees it: accelerators by rank, designs resolved, routes between any two nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from mars_onnx.pool.collectives import Collectives
from mars_onnx.pool.numbers import Parameters

if TYPE_CHECKING:
    from networkx import Graph

#: Size of the message that routes are fastest for. Between the sizes where latency and where bandwidth decides, and
#: typical of an activation tensor.
REFERENCE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Design:
    """What an accelerator can be configured as.

    Attributes:
        name: As pools and mappings call it.
        title: In a few words.
        model: Name of its performance model.
        parameters: The numbers of that model.
        data_bits: Width of a value in the accelerator's memory; ``None``: that of the tensor's type.
        source: Where the numbers are from.
        reconstructed: Whether they are inferred from incomplete publications.
        notes: Anything else.
    """

    name: str
    title: str
    model: str
    parameters: Parameters
    data_bits: int | None
    source: str
    reconstructed: bool = False
    notes: str = ""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A device with its own memory; see the pool format for the fields.

    Attributes:
        rank: Its place in the pool.
        id: Its name, also of its partition's file.
        kind: fpga, gpu, ...
        designs: What it can be configured as.
        memory_bytes: Size of its memory.
        memory_bandwidth_bytes_per_s: Rate between memory and arithmetic.
        source: Where the numbers are from.
        provider: Execution provider of ONNX Runtime that runs its partition; ``None``: the default.
    """

    rank: int
    id: str
    kind: str
    designs: tuple[Design, ...]
    memory_bytes: int
    memory_bandwidth_bytes_per_s: float
    source: str = ""
    provider: str | None = None

    @property
    def adaptive(self) -> bool:
        """Whether there is a choice of designs."""
        return len(self.designs) > 1

    def design(self, name: str) -> Design | None:
        """The design of that name, ``None`` if this accelerator cannot take it."""
        return next((design for design in self.designs if design.name == name), None)


@dataclass(frozen=True, slots=True)
class Link:
    """A link between two nodes.

    Attributes:
        index: Its place in the pool's links.
        ends: The two nodes.
        bandwidth_bytes_per_s: In either direction at once (full duplex), or in all (half).
        latency_s: From the first byte sent to the first received.
        full_duplex: Whether both directions run at once.
        shared: Whether transfers at the same time share the bandwidth.
        source: Where the numbers are from.
    """

    index: int
    ends: tuple[int, int]
    bandwidth_bytes_per_s: float
    latency_s: float
    full_duplex: bool = True
    source: str = ""
    shared: bool = True

    def channel(self, first: int, second: int) -> int:
        """A number for what a transfer from ``first`` to ``second`` occupies, unique in the pool.

        Both directions of a half-duplex link are one channel.
        """
        return 2 * self.index + (1 if self.full_duplex and (first, second) != self.ends else 0)


@dataclass(frozen=True, slots=True)
class Overlap:
    """What the accelerators of a pool do at the same time, and what a simulation counts; see the pool format.

    Attributes:
        communication_with_compute: Whether an accelerator communicates while it computes.
        double_buffering: Whether the next node's weights are fetched while a node runs.
        prefetch_bytes: The most that is fetched ahead; ``None`` for no limit.
        contention: Whether communications at the same time share channels.
        local_moves: Whether slices and joins that emission added take time.
        source: Where this is from.
    """

    communication_with_compute: bool = False
    double_buffering: bool = False
    prefetch_bytes: int | None = None
    contention: bool = True
    local_moves: bool = True
    source: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """The way from one node to another.

    Attributes:
        nodes: All nodes on it, both ends included.
        links: The links between them.
    """

    nodes: tuple[int, ...]
    links: tuple[Link, ...]

    @property
    def hops(self) -> int:
        """Number of links."""
        return len(self.links)

    @property
    def bandwidth_bytes_per_s(self) -> float:
        """Of the slowest link: a message is passed on while it arrives. Infinite from a node to itself."""
        return min((link.bandwidth_bytes_per_s for link in self.links), default=float("inf"))

    @property
    def latency_s(self) -> float:
        """Of all links together."""
        return sum(link.latency_s for link in self.links)

    @property
    def channels(self) -> tuple[int, ...]:
        """What a transfer this way occupies; see :meth:`Link.channel`."""
        return tuple(link.channel(*ends) for link, ends in zip(self.links, pairwise(self.nodes), strict=True))


@dataclass(frozen=True, eq=False)
class Pool:
    """Accelerators and what connects them. Equal if their content is (``sha256``).

    A *node* is a number: first the accelerators (their ranks), then hosts, then switches, in the file's order.

    Attributes:
        name: As plans and reports call it.
        title: In a few words.
        accelerators: By rank.
        hosts: Ids.
        switches: Ids.
        links: By index.
        inputs_at: Node where model inputs start.
        outputs_at: Node where model outputs end.
        sha256: Of the content, designs included, in a canonical form.
        source: Where the pool's description is from.
        reconstructed: Whether any of its numbers are inferred from incomplete publications.
        notes: Anything else.
        collectives: How collectives run.
        stores: Nodes that pass a message on only when all of it is there.
        overlap: What happens at the same time; ``None`` if the pool does not say: nothing does.
    """

    name: str
    title: str
    accelerators: tuple[Accelerator, ...]
    hosts: tuple[str, ...]
    switches: tuple[str, ...]
    links: tuple[Link, ...]
    inputs_at: int
    outputs_at: int
    sha256: str
    source: str = ""
    reconstructed: bool = False
    notes: str = ""
    collectives: Collectives = field(default_factory=Collectives)
    stores: frozenset[int] = frozenset()
    overlap: Overlap | None = None
    _trees: dict[int, list[int]] = field(default_factory=dict, repr=False)
    _routes: dict[tuple[int, int], Route] = field(default_factory=dict, repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pool) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    @property
    def size(self) -> int:
        """Number of accelerators."""
        return len(self.accelerators)

    @cached_property
    def node_ids(self) -> tuple[str, ...]:
        """Id of every node."""
        return (*(accelerator.id for accelerator in self.accelerators), *self.hosts, *self.switches)

    @cached_property
    def ranks(self) -> dict[str, int]:
        """Rank of every accelerator, by id."""
        return {accelerator.id: accelerator.rank for accelerator in self.accelerators}

    @cached_property
    def designs(self) -> dict[str, Design]:
        """Every design that some accelerator can take, by name, in order of first mention."""
        return {design.name: design for accelerator in self.accelerators for design in accelerator.designs}

    @cached_property
    def graph(self) -> Graph:
        """Nodes and links as a networkx graph; edges have ``link`` and ``seconds`` (for a reference message)."""
        from networkx import Graph  # here, since it takes as long to import as all the rest

        graph: Graph = Graph()
        graph.add_nodes_from(range(len(self.node_ids)))
        for link in self.links:
            seconds = link.latency_s + REFERENCE_BYTES / link.bandwidth_bytes_per_s
            graph.add_edge(*link.ends, link=link, seconds=seconds)
        return graph

    def route(self, first: int, second: int) -> Route:
        """The fastest way for a message of ``REFERENCE_BYTES`` between two nodes; back is the same way reversed.

        For the choice, hops add up as if a message were passed on whole; equally fast ways are decided by node number.
        """
        found = self._routes.get((first, second))
        if found is None:
            nodes = self._path(min(first, second), max(first, second))
            nodes = nodes if first <= second else nodes[::-1]
            edges = self.graph.edges
            found = Route(nodes, tuple(edges[ends]["link"] for ends in pairwise(nodes)))
            self._routes[first, second] = found
        return found

    def _path(self, source: int, target: int) -> tuple[int, ...]:
        tree = self._trees.get(source)
        if tree is None:
            from networkx import dijkstra_predecessor_and_distance

            before, _ = dijkstra_predecessor_and_distance(self.graph, source, weight="seconds")
            tree = [min(before.get(node) or [-1]) for node in range(len(self.node_ids))]
            self._trees[source] = tree
        if source != target and tree[target] < 0:
            raise ValueError(f"no route leads from {self.node_ids[source]!r} to {self.node_ids[target]!r}")
        nodes = [target]
        while nodes[-1] != source:
            nodes.append(tree[nodes[-1]])
        return tuple(reversed(nodes))

    def bandwidth(self, first: int, second: int) -> float:
        """Bytes per second between two nodes with nothing else going on; infinite from a node to itself."""
        return self.route(first, second).bandwidth_bytes_per_s

    def latency(self, first: int, second: int) -> float:
        """Seconds from the first byte sent to the first byte received; 0 from a node to itself."""
        return self.route(first, second).latency_s

    def distance(self, source: int, target: int) -> int:
        """What to prefer one source over another by: hops. Less is nearer."""
        return self.route(source, target).hops

    @cached_property
    def _groups(self) -> tuple[tuple[int, ...], ...]:
        from networkx import connected_components

        hosts = range(self.size, self.size + len(self.hosts))
        apart = self.graph.copy()
        apart.remove_nodes_from(hosts)
        members = (tuple(sorted(n for n in nodes if n < self.size)) for nodes in connected_components(apart))
        return tuple(sorted(filter(None, members)))

    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Ranks that reach each other without a host, by first rank."""
        return self._groups

    @cached_property
    def group_of(self) -> tuple[int, ...]:
        """Per rank the number of its group."""
        number = {rank: index for index, ranks in enumerate(self._groups) for rank in ranks}
        return tuple(number[rank] for rank in range(self.size))
