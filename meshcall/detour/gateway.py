"""The gateway: does a few kinds of DHT operations for devices that reach it over TCP only.

It knows no network.  What is asked of it comes in with the connection it came by, what the DHT shall do
goes out as requests, and what the DHT answers comes back by `answered`.  Everything is counted by source
and in total; a source is an address that a TCP connection has proven.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from meshcall.dht.events import GetFinished, ItemFound, PeersFinished, PeersFound, PutFinished
from meshcall.dht.items import Item, MutableItem
from meshcall.dht.limits import RateLimiter
from meshcall.dht.node_id import source_of
from meshcall.errors import BadPacket
from meshcall.relay.discovery import SHARDS, info_hash
from meshcall.relay.places import Place, endpoint_of_place, is_tcp_place
from meshcall.wire import detour as wire
from meshcall.wire import krpc

ASKS_PER_SECOND = 1.0
ASKS_BURST = 40.0
"""Operations for one address: a start takes 6 for the record and up to 16 for relays."""
ASKS_TOTAL_PER_SECOND = 10.0
ASKS_TOTAL_BURST = 120.0
SOURCES_MAX = 1024
OPEN_PER_SOURCE_MAX = 24
OPEN_MAX = 96
"""Operations under way."""
STORE_COST = 2.0
"""A store is a look-up and the writing."""
ITEMS_TOLD_MAX = 4
"""Items told of in one look-up before its end."""
RETRY_SECONDS = 5

INFO_HASHES = frozenset(info_hash(shard) for shard in range(SHARDS))
"""Peers are looked up for relays only: this is no way into other people's swarms."""

_Event = ItemFound | GetFinished | PutFinished | PeersFound | PeersFinished


@dataclass(frozen=True, slots=True)
class DhtWanted:
    """An operation of the DHT to start for somebody; its events go to `answered` with the same tag."""

    tag: int
    ask: wire.AskItem | wire.AskStore | wire.AskPeers


@dataclass(slots=True)
class _Open:
    place: Place
    number: int
    source: bytes
    public: bytes
    told: int = 0


class Gateway:
    """One for all connections."""

    def __init__(self) -> None:
        self.outbox: list[tuple[Place, bytes]] = []
        self.requests: list[DhtWanted] = []
        self.cancelled: list[int] = []
        """Tags of operations that nobody waits for any more; the owner reads and empties it."""
        self.counters: Counter[str] = Counter()
        self._asks = RateLimiter(ASKS_PER_SECOND, ASKS_BURST, SOURCES_MAX, ASKS_TOTAL_PER_SECOND, ASKS_TOTAL_BURST)
        self._open: dict[int, _Open] = {}
        self._of_source: Counter[bytes] = Counter()
        self._tag = 0

    def __len__(self) -> int:
        """Operations under way."""
        return len(self._open)

    def receive(self, now: float, place: Place, data: bytes, *, serves: bool, joined: bool) -> None:
        """Take a message.  `serves`: whether this connection's far end is served; `joined`: we have a DHT to ask."""
        if not is_tcp_place(place):
            self.counters["asked by an unproven address"] += 1
            return
        try:
            number, ask = wire.decode(data)
        except BadPacket as bad:
            self.counters[bad.reason] += 1
            return
        if not isinstance(ask, wire.Knock | wire.AskItem | wire.AskStore | wire.AskPeers):
            self.counters["answer not asked for"] += 1
            return
        source = source_of(endpoint_of_place(place))
        reason = self._refusal(now, source, ask, serves=serves, joined=joined)
        if reason is not None:
            self._refuse(place, number, reason)
        elif isinstance(ask, wire.Knock):
            self._say(place, number, wire.Serves())
        else:
            self.counters["asked"] += 1
            self._tag += 1
            self._open[self._tag] = _Open(place, number, source, b"" if isinstance(ask, wire.AskPeers) else ask.public)
            self._of_source[source] += 1
            self.requests.append(DhtWanted(self._tag, ask))

    def _refusal(self, now: float, source: bytes, ask: wire.Ask, *, serves: bool, joined: bool) -> int | None:
        is_knock = isinstance(ask, wire.Knock)  # whom a list does not name yet may become known by a link
        if not (serves or is_knock) or (isinstance(ask, wire.AskPeers) and ask.info_hash not in INFO_HASHES):
            return wire.NOT_SERVED
        if not joined:
            return wire.NO_NETWORK
        if not is_knock and (len(self._open) >= OPEN_MAX or self._of_source[source] >= OPEN_PER_SOURCE_MAX):
            return wire.BUSY
        cost = STORE_COST if isinstance(ask, wire.AskStore) else 1.0
        return None if self._asks.allow(now, source, cost, proven=True) else wire.TOO_OFTEN

    def refused(self, tag: int) -> None:
        """The DHT does not take an operation: the item is not valid, or there are too many."""
        found = self._close(tag)
        if found is not None:
            self._refuse(found.place, found.number, wire.NOT_VALID)

    def answered(self, tag: int, event: _Event) -> None:
        """An event of the operation that was started for a request."""
        found = self._open.get(tag)
        if found is None:
            return
        match event:
            case ItemFound(_, item):
                if found.told < ITEMS_TOLD_MAX and (said := _said(found, item)) is not None:
                    found.told += 1
                    self._say(found.place, found.number, wire.TellItem(False, 0, said))
            case GetFinished(_, item, holders):
                self._close(tag)
                self._say(found.place, found.number, wire.TellItem(True, len(holders), _said(found, item)))
            case PutFinished(_, stored, errors):
                self._close(tag)
                cas, seq = errors.get(krpc.CAS_MISMATCH, 0), errors.get(krpc.SEQ_TOO_OLD, 0)
                other = sum(errors.values()) - cas - seq
                self._say(found.place, found.number, wire.TellStored(stored, cas, seq, other))
            case PeersFinished(_, peers):
                self._close(tag)
                self._say(found.place, found.number, wire.TellPeers(peers))
            case PeersFound():
                pass  # the end brings them all

    def gone(self, place: Place) -> None:
        """A connection ended: what it asked for is not needed any more."""
        for tag in [tag for tag, each in self._open.items() if each.place == place]:
            self._close(tag)
            self.cancelled.append(tag)

    def _close(self, tag: int) -> _Open | None:
        found = self._open.pop(tag, None)
        if found is not None:
            self._of_source[found.source] -= 1
            if not self._of_source[found.source]:
                del self._of_source[found.source]
        return found

    def _refuse(self, place: Place, number: int, reason: int) -> None:
        self.counters[f"refused: {wire.SHOW_REASON[reason]}"] += 1
        self._say(place, number, wire.Refused(reason, RETRY_SECONDS))

    def _say(self, place: Place, number: int, message: wire.Tell) -> None:
        self.outbox.append((place, wire.encode(number, message)))


def _said(found: _Open, item: Item | None) -> tuple[int, bytes, bytes] | None:
    if not isinstance(item, MutableItem) or item.public != found.public or item.salt:
        return None
    return item.seq, item.signature, item.value
