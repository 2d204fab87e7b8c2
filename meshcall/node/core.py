"""The whole node as one core: sorts datagrams by their first byte, owns the DHT, publication, look-ups and links.

A datagram that begins with `d` is KRPC and the DHT's, all others are the station's.  Publisher and
resolvers have no network of their own: what they ask is carried to the DHT here, and its answers back.
Where UDP is barred they go to gateways over TCP instead (`detour`), which nobody here notices.
They need the calendar besides the monotonic `now`; the owner tells it with `set_clock`, and between two
tellings it runs on with `now`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from meshcall.address import Link
from meshcall.calls.core import Calls
from meshcall.calls.finding import Finder
from meshcall.calls.policy import CallPolicy
from meshcall.core import Endpoint, earliest
from meshcall.detour.carrier import Answer, Carrier, Question
from meshcall.dht.config import DhtConfig
from meshcall.dht.events import (
    Event,
    GetFinished,
    ItemFound,
    Joined,
    OutsideChanged,
    PeersFinished,
    PeersFound,
    ReachableChanged,
)  # fmt: skip
from meshcall.dht.node import Dht
from meshcall.endpoints import is_private
from meshcall.errors import UsageError
from meshcall.node.events import LookupEvent, NodeStatus, UdpBarred
from meshcall.node.lookups import Lookups
from meshcall.peers.core import Peers
from meshcall.peers.policy import PeerPolicy
from meshcall.peers.station import RelayPlan, Station
from meshcall.record.entry import entry_of
from meshcall.record.publisher import Publisher
from meshcall.record.resolver import Resolver
from meshcall.relay.discovery import Announce, FindPeers
from meshcall.wire import detour

if TYPE_CHECKING:
    from random import Random

    from meshcall.crypto.kem import Kem
    from meshcall.crypto.suite import Suite
    from meshcall.identity import Certificate, Device, Identity
    from meshcall.relay.places import Place

SETTLE_SECONDS = 1.5
"""After a change of network a record with direct addresses waits so long for others to say how they see us."""
_DETOUR = bytes([detour.MAGIC])
HELD_SECONDS = 1.0
"""What waits for a call on a narrow line is thought of so often."""
RECOVER_SECONDS = 10.0
"""After a publication that nobody answered, a sign of life from the network leads to another, if so much has passed."""


class Node:
    """A `core.Core`.  Commands of the DHT are those of `node.dht`; their events come out here too."""

    def __init__(
        self, now: float, unix_time: float, *, rng: Random, suite: Suite, config: DhtConfig | None = None,
        families: tuple[int, ...] = (4,), kem: Kem | None = None, policy: PeerPolicy | None = None,
        plan: RelayPlan | None = None, call_policy: CallPolicy | None = None,
    ) -> None:  # fmt: skip
        """`kem`: None for a node that does not offer ML-KEM; `policy`: which peers may learn what."""
        self.dht = Dht(now, rng=rng, verifier=suite, config=config, families=families)
        self.carrier = Carrier(self.dht, suite)
        self.outbox: list[tuple[Endpoint, bytes]] = self.dht.outbox
        self.events: list[Any] = []
        """Of the kind NodeEvent."""
        self.counters: Counter[str] = Counter()
        self._rng = rng
        self._suite = suite
        self._kem = kem
        self._policy = policy or PeerPolicy()
        self._plan = plan or RelayPlan()
        self._families = families
        self._local: tuple[Endpoint, ...] = ()
        self.station: Station | None = None
        """Links with other devices; None while this node is nobody's."""
        self._finder: Finder | None = None
        self._call_policy = call_policy or CallPolicy()
        self._offset = unix_time - now
        self._now = now
        self._is_stirred = True
        self._joined = False
        self._identity: Identity | None = None
        self._device: Device | None = None
        self._certificate: Certificate | None = None
        self._with_addresses = False
        self._outside: dict[int, Endpoint] = {}
        self._mapped: tuple[Endpoint, ...] = ()
        self._publisher: Publisher | None = None
        self._republish_at: float | None = None
        self._lookups = Lookups(suite)
        self._is_barred = False
        self.carrier.offer(now, self._plan.homes)

    # The five members

    def receive(self, now: float, source: Endpoint, data: bytes) -> None:
        """Take a datagram; what is of no kind we know is counted and dropped."""
        if data[:1] != b"d":
            if self.station is None:
                self.counters["unknown kind"] += 1
            else:
                self.station.receive(now, source, data)
                if self.station.stirred:  # else it was a frame of a stream, and concerns nobody but its link
                    self._settle(now)
            return
        self.dht.receive(now, source, data)
        publisher = self._publisher
        if publisher is not None and publisher.unheard_at is not None and now - publisher.unheard_at >= RECOVER_SECONDS:
            publisher.publish_now(now, self.unix_time(now))  # the network speaks again: no need to sit out a long pause
        self._settle(now)

    def receive_lan(self, now: float, source: Endpoint, data: bytes) -> None:
        """Take a datagram that came by the local networks' group."""
        if self.station is None:
            self.counters["lan: nobody's node"] += 1
        else:
            self.station.receive_lan(now, source, data)
            self._settle(now)

    def receive_tcp(self, now: float, place: Place, data: bytes) -> None:
        """Take a datagram from a TCP connection, ours to a relay (number 0) or one with our own relay."""
        if data[:1] == _DETOUR:
            serves = self.station is not None and self.station.serves(place)
            self.carrier.receive(now, place, data, serves=serves, joined=self._joined)
        elif self.station is None:
            self.counters["unknown kind"] += 1
        else:
            self.station.receive_tcp(now, place, data)
        self._settle(now)

    def tcp_gone(self, now: float, place: Place) -> None:
        """A TCP connection ended, or ours could not be opened."""
        self.carrier.gone(now, place)
        if self.station is not None:
            self.station.tcp_gone(now, place)
        self._settle(now)

    def wake(self, now: float) -> None:
        """Do what time has made due."""
        self._now = now
        self.dht.is_paused = is_held = self._is_held(now)
        self.carrier.wake(now)
        if (due := self.dht.next_wake()) is not None and due <= now:
            self.dht.wake(now)
        unix_time = self.unix_time(now)
        if self._publisher is not None and not is_held:
            if self._republish_at is not None and self._republish_at <= now:
                self._republish(now)
            self._publisher.wake(now, unix_time)
        for resolver in self._lookups.resolvers:
            resolver.wake(now, unix_time)
        if self.station is not None and (due := self.station.next_wake()) is not None and due <= now:
            self.station.wake(now)
        if self._finder is not None:
            self._finder.wake(now)
        self._settle(now)

    @property
    def stirred(self) -> bool:
        """Whether `next_wake` may be nearer than when it was last asked for; commands of parts of it do not tell."""
        return self._is_stirred or (self.station is not None and self.station.stirred)

    def next_wake(self) -> float | None:
        """When `wake` wants to be called."""
        self._is_stirred = False
        if self.station is not None:
            self.station.calm()
        is_held = self._is_held(self._now)
        parts = (self.dht, None if is_held else self._publisher, self.station, self._finder, *self._lookups.resolvers)
        times = [part.next_wake() for part in parts if part is not None]
        times.append(self._now + HELD_SECONDS if is_held else self._republish_at)
        return earliest(self.carrier.next_wake(self._now), *times)

    def _is_held(self, now: float) -> bool:
        """Whether a call needs all that the line carries: records and tables can wait."""
        return self.station is not None and self.station.peers.narrow.holds(now)

    # Time

    def unix_time(self, now: float) -> float:
        """The calendar's seconds at `now`, as last told."""
        return now + self._offset

    def set_clock(self, now: float, unix_time: float) -> None:
        """Tell the calendar time; once a second or so, so that a clock that was set is noticed."""
        self._offset = unix_time - now
        if self.station is not None:
            self.station.peers.set_clock(now, unix_time)
            self._tell_station(now)
        worn = self._certificate is not None and self._certificate.is_worn(unix_time)
        if worn and self._identity is not None:
            self._certify(unix_time)
            self._tell_entry(now)
        self._settle(now)

    # Commands

    def start(self, now: float, bootstrap: Iterable[Endpoint], contacts: Iterable[tuple[bytes, Endpoint]] = ()) -> None:
        """Find the network through these addresses, and take back contacts of an earlier run."""
        if not self._joined:
            self.carrier.watch.begin(now)
        self.dht.bootstrap(now, bootstrap)
        contacts = list(contacts)
        if contacts:
            self.dht.restore(now, contacts)
        self._settle(now)

    def publish(self, now: float, identity: Identity, device: Device, *, with_addresses: bool = False) -> None:
        """Keep a record of this device up from the moment the network is found.

        `with_addresses`: the record names where others see this node, for everybody who knows the address.
        """
        self._identity, self._device = identity, device
        self._with_addresses = with_addresses
        certificate = self._certify(self.unix_time(now))
        peers = Peers(
            now, self.unix_time(now), rng=self._rng, suite=self._suite, kem=self._kem, device=device,
            identity=identity.public, certificate=certificate, policy=self._policy, families=self._families,
        )  # fmt: skip
        self.station = Station(
            now, peers, rng=self._rng, suite=self._suite, device=device, plan=self._plan, outbox=self.outbox,
            events=self.events,
        )  # fmt: skip
        calls = Calls(
            now, lines=peers, rng=self._rng, own=identity.public, policy=self._call_policy, events=self.events,
            carry=self.station.carry,
        )  # fmt: skip
        self.station.taker = calls.take
        self._finder = Finder(calls, self._begin_lookup, self.cancel_lookup)
        self.set_call_policy(self._call_policy)
        self.dht.sighted = []
        self.station.set_udp_barred(now, self._is_barred)
        self.station.set_hosts(now, self._local)
        self.station.set_mapped(now, self._mapped)
        self._tell_station(now)
        self._publisher = Publisher(now, self.unix_time(now), key=identity.key, suite=self._suite, rng=self._rng)
        if self._joined:
            self._begin(now)
            self._tell_entry(now)
        self._settle(now)

    def withdraw(self, now: float) -> None:
        """Take this device out of the record; its other devices stay."""
        if self._publisher is not None:
            self._identity = self._device = None
            self._publisher.set_entry(now, self.unix_time(now), None)
            self._settle(now)

    def publish_now(self, now: float) -> None:
        """Publish everything again at once."""
        if self._publisher is not None:
            self._publisher.publish_now(now, self.unix_time(now))
            self._settle(now)

    def lookup(self, now: float, link: Link, *, trace: bool = False) -> int:
        """Look up an address; LookupEvents of this number follow.

        Raises AddressError where nobody can own it, UsageError while too many are under way.
        """
        number = self._begin_lookup(now, link.public, trace=trace)
        self._settle(now)
        return number

    def _begin_lookup(self, now: float, public: bytes, *, trace: bool = False) -> int:
        return self._lookups.begin(now, self.unix_time(now), public, trace=trace)

    def cancel_lookup(self, lookup: int) -> None:
        """Stop a look-up; no event of it follows."""
        resolver = self._lookups.end(lookup)
        if resolver is not None:
            self.carrier.cancel(resolver)

    # People

    @property
    def people(self) -> Station:
        """Links with other people's devices, and the commands for them.  Raises UsageError where nobody can be."""
        if self.station is None:
            raise UsageError("this node has no identity, so it can reach nobody; make one with `meshcall id new`")
        return self.station

    @property
    def calls(self) -> Calls:
        """Calls with other people.  Raises UsageError where nobody can be called."""
        if self._finder is None:
            raise UsageError("this node has no identity, so it can call nobody; make one with `meshcall id new`")
        return self._finder.calls

    def set_call_policy(self, policy: CallPolicy) -> None:
        """What the owner decides about calls from now on."""
        self._call_policy = policy
        if self.station is not None:
            self.calls.policy = policy
            self.station.peers.links.blocked = policy.blocked

    # The network

    def set_local_addresses(self, now: float, endpoints: Iterable[Endpoint]) -> None:
        """The endpoints of our own sockets."""
        self._local = tuple(endpoints)
        self.dht.set_local_addresses(now, self._local)
        if self.station is not None:
            self.station.set_hosts(now, self._local)
        self._settle(now)

    def set_mapped(self, now: float, mapped: Iterable[Endpoint]) -> None:
        """Which endpoints routers forward to our port: candidates, and of the record where it names addresses."""
        self._mapped = tuple(mapped)
        if self.station is not None:
            self.station.set_mapped(now, self._mapped)
        self._tell_entry(now)
        self._settle(now)

    def network_changed(self, now: float) -> None:
        """Another address, or the machine slept: find the network anew and publish at once."""
        self.counters["network changed"] += 1
        self._outside.clear()
        self.carrier.doubt(now)
        self._settle(now)
        self.dht.network_changed(now)
        if self.station is not None:
            self._tell_station(now)
            self.station.network_changed(now)
        if self._publisher is not None and self._joined:
            self._republish_at = now + (SETTLE_SECONDS if self._with_addresses else 0.0)
            if not self._with_addresses:
                self._republish(now)
        self._settle(now)

    def status(self, now: float) -> NodeStatus:
        """How the node is doing."""
        publisher = self._publisher
        return NodeStatus(
            self.dht.status(now),
            publisher.status(now, self.unix_time(now)) if publisher is not None else None,
            self._joined,
            self._is_barred,
            len(self.carrier.detour.gateways),
            len(self._lookups),
            {**self.counters, **self.carrier.all_counters, **(publisher.counters if publisher is not None else {})},
        )

    # What is published

    def _certify(self, unix_time: float) -> Certificate:
        assert self._identity is not None
        assert self._device is not None
        self._certificate = self._device.certify(self._suite, self._identity, unix_time)
        if self.station is not None:
            self.station.peers.links.set_certificate(self._certificate)
        return self._certificate

    def _tell_entry(self, now: float) -> None:
        publisher, identity, device = self._publisher, self._identity, self._device
        if publisher is None or identity is None or device is None or not self._joined:
            return
        unix_time = self.unix_time(now)
        certificate = self._certificate or self._certify(unix_time)
        public = [where for where in self._mapped if not is_private(where)]  # behind a second NAT it helps no stranger
        outside = dict.fromkeys((*public, *self._outside.values())) if self._with_addresses else ()
        leases = () if self.station is None else self.station.leases
        entry = entry_of(device, certificate, leases, outside, offers_ml_kem=self._kem is not None)
        publisher.set_entry(now, unix_time, entry)

    def _republish(self, now: float) -> None:
        """Say at once what is known now of this place in the network."""
        self._republish_at = None
        self._tell_entry(now)
        if self._publisher is not None:
            self._publisher.publish_now(now, self.unix_time(now))

    def _outside_changed(self, now: float, event: OutsideChanged) -> None:
        if event.outside is None:
            self._outside.pop(event.family, None)
        else:
            self._outside[event.family] = event.outside
        self._tell_station(now)
        if self._republish_at is None:
            self._tell_entry(now)
        elif event.outside is not None:
            self._republish(now)

    def _begin(self, now: float) -> None:
        if self.station is not None and self._joined:
            self.station.begin(now, reachable=bool(self.dht.status(now).reachable))

    def _tell_station(self, now: float) -> None:
        if self.station is not None:
            self.station.set_outside(now, self._outside.values())

    # Carrying between the parts

    def _settle(self, now: float) -> None:
        """Carry requests to the DHT and its events back until nothing is left to carry."""
        self._now = now
        self._is_stirred = True
        while (
            self._carry_station(now) or self._carry_requests(now) or self.carrier.settle(now) or self._carry_events(now)
        ):
            pass
        if self.carrier.is_barred != self._is_barred:
            self._way_changed(now)
        self.outbox += self.carrier.flush()

    def _carry_station(self, now: float) -> bool:
        """Relays are announced and found through the DHT; new leases go into the record."""
        if self.station is None:
            return False
        if self.dht.sighted:
            self.station.sighted(now, self.dht.sighted)
            self.dht.sighted.clear()
        self.station.carry(now)
        if self._finder is not None:
            self._finder.carry(now, self._joined)
        if self.station.leases_changed:
            self.station.leases_changed = False
            self.carrier.detour.offer(now, self.station.relays_over_tcp)
            self._tell_entry(now)
        requests = self.station.requests()
        for request in requests:
            self.carrier.ask(now, self.station, request)
        return bool(requests)

    def _carry_requests(self, now: float) -> bool:
        carried = False
        askers: list[Publisher | Resolver] = list(self._lookups.resolvers)
        if self._publisher is not None and not self._is_held(now):
            askers.append(self._publisher)
        for asker in askers:
            requests, asker.requests = asker.requests, []
            for request in requests:
                carried = True
                self.carrier.ask(now, asker, request, for_writing=asker is self._publisher)
        return carried

    def _carry_events(self, now: float) -> bool:
        events = list(self.dht.events)
        self.dht.events.clear()
        for event in events:
            if not self.carrier.take(event):
                self._take(now, event)
        answers, self.carrier.answers[:] = list(self.carrier.answers), []
        for asker, question, answer in answers:
            self._answered(now, asker, question, answer)
        for number, found, is_over in self._lookups.said():
            for each in found:
                if self._finder is None or not self._finder.take(now, self.unix_time(now), number, each):
                    self.events.append(LookupEvent(number, each))
            if is_over:
                self.cancel_lookup(number)  # what the DHT still does for it serves nobody
        if self._publisher is not None and self._publisher.events:
            self.events.extend(self._publisher.events)
            self._publisher.events.clear()
        return bool(events or answers)

    def _answered(self, now: float, asker: object, question: Question, answer: Answer) -> None:
        if isinstance(question, Announce | FindPeers):
            if self.station is not None and not isinstance(answer, ItemFound | GetFinished):
                self.station.answered(now, question, answer)
        elif isinstance(asker, Publisher | Resolver) and not isinstance(answer, PeersFound | PeersFinished):
            asker.answered(now, self.unix_time(now), question.tag, answer)

    def _way_changed(self, now: float) -> None:
        """UDP is barred, or not any more: relays are reached accordingly; gateways are a network as good as the DHT."""
        self._is_barred = self.carrier.is_barred
        self.counters["UDP barred" if self._is_barred else "UDP works again"] += 1
        self.events.append(UdpBarred(self._is_barred))
        if self.station is not None:
            self.station.set_udp_barred(now, self._is_barred)
        if self._is_barred and not self._joined:
            self._joined = True
            self._begin(now)
            self._tell_entry(now)
        self._settle(now)

    def _take(self, now: float, event: Event) -> None:
        if isinstance(event, Joined):
            self._joined = True
            self._begin(now)
            self._tell_entry(now)
        elif isinstance(event, OutsideChanged):
            self._outside_changed(now, event)
        elif isinstance(event, ReachableChanged):
            self.counters["reachability changed"] += 1
            self._begin(now)
        self.events.append(event)
