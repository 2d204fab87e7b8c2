"""Both ends of relayed ways: what callers and lease holders put around the datagrams of their links.

A relayed way is a relay's place and an id: of the lease where we call, of the flow where we are called.
This file makes and reads the frames, answers a relay's challenges where we really write there, and
tells when a relay says that a lease is gone.  Leases themselves are the holder's (relay/holder.py).
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from meshcall.errors import BadPacket
from meshcall.relay.holder import RelayHolder
from meshcall.relay.places import Place
from meshcall.wire import relay as wire

WAYS_MAX = 1024
"""Relayed ways remembered; the longest unused goes first."""
ECHOES_KEPT = 32
"""Beginnings of what was sent last on a way, by which a relay's word about it is known to be no stranger's."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A link's datagram came by a relayed way."""

    place: Place
    relay_id: bytes
    payload: bytes
    is_flow: bool
    """Whether we are the holder, and the id is a flow's."""


@dataclass(frozen=True, slots=True)
class WayRefused:
    """The relay says that nothing goes through to this lease; `status` is one of `wire.relay`.

    UNKNOWN_LEASE can pass within seconds: the relay started again and its holder comes back.
    """

    place: Place
    relay_id: bytes
    status: int


EndEvent = Arrived | WayRefused


class _Way:
    """A way on which we sent or received."""

    __slots__ = ("echoes", "is_flow")

    def __init__(self, is_flow: bool) -> None:
        self.is_flow = is_flow
        self.echoes: deque[bytes] = deque(maxlen=ECHOES_KEPT)


class RelayEnds:
    """`holder`: our leases, where we keep some; its frames come in and go out here too."""

    def __init__(self, holder: RelayHolder | None = None) -> None:
        self.outbox: list[tuple[Place, bytes]] = []
        self.events: list[EndEvent] = []
        self.counters: Counter[str] = Counter()
        self.holder = holder
        self._ways: dict[tuple[Place, bytes], _Way] = {}

    def __len__(self) -> int:
        """Ways remembered."""
        return len(self._ways)

    def send(self, now: float, place: Place, relay_id: bytes, payload: bytes) -> None:
        """Send a link's datagram by a relayed way; as holder where it came by a flow, else as caller."""
        way = self._way(place, relay_id, is_flow=False)
        way.echoes.append(payload[: wire.ECHO_BYTES])
        kind = wire.TO_FLOW if way.is_flow else wire.TO_LEASE
        self.outbox.append((place, wire.frame(kind, relay_id, payload)))

    def receive(self, now: float, place: Place, data: bytes) -> None:
        """Take a frame that is for a holder or a caller, of any kind."""
        kind = data[1] if len(data) > 1 else 0
        if kind in (wire.TO_HOLDER, wire.TO_CALLER):
            self._take_data(now, place, data)
            return
        try:
            frame = wire.decode_frame(data)
        except BadPacket as bad:
            self.counters[bad.reason] += 1
            return
        way = self._ways.get((place, frame.frame_id))
        if way is not None and not way.is_flow and frame.kind == wire.CHALLENGE:
            self.outbox.append((place, wire.frame(wire.PROOF, frame.frame_id, frame.payload)))
        elif way is not None and frame.kind == wire.STATE and frame.payload in way.echoes:
            if way.is_flow:
                self._ask_holder(now, place, data)
            else:
                self.events.append(WayRefused(place, frame.frame_id, frame.status))
        else:
            self._ask_holder(now, place, data)

    def _take_data(self, now: float, place: Place, data: bytes) -> None:
        try:
            frame = wire.decode_frame(data)
        except BadPacket as bad:
            self.counters[bad.reason] += 1
            return
        if frame.kind == wire.TO_HOLDER:
            if self.holder is None or not self.holder.relay_at(place):
                self.counters["flow from no relay of ours"] += 1
                return
            self.holder.heard(now, place)
            is_flow = self._way(place, frame.frame_id, is_flow=True).is_flow
        else:
            way = self._ways.get((place, frame.frame_id))
            if way is None or way.is_flow:
                self.counters["answer from a lease not written to"] += 1
                return
            is_flow = False
        self.events.append(Arrived(place, frame.frame_id, frame.payload, is_flow))

    def _ask_holder(self, now: float, place: Place, data: bytes) -> None:
        if self.holder is None:
            self.counters["frame for no holder"] += 1
        else:
            self.holder.receive(now, place, data)

    def _way(self, place: Place, relay_id: bytes, *, is_flow: bool) -> _Way:
        key = place, relay_id
        way = self._ways.pop(key, None)
        if way is None:
            way = _Way(is_flow)
            if len(self._ways) >= WAYS_MAX:
                del self._ways[next(iter(self._ways))]
        self._ways[key] = way  # the newest last
        return way
