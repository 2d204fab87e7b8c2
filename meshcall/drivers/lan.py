"""The local networks' group: sends first messages of dials to all neighbours, and hands on those of others.

Multicast that no router forwards (time to live 1): an administratively scoped IPv4 group (RFC 2365) and a
link-local IPv6 group (RFC 4291 section 2.7).  Sent from the node's own sockets, so that answers come there; heard
by a socket of its own.  What a datagram means, and who is answered, is the core's business.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import trio

from meshcall.core import Endpoint, port_of
from meshcall.drivers.interfaces import LocalNetwork, read_networks
from meshcall.drivers.udp import local_endpoint
from meshcall.handshake.budget import Budget
from meshcall.wire.link import PIECE_BYTES_MAX

GROUP_V4 = "239.255.109.99"
GROUP_V6 = "ff02::6d65:7368:6361:6c6c"
PORT = 28003
HOPS = 1
DATAGRAMS_PER_SECOND = 300.0
"""Read from the group of each family; a flood beyond it stays in the system's buffer, and is dropped there.

Of each family, as the IPv6 socket hears what is sent to its port alone, too, from wherever: see `_open`.
"""
DATAGRAMS_BURST = 300.0
DATAGRAMS_PER_TURN = 32
RECEIVE_BUFFER_BYTES = 64 * 1024
NETWORKS_MAX = 16
FLOOD_PAUSE_SECONDS = 0.1
LOOK_EVERY_SECONDS = 60.0
"""Between two looks at the interfaces where nobody told of a change."""

Deliver = Callable[[Endpoint, bytes], None]
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_PKTINFO6 = struct.Struct("=16sI")


class LanSockets:
    """`deliver(source, data)` gets what neighbours sent to the group; `send` sends to it on every local network."""

    def __init__(
        self,
        main: Sequence[socket.socket],
        deliver: Deliver,
        read: Callable[[], tuple[LocalNetwork, ...]] = read_networks,
    ) -> None:
        """`main`: the node's own sockets, of each family at most one.  They stay their owner's."""
        self.counters: Counter[str] = Counter()
        self._main = {4 if one.family == socket.AF_INET else 6: one for one in main}
        if not hasattr(socket, "IPV6_PKTINFO"):
            self._main.pop(6, None)  # this system cannot say from which address to send
        self._bound = {family: local_endpoint(one) for family, one in self._main.items()}
        self._deliver = deliver
        self._read_networks = read
        self._networks: dict[int, list[LocalNetwork]] = {}
        """By family: where we send."""
        self._near: tuple[LocalNetwork, ...] = ()
        """All that we have neighbours on."""
        self._sockets: dict[int, socket.socket] = {}
        self._joined: dict[int, dict[int, bytes]] = {4: {}, 6: {}}
        """By family: interface, and our address there."""
        now = trio.current_time()
        self._budgets = {family: Budget(now, DATAGRAMS_PER_SECOND, DATAGRAMS_BURST) for family in self._main}
        self._changed = trio.Event()

    @property
    def joined(self) -> int:
        """On how many interfaces and families we listen."""
        return sum(map(len, self._joined.values()))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled."""
        try:
            for family in self._main:
                self._open(family)
            self._look()
            async with trio.open_nursery() as nursery:
                for family, one in self._sockets.items():
                    nursery.start_soon(self._read, family, one)
                task_status.started()
                while True:
                    with trio.move_on_after(LOOK_EVERY_SECONDS):
                        await self._changed.wait()
                    self._changed = trio.Event()
                    self._look()
        finally:
            for one in self._sockets.values():
                one.close()
            self._sockets.clear()
            self._joined = {4: {}, 6: {}}

    def network_changed(self) -> None:
        """The machine's addresses are others: join the group where we are now."""
        self._changed.set()

    def send(self, data: bytes) -> None:
        """One datagram to the group, on each local network; what cannot be sent is counted."""
        for family, networks in self._networks.items():
            for network in networks:
                try:
                    self._send(family, network, data)
                except OSError as problem:
                    self._count("send", problem)
                else:
                    self.counters["sent"] += 1

    def _send(self, family: int, network: LocalNetwork, data: bytes) -> None:
        one = self._main[family]
        if family == 4:
            one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, network.address)
            one.sendto(data, (GROUP_V4, PORT))
        else:
            # the address too: the system would take the link-local one, to which an endpoint has no way back
            source: list[Any] = [
                (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PKTINFO6.pack(network.address, network.interface))
            ]
            one.sendmsg([data], source, 0, (GROUP_V6, PORT, 0, network.interface))

    def _open(self, family: int) -> None:
        main = self._main[family]
        try:
            one = socket.socket(_AF[family], socket.SOCK_DGRAM)
        except OSError as problem:  # no more files, mostly
            self._count("open", problem)
            return
        try:
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "SO_REUSEPORT"):
                with contextlib.suppress(OSError):  # where it is needed it works
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            if family == 4:
                main.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, HOPS)
                one.bind((GROUP_V4, PORT))  # to the group: nothing that is sent to the port alone comes here
            else:
                main.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, HOPS)
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
                one.bind(("::", PORT))  # a link-local group has another address on each interface: see `_receive`
        except OSError as problem:
            one.close()
            self._count("open", problem)
        else:
            self._sockets[family] = one

    def _look(self) -> None:
        """Join the group on each interface that leads to neighbours, and leave it where there are none any more."""
        self._near = networks = self._read_networks() if self._main else ()
        for family, where in self._bound.items():
            bound = bytes(where[:-2])
            mine = [each for each in networks if each.family == family]
            if any(bound):
                mine = [each for each in mine if each.address == bound]
            # one address in each network, for neighbours are who share it; an interface may be in several
            known = {(each.interface, each.network): each for each in reversed(mine)}
            self._networks[family] = list(known.values())[:NETWORKS_MAX]
            if family in self._sockets:
                self._join(family, {each.interface: each.address for each in self._networks[family]})

    def _join(self, family: int, wanted: dict[int, bytes]) -> None:
        one, joined = self._sockets[family], self._joined[family]
        for interface, address in list(joined.items()):
            if wanted.get(interface) != address:
                del joined[interface]
                with contextlib.suppress(OSError):  # the interface may be gone, and the membership with it
                    one.setsockopt(*_membership(family, interface, address, join=False))
        for interface, address in wanted.items():
            if interface not in joined:
                try:
                    one.setsockopt(*_membership(family, interface, address, join=True))
                except OSError as problem:
                    self._count("join", problem)
                else:
                    joined[interface] = address

    async def _read(self, family: int, one: socket.socket) -> None:
        while True:
            await trio.lowlevel.wait_readable(one)
            for _ in range(DATAGRAMS_PER_TURN):
                if not self._budgets[family].take(trio.current_time()):
                    self.counters["flood"] += 1
                    await trio.sleep(FLOOD_PAUSE_SECONDS)
                    break
                try:
                    data, name, is_group = _receive(family, one)
                except BlockingIOError:
                    break
                except OSError as problem:
                    self._count("receive", problem)
                    break
                if is_group:
                    self._take(family, data, name)
                else:
                    self.counters["not to the group"] += 1
            else:
                await trio.sleep(0)

    def _take(self, family: int, data: bytes, name: Any) -> None:
        host = ipaddress.ip_address(name[0].partition("%")[0]).packed
        source = Endpoint(host + name[1].to_bytes(2, "big"))
        if len(data) > PIECE_BYTES_MAX:
            self.counters["too long"] += 1
        elif not any(each.holds(host) for each in self._near) or not name[1]:
            self.counters["not of a neighbour"] += 1  # an answer must not leave the local network
        elif name[1] == port_of(self._bound[family]) and self._is_own(host):
            self.counters["own"] += 1
        else:
            self.counters["received"] += 1
            self._deliver(source, data)

    def _is_own(self, host: bytes) -> bool:
        return any(each.address == host for each in self._near)

    def _count(self, what: str, problem: OSError) -> None:
        self.counters[f"{what} {errno.errorcode.get(problem.errno or 0, 'error')}"] += 1


def _receive(family: int, one: socket.socket) -> tuple[bytes, Any, bool]:
    """A datagram, its sender, and whether it was sent to the group."""
    if family == 4:
        return *one.recvfrom(PIECE_BYTES_MAX + 1), True
    data, more, _, name = one.recvmsg(PIECE_BYTES_MAX + 1, socket.CMSG_SPACE(_PKTINFO6.size))
    group = socket.inet_pton(socket.AF_INET6, GROUP_V6)
    return data, name, any(kind == socket.IPV6_PKTINFO and value[:16] == group for _, kind, value in more)


def _membership(family: int, interface: int, address: bytes, *, join: bool) -> tuple[int, int, bytes]:
    """Arguments of setsockopt: struct ip_mreqn or ipv6_mreq (ip(7), RFC 3493 section 5.2)."""
    if family == 4:
        option = socket.IP_ADD_MEMBERSHIP if join else socket.IP_DROP_MEMBERSHIP
        return socket.IPPROTO_IP, option, struct.pack("=4s4si", socket.inet_aton(GROUP_V4), address, interface)
    option = socket.IPV6_JOIN_GROUP if join else socket.IPV6_LEAVE_GROUP
    group = socket.inet_pton(socket.AF_INET6, GROUP_V6)
    return socket.IPPROTO_IPV6, option, struct.pack("=16sI", group, interface)
