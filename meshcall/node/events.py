"""What the node tells the one above it, and its snapshot."""

from __future__ import annotations

from dataclasses import dataclass

from meshcall.calls.events import CallEvent
from meshcall.dht.events import Event
from meshcall.dht.status import DhtStatus
from meshcall.peers.events import PeerEvent
from meshcall.record.events import PublisherEvent, PublisherStatus, ResolverEvent


@dataclass(frozen=True, slots=True)
class LookupEvent:
    """What the look-up of this number says; it is over with a ResolveFinished."""

    lookup: int
    event: ResolverEvent


@dataclass(frozen=True, slots=True)
class UdpBarred:
    """UDP goes nowhere in this network, and relays are reached over TCP (True); or UDP works (again)."""

    barred: bool


NodeEvent = Event | UdpBarred | PublisherEvent | LookupEvent | PeerEvent | CallEvent


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A snapshot.  `publisher` is None where nothing is (to be) published."""

    dht: DhtStatus
    publisher: PublisherStatus | None
    joined: bool
    udp_barred: bool
    gateways: int
    """Of the DHT, over TCP; none are kept while UDP works."""
    lookups: int
    counters: dict[str, int]
