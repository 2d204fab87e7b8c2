"""How relays are found: volunteers announce themselves in the DHT, devices sample them and measure.

The well-known info-hashes are sharded, so that no DHT node has to keep, or could hide, all relays.  A
volunteer stands in one shard, given by its key; a device looks into a few at random, asks whom it
finds with a hello, and keeps the answers with their round trips.  What a stranger's hello says is proven
only by the handshake.  The DHT is the owner's: it carries `requests` there and the answers back.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from meshcall.core import Endpoint, port_of
from meshcall.dht.events import PeersFinished, PeersFound, PutFinished
from meshcall.dht.node_id import subnet_of
from meshcall.endpoints import may_use_port
from meshcall.errors import BadPacket
from meshcall.relay.candidate import RelayCandidate
from meshcall.relay.places import TCP_PORT, Place, endpoint_of_place, is_tcp_place, tcp_place, udp_place
from meshcall.wire import relay as wire

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

SHARDS = 16
ANNOUNCE_SECONDS = 15 * 60.0
"""Mainline nodes keep an announcement for about half an hour."""
ANNOUNCE_AGAIN_SECONDS = 60.0
"""After an announcement that no node took."""
ANNOUNCE_SECOND_SECONDS = 20.0
"""After the first announcement: a node that has just come in knows few others and may have told the wrong ones."""
SHARDS_SAMPLED = 3
"""Of one search."""
PROBED_MAX = 32
"""Endpoints asked in one search."""
PROBED_TCP_MAX = 8
"""Over TCP, where each takes one or two connections."""
PROBED_PER_SUBNET_MAX = 2
"""A crowd of addresses in one place cannot fill a sample."""
HELLOS = 3
"""To an endpoint that answers: the least of its round trips counts."""
HELLOS_UNANSWERED = 2
"""To one that does not: strangers named it."""
HELLO_EVERY_SECONDS = 0.15
HELLO_SPACING_SECONDS = 0.01
"""Between the hellos to different endpoints."""
PROBE_SECONDS = 2.0
"""After the last hello a search waits so long for answers."""
SEARCH_SECONDS_MAX = 30.0


def tcp_places(endpoint: Endpoint) -> tuple[Place, ...]:
    """Where a relay that is known by its UDP endpoint may listen for TCP: at 443, and at the port of that number."""
    https = Endpoint(endpoint[:-2] + TCP_PORT.to_bytes(2, "big"))
    return tuple(tcp_place(each, 0) for each in dict.fromkeys((https, endpoint)) if may_use_port(port_of(each)))


def info_hash(shard: int) -> bytes:
    """The info-hash (20 bytes) of a shard, 0 to SHARDS - 1."""
    return blake2b(bytes([shard]), digest_size=20, person=b"meshcall relay 1").digest()


def shard_of(static: bytes) -> int:
    """The shard in which a relay stands, by its static key."""
    return blake2b(static, digest_size=1, person=b"meshcall shard 1").digest()[0] % SHARDS


@dataclass(frozen=True, slots=True)
class Announce:
    """Announce this node under an info-hash: `Dht.announce`; the PutFinished goes to `answered`."""

    info_hash: bytes
    tag: int


@dataclass(frozen=True, slots=True)
class FindPeers:
    """Look up who announced: `Dht.get_peers`; PeersFound and PeersFinished go to `answered`."""

    info_hash: bytes
    tag: int


class Announcer:
    """A volunteer's side: stays announced while it runs."""

    def __init__(self, now: float, *, static: bytes, rng: Random) -> None:
        self.requests: list[Announce] = []
        self.counters: Counter[str] = Counter()
        self._hash = info_hash(shard_of(static))
        self._rng = rng
        self._due: float | None = now
        self._tag = 0

    def wake(self, now: float) -> None:
        """Announce if it is time."""
        if self._due is not None and now >= self._due:
            self._tag += 1
            self._due = now + ANNOUNCE_SECONDS
            self.requests.append(Announce(self._hash, self._tag))

    def next_wake(self) -> float | None:
        """When `wake` wants to be called."""
        return self._due

    def answered(self, now: float, tag: int, answer: PutFinished) -> None:
        """The DHT's answer to an announcement."""
        if tag != self._tag:
            return
        self.counters["announced" if answer.stored else "announcement failed"] += 1
        pause = ANNOUNCE_SECONDS if answer.stored else ANNOUNCE_AGAIN_SECONDS
        if answer.stored and self.counters["announced"] == 1:
            pause = ANNOUNCE_SECOND_SECONDS
        self._due = now + pause * self._rng.uniform(0.8, 1.0)

    def announce_now(self, now: float) -> None:
        """The address changed: announce at once."""
        self._due = now


@dataclass(frozen=True, slots=True)
class SearchFinished:
    """What a search found: relays that answered, the best first."""

    candidates: tuple[RelayCandidate, ...]
    asked: int


class _Probe:
    """Hellos to one endpoint."""

    __slots__ = ("due", "endpoint", "info", "place", "round_trip", "sent", "tries")

    def __init__(self, endpoint: Endpoint, place: Place, due: float) -> None:
        self.endpoint = endpoint
        self.place = place
        self.due = due
        self.sent: list[tuple[bytes, float]] = []
        """Hellos without an answer: number, time."""
        self.tries = 0
        self.round_trip: float | None = None
        self.info: wire.RelayInfo | None = None


class RelaySearch:
    """A device's side; one search at a time, started by `search`."""

    def __init__(self, *, rng: Random, own_static: bytes = b"") -> None:
        self.outbox: list[tuple[Place, bytes]] = []
        self.requests: list[FindPeers] = []
        self.is_tcp = False
        """UDP is barred here: relays are asked over TCP."""
        self.events: list[SearchFinished] = []
        self.counters: Counter[str] = Counter()
        self._rng = rng
        self._own_static = own_static
        self._waiting: set[int] = set()
        self._tag = 0
        self._probes: dict[Place, _Probe] = {}
        self._endpoints: set[Endpoint] = set()
        self._subnets: Counter[bytes] = Counter()
        self._spaced = 0.0
        self._end: float | None = None
        self._last_due = 0.0
        self._homes: frozenset[Endpoint] = frozenset()

    @property
    def is_searching(self) -> bool:
        """Whether a search is under way."""
        return self._end is not None

    def search(
        self,
        now: float,
        known: Iterable[Endpoint] = (),
        shards: int = SHARDS_SAMPLED,
        homes: frozenset[Endpoint] = frozenset(),
    ) -> None:
        """Look into so many shards, and ask these endpoints again; SearchFinished follows.

        `homes`: endpoints of relays of one's own, which count even where they are not for everybody.
        """
        if self._end is not None:
            return
        self._probes.clear()
        self._endpoints.clear()
        self._subnets.clear()
        self._spaced = now
        self._last_due = now
        self._end = now + SEARCH_SECONDS_MAX
        self._homes = homes
        for endpoint in (*sorted(homes), *known):
            self._probe(now, endpoint)
        for shard in self._rng.sample(range(SHARDS), shards):
            self._tag += 1
            self._waiting.add(self._tag)
            self.requests.append(FindPeers(info_hash(shard), self._tag))

    def stop(self) -> None:
        """End a search without a result."""
        self._end = None
        self._waiting.clear()
        self._probes.clear()

    def answered(self, now: float, tag: int, answer: PeersFound | PeersFinished) -> None:
        """What the DHT found in a shard."""
        if tag not in self._waiting:
            return
        peers = list(answer.peers)
        self._rng.shuffle(peers)  # who is listed first must not be asked first
        for endpoint in peers:
            self._probe(now, endpoint)
        if isinstance(answer, PeersFinished):
            self._waiting.discard(tag)

    def receive(self, now: float, source: Place, data: bytes) -> None:
        """Take the answer to a hello."""
        probe = self._probes.get(source)
        if probe is None:
            self.counters["hello answer not asked for"] += 1
            return
        try:
            frame = wire.decode_frame(data)
            info = wire.decode_hello_answer(frame)
        except BadPacket as bad:
            self.counters[bad.reason] += 1
            return
        sent = next((when for number, when in probe.sent if number == frame.frame_id), None)
        if sent is None:
            self.counters["hello answer not asked for"] += 1
            return
        probe.sent = [entry for entry in probe.sent if entry[0] != frame.frame_id]
        probe.info = info
        if probe.tries < HELLOS:
            probe.due = min(probe.due, now + HELLO_EVERY_SECONDS)
        probe.round_trip = min(now - sent, probe.round_trip if probe.round_trip is not None else now - sent)

    def wake(self, now: float) -> None:
        """Send what is due; end the search when all is in."""
        if self._end is None:
            return
        for probe in self._probes.values():
            if probe.due <= now:
                number = self._rng.randbytes(wire.ID_BYTES)
                probe.sent.append((number, now))
                probe.tries += 1
                enough = HELLOS_UNANSWERED if probe.info is None else HELLOS
                probe.due = now + HELLO_EVERY_SECONDS if probe.tries < enough else float("inf")
                self._last_due = now
                self.counters["hellos"] += 1
                self.outbox.append((probe.place, wire.hello(number)))
        if now >= self._end or (self._all_asked() and (now >= self._last_due + PROBE_SECONDS or self._all_answered())):
            self._finish()

    def next_wake(self) -> float | None:
        """When `wake` wants to be called."""
        if self._end is None:
            return None
        if self._all_asked():
            return min(self._end, self._last_due if self._all_answered() else self._last_due + PROBE_SECONDS)
        return min([self._end, *(probe.due for probe in self._probes.values())])

    def _all_asked(self) -> bool:
        return not self._waiting and all(probe.due == float("inf") for probe in self._probes.values())

    def _all_answered(self) -> bool:
        return all(not probe.sent for probe in self._probes.values())

    def _probe(self, now: float, endpoint: Endpoint) -> None:
        subnet = subnet_of(endpoint)
        if (
            endpoint in self._endpoints
            or len(self._endpoints) >= (PROBED_TCP_MAX if self.is_tcp else PROBED_MAX)
            or self._subnets[subnet] >= PROBED_PER_SUBNET_MAX
            or not int.from_bytes(endpoint[-2:], "big")
        ):
            return
        self._subnets[subnet] += 1
        self._spaced = max(now, self._spaced) + HELLO_SPACING_SECONDS
        self._endpoints.add(endpoint)
        for place in tcp_places(endpoint) if self.is_tcp else (udp_place(endpoint),):
            self._probes[place] = _Probe(endpoint, place, self._spaced)

    def _finish(self) -> None:
        found: dict[bytes, RelayCandidate] = {}
        for probe in self._probes.values():
            info = probe.info
            if info is None or probe.round_trip is None or info.static == self._own_static:
                continue
            is_home = probe.endpoint in self._homes
            if not is_home and not (info.is_open and info.accepts):
                self.counters["relay takes nobody"] += 1
                continue
            tcp_port = port_of(endpoint_of_place(probe.place)) if is_tcp_place(probe.place) else info.tcp_port
            candidate = RelayCandidate(
                info.static, probe.endpoint, tcp_port, probe.round_trip, info.load_percent, is_home
            )
            other = found.get(info.static)
            if other is None or candidate.cost < other.cost:
                found[info.static] = candidate
        self.events.append(
            SearchFinished(tuple(sorted(found.values(), key=lambda each: each.cost)), len(self._endpoints))
        )
        self.stop()
