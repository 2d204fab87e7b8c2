"""All TCP connections of a node: those of its own relay, and those that it opens to relays of others.

Between `relay_tcp` and the node's core: takes what the core sends to TCP places, and hands what comes in
to it, in turns of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from meshcall.drivers.relay_tcp import TcpPaths, TcpRelay, listen
from meshcall.endpoints import may_use_port
from meshcall.relay.places import TCP_PORT, Place, connection_of_place, is_tcp_place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshcall.core import Endpoint
    from meshcall.drivers.relay_tcp import Deliver, Gone


def ports_to_try(wanted: int | str, udp_port: int) -> tuple[int, ...]:
    """Ports by the configuration: one of its choice, none ("off"), or the best that may be bound ("auto")."""
    if wanted == "off":
        return ()
    return (
        tuple(port for port in (TCP_PORT, udp_port, 0) if not port or may_use_port(port))
        if wanted == "auto"
        else (int(wanted),)
    )


class TcpWays:
    """`await nursery.start(ways.run)`; the listening sockets are open from the beginning."""

    def __init__(self, families: Sequence[int], hosts: dict[int, str], ports: Sequence[int]) -> None:
        """Listens on the first of `ports` that may be bound; see `relay_tcp.listen`."""
        self._hosts = hosts
        self._listeners: list[trio.SocketListener] = []
        self.port: int | None = None
        """Where the relay listens; None: nowhere."""
        self.problem = ""
        """Why the relay does not listen, in the system's words."""
        if ports:
            self._listeners, port, self.problem = listen(families, hosts, ports)
            self.port = port or None
        self._relay: TcpRelay | None = None
        self._paths: TcpPaths | None = None

    def attach(self, deliver: Deliver, gone: Gone) -> None:
        """Say to whom datagrams and ends of connections are told."""
        self._relay = TcpRelay(deliver, gone)
        self._paths = TcpPaths(deliver, gone, self._hosts)

    @property
    def counters(self) -> dict[str, int]:
        """What both sides counted."""
        found: dict[str, int] = {}
        for name, side in (("relay", self._relay), ("paths", self._paths)):
            if side is not None:
                found |= {f"{name} {what}": count for what, count in side.counters.items()}
        return found

    @property
    def connections(self) -> tuple[int, int]:
        """Open now: with our relay, and by us to relays of others."""
        return len(self._relay or ()), len(self._paths or ())

    def send(self, way: Endpoint, data: bytes) -> bool:
        """Send a datagram if the way is a TCP place; whether it is."""
        if not is_tcp_place(way):
            return False
        place = Place(way)
        side = self._relay if connection_of_place(place) else self._paths
        if side is not None:
            side.send(trio.current_time(), place, data)
        return True

    def network_changed(self) -> None:
        """End the connections that we opened, so that new ones take their place."""
        if self._paths is not None:
            self._paths.close_all()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; the listening sockets are closed at the end."""
        assert self._relay is not None
        assert self._paths is not None
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._paths.run)
                await nursery.start(self._relay.run, self._listeners)
                task_status.started()
        finally:
            for listener in self._listeners:
                listener.socket.close()
