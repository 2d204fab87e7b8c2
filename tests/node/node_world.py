"""Whole nodes in virtual time: a few cores, one delay, addresses that can change."""

from __future__ import annotations

import heapq
from random import Random

from meshcall.core import Endpoint, endpoint
from meshcall.crypto.sodium import Sodium
from meshcall.dht.config import DhtConfig
from meshcall.identity import Device, Identity
from meshcall.node import Node, NodeEvent

DELAY_SECONDS = 0.05
UNIX_START = 1_790_000_000.0


class NodeWorld:
    """Nodes by number; `where` says at which endpoint each is now."""

    def __init__(self, seed: int = 1) -> None:
        self.now = 100.0
        self.rng = Random(seed)
        self.suite = Sodium()
        self.nodes: list[Node] = []
        self.where: list[Endpoint] = []
        self.events: list[list[tuple[float, NodeEvent]]] = []
        self.down: set[int] = set()
        self.cut: set[frozenset[Endpoint]] = set()
        """Pairs of endpoints between which nothing goes."""
        self.devices: dict[int, Device] = {}
        self.identities: dict[int, Identity] = {}
        self._heap: list[tuple[float, int, Endpoint, Endpoint, bytes]] = []
        self._order = 0

    def add(self, reachable: str = "yes") -> int:
        """A node that is switched on and knows nobody."""
        number = len(self.nodes)
        config = DhtConfig(reachable=reachable)  # type: ignore[arg-type]
        node = Node(self.now, self.unix_time, rng=Random(number), suite=self.suite, config=config)
        self.nodes.append(node)
        self.events.append([])
        self.where.append(self._place(number))
        node.dht.set_local_addresses(self.now, [self.where[number]])
        return number

    def _place(self, number: int) -> Endpoint:
        return endpoint(f"10.0.{number // 200}.{number % 200 + 1}", 7000 + number)

    @property
    def unix_time(self) -> float:
        """The calendar, which all share."""
        return UNIX_START + self.now

    def swarm(self, count: int, seconds: float = 20.0) -> None:
        """`count` nodes that know the first one, after some time."""
        for _ in range(count):
            number = self.add()
            self.join(number)
            self.run(0.2)
        self.run(seconds)

    def join(self, number: int) -> None:
        """The node is told of the first one."""
        self.nodes[number].start(self.now, [self.where[0]] if number else [])
        self.drain(number)

    def person(self, number: int, *, with_addresses: bool = False, identity: Identity | None = None) -> Identity:
        """The node publishes an identity from now on, a new one if none is given."""
        identity, device = identity or Identity.new(self.suite), Device.new(self.suite)
        self.devices[number], self.identities[number] = device, identity
        self.nodes[number].publish(self.now, identity, device, with_addresses=with_addresses)
        self.drain(number)
        return identity

    def move(self, number: int, host: str) -> None:
        """The node is somewhere else now, and has been told so."""
        self.where[number] = endpoint(host, 9000)
        self.nodes[number].dht.set_local_addresses(self.now, [self.where[number]])
        self.nodes[number].network_changed(self.now)
        self.drain(number)

    def drain(self, number: int) -> None:
        """Send and collect what a node has said."""
        node, source = self.nodes[number], self.where[number]
        for target, data in node.outbox:
            self._order += 1
            if number not in self.down and frozenset({source, target}) not in self.cut:
                heapq.heappush(self._heap, (self.now + DELAY_SECONDS, self._order, source, target, data))
        node.outbox.clear()
        self.events[number].extend((self.now, event) for event in node.events)
        node.events.clear()

    def deliver(self, source: Endpoint, target: Endpoint, data: bytes) -> None:
        """A datagram arrives."""
        for number, place in enumerate(self.where):
            if place == target and number not in self.down:
                self.nodes[number].receive(self.now, source, data)
                self.drain(number)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while True:
            wakes = [(node.next_wake(), number) for number, node in enumerate(self.nodes)]
            due = min(((when, number) for when, number in wakes if when is not None), default=(float("inf"), -1))
            if self._heap and self._heap[0][0] <= min(due[0], end):
                self.now, _, source, target, data = heapq.heappop(self._heap)
                self.deliver(source, target, data)
            elif due[0] <= end:
                self.now = max(self.now + 1e-6, due[0])
                self.nodes[due[1]].wake(self.now)
                self.drain(due[1])
            else:
                break
        self.now = end

    def said(self, number: int, kind: type, since: float = 0.0) -> list[tuple[float, NodeEvent]]:
        """Events of one kind that a node has said."""
        return [(when, event) for when, event in self.events[number] if isinstance(event, kind) and when >= since]
