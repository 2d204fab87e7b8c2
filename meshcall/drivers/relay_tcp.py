"""Frames over TCP, for networks that bar UDP: two bytes of length, then what would have been a datagram.

The same for the relay (`TcpRelay`, which listens) and for holders and callers (`TcpPaths`, which
connects).  Voice must not wait: what a connection has no room for is dropped, and one that stays full
is closed.  A connection that sends anything out of form is closed.  What a datagram means is the core's.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio

from meshcall.core import ENDPOINT_V4_BYTES, Endpoint, endpoint, host_of, port_of
from meshcall.endpoints import may_use_port
from meshcall.errors import UsageError
from meshcall.handshake.budget import SourceBudgets
from meshcall.relay.places import Place, endpoint_of_place, tcp_place

LENGTH_BYTES = 2
DATAGRAM_BYTES_MAX = 1500
"""A longer one ends the connection."""
CONNECTIONS_MAX = 256
CONNECTIONS_PER_ADDRESS_MAX = 16
CONNECTIONS_PER_SUBNET_MAX = 64
"""From a /24 of IPv4 or a /48 of IPv6: one customer has many addresses, and shall not have them all."""
RECORDS_PER_SECOND = 1000.0
"""Read of one address, or of one relay that we connect to; more waits in the connection.  A datagram of one byte
costs us as much as a long one, and its sender next to nothing.  A lease may forward 800 a second."""
RECORDS_BURST = 250.0
READ_PAUSE_SECONDS = 0.02
CONNECTS_PER_SECOND = 2.0
CONNECTS_BURST = 48.0
"""New connections of one address: each that comes and goes costs a look through all flows."""
UNUSED_SECONDS = 30.0
"""A full relay closes a connection that was not used for so long for a new one; holders check more often."""
ROOM_MAX = 8
"""Connections beyond the greatest number, while others are being closed for them."""
FIRST_SECONDS = 5.0
"""In this time a new connection has to send its first whole datagram."""
IDLE_SECONDS = 120.0
"""A connection that sends nothing for so long is closed; holders check more often."""
CONNECT_SECONDS = 5.0
QUEUE_BYTES = 32_000
"""Waiting for one connection; at 60 kbit/s this is four seconds of voice, which nobody wants to hear."""
SLOW_SECONDS = 3.0
"""A reader that leaves the queue full for so long is closed."""
READ_BYTES = 16_384
BACKLOG = 64
"""Connections that the system keeps until we take them."""
SOCKET_BUFFER_BYTES = 64_000
"""Asked of the system each way: what waits there is late too, and for strangers its memory is not ours to give."""
PATHS_MAX = 32
"""Connections to relays that a holder or caller keeps..."""
SPARE_SECONDS = 5.0
"""...of which one that was not used for so long makes room for another."""

_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_WILDCARD = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - as for UDP: all addresses, unless the owner names one
_NO_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)

Deliver = Callable[[float, Place, bytes], None]
Gone = Callable[[float, Place], None]


class Connection:
    """One TCP connection as a way for datagrams; `send` never waits."""

    def __init__(
        self, stream: trio.SocketStream, place: Place, counters: Counter[str], budgets: SourceBudgets, source: bytes
    ) -> None:
        """`budgets`: how many datagrams are read of a source, by all its connections, former ones included."""
        self.place = place
        self._stream = stream
        self._budgets, self._source = budgets, source
        self._counters = counters
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._more = trio.Event()
        self._full_since: float | None = None
        self.used = trio.current_time()
        """When a datagram last went either way."""
        self._scope = trio.CancelScope()

    def send(self, now: float, data: bytes) -> None:
        """Send a datagram, or drop it where there is no room."""
        if self._queued + len(data) > QUEUE_BYTES:
            self._counters["tcp no room"] += 1
            if self._full_since is None:
                self._full_since = now
            elif now - self._full_since >= SLOW_SECONDS:
                self._counters["tcp slow reader closed"] += 1
                self.close()
            return
        self._queue.append(len(data).to_bytes(LENGTH_BYTES, "big") + data)
        self._queued += len(data) + LENGTH_BYTES
        self.used = now
        self._more.set()

    @property
    def is_closing(self) -> bool:
        """Whether `close` was called."""
        return self._scope.cancel_called

    def close(self) -> None:
        """End it; what is queued is dropped."""
        self._scope.cancel()

    async def run(self, deliver: Deliver) -> None:
        """Carry both ways until either side closes or breaks the form."""
        try:
            with self._scope:
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._write)
                        await self._read(deliver)
                        nursery.cancel_scope.cancel()
                except* (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._counters["tcp broken"] += 1
        finally:  # also when all is being cancelled
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)

    async def _read(self, deliver: Deliver) -> None:
        rest = bytearray()
        until = trio.current_time() + FIRST_SECONDS  # bytes alone win no time, only whole datagrams do
        while True:
            with trio.move_on_at(until) as patience:
                chunk = await self._stream.receive_some(READ_BYTES)
            if patience.cancelled_caught:
                self._counters["tcp silent closed"] += 1
                return
            if not chunk:
                return
            rest += chunk
            now = trio.current_time()
            at = 0
            while len(rest) - at >= LENGTH_BYTES:
                size = rest[at] << 8 | rest[at + 1]
                if not 0 < size <= DATAGRAM_BYTES_MAX:
                    self._counters["tcp bad length"] += 1
                    return
                end = at + LENGTH_BYTES + size
                if len(rest) < end:
                    break
                while not self._budgets.take(now, self._source):
                    self._counters["tcp read slower"] += 1
                    await trio.sleep(READ_PAUSE_SECONDS)
                    now = trio.current_time()
                deliver(now, self.place, bytes(rest[at + LENGTH_BYTES : end]))
                at = end
                self.used = now
                until = now + IDLE_SECONDS
            del rest[:at]

    async def _write(self) -> None:
        while True:
            await self._more.wait()
            self._more = trio.Event()
            while self._queue:
                batch = b"".join(self._queue)
                self._queue.clear()
                await self._stream.send_all(batch)
                self._queued -= len(batch)
                if self._queued <= QUEUE_BYTES // 2:
                    self._full_since = None


def _prepare(stream: trio.SocketStream) -> None:
    """No waiting for more to send, and little room where late voice could pile up."""
    with contextlib.suppress(OSError):  # closed already, which the first read will tell
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)


def _close_unused(now: float, connections: dict[Place, Connection], seconds: float, counters: Counter[str]) -> bool:
    """Close the connection that was unused for the longest time, if that is `seconds`; whether there was one."""
    spare = min(connections.values(), key=lambda each: each.used, default=None)
    if spare is None or now - spare.used < seconds or spare.is_closing:
        return False
    counters["tcp closed: made room"] += 1
    spare.close()
    return True


def _endpoint_of(name: Any) -> Endpoint:
    host = name[0].partition("%")[0]
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return endpoint(host, name[1])


def listen(
    families: Sequence[int], hosts: dict[int, str], ports: Sequence[int]
) -> tuple[list[trio.SocketListener], int, str]:
    """Listen on the first of `ports` (0: any free one) that may be bound in every family that the machine has.

    Gives the listeners, the port and, where no listener could be made, the system's reason.
    """
    reason = "no port to try"
    for wanted in ports:
        opened: list[trio.SocketListener] = []
        port = wanted
        try:
            for family in families:
                one = socket.socket(_AF[family], socket.SOCK_STREAM)
                try:
                    one.setblocking(False)
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == 6:
                        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    one.bind((hosts.get(family) or _WILDCARD[family], port))
                    one.listen(BACKLOG)
                except OSError as problem:
                    one.close()
                    if problem.errno in _NO_FAMILY:
                        continue
                    raise
                port = one.getsockname()[1]
                opened.append(trio.SocketListener(trio.socket.from_stdlib_socket(one)))
        except OSError as problem:
            reason = f"port {wanted}: {problem.strerror}"
            for listener in opened:
                listener.socket.close()
            continue
        if opened:
            return opened, port, ""
        reason = "no such address here"
    return [], 0, reason


def _owners(where: Endpoint) -> dict[bytes, int]:
    """What connections are counted by, and how many each may have: an address (of IPv6 a /64), and its subnet."""
    host, subnet = (where[:4], where[:3]) if len(where) == ENDPOINT_V4_BYTES else (where[:8], where[:6])
    return {host: CONNECTIONS_PER_ADDRESS_MAX, subnet: CONNECTIONS_PER_SUBNET_MAX}


class TcpRelay:
    """The relay's listening side.  Each connection is a place of its own."""

    def __init__(self, deliver: Deliver, gone: Gone) -> None:
        self.counters: Counter[str] = Counter()
        self._deliver = deliver
        self._gone = gone
        self._connections: dict[Place, Connection] = {}
        self._by_owner: Counter[bytes] = Counter()
        self._connects = SourceBudgets(CONNECTS_PER_SECOND, CONNECTS_BURST)
        self._budgets = SourceBudgets(RECORDS_PER_SECOND, RECORDS_BURST)
        self._number = 0

    def __len__(self) -> int:
        """Connections now."""
        return len(self._connections)

    def send(self, now: float, place: Place, data: bytes) -> None:
        """Send a datagram to a TCP place; to one that is gone, nothing."""
        connection = self._connections.get(place)
        if connection is None:
            self.counters["tcp place gone"] += 1
        else:
            connection.send(now, data)

    async def run(
        self,
        listeners: list[trio.SocketListener],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve these listeners until cancelled."""
        async with trio.open_nursery() as nursery:
            for listener in listeners:
                nursery.start_soon(self._accept, listener, nursery)
            task_status.started()

    async def _accept(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        while True:
            try:
                stream = await listener.accept()
            except trio.ClosedResourceError:
                return
            except OSError as problem:  # out of files, mostly: others will close theirs
                self.counters[f"tcp accept {errno.errorcode.get(problem.errno or 0, 'error')}"] += 1
                await trio.sleep(0.1)
                continue
            nursery.start_soon(self._serve, stream)

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            where = _endpoint_of(stream.socket.getpeername())
        except (OSError, UsageError):  # gone already, or from port 0, which some systems let through
            self.counters["tcp refused: no address"] += 1
            await trio.aclose_forcefully(stream)
            return
        now = trio.current_time()
        owners = _owners(where)
        is_full = len(self._connections) >= CONNECTIONS_MAX
        if not self._connects.take(now, next(iter(owners))):
            self.counters["tcp refused: too often"] += 1
            await trio.aclose_forcefully(stream)
            return
        if (
            any(self._by_owner.get(owner, 0) >= most for owner, most in owners.items())
            or len(self._connections) >= CONNECTIONS_MAX + ROOM_MAX
            or (is_full and not _close_unused(now, self._connections, UNUSED_SECONDS, self.counters))
        ):
            self.counters["tcp refused: too many"] += 1
            await trio.aclose_forcefully(stream)
            return
        self._number = (self._number + 1) % 2**32 or 1
        place = tcp_place(where, self._number)
        _prepare(stream)
        host = next(iter(owners))
        connection = self._connections[place] = Connection(stream, place, self.counters, self._budgets, host)
        self._by_owner.update(owners.keys())
        self.counters["tcp accepted"] += 1
        try:
            await connection.run(self._deliver)
        finally:
            del self._connections[place]
            for owner in owners:
                self._by_owner[owner] -= 1
                if not self._by_owner[owner]:
                    del self._by_owner[owner]
            self._gone(trio.current_time(), place)


class TcpPaths:
    """The connecting side: one connection to each relay that is written to, opened when first needed.

    A relay's place is `tcp_place(endpoint, 0)`.  `gone` is also called where connecting failed.
    """

    def __init__(self, deliver: Deliver, gone: Gone, hosts: Mapping[int, str] | None = None) -> None:
        """`hosts`: local addresses to connect from, by family (4, 6), where not any will do."""
        self.counters: Counter[str] = Counter()
        self._deliver = deliver
        self._gone = gone
        self._hosts = hosts or {}
        self._connections: dict[Place, Connection] = {}
        self._opening: dict[Place, list[bytes]] = {}
        self._budgets = SourceBudgets(RECORDS_PER_SECOND, RECORDS_BURST)
        self._nursery: trio.Nursery | None = None

    def __len__(self) -> int:
        """Connections open or being opened."""
        return len(self._connections) + len(self._opening)

    def send(self, now: float, place: Place, data: bytes) -> None:
        """Send a datagram to a relay; while the connection is being opened a few wait."""
        connection = self._connections.get(place)
        if connection is not None:
            connection.send(now, data)
            return
        waiting = self._opening.get(place)
        if not may_use_port(port_of(endpoint_of_place(place))):  # whoever named it
            self.counters["tcp refused: other people's service"] += 1
            return
        if waiting is None:
            if self._nursery is None or (len(self) >= PATHS_MAX and not self._make_room(now)):
                self.counters["tcp refused: too many"] += 1
                return
            waiting = self._opening[place] = []
            self._nursery.start_soon(self._open, place)
        if sum(map(len, waiting)) + len(data) <= QUEUE_BYTES:
            waiting.append(data)
        else:
            self.counters["tcp no room"] += 1

    def _make_room(self, now: float) -> bool:
        return _close_unused(now, self._connections, SPARE_SECONDS, self.counters)

    def close_all(self) -> None:
        """Another network: connections of the old one would hang; `gone` is called for each."""
        for connection in self._connections.values():
            connection.close()

    def close(self, place: Place) -> None:
        """End the connection to a relay."""
        connection = self._connections.get(place)
        if connection is not None:
            connection.close()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep connections until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def _open(self, place: Place) -> None:
        where = endpoint_of_place(place)
        try:
            stream = None
            with trio.move_on_after(CONNECT_SECONDS):
                local = self._hosts.get(4 if len(where) == ENDPOINT_V4_BYTES else 6) or None
                stream = await trio.open_tcp_stream(host_of(where), port_of(where), local_address=local)
        except OSError as problem:
            self.counters[f"tcp connect {errno.errorcode.get(problem.errno or 0, 'error')}"] += 1
        waiting = self._opening.pop(place, [])
        if stream is None:
            self.counters["tcp connect failed"] += 1
            self._gone(trio.current_time(), place)
            return
        _prepare(stream)
        now = trio.current_time()
        connection = self._connections[place] = Connection(stream, place, self.counters, self._budgets, place)
        for data in waiting:
            connection.send(now, data)
        try:
            await connection.run(self._deliver)
        finally:
            del self._connections[place]
            self._gone(trio.current_time(), place)
