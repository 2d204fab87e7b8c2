"""The skin of the port mappers: finds the default gateway, speaks UDP and HTTP to it, and tells of mappings.

Nothing here runs with MESHCALL_OFFLINE=1.  All is bounded: datagrams, responses in bytes and seconds,
one HTTP request at a time and family, to none but the gateway or a neighbour in its /24; redirects are
never followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final, TypeVar

import trio

from meshcall.core import Endpoint, endpoint, host_of, port_of
from meshcall.handshake.budget import Budget
from meshcall.portmap.asking import ANNOUNCE_PORT, SERVER_PORT
from meshcall.portmap.grant import Gateway, Request
from meshcall.portmap.http import RESPONSE_BYTES_MAX, is_whole
from meshcall.portmap.mapper import DELETE_SECONDS, Event, Mapped, Mapper

OFFLINE_VARIABLE: Final = "MESHCALL_OFFLINE"
LOOK_EVERY_SECONDS: Final = 15.0
"""Between two looks at the routing table, where nobody told of a change."""
DATAGRAM_BYTES_MAX: Final = 2_048
DATAGRAMS_PER_TURN: Final = 32
HTTP_CONNECT_SECONDS: Final = 3.0
HTTP_SECONDS: Final = 8.0
"""From connecting to the last byte."""
READ_BYTES: Final = 4_096
READ_PAUSE_SECONDS: Final = 0.01
"""Between two looks at a response that is not whole: one that drips is not looked at for every drop."""
DATAGRAMS_PER_SECOND: Final = 200.0
"""Read of each socket; a flood on the local network beyond it stays in the system's buffer, and is dropped there."""
EVENTS_MAX: Final = 64
NO_GATEWAY: Final = "no gateway"
ERROR_PAUSE_SECONDS: Final = 0.1
"""An error that stays must not spin."""
ROUTES_MAX: Final = 4_096
MULTICAST_HOPS: Final = 2
ROUTE_V4: Final = Path("/proc/net/route")
ROUTE_V6: Final = Path("/proc/net/ipv6_route")
_UP_GATEWAY: Final = 0x3
_ALL_HOSTS: Final = "224.0.0.1"
_SOMEWHERE_V6: Final = ("2001:db8::1", 9)  # asked of the routing table; nothing is sent there

T = TypeVar("T")
Route = tuple[Gateway, str]
"""A gateway, and the interface that leads to it."""


@dataclass(frozen=True, slots=True)
class MappingStatus:
    """How it stands with one family's mapping."""

    family: int
    mapped: Mapped | None
    seconds: float | None
    """Until the mapping ends unless it is renewed; without one, until it is asked for again."""
    reason: str
    """Why there is no mapping, in short fixed words; empty: there is one, or the gateway is being asked."""


def is_offline() -> bool:
    """Whether this process must not speak to the gateway on its own account."""
    return os.environ.get(OFFLINE_VARIABLE, "0") not in ("", "0")


def default_route_v4(text: str) -> tuple[str, bytes] | None:
    """Interface and packed address of the default gateway with the least metric, out of /proc/net/route."""
    best: tuple[int, str, bytes] | None = None
    for line in text.splitlines()[1:ROUTES_MAX]:
        fields = line.split()
        with contextlib.suppress(ValueError, IndexError):  # another form is another system's
            flags, metric = int(fields[3], 16), int(fields[6])
            host = struct.pack("=I", int(fields[2], 16))  # the kernel prints the word as it lies in memory
            is_default = int(fields[1], 16) == 0 and int(fields[7], 16) == 0 and flags & _UP_GATEWAY == _UP_GATEWAY
            if is_default and any(host) and (best is None or metric < best[0]):
                best = (metric, fields[0], host)
    return None if best is None else best[1:]


def default_route_v6(text: str) -> tuple[str, bytes] | None:
    """The same out of /proc/net/ipv6_route."""
    best: tuple[int, str, bytes] | None = None
    for line in text.splitlines()[:ROUTES_MAX]:
        fields = line.split()
        with contextlib.suppress(ValueError, IndexError):
            host, metric, flags = bytes.fromhex(fields[4]), int(fields[5], 16), int(fields[8], 16)
            is_default = not int(fields[0], 16) and not int(fields[1], 16) and flags & _UP_GATEWAY == _UP_GATEWAY
            if is_default and len(host) == 16 and any(host) and (best is None or metric < best[0]):
                best = (metric, fields[9], host)
    return None if best is None else best[1:]


def default_gateway(family: int) -> Route | None:
    """The default gateway of family 4 or 6 and our address towards it; None: there is none, or not on Linux."""
    try:
        if family == 4:
            found = default_route_v4(ROUTE_V4.read_text())
            return (
                None if found is None else (Gateway(found[1], _own_address((host_of(_at(found[1])), 9), 4)), found[0])
            )
        found = default_route_v6(ROUTE_V6.read_text())
        return None if found is None else (Gateway(found[1], _own_address(_SOMEWHERE_V6, 6)), found[0])
    except OSError:  # no such file, no such family, no route: no gateway
        return None


def _at(host: bytes) -> Endpoint:
    return Endpoint(host + b"\x00\x09")


def _own_address(towards: tuple[str, int], family: int) -> bytes:
    with socket.socket(_AF[family], socket.SOCK_DGRAM) as one:
        one.connect(towards)  # sends nothing: the kernel says which address it would use
        return bytes(endpoint(one.getsockname()[0], 1)[:-2])


_AF: Final = {4: socket.AF_INET, 6: socket.AF_INET6}


class PortMapper:
    """Keeps one UDP port mapped at the default gateway of each family.

    `secret`: 16 bytes or more that stay the same over restarts of the daemon.  `run` until cancelled;
    read `events`; `mappings` is always what is in force.  With MESHCALL_OFFLINE=1 `run` returns at once.
    """

    def __init__(
        self,
        port: int,
        *,
        secret: bytes,
        rng: Random,
        families: tuple[int, ...] = (4, 6),
        find: Callable[[int], Route | None] = default_gateway,
    ) -> None:
        self._find = find
        self._send, self.events = trio.open_memory_channel[Event](EVENTS_MAX)
        self._families = {family: _Family(self, family, Mapper(port, secret=secret, rng=rng)) for family in families}
        self._changed = trio.Event()

    @property
    def mappings(self) -> tuple[Mapped, ...]:
        """What gateways forward to us now, of both families."""
        return tuple(each.mapper.mapped for each in self._families.values() if each.mapper.mapped is not None)

    def status(self, now: float) -> tuple[MappingStatus, ...]:
        """How it stands, by family."""
        found = []
        for family, each in self._families.items():
            mapper = each.mapper
            seconds = None if mapper.ends is None else max(0.0, mapper.ends - now)
            reason = mapper.reason if each.has_gateway else NO_GATEWAY
            found.append(MappingStatus(family, mapper.mapped, seconds, reason))
        return tuple(found)

    @property
    def counters(self) -> dict[str, int]:
        """What was counted, by short fixed words."""
        total: dict[str, int] = {}
        for each in self._families.values():
            for word, count in each.mapper.counters.items():
                total[word] = total.get(word, 0) + count
        return total

    def network_changed(self) -> None:
        """The machine's addresses changed, or it has slept: look at the routes now and make sure of the mappings."""
        self._changed.set()

    async def run(self) -> None:
        """Keep the mappings until cancelled, then delete them, which takes at most two seconds."""
        with self._send:
            if is_offline():
                return
            async with trio.open_nursery() as nursery:
                for each in self._families.values():
                    nursery.start_soon(each.run)
                await self._watch()

    async def _watch(self) -> None:
        before: dict[int, Route | None] = dict.fromkeys(self._families)
        told = True
        while True:
            self._changed = trio.Event()
            for family, each in self._families.items():
                route = self._find(family)
                if told or route != before[family]:
                    before[family] = route
                    each.set_route(route)
            with trio.move_on_after(LOOK_EVERY_SECONDS):
                await self._changed.wait()
            told = self._changed.is_set()

    def tell(self, event: Event) -> None:
        """Hand an event on; a reader that sleeps loses the newest, and has `mappings`."""
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self._families[next(iter(self._families))].mapper.counters["event dropped"] += 1
        except trio.BrokenResourceError:  # nobody reads any more
            return


class _Family:
    """One mapper and its sockets."""

    def __init__(self, owner: PortMapper, family: int, mapper: Mapper) -> None:
        self.mapper = mapper
        self._owner, self._family = owner, family
        self._route: Route | None = None
        self._sockets: dict[str, socket.socket] = {}
        self._scopes: set[trio.CancelScope] = set()
        """Of what runs for the present gateway."""
        self._kick = trio.Event()
        self._nursery: trio.Nursery | None = None

    @property
    def has_gateway(self) -> bool:
        """Whether there is anybody to ask."""
        return self._route is not None

    def set_route(self, route: Route | None) -> None:
        """This is the gateway now; sockets are opened anew where it is another."""
        if route != self._route:
            self._route = route
            for scope in self._scopes:
                scope.cancel()
            self._close()
            if route is not None:
                self._open(route)
        self.mapper.set_gateway(trio.current_time(), None if route is None else route[0])
        self._kick.set()

    async def run(self) -> None:
        """Carry what the mapper wants until cancelled; then delete the mapping."""
        try:
            await self._carry()
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(DELETE_SECONDS + 0.5):
                self.mapper.stop(trio.current_time())
                if self._route is not None and not self.mapper.is_idle:
                    await self._carry(until_idle=True)
            self._pass_on_events()
            self._close()

    async def _carry(self, *, until_idle: bool = False) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._start_readers()
            try:
                while not (until_idle and self.mapper.is_idle):
                    self._kick = trio.Event()
                    now = trio.current_time()
                    self.mapper.wake(now)
                    self._drain()
                    wake = self.mapper.next_wake()
                    with trio.move_on_at(float("inf") if wake is None else max(wake, now + 0.01)):
                        await self._kick.wait()
                nursery.cancel_scope.cancel()
            finally:
                self._nursery = None
                self._scopes.clear()

    def _start_readers(self) -> None:
        for name, one in self._sockets.items():
            self._start(self._read, (name, one))

    def _start(self, work: Callable[[T], Awaitable[None]], what: T) -> None:
        """Run a task that ends when the gateway changes."""
        if self._nursery is None:
            return
        scope = trio.CancelScope()
        self._scopes.add(scope)

        async def scoped() -> None:
            with scope:
                await work(what)
            self._scopes.discard(scope)

        self._nursery.start_soon(scoped)

    def _drain(self) -> None:
        """Send what the mapper wants sent; nothing here waits."""
        for where, data in self.mapper.outbox:
            one = self._sockets.get("pcp" if port_of(where) == SERVER_PORT else "ssdp")
            if one is None:
                continue
            try:
                if port_of(where) == SERVER_PORT:
                    one.send(data)
                else:
                    one.sendto(data, (host_of(where), port_of(where)))
            except OSError as problem:
                self._note(problem)
        self.mapper.outbox.clear()
        for request in self.mapper.requests:
            self._start(self._fetch, request)
        self.mapper.requests.clear()
        self._pass_on_events()

    def _pass_on_events(self) -> None:
        for event in self.mapper.events:
            self._owner.tell(event)
        self.mapper.events.clear()

    def _note(self, problem: OSError) -> None:
        self._count("socket", problem)
        if problem.errno == errno.ECONNREFUSED:
            self.mapper.refused(trio.current_time())

    def _count(self, what: str, problem: OSError) -> None:
        self.mapper.counters[f"{what} {errno.errorcode.get(problem.errno or 0, 'error')}"] += 1

    def _open(self, route: Route) -> None:
        gateway, interface = route
        try:
            scope = socket.if_nametoindex(interface)
        except OSError:
            scope = 0
        here, there = host_of(_at(gateway.local)), host_of(_at(gateway.host))
        for name in ("pcp", "ssdp", "announce"):
            if name != "pcp" and self._family == 6:
                continue
            try:
                one = socket.socket(_AF[self._family], socket.SOCK_DGRAM)
            except OSError as problem:  # no more files, mostly
                self._count(name, problem)
                continue
            try:
                one.setblocking(False)
                if name == "pcp":
                    one.bind((here, 0))
                    one.connect((there, SERVER_PORT) if self._family == 4 else (there, SERVER_PORT, 0, scope))
                elif name == "ssdp":
                    one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, MULTICAST_HOPS)
                    one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, gateway.local)
                    one.bind((here, 0))
                else:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    one.bind((_ALL_HOSTS, ANNOUNCE_PORT))
                    group = socket.inet_aton(_ALL_HOSTS) + gateway.local
                    one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            except OSError as problem:
                one.close()
                self._count(name, problem)
                continue
            self._sockets[name] = one
        self._start_readers()

    def _close(self) -> None:
        for one in self._sockets.values():
            trio.lowlevel.notify_closing(one)
            one.close()
        self._sockets.clear()

    async def _read(self, named: tuple[str, socket.socket]) -> None:
        name, one = named
        budget = Budget(trio.current_time(), DATAGRAMS_PER_SECOND, DATAGRAMS_PER_SECOND)
        while True:
            try:
                await trio.lowlevel.wait_readable(one)
            except (trio.ClosedResourceError, OSError):
                return
            if not self._take_datagrams(name, one, budget):
                await trio.sleep(ERROR_PAUSE_SECONDS)
            self._kick.set()

    def _take_datagrams(self, name: str, one: socket.socket, budget: Budget) -> bool:
        """False where the socket reported an error, or brings too much."""
        for _ in range(DATAGRAMS_PER_TURN):
            if not budget.take(trio.current_time()):
                self.mapper.counters["flood"] += 1
                return False
            try:
                data, address = one.recvfrom(DATAGRAM_BYTES_MAX)
            except BlockingIOError:
                return True
            except OSError as problem:
                self._note(problem)
                return False
            now, source = trio.current_time(), endpoint(address[0], address[1] or 1)
            if name == "announce":
                self.mapper.announced(now, source, data)
            elif name == "ssdp" and port_of(source) == SERVER_PORT:
                # the search has told all neighbours of this socket's port; the other one's is secret
                self.mapper.counters["wrong source"] += 1
            else:
                self.mapper.receive(now, source, data)
        return True

    async def _fetch(self, request: Request) -> None:
        if self._route is None or not self._route[0].is_near(request.to):
            self.mapper.failed(trio.current_time(), request.number, "http to a stranger")
        else:
            result = await fetch(request.to, request.data)
            if isinstance(result, bytes):
                self.mapper.answered(trio.current_time(), request.number, result)
            else:
                self.mapper.failed(trio.current_time(), request.number, result)
        self._kick.set()


async def _connect(to: Endpoint) -> trio.SocketStream:
    """Raises OSError."""
    one = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        await one.connect((host_of(to), port_of(to)))
    except BaseException:
        one.close()
        raise
    return trio.SocketStream(one)


async def fetch(
    to: Endpoint, data: bytes, *, seconds: float = HTTP_SECONDS, connect_seconds: float = HTTP_CONNECT_SECONDS
) -> bytes | str:
    """Send one HTTP request and read the response; a text instead says in fixed words what was wrong."""
    got = bytearray()
    with trio.move_on_after(seconds):
        stream: trio.SocketStream | None = None
        with trio.move_on_after(connect_seconds), contextlib.suppress(OSError):
            stream = await _connect(to)
        if stream is None:
            return "http no connection"
        try:
            await stream.send_all(data)
            while chunk := await stream.receive_some(READ_BYTES):
                got += chunk
                if len(got) > RESPONSE_BYTES_MAX:
                    return "http too long"
                if is_whole(got):
                    break
                await trio.sleep(READ_PAUSE_SECONDS)
        except trio.BrokenResourceError:
            return "http broken"
        finally:
            await trio.aclose_forcefully(stream)
        return bytes(got) if got else "http empty"
    return "http too slow"
