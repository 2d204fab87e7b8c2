"""What the others see as our address: the `ip` field of their answers (BEP 42), put to the vote.

One vote for each observer's subnet, the newest, so that many liars in one subnet are one liar.
Call this only for answers to our own requests; anything else can be forged from anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from meshcall.core import Endpoint
from meshcall.dht.node_id import is_global, is_usable, subnet_of

VOTES_MAX = 15
"""Subnets whose votes count, the newest ones; 8 of them are a majority."""
VOTE_LIFE_SECONDS = 1800.0
VOTE_REFRESH_SECONDS = 60.0
"""A subnet that says the same again within this time is not counted anew."""
AGREE_MIN = 3
"""At least so many subnets must agree ..."""
AGREE_LOCAL_MIN = 2
"""... or so many where all observers are local: a private network may be small, and BEP 42 binds nobody there."""

Mapping = Literal["unknown", "consistent", "per destination", "none"]


class Observed:
    """The verdict of the observers for one address family."""

    __slots__ = ("_is_of_strangers", "_votes", "address", "outside", "per_destination")

    def __init__(self) -> None:
        self._votes: dict[bytes, tuple[Endpoint, float, bool]] | None = None
        self._is_of_strangers = False
        self.outside: Endpoint | None = None
        """The endpoint that a majority sees; None where there is none."""
        self.address: bytes | None = None
        """The packed address that a majority sees, though perhaps with different ports."""
        self.per_destination = False
        """Whether nearly everybody sees a port of their own."""

    def vote(self, now: float, observer: Endpoint, seen: Endpoint) -> bool:
        """Take what one observer sees.  True where `outside`, `address` or `per_destination` changed by it."""
        subnet = subnet_of(observer)
        votes = self._votes
        if votes is None:
            votes = self._votes = {}
        before = votes.get(subnet)
        if before is not None and before[0] == seen and now - before[1] < VOTE_REFRESH_SECONDS:
            return False
        if len(seen) != len(observer) or not is_usable(seen):
            return False
        is_stranger = is_global(observer[:-2])
        if is_stranger and not is_global(seen[:-2]):
            return False  # nobody out there can see a local address
        outside = self.outside
        agrees = outside is not None and seen == outside
        if outside is not None and agrees:
            seen = outside  # one object for all votes
        if before is not None:
            del votes[subnet]
        elif len(votes) >= VOTES_MAX:
            del votes[next(iter(votes))]
        votes[subnet] = (seen, now, is_stranger)
        # the common case: one more voice for a majority of the same kind cannot change what it says
        return not (agrees and is_stranger == self._is_of_strangers) and self._count(now)

    def expire(self, now: float) -> bool:
        """Drop what is too old.  True where the verdict changed by it."""
        votes = self._votes
        # votes lie in the order of their age
        if not votes or now - next(iter(votes.values()))[1] < VOTE_LIFE_SECONDS:
            return False
        return self._count(now)

    def mapping(self, local: Iterable[Endpoint] = ()) -> Mapping:
        """What stands between us and the observers, given the endpoints of our own sockets.

        "none": they see an address of our own.  "consistent": all see the same endpoint (RFC 4787's
        endpoint-independent mapping).  "per destination": each sees another port of one address.
        """
        address = self.address
        if address is not None and not self.per_destination and any(each[:-2] == address for each in local):
            return "none"
        if self.outside is not None:
            return "consistent"
        return "per destination" if self.per_destination else "unknown"

    def reset(self) -> None:
        """Forget all votes and the verdict: the network under us has changed."""
        self._votes = None
        self.outside = self.address = None
        self.per_destination = False

    def _count(self, now: float) -> bool:
        """Count anew; at most `VOTES_MAX` votes."""
        votes = self._votes or {}
        for subnet in [subnet for subnet, vote in votes.items() if now - vote[1] >= VOTE_LIFE_SECONDS]:
            del votes[subnet]
        # what neighbours on the local network see is not what the world sees
        strangers = [seen for seen, _, is_stranger in votes.values() if is_stranger]
        self._is_of_strangers = bool(strangers)
        counted = strangers or [seen for seen, _, _ in votes.values()]
        agree_min = AGREE_MIN if strangers else AGREE_LOCAL_MIN
        enough = max(agree_min, len(counted) // 2 + 1)
        outside = address = None
        per_destination = False
        by_endpoint: dict[Endpoint, int] = {}
        for seen in counted:
            by_endpoint[seen] = by_endpoint.get(seen, 0) + 1
        by_address: dict[bytes, int] = {}
        for seen, count in by_endpoint.items():
            if count >= enough:
                outside = seen
            by_address[seen[:-2]] = by_address.get(seen[:-2], 0) + count
        for host, count in by_address.items():
            if count >= enough:
                address = host
                ports = sum(1 for seen in by_endpoint if seen[:-2] == host)
                # a mapping that has just been renewed shows two ports, not many
                per_destination = outside is None and count >= AGREE_MIN and ports > count // 2 + 1
        if outside == self.outside and address == self.address and per_destination == self.per_destination:
            return False
        self.outside, self.address, self.per_destination = outside, address, per_destination
        return True
