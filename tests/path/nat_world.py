"""Two devices with a `Prober` each behind exact NATs, a relay, and observers, in virtual time.

Sealed packets are plain tuples here, the handshake is one round trip through the relay, and the
control stream repeats a message until it is acknowledged.  Everything else is the product's.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from random import Random

from meshcall.core import Endpoint, endpoint
from meshcall.path.budget import ProbeBudget
from meshcall.path.candidates import Trust, gather
from meshcall.path.events import InDoubt, OutsideSeen, OutsideWanted, PathChosen, PathEvent, SocketKept, SocketsClosed
from meshcall.path.life import MappingLife
from meshcall.path.paths import Path, direct, endpoint_of, is_relayed, is_tcp, relay_id, relayed
from meshcall.path.ports import PortWatch
from meshcall.path.prober import Prober
from meshcall.wire.path import Candidate, Kind, Mapping
from tests.path.nat_box import KINDS, Box, Carry, NatKind

ACCESS_SECONDS = 0.02
"""One way, each home's link."""
SERVER_SECONDS = 0.0025
LAN_SECONDS = 0.0003
VOICE_SECONDS = 0.02
RESEND_SECONDS = 0.2
RELAY = endpoint("203.0.113.8", 3478)
ALL_KINDS = (
    "public", "firewall", "fullcone", "restricted", "portrestricted", "linux", "symmetric", "symseq", "cgnat",
    "cgnat-sym", "udpblocked",
)  # fmt: skip


class World:
    """The clock and the internet."""

    def __init__(self, seed: int = 1, loss: float = 0.0) -> None:
        self.now = 0.0
        self.rng = Random(seed)
        self.loss = loss
        self.addresses: dict[bytes, tuple[float, Carry]] = {}
        self.dead: set[tuple[bytes, bytes]] = set()
        """Pairs of addresses (source, destination) between which nothing passes."""
        self.packets: dict[bytes, int] = {}
        """Arrived in the internet for each destination address, whoever is there."""
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = count()

    def at(self, when: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (max(when, self.now), next(self._count), do))

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._queue and self._queue[0][0] <= until:
            self.now, _, do = heapq.heappop(self._queue)
            do()
        self.now = until

    def attach(self, address: bytes, delay: float, carry: Carry) -> None:
        self.addresses[address] = (delay, carry)

    def observer(self, where: Endpoint) -> None:
        """A DHT node that says what it sees."""
        answer = self.internet(SERVER_SECONDS)
        if bytes(where[:4]) not in self.addresses:
            self.attach(
                bytes(where[:4]), SERVER_SECONDS, lambda source, dest, *_: answer(dest, source, ("seen", source), False)
            )

    def internet(self, delay: float) -> Carry:
        """What a link of this delay leads to: packets with a low TTL die out there."""

        def carry(source: Endpoint, dest: Endpoint, data: object, low_ttl: bool) -> None:
            if low_ttl or (self.loss and self.rng.random() < self.loss):
                return
            host = bytes(dest[:4])
            self.packets[host] = self.packets.get(host, 0) + 1
            if host in self.addresses and (bytes(source[:4]), host) not in self.dead:
                far, arrive = self.addresses[host]
                self.at(self.now + delay + far, lambda: arrive(source, dest, data, False))

        return carry


class Relay:
    """A volunteer: leases and flows, one endpoint.  It learns a holder's address when a lease is renewed."""

    def __init__(self, world: World, where: Endpoint = RELAY) -> None:
        self.world, self.where = world, where
        self.holders: dict[bytes, tuple[Endpoint, bool]] = {}
        self.flows: dict[bytes, tuple[Endpoint, bool, bytes]] = {}
        self.alive = True
        self.tcp: dict[bytes, Carry] = {}
        """Connections, by the address of the device; they pass every NAT."""
        self._out = world.internet(SERVER_SECONDS)
        world.attach(bytes(where[:4]), SERVER_SECONDS, self.arrive)

    def arrive(self, source: Endpoint, dest: Endpoint, data: object, low_ttl: bool, tcp: bool = False) -> None:
        if not self.alive:
            return
        assert isinstance(data, tuple)
        what, number, *inner = data
        if what == "renew":
            self.holders[number] = (source, tcp)
        elif what == "to lease" and number in self.holders:
            known = [flow for flow, caller in self.flows.items() if caller == (source, tcp, number)]
            flow = known[0] if known else self.world.rng.randbytes(8)
            self.flows[flow] = (source, tcp, number)
            self._send(*self.holders[number], ("from flow", flow, *inner))
        elif what == "to flow" and number in self.flows:
            caller, caller_tcp, lease = self.flows[number]
            if self.holders[lease] == (source, tcp):
                self._send(caller, caller_tcp, ("from lease", lease, *inner))

    def _send(self, to: Endpoint, tcp: bool, data: tuple[object, ...]) -> None:
        if tcp:
            carry = self.tcp.get(bytes(to[:4]))
            if carry is not None:
                world = self.world
                world.at(world.now + SERVER_SECONDS + ACCESS_SECONDS, lambda: carry(self.where, to, data, False))
        else:
            self._out(self.where, to, data, False)


class Device:
    """One end: a host with sockets, behind a box or none, and one link."""

    def __init__(self, world: World, name: str, address: str, box: Box | None, relay: Relay, seed: int) -> None:
        self.world, self.name, self.relay = world, name, relay
        self.relays = {relay.where: relay}
        """Where it has leases, all with one id; the first is the one that is dialled."""
        self.rng = Random(seed)
        self.port = self.rng.randint(30000, 40000)
        self.lease = self.rng.randbytes(8)
        self.tcp = False
        self.low_ttl = True
        self.sockets: dict[int, int] = {}
        self.kept: dict[Path, int] = {}
        self.most_sockets = 0
        self.watch = PortWatch()
        self.budget = ProbeBudget(0.0)
        self.life = MappingLife()
        self.trust = Trust.FULL
        self.prober: Prober | None = None
        self.peer: Device | None = None
        self.events: list[tuple[float, PathEvent]] = []
        self.established_at: float | None = None
        self.voice: list[tuple[float, int]] = []
        self.is_narrow = False
        """What it says of its line while it talks."""
        self.voice_sent = 0
        self.packets = 0
        self.talks_until = -1.0
        self._observers = 0
        self._timer = -1.0
        self._unacked: dict[int, bytes] = {}
        self._message = 0
        self._taken: set[int] = set()
        self._early: list[bytes] = []
        self.join(address, box)

    # The network under it

    def join(self, address: str, box: Box | None) -> None:
        """Plug in here."""
        world = self.world
        self.address, self.box = endpoint(address, 1)[:4], box
        for relay in self.relays.values():
            relay.tcp[self.address] = self.arrive
        if box is None:
            world.attach(self.address, ACCESS_SECONDS, self.arrive)
        else:
            box.inside[self.address] = self._from_box
            if box.kind.ports == "same":
                link = (ACCESS_SECONDS, lambda *packet: box.inbound(world.now, *packet[:3]))
                world.addresses[self.address] = link

    def leave(self) -> None:
        """Pull the cable."""
        if self.box is None or self.box.kind.ports == "same":
            self.world.addresses.pop(self.address, None)
        if self.box is not None:
            self.box.inside.pop(self.address, None)
        for relay in self.relays.values():
            relay.tcp.pop(self.address, None)
        self.box = None
        self.address = b""

    def move(self, address: str, box: Box | None, noticed_after: float = 0.05) -> None:
        """Another network, of which the system tells a little later."""
        self.leave()
        self.join(address, box)
        self.world.at(self.world.now + noticed_after, self.notice)

    def notice(self) -> None:
        """The system has told of a change."""
        self.watch.forget()
        self.renew()
        if self.prober is not None:
            self.prober.network_changed(self.world.now)
            self.drain()
            self.tell_local()

    def _from_box(self, source: Endpoint, dest: Endpoint, data: object, low_ttl: bool) -> None:
        self.world.at(self.world.now + LAN_SECONDS, lambda: self.arrive(source, dest, data, False))

    def emit(self, port: int, dest: Endpoint, data: object, low_ttl: bool = False) -> None:
        if not self.address:
            return
        source = Endpoint(self.address + port.to_bytes(2, "big"))
        self.packets += 1
        if self.box is None:
            self.world.internet(ACCESS_SECONDS)(source, dest, data, low_ttl)
        else:
            self.box.outbound(self.world.now, source, dest, data, low_ttl)

    def to_relay(self, data: tuple[object, ...], tcp: bool, where: Endpoint) -> None:
        if not tcp:
            self.emit(self.port, where, data)
        elif self.address:
            source, world = Endpoint(self.address + b"\x01\x01"), self.world
            when = world.now + ACCESS_SECONDS + SERVER_SECONDS
            world.at(when, lambda: self.relays[where].arrive(source, where, data, False, True))

    def arrive(self, source: Endpoint, dest: Endpoint, data: object, low_ttl: bool) -> None:
        if dest[:4] != self.address:
            return
        assert isinstance(data, tuple)
        if data[0] == "seen":
            self.watch.note(self.world.now, source, data[1])
            self.tell_local()
        elif data[0] in ("from flow", "from lease"):
            path = relayed(source, data[1], tcp=dest[4:] == b"\x01\x01")
            self.take(path, 0, data[2:])
        else:
            port = int.from_bytes(dest[4:], "big")
            socket = next((n for n, each in self.sockets.items() if each == port), None if port != self.port else 0)
            if socket is not None:
                self.take(direct(source), socket, data)

    # What it knows of itself

    def renew(self) -> None:
        """Keep the lease."""
        for where in self.relays:
            self.to_relay(("renew", self.lease), self.tcp, where)

    def look(self, number: int = 4) -> None:
        """Ask so many observers that were never asked."""
        for _ in range(number):
            self._observers += 1
            where = endpoint(f"198.18.{self._observers // 200}.{self._observers % 200 + 1}", 6881)
            self.world.observer(where)
            self.emit(self.port, where, ("look",))

    def local(self) -> dict[str, object]:
        hosts = [endpoint(".".join(map(str, self.address)), self.port)] if self.address else []
        ports = self.watch.ports(self.world.now, hosts)
        outside = self.watch.outside(self.world.now)
        observed = [outside] if outside is not None and ports.mapping is not Mapping.NONE else []
        kind = Kind.RELAY_TCP if self.tcp else Kind.RELAY_UDP
        leases = [Candidate(kind, where, self.lease) for where in self.relays]
        return {"candidates": gather(hosts=hosts, observed=observed, leases=leases), "ports": ports}

    def tell_local(self) -> None:
        if self.prober is not None:
            self.prober.set_local(self.world.now, **self.local())  # type: ignore[arg-type]
            self.drain()

    # The link

    def dial(self, peer: Device) -> None:
        """Half a handshake through the peer's lease."""
        self.peer, peer.peer = peer, self
        self.dialled_at = self.world.now
        self._hello()

    def _hello(self) -> None:
        if self.prober is None and self.peer is not None:
            self.send(relayed(self.relay.where, self.peer.lease, self.tcp), ("hello", self.world.now))
            self.world.at(self.world.now + 2 * RESEND_SECONDS, self._hello)

    def establish(self, path: Path, rtt: float) -> None:
        world = self.world
        self.established_at = world.now
        self.prober = Prober(
            world.now, rng=self.rng, path=path, budget=self.budget, life=self.life, rtt=rtt, trust=self.trust,
            **self.local(),  # type: ignore[arg-type]
        )  # fmt: skip
        if self.is_narrow:
            self.prober.expect_stream(world.now)
        self.drain()

    def send(self, path: Path, inner: tuple[object, ...], socket: int | None = None, low_ttl: bool = False) -> None:
        if is_relayed(path):
            what = "to lease" if self.peer is not None and relay_id(path) == self.peer.lease else "to flow"
            self.to_relay((what, relay_id(path), *inner), is_tcp(path), endpoint_of(path))
            return
        if socket is None:
            socket = self.kept.get(path, 0)
        if socket and socket not in self.sockets:
            self.sockets[socket] = 41000 + len(self.sockets)
            self.most_sockets = max(self.most_sockets, len(self.sockets))
        if low_ttl and not socket and not self.low_ttl:
            return
        port = self.sockets[socket] if socket else self.port
        self.emit(port, endpoint_of(path), inner, low_ttl and self.low_ttl)

    def take(self, path: Path, socket: int, inner: tuple[object, ...]) -> None:
        """What came out of a sealed packet."""
        now = self.world.now
        if inner[0] == "hello":
            self.heard_hello = now
            self.send(path, ("welcome", inner[1]))
        elif inner[0] == "welcome" and self.prober is None:
            assert isinstance(inner[1], float)
            self.establish(path, now - inner[1])
        elif self.prober is None:
            if not hasattr(self, "heard_hello"):
                return
            self.establish(path, now - self.heard_hello)
        prober = self.prober
        if prober is None or inner[0] in ("hello", "welcome"):
            return
        if inner[0] == "frame":
            prober.receive(now, path, inner[1], inner[2], socket)  # type: ignore[arg-type]
        else:
            prober.heard(now, path, socket)
            if inner[0] == "voice":
                self.voice.append((now, inner[1]))  # type: ignore[arg-type]
            elif inner[0] == "message":
                self.send(path, ("ack", inner[1]))
                if inner[1] not in self._taken:
                    self._taken.add(inner[1])  # type: ignore[arg-type]
                    prober.take_message(now, inner[2])  # type: ignore[arg-type]
            elif inner[0] == "ack":
                self._unacked.pop(inner[1], None)  # type: ignore[call-overload]
        self.drain()

    def drain(self) -> None:
        prober, now = self.prober, self.world.now
        assert prober is not None
        frames, prober.outbox[:] = list(prober.outbox), []
        for frame in frames:
            self.send(frame.path, ("frame", frame.kind, frame.payload), frame.socket, frame.low_ttl)
        messages, prober.messages[:] = list(prober.messages), []
        for message in messages:
            self._message += 1
            self._unacked[self._message] = message
            self._resend(self._message)
        events, prober.events[:] = list(prober.events), []
        for event in events:
            self.events.append((now, event))
            if isinstance(event, SocketKept):
                self.kept[event.path] = event.socket
            elif isinstance(event, SocketsClosed):
                self.sockets = {n: port for n, port in self.sockets.items() if n in event.kept}
            elif isinstance(event, OutsideWanted):
                self.look(3)
            elif isinstance(event, InDoubt):
                self.renew()
            elif isinstance(event, OutsideSeen):
                self.watch.note(now, endpoint_of(event.path), event.endpoint)
        wake = prober.next_wake()
        if wake is not None and (self._timer <= now or wake < self._timer):
            self._timer = wake = max(wake, now)
            self.world.at(wake, lambda: self._wake(wake))

    def _wake(self, when: float) -> None:
        if when == self._timer and self.prober is not None:
            self._timer = -1.0
            self.prober.wake(self.world.now)
            self.drain()

    def _resend(self, number: int) -> None:
        if number in self._unacked and self.prober is not None:
            best = self.prober.best or self.prober._first
            for path in dict.fromkeys((best, self.prober.second or best)):
                self.send(path, ("message", number, self._unacked[number]))
            self.world.at(self.world.now + RESEND_SECONDS, lambda: self._resend(number))

    # A call

    def talk(self, until: float) -> None:
        """Fifty frames a second."""
        if self.prober is not None:
            self.voice_sent += 1
            for path in self.prober.duplicates(self.world.now, once=self.is_narrow, is_narrow=self.is_narrow):
                self.send(path, ("voice", self.voice_sent))
            self.drain()
        if self.world.now + VOICE_SECONDS <= until:
            self.world.at(self.world.now + VOICE_SECONDS, lambda: self.talk(until))

    def gap(self, since: float = 0.0) -> float:
        """The longest time without a new frame of the peer's."""
        longest, last, seen = 0.0, since, set()
        for when, number in self.voice:
            if number not in seen:
                seen.add(number)
                if when >= since:
                    longest = max(longest, when - last)
                    last = when
        return max(longest, self.world.now - last - 0.1)

    def direct_at(self) -> float | None:
        """When its best path was a direct one first."""
        for when, event in self.events:
            if isinstance(event, PathChosen) and event.best is not None and not is_relayed(event.best):
                return when
        return None

    def packets_while(self, seconds: float) -> int:
        """What it sends in the next so many seconds."""
        before = self.packets
        self.world.run(self.world.now + seconds)
        return self.packets - before

    def is_direct(self) -> bool:
        return self.prober is not None and self.prober.best is not None and not is_relayed(self.prober.best)


def home(world: World, relay: Relay, name: str, kind: str, side: int, seed: int) -> Device:
    """A device behind an access of this kind; side 1 or 2 gives the addresses."""
    outer = f"{'203.0.113' if side == 1 else '198.51.100'}.20"
    wan = endpoint(outer, 1)[:4]
    if kind == "public":
        return Device(world, name, outer, None, relay, seed)
    if kind == "firewall":
        return Device(world, name, outer, box(world, KINDS["firewall"], wan), relay, seed)
    if kind.startswith("cgnat"):
        carrier = box(world, KINDS["symmetric" if kind == "cgnat-sym" else "portrestricted"], wan)
        inner = box(world, KINDS["linux"], endpoint("100.64.7.7", 1)[:4], carrier)
        return Device(world, name, f"10.{side}.0.10", inner, relay, seed)
    device = Device(world, name, f"10.{side}.0.10", box(world, KINDS[kind], wan), relay, seed)
    device.tcp = kind == "udpblocked"
    return device


def box(world: World, kind: NatKind, wan: bytes, up: Box | None = None, life: float = 120.0) -> Box:
    """A box on the internet, or behind another."""
    made = Box(kind, wan, world.rng, life)
    if up is not None:
        made.outside = lambda *packet: up.outbound(world.now, *packet)
        up.inside[wan] = lambda source, dest, data, low: made.inbound(world.now, source, dest, data)
        return made
    made.outside = world.internet(ACCESS_SECONDS)
    if kind.ports != "same":
        world.attach(wan, ACCESS_SECONDS, lambda source, dest, data, low: made.inbound(world.now, source, dest, data))
    return made


def meet(world: World, a: Device, b: Device, settle: float = 1.0) -> None:
    """Leases, sightings, and after a while a dials b."""
    for device in (a, b):
        device.renew()
        world.at(world.now + settle / 2, device.renew)  # the first may be lost
        device.look(6)
    world.run(world.now + settle)
    a.dial(b)


def pair(kind_a: str, kind_b: str, seed: int = 1, loss: float = 0.0) -> tuple[World, Device, Device]:
    """Two homes, one of which has just dialled the other through a relay."""
    world = World(seed, loss)
    relay = Relay(world)
    a = home(world, relay, "a", kind_a, 1, seed * 2 + 1000)
    b = home(world, relay, "b", kind_b, 2, seed * 2 + 1001)
    meet(world, a, b)
    return world, a, b
