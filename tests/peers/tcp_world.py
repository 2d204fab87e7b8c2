"""Whole nodes of which some are in networks that bar UDP: TCP connections to relays, in virtual time."""

from __future__ import annotations

import heapq
from random import Random

from meshcall.core import Endpoint
from meshcall.crypto.kem import MlKem768
from meshcall.dht.config import DhtConfig
from meshcall.identity import Identity
from meshcall.node import Node
from meshcall.peers.policy import PeerPolicy
from meshcall.peers.station import RelayPlan
from meshcall.relay.places import Place, connection_of_place, endpoint_of_place, is_tcp_place, tcp_place
from meshcall.relay.policy import RelayPolicy
from tests.node.node_world import DELAY_SECONDS
from tests.peers.test_peers_relay import RelayWorld

TCP_PORT = 443

Side = tuple[int, Place]
"""A node, and the place by which it knows the other end of a connection."""


class TcpWorld(RelayWorld):
    """`barred`: nodes from and to which no UDP goes.  A connection opens in one round trip and keeps the order."""

    def __init__(self) -> None:
        self.barred: set[int] = set()
        self.listening: dict[Endpoint, int] = {}
        self.opened = 0
        self._other: dict[Side, Side] = {}
        self._ready: dict[Side, float] = {}
        """Until then the connection is being opened."""
        self._tcp: dict[Endpoint, tuple[Side, bytes | None]] = {}  # stands for the target in the heap
        super().__init__()

    def tcp_relay(self, mode: str = "open", **policy: object) -> int:
        """A volunteer that takes TCP on port 443 too."""
        plan = RelayPlan(0, policy=RelayPolicy(mode=mode, **policy), tcp_port=TCP_PORT)  # type: ignore[arg-type]
        number, _ = self.planned(plan)
        self.listening[self.tcp_endpoint(number)] = number
        return number

    def tcp_endpoint(self, number: int) -> Endpoint:
        """Where it listens."""
        return Endpoint(self.where[number][:-2] + TCP_PORT.to_bytes(2, "big"))

    def shut_in(
        self, *known: int, homes: tuple[int, ...] = (), identity: Identity | None = None, seconds: float = 20.0
    ) -> tuple[int, Identity]:
        """Somebody in a network that bars UDP, who knows these relays as nodes to start from."""
        number = len(self.nodes)
        node = Node(
            self.now, self.unix_time, rng=Random(number), suite=self.suite, config=DhtConfig(), kem=MlKem768(),
            policy=PeerPolicy(), plan=RelayPlan(homes=tuple(self.where[home] for home in homes)),
        )  # fmt: skip
        self.nodes.append(node)
        self.events.append([])
        self.where.append(self._place(number))
        self.barred.add(number)
        node.set_local_addresses(self.now, [self.where[number]])
        node.carrier.offer(self.now, [self.where[each] for each in known])
        node.start(self.now, [self.where[each] for each in known])
        identity = self.person(number, identity=identity)
        self.run(seconds)
        return number, identity

    def drain(self, number: int) -> None:
        node = self.nodes[number]
        said, node.outbox[:] = list(node.outbox), []
        for way, data in said:
            if is_tcp_place(way):
                self._send_tcp((number, Place(way)), data)
            elif number not in self.barred:
                node.outbox.append((way, data))
        super().drain(number)

    def deliver(self, source: Endpoint, target: Endpoint, data: bytes) -> None:
        if target in self._tcp:
            (number, place), arrived = self._tcp.pop(target)
            if number in self.down:
                return
            if arrived is None:
                self.nodes[number].tcp_gone(self.now, place)
            elif (number, place) in self._other:
                self.nodes[number].receive_tcp(self.now, place, arrived)
            self.drain(number)
        elif not any(place == target and number in self.barred for number, place in enumerate(self.where)):
            super().deliver(source, target, data)

    def break_connections(self, number: int) -> int:
        """All connections of a node end; how many there were."""
        mine = [side for side in self._other if side[0] == number]
        for side in mine:
            other = self._other.pop(side)
            del self._other[other]
            self._later(self.now, side, None)
            self._later(self.now, other, None)
        return len(mine)

    def inject(self, number: int, place: Place, data: bytes) -> None:
        """What a stranger sent by a TCP connection arrives at a node."""
        self.nodes[number].receive_tcp(self.now, place, data)
        self.drain(number)

    def _send_tcp(self, side: Side, data: bytes) -> None:
        number, place = side
        if side not in self._other:
            relay = self.listening.get(endpoint_of_place(place))
            if connection_of_place(place) or relay is None or relay in self.down:
                self._later(self.now + 2 * DELAY_SECONDS, side, None)
                return
            self.opened += 1
            other = relay, tcp_place(self.where[number], self.opened)
            self._other[side], self._other[other] = other, side
            self._ready[side] = self.now + 3 * DELAY_SECONDS
        self._later(max(self.now + DELAY_SECONDS, self._ready.get(side, 0.0)), self._other[side], data)

    def _later(self, when: float, side: Side, data: bytes | None) -> None:
        self._order += 1
        target = Endpoint(b"tcp%d" % self._order)
        self._tcp[target] = side, data
        heapq.heappush(self._heap, (when, self._order, target, target, b""))
