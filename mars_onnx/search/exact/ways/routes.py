"""The links between accelerators, in numbers: which sets have the same ones between the same members."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from mars_onnx.pool.topology import Pool


class Routes:
    """The routes between all accelerators, and from and to where model inputs and outputs are.

    :func:`mars_onnx.cost.transfers.alike_routes` says the same of a few routes.
    """

    def __init__(self, pool: Pool) -> None:
        """Of a pool."""
        self._ends = (pool.size, pool.size + 1)
        nodes = (*range(pool.size), pool.inputs_at, pool.outputs_at)
        numbers: dict[tuple[object, ...], int] = {}
        every = [[pool.route(first, second) for second in nodes] for first in nodes]
        most = max(route.hops for row in every for route in row)
        #: By node and node, link by link: what is occupied, and a number for what that is; -1 where there are no more.
        self._channels = np.full((len(nodes), len(nodes), most), -1, np.int32)
        self._facts = np.full_like(self._channels, -1)
        for first, row in enumerate(every):
            for second, route in enumerate(row):
                for hop, (link, (start, end)) in enumerate(zip(route.links, pairwise(route.nodes), strict=True)):
                    facts = (link.bandwidth_bytes_per_s, link.latency_s, link.shared, end in pool.stores)
                    self._channels[first, second, hop] = link.channel(start, end)
                    self._facts[first, second, hop] = numbers.setdefault(facts, len(numbers))

    def among(self, members: tuple[int, ...]) -> bytes:
        """Equal for members between which links are the same, with what routes share."""
        nodes = np.asarray([*members, *self._ends])
        places = nodes[:, None], nodes
        channels = self._channels[places].ravel()
        _, first, numbers = np.unique(channels, return_index=True, return_inverse=True)
        # Channels by where they come first, and not by how they are numbered.
        order = np.empty(len(first), np.int32)
        order[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
        found: bytes = order[numbers].tobytes() + self._facts[places].tobytes()
        return found
