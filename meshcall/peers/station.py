"""A device among others: sorts datagrams to links and relays, gives links their way out, reaches people.

The way from paths to datagrams is here: a direct path is an endpoint, a relayed one a frame to a relay.
Beside the links stand our own leases (`leasing`) and, where its owner said yes, a relay for others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from meshcall.core import Endpoint, earliest
from meshcall.dht.events import PeersFinished, PeersFound, PutFinished
from meshcall.path.candidates import Trust, gather
from meshcall.path.events import InDoubt, OutsideSeen, OutsideWanted
from meshcall.path.paths import (
    LAN,
    connection_of,
    direct,
    endpoint_of,
    is_direct,
    is_stream,
    is_tcp,
    relay_id,
    relayed,
    stream,
)
from meshcall.path.ports import PortWatch
from meshcall.peers.events import LeaseMessage, LinkDown, LinkUp, Moved, PeerEvent, PlacesChanged
from meshcall.peers.leasing import Leasing
from meshcall.peers.ways import TO_LAN, SocketKey, by_socket
from meshcall.record.resolver import callable_devices
from meshcall.relay.core import RelayCore
from meshcall.relay.discovery import Announce, Announcer, FindPeers
from meshcall.relay.ends import Arrived, RelayEnds
from meshcall.relay.places import Place, connection_of_place, endpoint_of_place, is_tcp_place, tcp_place, udp_place
from meshcall.wire import relay as wire
from meshcall.wire.link import KIND_PIECE, KIND_RESET, KIND_SEALED
from meshcall.wire.path import Mapping

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from meshcall.crypto.suite import Suite
    from meshcall.identity import Device
    from meshcall.path.paths import Path
    from meshcall.peers.core import Peers
    from meshcall.relay.policy import RelayPolicy
    from meshcall.wire.record import Record, RelayLease

SEEN_MAX = 4
"""Endpoints at which peers see us that are told to others."""

_HARD = (Mapping.SEQUENTIAL, Mapping.RANDOM)
_FOR_A_RELAY = (wire.TO_LEASE, wire.TO_FLOW, wire.PROOF, wire.CHECK, wire.HELLO)


@dataclass(frozen=True, slots=True)
class RelayPlan:
    """What this device has to do with relays."""

    leases: int = 2
    """Relays at which it keeps a place; 0: it is reached by published addresses only."""
    policy: RelayPolicy | None = None
    """Whom it serves as a relay itself; None: nobody."""
    homes: tuple[Endpoint, ...] = ()
    """Relays of one's own home: taken first, and also where they are not for everybody."""
    tcp_port: int | None = None
    """Where its own relay takes TCP connections."""


def _place_of(path: Path) -> Place:
    """Where the far end of a link without a relay in between is."""
    where = endpoint_of(path)
    return tcp_place(where, connection_of(path)) if is_stream(path) else udp_place(where)


class Station:
    """A `core.Core` but for `requests`, which the DHT answers by `answered`.

    `outbox` and `events` are handed in and appended to.
    """

    def __init__(
        self,
        now: float,
        peers: Peers,
        *,
        rng: Random,
        suite: Suite,
        device: Device,
        plan: RelayPlan,
        outbox: list[tuple[Endpoint, bytes]],
        events: list[PeerEvent],
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.peers = peers
        self.relay: RelayCore | None = None
        self.taker: Callable[[float, PeerEvent], bool] | None = None
        """Hears of what is for those above, and says whether it is for nobody else."""
        self.leases_changed = False
        """The record should name other leases; the owner reads and clears it."""
        self._rng = rng
        self._static = device.public
        self._plan = plan
        self._outbox = outbox
        self._events = events
        self._leasing: Leasing | None = None
        self._announcer: Announcer | None = None
        self._served: dict[int, Path] = {}
        """Links of those whom our relay serves by a list, and the TCP connections that they are on."""
        self._ends = RelayEnds()
        self._hosts: tuple[Endpoint, ...] = ()
        self._outside: tuple[Endpoint, ...] = ()
        self._mapped: tuple[Endpoint, ...] = ()
        self._watch = PortWatch()
        self._shown: Endpoint | None = None
        self._seen: dict[Endpoint, None] = {}
        self.is_udp_barred = False
        """Relays are reached over TCP."""
        if plan.policy is not None and plan.policy.mode != "off":
            # of the device's secret, so that a relay that starts again knows its leases
            secret = blake2b(device.secret, digest_size=32, person=b"meshcall relay").digest()
            self.relay = RelayCore(
                now, suite=suite, policy=plan.policy, static=device.public, secret=secret,
                tcp_port=plan.tcp_port,
            )  # fmt: skip

    # Commands

    def begin(self, now: float, *, reachable: bool) -> None:
        """The network was found: take leases; announce our relay, where strangers reach us."""
        if self._leasing is None and self._plan.leases:
            self._leasing = Leasing(
                now,
                self.peers,
                rng=self._rng,
                own_static=self._static,
                wanted=self._plan.leases,
                homes=self._plan.homes,
            )
            self._leasing.set_tcp(now, self.is_udp_barred)
            self._ends.holder = self._leasing.holder
        is_open = self.relay is not None and self.relay.policy.mode == "open"
        if self._announcer is None and is_open and reachable:
            self._announcer = Announcer(now, static=self._static, rng=self._rng)

    def reach(self, now: float, identity: bytes, *, trust: Trust | None = None, relayed_only: bool = False) -> int:
        """Begin to reach a person, whose record `found` tells; see `Peers.reach`.  Raises UsageError."""
        return self.peers.reach(now, identity, trust=trust, relayed_only=relayed_only)

    def found(self, now: float, reach: int, record: Record | None, unix_time: float) -> int:
        """Dial the devices of a record; how many are being dialled.  None: no (newer) record will come."""
        dialled = 0
        if record is None:
            self.peers.finish(now, reach)
        else:
            dialled = self.peers.found(now, reach, callable_devices(record, unix_time))
        self.carry(now)
        return dialled

    def give_up(self, now: float, reach: int) -> None:
        """Stop to reach somebody; no event of it follows."""
        self.peers.give_up(now, reach)
        self.carry(now)

    def echo(self, now: float, link: int, number: int) -> tuple[Path, ...]:
        """Send an echo along a link; the paths it takes.  Raises UsageError where the link is over."""
        paths = self.peers.echo(now, link, number)
        self.carry(now)
        return paths

    def hang_up(self, now: float, link: int) -> None:
        """End a link; no event of it follows."""
        self.peers.close(now, link)
        self.carry(now)

    # The members of a core

    def receive(self, now: float, source: Endpoint, data: bytes) -> None:
        """Take a datagram that is not the DHT's."""
        kind = data[0] if data else -1
        if KIND_PIECE <= kind <= KIND_RESET:
            self.peers.reaches.heard_at = now
            self.peers.receive(now, direct(source), data)
        elif kind == wire.MAGIC:
            self._relay_frame(now, udp_place(source), data)
        else:
            self.counters["unknown kind"] += 1
            return
        self.carry(now)

    def receive_tcp(self, now: float, place: Place, data: bytes) -> None:
        """Take a datagram from a TCP connection: number 0 is ours to a relay, others are with our own relay."""
        kind = data[0] if data else -1
        if KIND_PIECE <= kind <= KIND_RESET:
            self.peers.receive(now, stream(endpoint_of_place(place), connection_of_place(place)), data)
        elif kind == wire.MAGIC:
            self._relay_frame(now, place, data)
        else:
            self.counters["unknown kind over TCP"] += 1
            return
        self.carry(now)

    def serves(self, place: Place) -> bool:
        """Whether our relay serves whoever is at this TCP connection: everybody, or those known by a link on it."""
        if self.relay is None or not connection_of_place(place):
            return False
        path = stream(endpoint_of_place(place), connection_of_place(place))
        return self.relay.policy.mode == "open" or path in self._served.values()

    def tcp_gone(self, now: float, place: Place) -> None:
        """A TCP connection ended, or ours could not be opened."""
        if connection_of_place(place) and self.relay is not None:
            self.relay.gone(now, place)
        elif self._leasing is not None:
            self._leasing.holder.gone(now, place)
        self.carry(now)

    def receive_extra(self, now: float, key: SocketKey, source: Endpoint, data: bytes) -> None:
        """Take a datagram that came by an extra socket: of a link, or nothing."""
        if data[:1] == bytes([KIND_SEALED]):
            self.peers.receive(now, direct(source), data, key)
            self.carry(now)
        else:
            self.counters["not sealed, by an extra socket"] += 1

    def receive_lan(self, now: float, source: Endpoint, data: bytes) -> None:
        """Take a datagram that came by the local networks' group, from a neighbour: a piece of a first message."""
        if data[:1] == bytes([KIND_PIECE]):
            self.peers.receive_lan(now, direct(source), data)
            self.carry(now)
        else:
            self.counters["lan: no piece"] += 1

    def wake(self, now: float) -> None:
        """Do what time has made due."""
        for part in (self.peers, self.relay, self._leasing, self._announcer):
            due = None if part is None else part.next_wake()
            if part is not None and due is not None and due <= now:
                part.wake(now)
        self.carry(now)

    def next_wake(self) -> float | None:
        """When `wake` wants to be called."""
        parts = (self.peers, self.relay, self._leasing, self._announcer)
        return earliest(*[part.next_wake() for part in parts if part is not None])

    @property
    def stirred(self) -> bool:
        """Whether anything but frames of streams has happened since `calm`: `next_wake` may be nearer."""
        return self.peers.links.stirred

    def calm(self) -> None:
        """`next_wake` is asked for."""
        self.peers.links.stirred = False

    def requests(self) -> list[FindPeers | Announce]:
        """What is to be asked of the DHT; the answers go to `answered`.  Given out once."""
        asked: list[FindPeers | Announce] = []
        if self._leasing is not None:
            asked += self._leasing.requests
            self._leasing.requests.clear()
        if self._announcer is not None:
            asked += self._announcer.requests
            self._announcer.requests.clear()
        return asked

    def answered(
        self, now: float, request: FindPeers | Announce, event: PeersFound | PeersFinished | PutFinished
    ) -> None:
        """The DHT's answer to a request."""
        if isinstance(request, Announce):
            if self._announcer is not None and isinstance(event, PutFinished):
                self._announcer.answered(now, request.tag, event)
        elif self._leasing is not None and not isinstance(event, PutFinished):
            self._leasing.search.answered(now, request.tag, event)
        self.carry(now)

    # Relays

    @property
    def leases(self) -> tuple[RelayLease, ...]:
        """What the record should name."""
        return self._leasing.leases if self._leasing is not None else ()

    @property
    def relays_over_tcp(self) -> tuple[Place, ...]:
        """Where our leases' relays take TCP connections."""
        return tuple(
            tcp_place(Endpoint(where[:-2] + lease.tcp_port.to_bytes(2, "big")), 0)
            for lease in self.leases
            for where in (lease.v4, lease.v6)
            if where is not None and lease.tcp_port is not None
        )

    def _relay_frame(self, now: float, source: Place, data: bytes) -> None:
        self.peers.links.stirred = True
        kind = data[1] if len(data) > 1 else -1
        is_ours = is_tcp_place(source) and not connection_of_place(source)
        if kind in _FOR_A_RELAY:
            if self.relay is None or is_ours:
                self.counters["no relay here"] += 1
            else:
                self.relay.receive(now, source, data)
        elif kind == wire.HELLO_ANSWER:
            if self._leasing is not None:
                self._leasing.search.receive(now, source, data)
        else:
            if not is_tcp_place(source):
                self.peers.reaches.heard_at = now
            self._ends.receive(now, source, data)

    # Carrying

    def carry(self, now: float) -> None:
        """Carry between the parts until nothing is left to carry."""
        leasing = self._leasing
        while self._carry_peers(now) or self._carry_ends(now) or (leasing is not None and leasing.carry(now)):
            pass
        if leasing is not None:
            self._outbox += [(Endpoint(place), data) for place, data in leasing.outbox]
            leasing.outbox.clear()
            if leasing.changed:
                leasing.changed = False
                self.leases_changed = True
                self._events.append(PlacesChanged(leasing.leases))
                self._tell(now)
        self._send(now)

    def _carry_peers(self, now: float) -> bool:
        if not self.peers.events:
            return False
        events, self.peers.events[:] = list(self.peers.events), []
        for event in events:
            self._take(now, event)
        return True

    def _carry_ends(self, now: float) -> bool:
        """What came through relays, and what our own relay has to say on links."""
        if not self._ends.events and (self.relay is None or not (self.relay.messages or self.relay.events)):
            return False
        arrived, self._ends.events[:] = list(self._ends.events), []
        for event in arrived:
            if isinstance(event, Arrived):
                path = relayed(endpoint_of_place(event.place), event.relay_id, is_tcp_place(event.place))
                self.peers.receive(now, path, event.payload)
            else:
                self.counters[f"relay says: {wire.SHOW_STATUS[event.status]}"] += 1
        said: list[tuple[int, bytes]] = []
        if self.relay is not None:
            said, self.relay.messages[:] = list(self.relay.messages), []
            for link, data in said:
                self.peers.say(now, link, data)
            self.relay.events.clear()
        return bool(arrived or said)

    def _send(self, now: float) -> None:
        for path, data in self.peers.outbox:
            if is_direct(path):
                where, key = endpoint_of(path), self.peers.kept.get(path)
                self._outbox.append((where if key is None else by_socket(where, key), data))
            elif path == LAN:
                self._outbox.append((TO_LAN, data))
            elif is_stream(path):
                self._outbox.append((Endpoint(_place_of(path)), data))
            elif (lease := relay_id(path)) is not None:
                where = endpoint_of(path)
                self._ends.send(now, tcp_place(where, 0) if is_tcp(path) else udp_place(where), lease, data)
        self.peers.outbox.clear()
        if self.peers.special:
            self._outbox += self.peers.special
            self.peers.special.clear()
        for frames in (self._ends.outbox, None if self.relay is None else self.relay.outbox):
            if frames:
                self._outbox += [(Endpoint(place), data) for place, data in frames]
                frames.clear()

    def _take(self, now: float, event: PeerEvent) -> None:
        leasing, relay = self._leasing, self.relay
        if isinstance(event, LinkUp | Moved):
            self._note_served(event.link, event.path)
        if isinstance(event, LinkUp | LinkDown) and leasing is not None and leasing.owns(event.link):
            if isinstance(event, LinkUp):
                leasing.linked(now, event.link)
            else:
                leasing.over(now, event.link)
        elif isinstance(event, LeaseMessage):
            self._lease_message(now, event)
        elif isinstance(event, Moved):
            if relay is not None and relay_id(event.path) is None:
                relay.moved(now, event.link, _place_of(event.path))
        elif isinstance(event, InDoubt):
            if leasing is not None:
                leasing.look(now)
        elif isinstance(event, OutsideSeen):
            self._seen.pop(event.endpoint, None)
            self._seen[event.endpoint] = None
            while len(self._seen) > SEEN_MAX:
                del self._seen[next(iter(self._seen))]
            self._tell(now)
        elif isinstance(event, OutsideWanted):
            self._tell(now)
        else:
            if isinstance(event, LinkDown) and relay is not None:
                relay.closed(now, event.link)
            if self.taker is None or not self.taker(now, event):
                self._events.append(event)

    def _note_served(self, link: int, path: Path) -> None:
        """A link was opened, or is on another path."""
        end = self.peers.end_of(link)
        self._served.pop(link, None)
        if end is None or self.relay is None or not is_stream(path) or not connection_of(path):
            return
        if self.relay.policy.mode == "list" and self.relay.policy.serves(end[0]):
            self._served = {each: where for each, where in self._served.items() if self.peers.is_open(each)}
            self._served[link] = path

    def _lease_message(self, now: float, event: LeaseMessage) -> None:
        if self._leasing is not None and self._leasing.owns(event.link):
            self._leasing.holder.message(now, event.link, event.data)
            return
        end = self.peers.end_of(event.link)
        if self.relay is None or end is None:
            self.counters["no relay here"] += 1
            return
        identity, static, path = end
        if relay_id(path) is not None:
            self.counters["lease asked for through a relay"] += 1
            return
        if is_stream(path) and not connection_of(path):  # whoever opened a connection is the device on it
            self.counters["lease asked for by a relay on our connection"] += 1
            return
        self.relay.message(now, event.link, identity, static, _place_of(path), event.data)

    # Where this device is

    def set_hosts(self, now: float, hosts: Iterable[Endpoint]) -> None:
        """The endpoints of our own sockets."""
        self._hosts = tuple(hosts)
        self._tell(now)

    def set_outside(self, now: float, outside: Iterable[Endpoint]) -> None:
        """At which endpoints others agree to see us."""
        self._outside = tuple(outside)
        self._tell(now)

    def set_mapped(self, now: float, mapped: Iterable[Endpoint]) -> None:
        """Which endpoints routers forward to us."""
        self._mapped = tuple(mapped)
        self._tell(now)

    def sighted(self, now: float, sightings: Iterable[tuple[Endpoint, Endpoint]]) -> None:
        """Who answered a question of ours, and at which endpoint it saw us."""
        for observer, seen in sightings:
            self._watch.note(now, observer, seen)
        self._tell(now)

    def set_udp_barred(self, now: float, barred: bool) -> None:
        """UDP goes nowhere in this network (True), or it does (again): how relays are reached follows."""
        self.peers.reaches.is_barred = barred
        self.is_udp_barred = barred
        if self._leasing is not None:
            self._leasing.set_tcp(now, barred)
        self.carry(now)

    def network_changed(self, now: float) -> None:
        """Another address, or the machine slept."""
        self._seen.clear()
        self._watch.forget()
        self._tell(now)
        self.peers.network_changed(now)
        if self._leasing is not None:
            self._leasing.network_changed(now)
        if self._announcer is not None:
            self._announcer.announce_now(now)
        self.carry(now)

    def _tell(self, now: float) -> None:
        """Tell the links where we are; they tell nobody who may not know."""
        ports = self._watch.ports(now, self._hosts)
        last, kept = self._watch.outside(now), self._shown
        if last is None or kept is None or ports.mapping not in _HARD or last[:-2] != kept[:-2]:
            self._shown = last  # of a NAT with a port for each destination one is as good as any
        observed = dict.fromkeys((*self._outside, *self._seen, *(() if self._shown is None else (self._shown,))))
        leases = self._leasing.candidates() if self._leasing is not None else []
        candidates = gather(hosts=self._hosts, observed=observed, mapped=self._mapped, leases=leases)
        self.peers.set_local(now, candidates, ports)
