"""Attempts to reach people: every device a record lists is dialled, along every path it names.

The first device that answers wins and the other dials end; for a call, all that answer are kept.
Which paths a caller uses is decided here.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshcall.core import ENDPOINT_V4_BYTES, Endpoint
from meshcall.endpoints import may_send
from meshcall.errors import UsageError
from meshcall.handshake.dial import Callee, DialError
from meshcall.handshake.events import NO_ANSWER, WRONG_IDENTITY
from meshcall.path.candidates import may_connect
from meshcall.path.paths import LAN, Path, direct, relayed
from meshcall.peers.events import PeerEvent, Unreached

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshcall.handshake.links import Links
    from meshcall.path.candidates import Trust
    from meshcall.wire.record import DeviceEntry


REACHES_MAX = 64
DEVICES_MAX = 12
"""Dialled by one attempt: those of a record, and as many that newer records bring.  Whoever owns the record chooses
where the packets of a dial go, and may publish as many newer ones as a look-up finds nodes."""
TCP_AFTER_SECONDS = (0.1, 1.0)
"""After the first, a dial goes to relays over TCP too if nothing at all came over UDP; after the second always."""

_REASONS = {
    NO_ANSWER: "it did not answer; it may have left the network a moment ago",
    WRONG_IDENTITY: "somebody else answered in its place",
}


@dataclass(slots=True)
class Reach:
    """What is kept while one is tried."""

    number: int
    identity: bytes
    trust: Trust
    relayed_only: bool
    keep_all: bool = False
    """Every device that answers is kept: the other dials go on."""
    was_reached: bool = False
    dials: dict[bytes, int] = field(default_factory=dict)
    """By static key: the link to be."""
    began: dict[int, float] = field(default_factory=dict)
    """By link to be: when it was first dialled."""
    is_final: bool = False
    """No newer record will come."""
    reason: str = "its record names no relay and no address by which it can be reached"


def paths_of(entry: DeviceEntry, families: tuple[int, ...], *, relayed_only: bool) -> list[Path]:
    """The ways to a device that its record names: relays first, then addresses, which show ours to the callee."""
    found: list[Path] = []
    for lease in entry.leases:
        for where in (lease.v4, lease.v6):
            if where is None or not _usable(where, families):
                continue
            if lease.udp:
                found.append(relayed(where, lease.lease_id))
    if not relayed_only:
        found += [direct(where) for where in (*entry.direct_v4, *entry.direct_v6) if _usable(where, families)]
    return found


def tcp_paths_of(entry: DeviceEntry, families: tuple[int, ...], local: Iterable[Endpoint] = ()) -> list[Path]:
    """The same relays over TCP, where they take it.  `local`: our own addresses."""
    found = []
    for lease in entry.leases:
        for where in (lease.v4, lease.v6):
            if where is None or lease.tcp_port is None:
                continue
            there = Endpoint(where[:-2] + lease.tcp_port.to_bytes(2, "big"))
            if _usable(there, families) and may_connect(there, local):
                found.append(relayed(there, lease.lease_id, tcp=True))
    return found


def _usable(where: Endpoint, families: tuple[int, ...]) -> bool:
    return (4 if len(where) == ENDPOINT_V4_BYTES else 6) in families and may_send(where)


class Reaches:
    """All attempts under way.  `events` is the list of the owner and appended to."""

    def __init__(
        self, links: Links, events: list[PeerEvent], *, own_static: bytes, families: tuple[int, ...], lan: bool = False
    ) -> None:
        """`lan`: whether people who are trusted with our addresses are called by the local networks too."""
        self._links = links
        self._events = events
        self._static = own_static
        self._families = families
        self._lan = lan
        self._reaches: dict[int, Reach] = {}
        self._dials: dict[int, Reach] = {}  # by link to be
        self._last = 0
        self.local: tuple[Endpoint, ...] = ()
        """Addresses of this machine."""
        self.is_barred = False
        """UDP is barred in this network: relays are dialled over TCP at once."""
        self.heard_at = float("-inf")
        """When anything last answered over UDP."""
        self._late: list[tuple[float, float, int, list[Path]]] = []  # due, begin of the dial, link to be, its TCP paths

    def __contains__(self, number: int) -> bool:
        """Whether something may still come of an attempt."""
        return number in self._reaches

    def begin(self, identity: bytes, trust: Trust, relayed_only: bool, keep_all: bool) -> int:
        """A new attempt; its number.  Raises UsageError while too many are under way."""
        if len(self._reaches) >= REACHES_MAX:
            raise UsageError(f"{REACHES_MAX} people are being called already; wait for one of them")
        self._last += 1
        self._reaches[self._last] = Reach(self._last, identity, trust, relayed_only, keep_all)
        return self._last

    def found(self, now: float, number: int, devices: Iterable[DeviceEntry]) -> int:
        """Dial these devices, or tell a dial of more paths; how many are being dialled."""
        reach = self._reaches.get(number)
        if reach is None:
            return 0
        for entry in devices:
            paths = paths_of(entry, self._families, relayed_only=reach.relayed_only)
            lan = LAN if self._lan and reach.trust.tells and not reach.relayed_only else None
            over_tcp = tcp_paths_of(entry, self._families, self.local)
            if self.is_barred or not paths:
                paths, over_tcp = over_tcp + paths, []
            if (not paths and lan is None) or entry.static == self._static:
                continue
            if entry.static in reach.dials:
                self._links.add_paths(now, reach.dials[entry.static], paths)
                self._add_late(now, reach.dials[entry.static], over_tcp)
                continue
            if len(reach.dials) >= DEVICES_MAX:
                reach.reason = "its records name too many devices"
                continue
            try:
                link = self._links.dial(now, paths, Callee.of(reach.identity, entry), lan=lan)
            except DialError as problem:
                reach.reason = str(problem)
                continue
            reach.dials[entry.static] = link
            reach.began[link] = now
            self._dials[link] = reach
            self._add_late(now, link, over_tcp)
        return len(reach.began)

    def wake(self, now: float) -> None:
        """Dial over TCP what did not answer over UDP."""
        while self._late and self._late[0][0] <= now:
            _, began, link, paths = heapq.heappop(self._late)
            if link in self._dials and (self.heard_at < began or now - began >= TCP_AFTER_SECONDS[-1]):
                self._links.add_paths(now, link, paths)

    def next_wake(self) -> float | None:
        """When `wake` wants to be called."""
        return self._late[0][0] if self._late else None

    def _add_late(self, now: float, link: int, paths: list[Path]) -> None:
        if paths:
            for seconds in TCP_AFTER_SECONDS:
                heapq.heappush(self._late, (now + seconds, now, link, paths))

    def finish(self, number: int) -> None:
        """No newer record will come."""
        reach = self._reaches.get(number)
        if reach is not None:
            reach.is_final = True
            self._perhaps_over(reach)

    def give_up(self, now: float, number: int) -> None:
        """Stop; no event follows."""
        reach = self._reaches.pop(number, None)
        if reach is not None:
            self._end_dials(now, reach)

    def established(self, now: float, link: int) -> tuple[Reach, float] | None:
        """A dial was answered: the attempt it belongs to, which may end here, and the seconds it took."""
        reach = self._dials.pop(link, None)
        if reach is None:
            return None
        took = now - reach.began.pop(link)
        reach.was_reached = True
        if reach.keep_all:
            self._perhaps_over(reach)
        else:
            self._reaches.pop(reach.number, None)
            self._end_dials(now, reach)
        return reach, took

    def closed(self, link: int, reason: str) -> None:
        """A dial came to nothing."""
        reach = self._dials.pop(link, None)
        if reach is not None:
            reach.began.pop(link, None)
            reach.reason = _REASONS.get(reason, reason)
            self._perhaps_over(reach)

    def _perhaps_over(self, reach: Reach) -> None:
        if not reach.is_final or reach.began or self._reaches.pop(reach.number, None) is None:
            return
        if not reach.was_reached:
            self._events.append(Unreached(reach.number, reach.reason))

    def _end_dials(self, now: float, reach: Reach) -> None:
        for link in reach.began:
            self._dials.pop(link, None)
            self._links.close(now, link)
        reach.began.clear()
