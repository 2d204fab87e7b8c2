"""TCP connections between devices and relays: in order, nothing lost, late instead.

A lost segment comes again after a timeout, and what was sent behind it waits.  A host that is off says
nothing; one that has started again ends connections that it does not know.  Boxes let TCP out and its
answers in, so they only give the address that the relay sees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshcall.core import Endpoint
from meshcall.relay.places import Place, connection_of_place, endpoint_of_place, tcp_place

if TYPE_CHECKING:
    from meshcall.node import Node
    from meshcall.sim.device import Device
    from meshcall.sim.network import Network
    from meshcall.sim.schedule import Schedule

TCP_PORT = 443
RETRANSMIT_SECONDS = 0.3
"""After so long a lost segment is sent again, twice as long for each further time."""
TRIES_MAX = 7
"""A connection over which nothing passes for so many tries is over."""
PORT_LEAST = 32768


class End:
    """One end of a connection."""

    __slots__ = ("device", "free_at", "node", "other", "place")

    def __init__(self, device: Device, place: Place) -> None:
        self.device = device
        self.node: Node | None = device.node
        """That opened or took the connection; another one does not know it."""
        self.place = place
        """By which this end's node knows the other end."""
        self.free_at = 0.0
        """Nothing arrives here before: the order is kept."""
        self.other: End | None = None


class Streams:
    """All TCP connections of a world."""

    def __init__(self, network: Network, schedule: Schedule) -> None:
        self.listeners: dict[Endpoint, Device] = {}
        """Relays that take TCP, by endpoint."""
        self.opened = 0
        self._network = network
        self._schedule = schedule
        self._ends: dict[tuple[int, Place], End] = {}

    def send(self, now: float, device: Device, place: Place, data: bytes) -> None:
        """Carry a datagram along a connection, which is opened if it is the device's first to that relay."""
        end = self._ends.get((device.number, place))
        if end is None or end.node is not device.node:
            end = None if connection_of_place(place) else self._open(now, device, place)
            if end is None:
                return
        if end.other is not None:
            self._carry(now, end, end.other, data)

    def drop(self, now: float, device: Device) -> None:
        """The device is in another network: its own connections are over for it, and hang for the others."""
        for key in [key for key in self._ends if key[0] == device.number]:
            self._end(now, self._ends.pop(key))

    def _open(self, now: float, device: Device, place: Place) -> End | None:
        relay = self.listeners.get(endpoint_of_place(place))
        one = End(device, place)
        if relay is None or relay.node is None:  # nobody answers: a timeout, which the node's own ends before
            return None
        self.opened += 1
        port = PORT_LEAST + self.opened % (65536 - PORT_LEAST)
        outside = Endpoint(device.place.outer + port.to_bytes(2, "big"))
        two = End(relay, tcp_place(outside, self.opened))
        one.other, two.other = two, one
        round_trip = self._seconds(one, two) + self._seconds(two, one)
        one.free_at = two.free_at = now + round_trip
        self._ends[device.number, place] = one
        self._ends[relay.number, two.place] = two
        return one

    def _seconds(self, near: End, far: End) -> float:
        return self._network.delay(near.device.line, far.device.line)

    def _carry(self, now: float, near: End, far: End, data: bytes) -> None:
        if far.device.node is None:
            return  # it is off, and says nothing
        if far.node is not far.device.node:  # it started again, and knows nothing of this connection
            self._ends.pop((near.device.number, near.place), None)
            self._schedule.call(
                now + self._seconds(near, far) + self._seconds(far, near), lambda when: self._end(when, near)
            )
            return
        held, pause = 0.0, RETRANSMIT_SECONDS
        for _ in range(TRIES_MAX):
            late = self._network.misfortune(now + held, near.device.line, far.device.line)
            if late is not None:
                break
            held, pause = held + pause, 2 * pause
        else:
            self._ends.pop((near.device.number, near.place), None)
            self._schedule.call(now + held, lambda when: self._end(when, near))
            return
        arrives = max(now + held + late + self._seconds(near, far), far.free_at)
        if near.free_at > now:  # being opened: the first datagram goes with the third segment
            arrives = max(arrives, near.free_at + self._seconds(near, far))
        far.free_at = arrives
        self._schedule.at(arrives, self._arrive, far, data)

    def _arrive(self, now: float, end: End, data: bytes, _third: None) -> None:
        if self._ends.get((end.device.number, end.place)) is end and end.node is end.device.node:
            end.device.arrive_stream(now, end.place, data)

    def _end(self, now: float, end: End) -> None:
        if end.node is not None and end.node is end.device.node:
            end.device.stream_gone(now, end.place)
