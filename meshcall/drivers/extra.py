"""Extra UDP sockets for hole punching through NATs that give random ports, and packets with a low time to live.

A link may want 256 sockets for some seconds.  They are opened on first use, on ports of the system's
choice, and closed when the core says so; what comes in by one is handed to the core with its key.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from meshcall.core import ENDPOINT_V4_BYTES, Endpoint, endpoint, host_of, port_of
from meshcall.drivers.udp import DATAGRAM_BYTES_MAX, open_udp
from meshcall.path.punch import LOW_TTL_HOPS
from meshcall.peers.ways import TO_LAN, SocketKey, take_apart

if TYPE_CHECKING:
    from collections.abc import Sequence

SOCKETS_MAX = 600
"""Open at once: two links that probe, and the kept sockets of many."""
RECEIVE_BUFFER_BYTES = 32 * 1024
DATAGRAMS_PER_TURN = 32
_TTL = struct.pack("i", LOW_TTL_HOPS)

Deliver = Callable[[SocketKey, Endpoint, bytes], None]


class ExtraSockets:
    """`send` takes what the main driver cannot; `deliver` is called with what comes in, in a turn of its own."""

    def __init__(self, main: Sequence[socket.socket], host: str, deliver: Deliver) -> None:
        """`main`: the node's own sockets; `host`: the IPv4 address to bind extra ones to, "" for all."""
        self.counters: Counter[str] = Counter()
        self.to_lan: Callable[[bytes], None] | None = None
        """Takes what goes to all devices of the local networks (drivers/lan.py)."""
        self._main = {one.family: one for one in main}
        self._host = host
        self._deliver = deliver
        self._sockets: dict[SocketKey, socket.socket] = {}
        self._nursery: trio.Nursery | None = None

    def __len__(self) -> int:
        """Sockets open now."""
        return len(self._sockets)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; all extra sockets are closed at the end."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None
                for key in list(self._sockets):
                    self._close(key)

    def send(self, way: Endpoint, data: bytes) -> None:
        """Send by a way of `peers.ways`; what cannot be sent is counted."""
        parts = take_apart(way)
        if way == TO_LAN and self.to_lan is not None:
            self.to_lan(data)
            return
        if parts is None:
            self.counters["unknown way"] += 1
            return
        where, key, low_ttl = parts
        is_v4 = len(where) == ENDPOINT_V4_BYTES
        one = self._socket(key) if key is not None else self._main.get(socket.AF_INET if is_v4 else socket.AF_INET6)
        if one is None or (key is not None and not is_v4):
            self.counters["no extra socket"] += 1
            return
        try:
            if low_ttl and is_v4:
                one.sendmsg([data], [(socket.IPPROTO_IP, socket.IP_TTL, _TTL)], 0, (host_of(where), port_of(where)))
            elif not low_ttl:
                one.sendto(data, (host_of(where), port_of(where)))
        except OSError as problem:
            self.counters[f"send {errno.errorcode.get(problem.errno or 0, 'error')}"] += 1
        else:
            self.counters["sent"] += 1

    def close(self, link: int, kept: Sequence[int]) -> None:
        """Close the sockets of a link, but those in `kept`."""
        for key in [key for key in self._sockets if key.link == link and key.number not in kept]:
            self._close(key)

    def _socket(self, key: SocketKey) -> socket.socket | None:
        one = self._sockets.get(key)
        if one is not None or self._nursery is None or len(self._sockets) >= SOCKETS_MAX:
            return one
        try:
            one = open_udp(4, self._host or None)
        except OSError as problem:
            self.counters[f"open {errno.errorcode.get(problem.errno or 0, 'error')}"] += 1
            return None
        with contextlib.suppress(OSError):  # a wish: 256 large buffers are none
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        self._sockets[key] = one
        self._nursery.start_soon(self._read, key, one)
        return one

    def _close(self, key: SocketKey) -> None:
        one = self._sockets.pop(key)
        trio.lowlevel.notify_closing(one)
        one.close()

    async def _read(self, key: SocketKey, one: socket.socket) -> None:
        while self._sockets.get(key) is one:
            try:
                await trio.lowlevel.wait_readable(one)
                for _ in range(DATAGRAMS_PER_TURN):  # a flood must not keep the other tasks waiting
                    data, source = one.recvfrom(DATAGRAM_BYTES_MAX)
                    self.counters["received"] += 1
                    if not source[1]:  # who has no port has no way back, and is no endpoint
                        self.counters["received from port 0"] += 1
                        continue
                    self._deliver(key, endpoint(source[0], source[1]), data)
            except BlockingIOError:
                continue
            except trio.ClosedResourceError:
                return
            except OSError as problem:
                if problem.errno in (errno.EBADF, errno.ENOTSOCK):
                    return
                self.counters[f"receive {errno.errorcode.get(problem.errno or 0, 'error')}"] += 1
