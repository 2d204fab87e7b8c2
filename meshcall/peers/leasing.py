"""Our places at other people's relays: finding relays, links to them, leases, what the record names.

Puts `relay.holder` and `relay.discovery` on the links of `Peers`.  The DHT is the owner's: `requests`
are carried there and the answers back.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from meshcall.core import Endpoint, earliest
from meshcall.handshake.dial import DialError
from meshcall.path.paths import direct, stream
from meshcall.relay.discovery import SHARDS, SHARDS_SAMPLED, FindPeers, RelaySearch
from meshcall.relay.holder import PAUSED_SECONDS, CandidatesWanted, Dial, HangUp, LeasesChanged, RelayHolder, RelayLost
from meshcall.relay.places import Place
from meshcall.wire.path import Candidate, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from meshcall.peers.core import Peers
    from meshcall.wire.record import RelayLease

SEARCH_AGAIN_SECONDS = 10.0
SEARCH_AGAIN_SECONDS_MAX = 900.0
"""Pause after a search that found nothing; doubled each time."""
FRESH_SECONDS = 10 * 60.0
"""A search that found relays is not repeated sooner, unless all of them were tried."""
ROTATE_SECONDS = 86_400.0
"""Lease ids live as long as a period of the record."""
LOOK_AGAIN_SECONDS = 2.0
"""Leases are not looked at more often because a path is in doubt."""
KNOWN_MAX = 32


class Leasing:
    """Keeps `wanted` leases from the first `wake` on."""

    def __init__(
        self, now: float, peers: Peers, *, rng: Random, own_static: bytes, wanted: int, homes: Iterable[Endpoint]
    ) -> None:
        self.outbox: list[tuple[Place, bytes]] = []
        """Frames to relays; the owner sends and empties it."""
        self.changed = False
        """`leases` changed; the owner reads and clears it."""
        self.counters: Counter[str] = Counter()
        self.holder = RelayHolder(now, rng=rng, wanted=wanted)
        self.search = RelaySearch(rng=rng, own_static=own_static)
        self._wanted = wanted
        self._peers = peers
        self._links: dict[int, bytes] = {}  # link: static key of the relay
        self._known: dict[Endpoint, None] = {}
        self._pause = SEARCH_AGAIN_SECONDS
        self._search_at: float | None = None
        self._everywhere = False
        self._homes = frozenset(homes)
        self._rotate_at = now + ROTATE_SECONDS
        self._looked_at = now

    @property
    def leases(self) -> tuple[RelayLease, ...]:
        """What a record should name, the best first."""
        return self.holder.leases()

    @property
    def requests(self) -> list[FindPeers]:
        """For the DHT; the owner empties it."""
        return self.search.requests

    def candidates(self) -> list[Candidate]:
        """The leases as peers are told of them."""
        found: list[Candidate] = []
        for lease in self.leases:
            for where in (lease.v4, lease.v6):
                if where is not None and lease.udp:
                    found.append(Candidate(Kind.RELAY_UDP, where, lease.lease_id))
                if where is not None and lease.tcp_port is not None:
                    there = Endpoint(where[:-2] + lease.tcp_port.to_bytes(2, "big"))
                    found.append(Candidate(Kind.RELAY_TCP, there, lease.lease_id))
        return found

    def owns(self, link: int) -> bool:
        """Whether this link goes to a relay of ours."""
        return link in self._links

    # What links and relays say

    def linked(self, now: float, link: int) -> None:
        """A link that was dialled for a lease is open."""
        self.holder.linked(now, self._links[link], link)

    def over(self, now: float, link: int) -> None:
        """A link for a lease is over, or could not be opened."""
        self.holder.failed(now, self._links.pop(link))
        self.holder.closed(now, link)

    def look(self, now: float) -> None:
        """A path may have failed, perhaps because our NAT forgot us, for relays too: make sure of all leases."""
        if now - self._looked_at >= LOOK_AGAIN_SECONDS:
            self._looked_at = now
            self.holder.is_paused = self._peers.narrow.holds(now)
            self.holder.network_changed(now)

    def set_tcp(self, now: float, tcp: bool) -> None:
        """UDP is barred here (True), or not (any more)."""
        if tcp != self.search.is_tcp:
            self.search.is_tcp = tcp
            self.search.stop()
            self.holder.set_tcp(now, tcp)
            if len(self.leases) < self._wanted:
                self._pause = SEARCH_AGAIN_SECONDS
                self._search_at = now

    def network_changed(self, now: float) -> None:
        """Another address, or the machine slept."""
        self._looked_at = now
        self._pause = SEARCH_AGAIN_SECONDS
        if self._search_at is not None:
            self._search_at = now
        self.holder.network_changed(now)

    # Time

    def wake(self, now: float) -> None:
        """Do what time has made due."""
        self.holder.is_paused = self._peers.narrow.holds(now)
        self.holder.wake(now)
        self.search.wake(now)
        if self._search_at is not None and self._search_at <= now and self.holder.is_paused:
            self._search_at = now + PAUSED_SECONDS
        elif self._search_at is not None and self._search_at <= now:
            self._search_at = None
            self.search.search(now, list(self._known), SHARDS if self._everywhere else SHARDS_SAMPLED, self._homes)
        if self._rotate_at <= now:
            self._rotate_at = now + ROTATE_SECONDS
            self.holder.rotate(now)

    def next_wake(self) -> float | None:
        """When `wake` wants to be called."""
        return earliest(self.holder.next_wake(), self.search.next_wake(), self._search_at, self._rotate_at)

    def carry(self, now: float) -> bool:
        """Carry between the parts; whether there was something to carry."""
        holder, search = self.holder, self.search
        busy = bool(holder.requests or holder.messages or holder.events or search.events)
        if not (busy or holder.outbox or search.outbox):
            return False
        requests, holder.requests[:] = list(holder.requests), []
        for request in requests:
            if isinstance(request, Dial):
                self._dial(now, request)
            elif isinstance(request, HangUp):
                self._links.pop(request.link, None)
                self._peers.close(now, request.link)
            else:
                self._peers.show(now, request.link)
        messages, holder.messages[:] = list(holder.messages), []
        for link, data in messages:
            self._peers.say(now, link, data)
        events, holder.events[:] = list(holder.events), []
        for event in events:
            if isinstance(event, LeasesChanged):
                self.changed = True
            elif isinstance(event, RelayLost):
                self._known.pop(event.candidate.endpoint, None)
            elif isinstance(event, CandidatesWanted):
                self._want(now)
        for found in search.events:
            self._everywhere = len(found.candidates) < self._wanted and not self._everywhere
            if self._everywhere:  # few relays exist: look into all shards, at once
                self._search_at = now
                if not found.candidates:
                    continue
            self._pause = SEARCH_AGAIN_SECONDS if found.candidates else min(2 * self._pause, SEARCH_AGAIN_SECONDS_MAX)
            for candidate in found.candidates:
                self._known[candidate.endpoint] = None
            while len(self._known) > KNOWN_MAX:
                del self._known[next(iter(self._known))]
            self.counters["searches"] += 1
            holder.offer(now, found.candidates)
        search.events.clear()
        self.outbox += holder.outbox
        holder.outbox.clear()
        self.outbox += search.outbox
        search.outbox.clear()
        return busy

    def _want(self, now: float) -> None:
        """Too few relays: search, with longer pauses while none is found or one is enough."""
        if self.search.is_searching:
            return
        pause = self._pause if self.counters["searches"] else 0.0
        due = now + (FRESH_SECONDS if self.leases else pause)
        # one that was planned for later, while there was a lease, comes sooner when the last is lost
        self._search_at = due if self._search_at is None else min(due, self._search_at)

    def _dial(self, now: float, request: Dial) -> None:
        candidate, static = request.candidate, request.candidate.static
        over_tcp = candidate.tcp_endpoint if request.tcp else None
        path = direct(candidate.endpoint) if over_tcp is None else stream(over_tcp, 0)
        try:
            link = self._peers.dial_relay(now, [path], static)
        except DialError:
            self.counters["relay cannot be dialled"] += 1
            self.holder.failed(now, static)
            return
        for other in [other for other, key in self._links.items() if key == static and not self._peers.is_open(other)]:
            del self._links[other]
            self._peers.close(now, other)
        self._links[link] = static
