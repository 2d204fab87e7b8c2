"""A network of real nodes on loopback sockets, all in one process: what the two people's nodes live in."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from meshcall.core import Endpoint, show_endpoint
from meshcall.crypto.kem import MlKem768
from meshcall.dht.config import DhtConfig
from meshcall.drivers.udp import Driven, NodeDriver, open_udp
from meshcall.errors import MeshcallError
from meshcall.identity import Device, Identity
from meshcall.node import Node
from meshcall.peers.station import RelayPlan
from meshcall.relay.policy import RelayPolicy

if TYPE_CHECKING:
    from meshcall.crypto.suite import Suite

NODES_MIN = 12
NODES_MAX = 200
SETTLE_SECONDS_MAX = 6.0
"""How long the nodes may get to know each other."""
BETWEEN_SECONDS = 0.02
"""From one newcomer to the next."""
CONTACTS_MIN = 8
"""Live contacts that each node should have before the story goes on."""
FIRST_NODES = 2
"""Nodes that the others are told of."""
RELAY_NODE = 2
"""The node whose owner volunteers as a relay."""
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Seat:
    """How one node of the swarm stands."""

    name: str
    contacts: int
    items: int
    alive: bool


class Swarm:
    """`await nursery.start(swarm.run)`, then `join`."""

    def __init__(self, size: int, suite: Suite) -> None:
        self._driver = NodeDriver()
        self._suite = suite
        self._nodes: list[Driven[Node]] = []
        self._names: dict[Endpoint, str] = {}
        self._gone: set[int] = set()
        for number in range(size):
            self._add(number)

    def _add(self, number: int) -> None:
        now = trio.current_time()
        is_relay = number == RELAY_NODE
        node = Node(
            now,
            time.time(),
            rng=random.SystemRandom(),
            suite=self._suite,
            config=DhtConfig(reachable="yes" if is_relay else "auto"),
            kem=MlKem768(),
            plan=RelayPlan(0, policy=RelayPolicy(mode="open")) if is_relay else None,
        )
        driven = self._driver.add(node, [open_udp(4, _LOOPBACK)])
        with driven.turn():
            node.set_local_addresses(now, driven.endpoints)
        self._nodes.append(driven)
        self._names[driven.endpoints[0]] = f"node {number + 1}"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        await self._driver.run(task_status=task_status)

    async def join(self, contacts_min: int = CONTACTS_MIN) -> tuple[int, int]:
        """One after the other comes in, knowing only the first ones; then they get to know each other.

        That takes until each knows `contacts_min` live others, but SETTLE_SECONDS_MAX at most.  Returns the
        fewest and the most others that a node knows.  Raises MeshcallError where one knows nobody.
        """
        first = self.first_endpoints
        for driven in self._nodes:
            with driven.turn() as now:
                driven.core.start(now, [where for where in first if where not in driven.endpoints])
            await trio.sleep(BETWEEN_SECONDS)
        with trio.move_on_after(SETTLE_SECONDS_MAX):
            while min(seat.contacts for seat in self.seats()) < contacts_min:  # noqa: ASYNC110 - a state, no event
                await trio.sleep(BETWEEN_SECONDS)
        with self._nodes[RELAY_NODE].turn() as now:  # a relay is somebody, so that its users know it
            self._nodes[RELAY_NODE].core.publish(now, Identity.new(self._suite), Device.new(self._suite))
        known = [seat.contacts for seat in self.seats()]
        if not min(known):
            raise MeshcallError(f"{known.count(0)} of {len(known)} nodes found no other")
        return min(known), max(known)

    @property
    def relay_endpoint(self) -> Endpoint:
        """Where the volunteer's relay is."""
        return self._nodes[RELAY_NODE].endpoints[0]

    @property
    def first_endpoints(self) -> list[Endpoint]:
        """Where a newcomer begins."""
        return [driven.endpoints[0] for driven in self._nodes[:FIRST_NODES]]

    def name_of(self, endpoint: str) -> str | None:
        """The name of the node at this endpoint; None for strangers."""
        return {show_endpoint(where): name for where, name in self._names.items()}.get(endpoint)

    def seats(self) -> list[Seat]:
        """All nodes, in order."""
        now = trio.current_time()
        found = []
        for number, driven in enumerate(self._nodes):
            status = driven.core.dht.status(now)
            contacts = sum(family.contacts for family in status.families)
            found.append(Seat(f"node {number + 1}", contacts, status.items, number not in self._gone))
        return found

    def fall_silent(self, share: float) -> tuple[int, int]:
        """Close the sockets of a share of the nodes, without a word to anybody; half of them keep records.

        How many that are, and how many of them kept a record.  The first nodes and the relay stay.
        """
        count = round(len(self._nodes) * share)
        seats = list(enumerate(self.seats()))[RELAY_NODE + 1 :]
        keepers = [number for number, seat in seats if seat.items]
        others = [number for number, seat in seats if not seat.items]
        chosen = random.sample(keepers, min(count // 2, len(keepers)))
        kept = len(chosen)
        rest = others if len(others) >= count - kept else [number for number, _ in seats if number not in chosen]
        chosen += random.sample(rest, count - kept)
        for number in chosen:
            self._gone.add(number)
            self._driver.remove(self._nodes[number])
        return count, sum(number in keepers for number in chosen)
