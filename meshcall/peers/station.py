"""A device among others: sorts datagrams to links, gives links their way out, keeps what peers may be told.

The way from paths to datagrams is here: a direct path is an endpoint.  Events of the links come out as
they are; what only this file needs to know is not repeated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from meshcall.core import Endpoint
from meshcall.path.candidates import gather
from meshcall.path.events import OutsideSeen, OutsideWanted
from meshcall.path.paths import direct, endpoint_of, is_relayed
from meshcall.path.ports import judge
from meshcall.peers.core import Peers
from meshcall.peers.events import LeaseMessage, PeerEvent, RelayInDoubt
from meshcall.wire.link import KIND_PIECE, KIND_RESET

if TYPE_CHECKING:
    from meshcall.wire.path import Ports

SEEN_MAX = 4
"""Endpoints at which peers see us that are told to others."""


class Station:
    """A `core.Core`.  Commands of the links are those of `station.peers`; call `carry` after one."""

    def __init__(self, now: float, peers: Peers) -> None:
        self.outbox: list[tuple[Endpoint, bytes]] = []
        self.events: list[PeerEvent] = []
        self.counters: Counter[str] = Counter()
        self.peers = peers
        self._hosts: tuple[Endpoint, ...] = ()
        self._outside: tuple[Endpoint, ...] = ()
        self._sightings: list[Endpoint] = []
        self._seen: dict[Endpoint, None] = {}

    # The members of a core

    def receive(self, now: float, source: Endpoint, data: bytes) -> None:
        """Take a datagram that is not the DHT's."""
        if data and KIND_PIECE <= data[0] <= KIND_RESET:
            self.peers.receive(now, direct(source), data)
            self.carry(now)
        else:
            self.counters["unknown kind"] += 1

    def wake(self, now: float) -> None:
        """Do what time has made due."""
        self.peers.wake(now)
        self.carry(now)

    def next_wake(self) -> float | None:
        """When `wake` wants to be called."""
        return self.peers.next_wake()

    def carry(self, now: float) -> None:
        """Carry between the parts until nothing is left to carry."""
        while self.peers.events:
            events, self.peers.events[:] = list(self.peers.events), []
            for event in events:
                self._take(now, event)
        for path, data in self.peers.outbox:
            if is_relayed(path):
                self.counters["no way to a relay"] += 1
            else:
                self.outbox.append((endpoint_of(path), data))
        self.peers.outbox.clear()

    def _take(self, now: float, event: PeerEvent) -> None:
        if isinstance(event, OutsideSeen):
            self._seen.pop(event.endpoint, None)
            self._seen[event.endpoint] = None
            while len(self._seen) > SEEN_MAX:
                del self._seen[next(iter(self._seen))]
            self._tell(now)
        elif isinstance(event, OutsideWanted):
            self._tell(now)
        elif isinstance(event, LeaseMessage | RelayInDoubt):
            self.counters["nobody here leases"] += 1
        else:
            self.events.append(event)

    # Where this device is

    def set_hosts(self, now: float, hosts: Iterable[Endpoint]) -> None:
        """The endpoints of our own sockets."""
        self._hosts = tuple(hosts)
        self._tell(now)

    def set_outside(self, now: float, outside: Iterable[Endpoint], sightings: list[Endpoint]) -> None:
        """At which endpoints all others see us, and at which single ones do, the oldest first."""
        self._outside, self._sightings = tuple(outside), sightings
        self._tell(now)

    def network_changed(self, now: float) -> None:
        """Another address, or the machine slept."""
        self._seen.clear()
        self._tell(now)
        self.peers.network_changed(now)
        self.carry(now)

    def ports(self) -> Ports:
        """How the NAT in front of us gives ports."""
        return judge(self._sightings, self._hosts)

    def _tell(self, now: float) -> None:
        """Tell the links where we are; they tell nobody who may not know."""
        observed = dict.fromkeys((*self._outside, *self._seen))
        self.peers.set_local(now, gather(hosts=self._hosts, observed=observed), self.ports())
        self.carry(now)
