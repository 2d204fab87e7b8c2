"""Who has announced themselves under which info-hash (BEP 5), bounded and fair.

As in the item store, one subnet can only ever fill its own share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshcall.core import Endpoint
from meshcall.dht.node_id import is_usable, subnet_of

if TYPE_CHECKING:
    from random import Random

PEERS_MAX = 20_000
PEERS_PER_HASH_MAX = 400
PEERS_PER_SUBNET_AND_HASH_MAX = 8
PEERS_PER_SUBNET_MAX = 200
PEER_LIFE_SECONDS = 1800.0
SWEEP_SECONDS = 60.0

_Peers = dict[Endpoint, tuple[float, bytes]]


class PeerStore:
    """Endpoints by info-hash, each until 30 minutes after its last announcement.

    A subnet over one of its quotas replaces its own oldest endpoint.  When a list or the whole store
    is full, the oldest endpoint of the subnet that holds most there goes, counting the newcomer.
    """

    __slots__ = (
        "_by_hash",
        "_by_level",
        "_by_subnet",
        "_life",
        "_oldest",
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
        # each list and each subnet's share is in the order of expiry
        self._by_hash: dict[bytes, _Peers] | None = None
        self._by_subnet: dict[bytes, dict[tuple[bytes, Endpoint], None]] | None = None
        # subnets by how many endpoints they hold, to find the largest holder without a search
        self._by_level: dict[int, dict[bytes, None]] | None = None
        self._oldest = self._sweep_due = 0.0

    @property
    def next_expiry(self) -> float | None:
        """When `expire` wants to be called; None while there is nothing to expire."""
        return self._sweep_due if self._by_hash else None

    def announce(self, now: float, info_hash: bytes, endpoint: Endpoint) -> bool:
        """Keep this endpoint, or let it live anew.  False where it found no room or cannot be used."""
        peers = None if self._by_hash is None else self._by_hash.get(info_hash)
        if peers is not None and endpoint in peers:
            self._remove(info_hash, endpoint)
        elif not is_usable(endpoint):
            return False
        subnet = subnet_of(endpoint)
        if not self._make_room(now, info_hash, subnet):
            return False
        self._insert(now, info_hash, endpoint, subnet)
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

    def _make_room(self, now: float, info_hash: bytes, subnet: bytes) -> bool:
        """See to it that one more of `subnet` may come under this info-hash."""
        if self._by_hash is None or self._by_subnet is None or self._by_level is None:
            return self._peers_max > 0
        mine = self._by_subnet.get(subnet, ())
        here = self._by_hash.get(info_hash)
        loser = None if here is None else self._loser_here(now, here, subnet)
        if loser is not None:
            self._remove(info_hash, loser)
        elif len(mine) >= self._per_subnet_max:
            self._remove(*next(iter(mine)))
        if self.count < self._peers_max:
            return True
        if now >= self._oldest:
            self._sweep(now)
            if self.count < self._peers_max:
                return True
        most = max(self._by_level)
        if len(self._by_subnet.get(subnet, ())) >= most:
            return False
        self._remove(*next(iter(self._by_subnet[next(iter(self._by_level[most]))])))
        return True

    def _loser_here(self, now: float, here: _Peers, subnet: bytes) -> Endpoint | None:
        """Whose place in a list one more of `subnet` would take; None: there is room."""
        counts: dict[bytes, int] = {}
        for _, each in here.values():
            counts[each] = counts.get(each, 0) + 1
        mine = counts.get(subnet, 0) + 1
        if mine <= self._per_subnet_and_hash_max:
            if len(here) < self._per_hash_max:
                return None
            oldest = next(iter(here))
            if here[oldest][0] <= now:
                return oldest
            most = max(counts.values())
            if mine <= most:
                return next(each for each, entry in here.items() if counts[entry[1]] == most)
        return next(each for each, entry in here.items() if entry[1] == subnet)

    def _insert(self, now: float, info_hash: bytes, endpoint: Endpoint, subnet: bytes) -> None:
        expires = now + self._life
        if self._by_hash is None or self._by_subnet is None:
            self._by_hash, self._by_subnet, self._by_level = {}, {}, {}
            self._oldest = expires
            self._sweep_due = max(expires, now + SWEEP_SECONDS)
        self._by_hash.setdefault(info_hash, {})[endpoint] = (expires, subnet)
        share = self._by_subnet.setdefault(subnet, {})
        share[info_hash, endpoint] = None
        self._set_level(subnet, len(share) - 1, len(share))
        self.count += 1

    def _remove(self, info_hash: bytes, endpoint: Endpoint) -> None:
        by_hash, by_subnet = self._by_hash or {}, self._by_subnet or {}
        peers = by_hash[info_hash]
        subnet = peers.pop(endpoint)[1]
        if not peers:
            del by_hash[info_hash]
        share = by_subnet[subnet]
        del share[info_hash, endpoint]
        if not share:
            del by_subnet[subnet]
        self._set_level(subnet, len(share) + 1, len(share))
        self.count -= 1

    def _set_level(self, subnet: bytes, before: int, after: int) -> None:
        levels = self._by_level
        if levels is None:
            return
        if before:
            del levels[before][subnet]
            if not levels[before]:
                del levels[before]
        if after:
            levels.setdefault(after, {})[subnet] = None

    def _sweep(self, now: float) -> None:
        by_hash = self._by_hash or {}
        for info_hash in list(by_hash):
            for endpoint in [each for each, entry in by_hash[info_hash].items() if entry[0] <= now]:
                self._remove(info_hash, endpoint)
        if by_hash:
            self._oldest = min(next(iter(peers.values()))[0] for peers in by_hash.values())
            self._sweep_due = max(self._oldest, now + SWEEP_SECONDS)
        else:
            self._by_hash = self._by_subnet = self._by_level = None
