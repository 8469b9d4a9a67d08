"""Collectives as processes of members that wait for each other's messages, simulated with simpy.

It shares nothing with the cost model but the pool's links and routes: messages are cut into packets that queue at
every link on their way, and no rounds are kept in step.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from itertools import pairwise
from typing import Any

import simpy

from mars_onnx.pool import Pool

PACKETS = 60
Process = Generator[Any, Any, Any]


class Network:
    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.env = simpy.Environment()
        self.ports: dict[tuple[int, int], simpy.Resource] = {}
        self.mail: dict[tuple[int, int, object], simpy.Event] = {}
        self.rules = pool.collectives

    def port(self, number: int, side: int) -> simpy.Resource:
        link = self.pool.links[number]
        return self.ports.setdefault((number, side if link.full_duplex else 0), simpy.Resource(self.env))

    def box(self, source: int, target: int, tag: object) -> simpy.Event:
        return self.mail.setdefault((source, target, tag), self.env.event())

    def send(self, source: int, target: int, nbytes: float, tag: object) -> None:
        """A message starts on its way; ``receive`` waits for it."""
        self.env.process(self._send(source, target, nbytes, self.box(source, target, tag)))

    def _send(self, source: int, target: int, nbytes: float, arrived: simpy.Event) -> Process:
        route = self.pool.route(source, target)
        stored = any(node in self.pool.stores for node in route.nodes)
        packets = 1 if stored else PACKETS
        legs = [(link, int(ends != link.ends)) for link, ends in zip(route.links, pairwise(route.nodes), strict=True)]
        under_way = []
        for _ in range(packets):
            yield from self._pass(*legs[0], nbytes / packets)
            under_way.append(self.env.process(self._rest(legs, nbytes / packets)))
        yield simpy.AllOf(self.env, under_way)
        arrived.succeed()

    def _pass(self, link: Any, side: int, nbytes: float) -> Process:
        if not link.shared:
            yield self.env.timeout(nbytes / link.bandwidth_bytes_per_s)
            return
        with self.port(link.index, side).request() as turn:
            yield turn
            yield self.env.timeout(nbytes / link.bandwidth_bytes_per_s)

    def _rest(self, legs: list[Any], nbytes: float) -> Process:
        yield self.env.timeout(legs[0][0].latency_s)
        for link, side in legs[1:]:
            yield from self._pass(link, side, nbytes)
            yield self.env.timeout(link.latency_s)

    def receive(self, source: int, target: int, tag: object) -> Process:
        yield self.box(source, target, tag)
        yield self.env.timeout(self.rules.endpoint_latency_s)

    def add(self, nbytes: float) -> Process:
        rate = self.rules.reduction_bytes_per_s
        yield self.env.timeout(nbytes / rate if rate else 0)

    def run(self, members: Sequence[int], process: Callable[[Network, int, object], Process]) -> float:
        """Seconds until all members are through with all chunks."""

        def chunks(member: int) -> Process:
            for chunk in range(self.rules.chunks):
                yield self.env.timeout(self.rules.endpoint_latency_s)
                yield from process(self, member, chunk)

        self.env.run(simpy.AllOf(self.env, [self.env.process(chunks(member)) for member in members]))
        return float(self.env.now)


def ring(ranks: Sequence[int], nbytes: float, rounds: int, sums: int) -> Callable[[Network, int, object], Process]:
    """Each member sends ``nbytes`` to the next as soon as it has what it got from the one before."""

    def process(net: Network, place: int, chunk: object) -> Process:
        n, own = len(ranks), ranks[place]
        for number in range(rounds):
            net.send(own, ranks[(place + 1) % n], nbytes, (chunk, number))
            yield from net.receive(ranks[place - 1], own, (chunk, number))
            yield net.box(own, ranks[(place + 1) % n], (chunk, number))
            if number < sums:
                yield from net.add(nbytes)

    return process


def pairwise_exchange(ranks: Sequence[int], nbytes: float) -> Callable[[Network, int, object], Process]:
    def process(net: Network, place: int, chunk: object) -> Process:
        n, own = len(ranks), ranks[place]
        for step in range(1, n):
            net.send(own, ranks[(place + step) % n], nbytes, chunk)
            yield from net.receive(ranks[place - step], own, chunk)
            yield net.box(own, ranks[(place + step) % n], chunk)

    return process


def direct_exchange(ranks: Sequence[int], nbytes: float, sums: int = 0) -> Callable[[Network, int, object], Process]:
    def process(net: Network, place: int, chunk: object) -> Process:
        own = ranks[place]
        others = [*ranks[place + 1 :], *ranks[:place]]
        for other in others:
            net.send(own, other, nbytes, chunk)
        yield simpy.AllOf(net.env, [net.box(other, own, chunk) for other in others])
        yield net.env.timeout(net.rules.endpoint_latency_s)
        for _ in range(sums):
            yield from net.add(nbytes)

    return process


def halving(ranks: Sequence[int], nbytes: float, *, back: bool = False) -> Callable[[Network, int, object], Process]:
    """Reduce-scatter of ``nbytes``, and with ``back`` all-gather, by exchanges with partners."""

    def process(net: Network, place: int, chunk: object) -> Process:
        n, own = len(ranks), ranks[place]
        offset, amount = 1, nbytes
        while offset < n:
            amount /= 2
            net.send(own, ranks[place ^ offset], amount, (chunk, "down"))
            yield from net.receive(ranks[place ^ offset], own, (chunk, "down"))
            yield from net.add(amount)
            offset *= 2
        while back and offset > 1:
            offset //= 2
            net.send(own, ranks[place ^ offset], amount, (chunk, "up"))
            yield from net.receive(ranks[place ^ offset], own, (chunk, "up"))
            amount *= 2

    return process


def tree(ranks: Sequence[int], nbytes: float) -> Callable[[Network, int, object], Process]:
    """Who has it at time ``k`` sends to the member ``2 ** k`` further on."""

    def process(net: Network, place: int, chunk: object) -> Process:
        n, reach = len(ranks), 1
        if place:
            while 2 * reach <= place:
                reach *= 2
            yield from net.receive(ranks[place - reach], ranks[place], chunk)
            reach *= 2
        while place + reach < n:
            net.send(ranks[place], ranks[place + reach], nbytes, chunk)
            yield net.box(ranks[place], ranks[place + reach], chunk)
            yield net.env.timeout(net.rules.endpoint_latency_s)
            reach *= 2

    return process


def chain(ranks: Sequence[int], nbytes: float, pieces: int) -> Callable[[Network, int, object], Process]:
    """Pieces go from member to member; each sends one on while it gets the next."""

    def process(net: Network, place: int, chunk: object) -> Process:
        own, last = ranks[place], len(ranks) - 1
        for piece in range(pieces):
            if place:
                yield from net.receive(ranks[place - 1], own, (chunk, piece))
            if place < last:
                if piece:
                    yield net.box(own, ranks[place + 1], (chunk, piece - 1))
                    yield net.env.timeout(0 if place else net.rules.endpoint_latency_s)
                net.send(own, ranks[place + 1], nbytes / pieces, (chunk, piece))

    return process
