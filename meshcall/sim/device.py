"""A host that runs the whole node: identity, records, links, probers, relays; with what their driver does for them.

Extra sockets and datagrams with a low time to live (`meshcall.peers.ways`) are done here as drivers do
them, an uplink has its rate and a queue, and the host can move to another place.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, cast

from meshcall.core import ENDPOINT_V4_BYTES, Endpoint
from meshcall.peers.ways import SocketKey, SocketsOver, take_apart
from meshcall.relay.places import Place, endpoint_of_place, is_tcp_place
from meshcall.sim.access import Place as Access
from meshcall.sim.access import leave
from meshcall.sim.host import Host

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshcall.node import Node
    from meshcall.sim.host import NodeCore
    from meshcall.sim.nat import Nat
    from meshcall.sim.streams import Streams
    from meshcall.sim.world import World

HEADER_BYTES = 28
"""IPv4 and UDP; an uplink carries them too."""
TCP_HEADER_BYTES = 42
"""IPv4, TCP and the length of a record."""
QUEUE_SECONDS_MAX = 0.25
"""A datagram that would wait longer before an uplink is dropped."""
NOTICED_SECONDS = 0.05
"""A system tells of its new address so long after it has it."""
EXTRA_PORT = 20000


class ExtraSocket(Host):
    """Another port of a device."""

    __slots__ = ("device", "key")

    def __init__(self, device: Device, key: SocketKey, port: int) -> None:
        endpoint = Endpoint(device.endpoint[:4] + port.to_bytes(2, "big"))
        super().__init__(
            device.number, endpoint, device.line, device.nat, device.network, device.schedule, device.listener
        )
        self.device = device
        self.key = key

    def arrive(self, now: float, source: Endpoint, dest: Endpoint, data: bytes) -> None:
        """To the device, with the name of the socket."""
        self.device.arrive_extra(now, self.key, source, dest, data)


class Device(Host):
    """Somebody's machine, or a volunteer's relay."""

    __slots__ = (
        "_extra",
        "_free_at",
        "_next_port",
        "counters",
        "node",
        "place",
        "said",
        "sent_bytes",
        "streams",
        "uplink",
        "world",
    )

    def __init__(
        self,
        world: World,
        number: int,
        place: Access,
        port: int,
        said: Callable[[float, Device, Any], None],
        streams: Streams,
        uplink: float = inf,
    ) -> None:
        """`said`: hears what the node says; `uplink`: bytes per second."""
        endpoint = Endpoint(place.address + port.to_bytes(2, "big"))
        super().__init__(
            number, endpoint, place.line, cast("Nat | None", place.nat), world.network, world.schedule, self._heard
        )
        self.world = world
        self.place = place
        self.said = said
        self.streams = streams
        self.uplink = uplink
        self.node: Node | None = None
        self.sent_bytes = 0
        self.counters = {
            "barred": 0, "dropped before the uplink": 0, "with a low time to live": 0, "extra sockets": 0,
        }  # fmt: skip
        self._free_at = 0.0
        self._extra: dict[SocketKey, ExtraSocket] = {}
        self._next_port = EXTRA_PORT
        if place.nat is None:
            self.network.doors[self.endpoint] = self

    # Switching

    def run(self, now: float, node: Node | None) -> None:
        """Run this node from now on, or none."""
        self.node = node
        self._close(list(self._extra))
        self.switch(cast("NodeCore | None", node))  # of a core, a host asks the five members and the counters
        if node is not None:
            node.set_local_addresses(now, [self.endpoint])
            self.drain(now)

    def move(self, now: float, place: Access) -> None:
        """Be in another network from this moment; the node is told a little later."""
        if self.place.nat is None:
            self.network.doors.pop(self.endpoint, None)
        leave(self.world, self.place)
        self._close(list(self._extra))
        self.place, self.line, self.nat = place, place.line, cast("Nat | None", place.nat)
        self.endpoint = Endpoint(place.address + self.endpoint[4:])
        if place.nat is None:
            self.network.doors[self.endpoint] = self
        self.schedule.call(now + NOTICED_SECONDS, self._notice)

    def _notice(self, now: float) -> None:
        if self.node is not None:
            self.node.set_local_addresses(now, [self.endpoint])
            self.node.network_changed(now)
            self.streams.drop(now, self)
            self.drain(now)

    # In

    def arrive(self, now: float, source: Endpoint, dest: Endpoint, data: bytes) -> None:
        """Take a datagram, unless it is for a place where this device no longer is."""
        if self.nat is not None or dest == self.endpoint:
            super().arrive(now, source, dest, data)

    def arrive_extra(self, now: float, key: SocketKey, source: Endpoint, dest: Endpoint, data: bytes) -> None:
        """Take a datagram that came by an extra socket."""
        if self.node is not None and key in self._extra:
            self.received += 1
            self.network.delivered_to_host(now, source, dest, data)
            self.node.people.receive_extra(now, key, source, data)
            self.drain(now)

    def arrive_stream(self, now: float, place: Place, data: bytes) -> None:
        """Take a datagram from a TCP connection."""
        if self.node is not None:
            self.received += 1
            self.network.delivered_to_host(now, endpoint_of_place(place), self.endpoint, data)
            self.node.receive_tcp(now, place, data)
            self.drain(now)

    def stream_gone(self, now: float, place: Place) -> None:
        """A TCP connection is over."""
        if self.node is not None:
            self.node.tcp_gone(now, place)
            self.drain(now)

    # Out

    def drain(self, now: float, soonest: float = 0.0) -> None:
        """Send by every way there is, hand on, re-arm."""
        core = self.core
        if core is not None and core.outbox:
            ways, core.outbox[:] = list(core.outbox), []
            for way, data in ways:
                self._emit(now, way, data)
        super().drain(now, soonest)

    def _emit(self, now: float, way: Endpoint, data: bytes) -> None:
        self.sent += 1
        if len(way) == ENDPOINT_V4_BYTES:
            self._leave(now, self, way, data)
            return
        if is_tcp_place(way):
            self._leave(now, None, Endpoint(way), data)
            return
        parts = take_apart(way)
        if parts is None:
            return
        dest, key, low_ttl = parts
        socket = self if key is None else self._socket(key)
        if low_ttl and not self.place.bars_udp:
            self.counters["with a low time to live"] += 1
            if socket.nat is not None:
                socket.nat.outbound(now, socket, dest)  # it opens the way and ends before the other side
        else:
            self._leave(now, socket, dest, data)

    def _leave(self, now: float, socket: Host | None, dest: Endpoint, data: bytes) -> None:
        """By the uplink, and from there as a datagram of this socket, or along a TCP connection (no socket)."""
        if socket is not None and self.place.bars_udp:
            self.counters["barred"] += 1
            return
        size = len(data) + (HEADER_BYTES if socket is not None else TCP_HEADER_BYTES)
        if self.uplink == inf:
            self.sent_bytes += size
            self._go(now, socket, dest, data)
            return
        begins = max(now, self._free_at)
        if begins - now > QUEUE_SECONDS_MAX:
            self.counters["dropped before the uplink"] += 1
            return
        self.sent_bytes += size
        self._free_at = begins + size / self.uplink
        self.schedule.at(self._free_at, self._left, socket, dest, data)

    def _left(self, now: float, socket: Host | None, dest: Endpoint, data: bytes) -> None:
        if self.core is not None:
            self._go(now, socket, dest, data)

    def _go(self, now: float, socket: Host | None, dest: Endpoint, data: bytes) -> None:
        if socket is None:
            self.streams.send(now, self, Place(dest), data)
        else:
            self.network.send(now, socket, dest, data)

    # Extra sockets

    def _socket(self, key: SocketKey) -> ExtraSocket:
        socket = self._extra.get(key)
        if socket is None:
            self.counters["extra sockets"] += 1
            self._next_port = self._next_port + 1 if self._next_port < 65535 else EXTRA_PORT
            socket = self._extra[key] = ExtraSocket(self, key, self._next_port)
            if self.nat is None:
                self.network.doors[socket.endpoint] = socket
        return socket

    def _close(self, keys: list[SocketKey]) -> None:
        for key in keys:
            socket = self._extra.pop(key)
            if socket.nat is None:
                self.network.doors.pop(socket.endpoint, None)

    def _heard(self, now: float, host: Host, event: Any) -> None:
        if isinstance(event, SocketsOver):
            self._close([key for key in self._extra if key.link == event.link and key.number not in event.kept])
        else:
            self.said(now, self, event)
