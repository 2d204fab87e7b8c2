"""Who has announced themselves under which info-hash (BEP 5), bounded and fair.

As in the item store, one subnet can only ever fill its own share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshcall.core import Endpoint
from meshcall.dht.node_id import is_usable, subnet_of

if TYPE_CHECKING:
    from random import Random

PEERS_MAX = 4000
PEERS_PER_HASH_MAX = 400
PEERS_PER_SUBNET_AND_HASH_MAX = 8
PEERS_PER_SUBNET_MAX = 200
PEER_LIFE_SECONDS = 1800.0
SWEEP_SECONDS = 60.0

_Peers = dict[Endpoint, tuple[float, bytes]]


class PeerStore:
    """Endpoints by info-hash, each until 30 minutes after its last announcement."""

    __slots__ = (
        "_by_hash",
        "_held",
        "_life",
        "_peers_max",
        "_per_hash_max",
        "_per_subnet_and_hash_max",
        "_per_subnet_max",
        "_sweep_due",
        "count",
    )

    def __init__(
        self,
        peers_max: int = PEERS_MAX,
        per_hash_max: int = PEERS_PER_HASH_MAX,
        per_subnet_max: int = PEERS_PER_SUBNET_MAX,
        per_subnet_and_hash_max: int = PEERS_PER_SUBNET_AND_HASH_MAX,
        life_seconds: float = PEER_LIFE_SECONDS,
    ) -> None:
        self._peers_max = peers_max
        self._per_hash_max = per_hash_max
        self._per_subnet_max = per_subnet_max
        self._per_subnet_and_hash_max = per_subnet_and_hash_max
        self._life = life_seconds
        self.count = 0
        """Endpoints kept, one under two info-hashes counted twice."""
        self._by_hash: dict[bytes, _Peers] | None = None
        self._held: dict[bytes, int] = {}
        self._sweep_due = 0.0

    @property
    def next_expiry(self) -> float | None:
        """When `expire` wants to be called; None while there is nothing to expire."""
        return self._sweep_due if self._by_hash else None

    def announce(self, now: float, info_hash: bytes, endpoint: Endpoint) -> bool:
        """Keep this endpoint, or let it live anew.  False where it found no room or cannot be used."""
        by_hash = self._by_hash
        if by_hash is None:
            by_hash = self._by_hash = {}
            self._sweep_due = now + self._life
        peers = by_hash.get(info_hash)
        if peers is not None and endpoint in peers:
            # moved to the end, so that each list is in the order of expiry
            entry = peers.pop(endpoint)
            peers[endpoint] = (now + self._life, entry[1])
            return True
        if not is_usable(endpoint):
            return False
        subnet = subnet_of(endpoint)
        if self._held.get(subnet, 0) >= self._per_subnet_max:
            self._sweep(now)
            if self._held.get(subnet, 0) >= self._per_subnet_max:
                return False
        if peers is not None and not self._make_room_here(now, info_hash, subnet):
            return False
        if self.count >= self._peers_max and not self._make_room(now, subnet):
            return False
        self._by_hash = by_hash
        by_hash.setdefault(info_hash, {})[endpoint] = (now + self._life, subnet)
        self._held[subnet] = self._held.get(subnet, 0) + 1
        self.count += 1
        return True

    def peers(self, now: float, info_hash: bytes, family: int, limit: int, rng: Random) -> list[bytes]:
        """At most `limit` endpoints of `family` bytes (6: IPv4, 18: IPv6) under this info-hash, drawn at random."""
        peers = None if self._by_hash is None else self._by_hash.get(info_hash)
        if not peers:
            return []
        alive: list[bytes] = [each for each, entry in peers.items() if entry[0] > now and len(each) == family]
        return alive if len(alive) <= limit else rng.sample(alive, limit)

    def expire(self, now: float) -> None:
        """Take away what is too old.  Costs nothing before `next_expiry`."""
        if self._by_hash and now >= self._sweep_due:
            self._sweep(now)

    def _make_room_here(self, now: float, info_hash: bytes, subnet: bytes) -> bool:
        """See to it that one more of `subnet` may come under this info-hash."""
        peers = (self._by_hash or {})[info_hash]
        counts: dict[bytes, int] = {}
        for _, each in peers.values():
            counts[each] = counts.get(each, 0) + 1
        mine = counts.get(subnet, 0) + 1
        if mine > self._per_subnet_and_hash_max:
            loser = next(each for each, entry in peers.items() if entry[1] == subnet)
        elif len(peers) < self._per_hash_max:
            return True
        else:
            most = max(counts.values())
            if mine > most and peers[next(iter(peers))][0] > now:
                loser = next(each for each, entry in peers.items() if entry[1] == subnet)
            else:
                loser = next(each for each, entry in peers.items() if entry[0] <= now or counts[entry[1]] == most)
        self._remove(info_hash, loser)
        return True

    def _make_room(self, now: float, subnet: bytes) -> bool:
        """See to it that one more of `subnet` may come at all."""
        self._sweep(now)
        if self.count < self._peers_max:
            return True
        most = max(self._held.values())
        if self._held.get(subnet, 0) + 1 > most:
            return False
        # of those that hold most, the one whose announcement is oldest
        _, info_hash, endpoint = min(
            (entry[0], info_hash, endpoint)
            for info_hash, peers in (self._by_hash or {}).items()
            for endpoint, entry in peers.items()
            if self._held[entry[1]] == most
        )
        self._remove(info_hash, endpoint)
        return True

    def _remove(self, info_hash: bytes, endpoint: Endpoint) -> None:
        by_hash = self._by_hash or {}
        peers = by_hash[info_hash]
        subnet = peers.pop(endpoint)[1]
        if not peers:
            del by_hash[info_hash]
        count = self._held[subnet] - 1
        if count:
            self._held[subnet] = count
        else:
            del self._held[subnet]
        self.count -= 1

    def _sweep(self, now: float) -> None:
        by_hash = self._by_hash or {}
        for info_hash in list(by_hash):
            for endpoint in [each for each, entry in by_hash[info_hash].items() if entry[0] <= now]:
                self._remove(info_hash, endpoint)
        if by_hash:
            oldest = min(next(iter(peers.values()))[0] for peers in by_hash.values())
            self._sweep_due = max(oldest, now + SWEEP_SECONDS)
        else:
            self._by_hash = None
