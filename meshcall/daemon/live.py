"""The node core on real sockets, with real time and chance: what the daemon and a one-off look-up share.

Tells the core the calendar, notices sleep and other networks, finds the first nodes to ask, and hands
the core's events to whoever waits for them.
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import trio

from meshcall.calls.events import CallEvent
from meshcall.calls.policy import CallPolicy
from meshcall.core import parse_endpoint, port_of
from meshcall.crypto.kem import MlKem768
from meshcall.daemon import shapes, start_points
from meshcall.daemon.forwarding import Forwarding
from meshcall.daemon.mapping import OFFLINE, PortMapping
from meshcall.daemon.pings import Switchboard
from meshcall.daemon.start_points import Contact, Saved
from meshcall.dht.config import DhtConfig
from meshcall.dht.events import Joined, OutsideChanged, ReachableChanged
from meshcall.drivers.clock import sleeping_clock, watch_sleep
from meshcall.drivers.extra import ExtraSockets
from meshcall.drivers.interfaces import Addresses, local_endpoints, read_addresses, watch_addresses
from meshcall.drivers.lan import LanSockets
from meshcall.drivers.tcp_ways import TcpWays, ports_to_try
from meshcall.drivers.udp import Driven, NodeDriver, PortInUseError, local_endpoint, open_udp_pair
from meshcall.handshake.budget import Budget
from meshcall.identity import read_address
from meshcall.logs import log
from meshcall.node import LookupEvent, Node, UdpBarred
from meshcall.peers.events import PlacesChanged
from meshcall.peers.policy import PeerPolicy
from meshcall.peers.station import RelayPlan
from meshcall.peers.ways import SocketKey, SocketsOver
from meshcall.record.events import PublishFailed, RecordConfirmed, RecordFound, RecordPublished, ResolveFinished
from meshcall.relay.places import endpoint_of_place, tcp_place
from meshcall.relay.policy import RelayPolicy

if TYPE_CHECKING:
    import socket

    from meshcall.address import Link
    from meshcall.config import Config
    from meshcall.core import Endpoint
    from meshcall.crypto.suite import Suite
    from meshcall.drivers.control import EventSink
    from meshcall.identity import Device, Identity
    from meshcall.record.events import ResolverEvent
    from meshcall.relay.places import Place

CLOCK_TELL_SECONDS = 1.0
"""How often the core is told the calendar time."""
PATIENCE_SECONDS = 2.0
"""How long the nodes of the last run may take to answer before public routers are asked too."""
RETRY_SECONDS = 10.0
RETRY_SECONDS_MAX = 300.0
"""Between attempts to find the network through names; doubled each time."""
JOIN_WAIT_SECONDS_MAX = 6.0
"""How long a look-up waits for a node that has not found the network yet."""
SAVED_FIRST = 4
"""So many of the saved nodes are asked at once; the others serve when there is a table."""
FAULTS_PER_SECOND = 0.1
FAULTS_BURST = 20.0
"""Defects of ours that are written down; all are counted."""

_log = logging.getLogger("meshcall.node")


def _keys(suite: Suite, addresses: Iterable[str]) -> frozenset[bytes]:
    return frozenset(read_address(suite, text).public for text in addresses)


def _relay_plan(suite: Suite, config: Config, tcp_port: int | None) -> RelayPlan:
    relay = config.relay
    policy = RelayPolicy(
        mode=relay.mode,
        members=_keys(suite, config.home.members),
        listed=_keys(suite, relay.listed),
        leases_max=relay.leases_max,
        bytes_per_second=relay.uplink_kbit_per_second * 125,
        lease_bytes_per_second=relay.lease_kbit_per_second * 125,
        source_bytes_per_second=relay.source_kbit_per_second * 125,
    )
    return RelayPlan(relay.leases, policy, tuple(map(parse_endpoint, config.home.relays)), tcp_port)


def _call_policy(suite: Suite, config: Config) -> CallPolicy:
    call = config.call
    return CallPolicy(
        contacts=_keys(suite, config.contacts.trusted),
        blocked=_keys(suite, config.contacts.blocked),
        ring=call.ring,
        direct=call.direct,
        auto_answer=call.auto_answer if isinstance(call.auto_answer, str) else _keys(suite, call.auto_answer),
        kbit_per_second=call.kbit_per_second,
    )


class LiveNode:
    """One node.  `await nursery.start(live.run)` until cancelled."""

    def __init__(self, config: Config, suite: Suite, saved: Saved, *, read_only: bool = False) -> None:
        """Opens the sockets: UsageError where the port is taken.  `read_only`: a guest that serves nobody."""
        self.config = config
        self.joined = trio.Event()
        self.switchboard = Switchboard()
        self.on_call: Callable[[float, CallEvent], None] = lambda _now, _event: None
        """Hears of calls, within the node's turn."""
        self._suite = suite
        self._started_looking = trio.Event()
        self._waiting: dict[int, Callable[[Any], None]] = {}
        self._faults = Budget(trio.current_time(), FAULTS_PER_SECOND, FAULTS_BURST)
        self._uses_lan = config.network.lan and start_points.may_use_lan() and not read_only
        self._driver = NodeDriver(self.on_fault)
        sockets = self._open_sockets(0 if read_only else saved.port)
        families = tuple(4 if one.family.name == "AF_INET" else 6 for one in sockets)
        self.tcp = self._listen(families, port_of(local_endpoint(sockets[0])), read_only=read_only)
        now = trio.current_time()
        self.node = Node(
            now,
            time.time(),
            rng=random.SystemRandom(),
            suite=suite,
            config=DhtConfig(
                reachable="no" if read_only else config.dht.reachable,
                items_max=config.dht.items_max,
                item_bytes_max=config.dht.item_bytes_max,
                peers_max=config.dht.peers_max,
                queries_per_second_total=config.dht.queries_per_second_max,
            ),
            families=families,
            kem=MlKem768(),
            policy=PeerPolicy(
                _keys(suite, config.contacts.trusted),
                config.link.answer_pings,
                hides=config.call.direct == "never",
                lan=self._uses_lan,
            ),
            plan=_relay_plan(suite, config, self.tcp.port),
            call_policy=_call_policy(suite, config),
        )
        self.tcp.attach(self._on_tcp, self._on_tcp_gone)
        self.families = families
        self.driven: Driven[Node] = self._driver.add(self.node, sockets, self._on_events)
        self._extra = ExtraSockets(sockets, config.network.bind_ipv4, self._on_extra)
        self.driven.elsewhere = self._send_elsewhere
        self.saved = replace(saved, secret=saved.secret or secrets.token_bytes(start_points.SECRET_BYTES))
        self.lan = LanSockets(sockets if self._uses_lan else (), self._on_lan)
        self._extra.to_lan = self.lan.send
        self.forwarding = Forwarding()
        self.mapping = PortMapping(
            self.endpoints, self.saved.secret, wanted=config.network.port_mapping and not read_only
        )
        self._tell_addresses(read_addresses())

    def _open_sockets(self, last_port: int) -> list[socket.socket]:
        network = self.config.network
        hosts = {4: network.bind_ipv4, 6: network.bind_ipv6}
        if network.port == 0 and last_port:
            try:
                return open_udp_pair(network.families, hosts, last_port)
            except PortInUseError:
                log(_log, logging.WARNING, "the UDP port of the last run is in use; taking another", port=last_port)
        return open_udp_pair(network.families, hosts, network.port)

    def _listen(self, families: tuple[int, ...], udp_port: int, *, read_only: bool) -> TcpWays:
        """The relay's TCP side; where no port can be had the relay goes on over UDP."""
        network, relay = self.config.network, self.config.relay
        serves = relay.mode != "off" and not read_only
        ports = ports_to_try(relay.tcp_port, udp_port) if serves else ()
        ways = TcpWays(families, {4: network.bind_ipv4, 6: network.bind_ipv6}, ports)
        if ways.problem:
            log(
                _log, logging.WARNING, "the relay takes no TCP: no port to listen on; it goes on over UDP",
                reason=ways.problem,
            )  # fmt: skip
        elif ways.port is not None:
            log(_log, logging.INFO, "the relay takes TCP too", port=ways.port)
        return ways

    def _send_elsewhere(self, way: Endpoint, data: bytes) -> None:
        if not self.tcp.send(way, data):
            self._extra.send(way, data)

    @property
    def endpoints(self) -> list[Endpoint]:
        """Where the sockets are bound."""
        return self.driven.endpoints

    @property
    def udp_counters(self) -> dict[str, int]:
        """What the driver counted."""
        more = {"extra": self._extra.counters, "lan": self.lan.counters}
        named = {f"{part} {name}": count for part, counters in more.items() for name, count in counters.items()}
        return {**self._driver.counters, **named}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._extra.run)
            await nursery.start(self.tcp.run)
            await nursery.start(self._driver.run)
            await nursery.start(self.lan.run)
            self.forwarding.start(self._driver, self.driven, self.on_fault)
            nursery.start_soon(self._tell_time)
            nursery.start_soon(self._find_network)
            nursery.start_soon(watch_sleep, self._on_slept, sleeping_clock(), time.monotonic)
            nursery.start_soon(watch_addresses, self._on_addresses, read_addresses)
            nursery.start_soon(self.mapping.run, self._on_mapping)
            task_status.started()

    def lan_status(self) -> dict[str, Any]:
        """As docs/control-api.md has it."""
        off = None if self._uses_lan else OFFLINE if self.config.network.lan else "[network] lan is false"
        return {"on": self._uses_lan, "off_because": off, "joined": self.lan.joined}

    def publish(self, identity: Identity, device: Device) -> None:
        """Keep a record of this device up, and be the relay for others that the configuration says."""
        with self.driven.turn() as now:
            always = self.config.record.publish_addresses == "always"
            self.node.publish(now, identity, device, with_addresses=always)
        self.forwarding.start(self._driver, self.driven, self.on_fault)

    # Finding the network

    async def _find_network(self) -> None:
        """Ask, in this order: nodes of the last run, configured ones, public routers; again until one answers."""
        configured = self.config.dht.bootstrap
        self._offer_gateways(start_points.numeric(configured))
        with self.driven.turn() as now:
            self.node.carrier.detour.offer(now, tuple(tcp_place(where, 0) for where in self.saved.relays))
        first = [where for _, where in self.saved.contacts[:SAVED_FIRST]] + start_points.numeric(configured)
        by_name, routers = start_points.names(configured), start_points.built_in(self.config)
        if not (first or by_name or routers):
            log(
                _log,
                logging.WARNING,
                "this node knows no other node and waits for others; --bootstrap HOST:PORT names one",
            )
        self._bootstrap(first)
        if by_name:
            await self._bootstrap_names(by_name)
        if first or by_name:
            self._started_looking.set()
            await self._patience()
        if self.saved.contacts:
            with self.driven.turn() as now:
                self.node.dht.restore(now, self.saved.contacts)
            await self._patience()
        pause = RETRY_SECONDS
        while not self.joined.is_set() and (first or by_name or routers):
            if by_name or routers:
                await self._bootstrap_names([*by_name, *routers])
            self._started_looking.set()
            with trio.move_on_after(pause):
                await self.joined.wait()
            if not self.joined.is_set():
                log(_log, logging.WARNING, "no other node answers yet; trying again")
                self._bootstrap(first)
            pause = min(pause * 2, RETRY_SECONDS_MAX)
        self._started_looking.set()

    async def _patience(self) -> None:
        with trio.move_on_after(PATIENCE_SECONDS):
            await self.joined.wait()

    async def _bootstrap_names(self, texts: list[str]) -> None:
        found, failed = await start_points.resolve(texts, self.families)
        if failed:
            why = "offline: no name is looked up" if start_points.is_offline() else "no address found"
            log(_log, logging.WARNING, f"some names to start from cannot be used ({why})", names=failed)
        self._bootstrap(found)
        if set(texts).isdisjoint(start_points.PUBLIC_ROUTERS):
            self._offer_gateways(found)

    def _offer_gateways(self, endpoints: Iterable[Endpoint]) -> None:
        """Nodes of the owner's choice may be relays that are a way to the DHT where UDP is barred."""
        with self.driven.turn() as now:
            self.node.carrier.offer(now, endpoints)

    def _bootstrap(self, endpoints: Iterable[Endpoint]) -> None:
        endpoints = list(endpoints)
        if endpoints:
            with self.driven.turn() as now:
                self.node.start(now, endpoints)

    def good_contacts(self) -> tuple[Contact, ...]:
        """What is worth saving."""
        return tuple(self.node.dht.good_contacts(start_points.NODES_MAX))

    def good_relays(self) -> tuple[Endpoint, ...]:
        """Where relays were reached over TCP, or can be."""
        station, gateways = self.node.station, self.node.carrier.detour.gateways
        places = (*gateways, *(() if station is None else station.relays_over_tcp))
        return tuple(dict.fromkeys(map(endpoint_of_place, places)))

    # Look-ups

    async def lookup(self, address: str, *, trace: bool, event: EventSink) -> dict[str, Any]:
        """Find an address; events "found" and "updated" on the way, then the result of docs/control-api.md.

        Raises AddressError.
        """
        link = read_address(self._suite, address)
        first: list[float] = []

        def happened(said: ResolverEvent) -> None:
            if not isinstance(said, ResolveFinished):
                first.append(said.seconds)
                kind = "found" if isinstance(said, RecordFound) else "updated"
                event(kind, shapes.found(said, time.time()))

        result = await self.resolve(link, happened, trace=trace)
        return shapes.finished(link, result, first[0] if first else None, time.time())

    async def resolve(
        self, link: Link, said: Callable[[ResolverEvent], None], *, trace: bool = False
    ) -> ResolveFinished:
        """Look an address up; `said` hears every event within the node's turn, the last one is the result."""
        if not self.joined.is_set():
            with trio.move_on_after(JOIN_WAIT_SECONDS_MAX):
                await self._started_looking.wait()
        done = trio.Event()
        results: list[ResolveFinished] = []

        def happened(event: ResolverEvent) -> None:
            said(event)
            if isinstance(event, ResolveFinished):
                results.append(event)
                done.set()

        with self.driven.turn() as now:
            number = self.node.lookup(now, link, trace=trace)
            self._waiting[number] = happened
        try:
            await done.wait()
        finally:
            del self._waiting[number]
            with self.driven.turn():
                self.node.cancel_lookup(number)
        return results[0]

    # What happens

    def _on_events(self, now: float, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, CallEvent):
                self.on_call(now, event)
            elif isinstance(event, LookupEvent):
                handler = self._waiting.get(event.lookup)
                if handler is not None:
                    handler(event.event)
            elif isinstance(event, Joined):
                self.joined.set()
                log(_log, logging.INFO, "joined the network", nodes=event.contacts)
            elif isinstance(event, UdpBarred):
                self._on_barred(event)
            elif isinstance(event, OutsideChanged):
                if event.outside is not None:
                    log(_log, logging.INFO, "others see this node under one address", family=f"IPv{event.family}")
            elif isinstance(event, ReachableChanged):
                text = (
                    "strangers can reach this node" if event.reachable else "strangers cannot reach this node unasked"
                )
                log(_log, logging.INFO, text)
            elif isinstance(event, RecordPublished):
                log(_log, logging.INFO, "record published", period=event.period, stored_on=event.stored)
            elif isinstance(event, RecordConfirmed):
                log(_log, logging.INFO, "record found again: you can be looked up", period=event.period)
            elif isinstance(event, PublishFailed):
                log(
                    _log,
                    logging.WARNING,
                    "record not published",
                    reason=event.reason,
                    next_attempt_in_seconds=round(event.retry_seconds, 1),
                )
            elif isinstance(event, SocketsOver):
                self._extra.close(event.link, event.kept)
            elif isinstance(event, PlacesChanged):
                text = "place at a relay" if event.leases else "no place at a relay any more"
                log(_log, logging.INFO, text, relays=len(event.leases))
            else:
                self.switchboard.take(event)

    def _on_barred(self, event: UdpBarred) -> None:
        if event.barred:
            self.joined.set()
            log(_log, logging.WARNING, "this network bars UDP; relays and the DHT are reached over TCP")
        else:
            log(_log, logging.INFO, "UDP is used again")

    def _on_extra(self, key: SocketKey, source: Endpoint, data: bytes) -> None:
        with self._driver.guard(), self.driven.turn() as now:
            self.node.people.receive_extra(now, key, source, data)

    def _on_lan(self, source: Endpoint, data: bytes) -> None:
        with self._driver.guard(), self.driven.turn() as now:
            self.node.receive_lan(now, source, data)

    def _on_tcp(self, now: float, place: Place, data: bytes) -> None:
        with self._driver.guard(), self.driven.turn() as now:
            self.node.receive_tcp(now, place, data)

    def _on_tcp_gone(self, now: float, place: Place) -> None:
        with self._driver.guard(), self.driven.turn() as now:
            self.node.tcp_gone(now, place)

    def on_fault(self, fault: Exception) -> None:
        """Write down what should never have been raised; to be called while it is being handled.

        Not each time: a packet that leads to it may come again and again, and the log is somebody's disk.
        """
        if self._faults.take(trio.current_time()):
            _log.error("a defect in meshcall; the node goes on", exc_info=fault)

    async def _tell_time(self) -> None:
        while True:
            await trio.sleep(CLOCK_TELL_SECONDS)
            with self.driven.turn() as now:
                self.node.set_clock(now, time.time())

    def _on_slept(self, seconds: float) -> None:
        log(_log, logging.INFO, "the machine slept; finding the network again", seconds=round(seconds))
        self.network_changed()

    def _on_addresses(self, addresses: Addresses) -> None:
        log(_log, logging.INFO, "the addresses of this machine changed; finding the network again")
        self._tell_addresses(addresses)
        self.network_changed()

    def network_changed(self) -> None:
        """Find the network anew and publish at once."""
        with self.driven.turn() as now:
            self.node.set_clock(now, time.time())
            self.node.network_changed(now)
        self.mapping.network_changed()
        self.lan.network_changed()
        self.tcp.network_changed()

    def _on_mapping(self) -> None:
        with self.driven.turn() as now:
            self.node.set_mapped(now, self.mapping.endpoints)

    def _tell_addresses(self, addresses: Addresses) -> None:
        with self.driven.turn() as now:
            self.node.set_local_addresses(now, local_endpoints(self.driven.endpoints, addresses))
