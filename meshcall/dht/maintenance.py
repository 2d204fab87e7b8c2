"""Upkeep of a routing table: which contact to ask next so that the table stays alive and fills up.

One question every few seconds does for pinging and refreshing at once: a find_node to the contact
heard from longest ago, for a random ID in the range of its bucket (as libtorrent does it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshcall.dht.contact import Contact
from meshcall.dht.node_id import random_id_in
from meshcall.dht.table import Bucket, Table

if TYPE_CHECKING:
    from random import Random

TICK_SECONDS = 3.0
"""Between two questions; 300 contacts are each asked within 15 minutes."""
FILL_TICK_SECONDS = 2.0
"""The same in the first minutes, while the table fills."""
FILL_SECONDS = 120.0
IDLE_MIN_SECONDS = 10.0
IDLE_MAX_SECONDS = 60.0
"""The same while nobody is due."""
STALE_SECONDS = 900.0
"""A contact that has been silent for so long is asked (BEP 5: 15 minutes)."""
NEIGHBOURHOOD_SECONDS = 900.0
"""Between two look-ups of our own ID."""
REJOIN_MIN_SECONDS = 1.0
REJOIN_MAX_SECONDS = 60.0
"""Waits between attempts to find the network, doubled each time."""


class Upkeep:
    """The clock-work of one table."""

    __slots__ = ("_bucket", "_rng", "_started", "neighbourhood_at", "next_tick", "rejoin_at", "rejoin_wait")

    def __init__(self, now: float, rng: Random) -> None:
        self._rng = rng
        self.restart(now)
        self._bucket = 0

    def restart(self, now: float) -> None:
        """Begin anew, as at the start or in a new network."""
        self._started = now
        self.next_tick = now + FILL_TICK_SECONDS * self._rng.uniform(0.5, 1.5)
        self.neighbourhood_at = now + NEIGHBOURHOOD_SECONDS * self._rng.uniform(0.5, 1.0)
        self.rejoin_at = now
        self.rejoin_wait = REJOIN_MIN_SECONDS

    def tick(self, now: float, table: Table) -> tuple[Contact, bytes] | None:
        """The contact to ask and the target to ask it for; None if nobody is due."""
        pause = FILL_TICK_SECONDS if now - self._started < FILL_SECONDS else TICK_SECONDS
        buckets = table.buckets
        count = len(buckets) if table.look_at <= now else 0
        for step in range(1, count + 1):
            bucket = buckets[(self._bucket + step) % count]
            contact = self._due(now, bucket) if bucket.look_at <= now else None
            if contact is not None:
                self._bucket = (self._bucket + step) % count
                self.next_tick = now + pause * self._rng.uniform(0.75, 1.25)
                bucket.last_updated = now
                low, high = bucket.range
                return contact, random_id_in(self._rng, low, high)
        if count:
            table.look_at = min(bucket.look_at for bucket in buckets)
        rest = table.look_at - now
        self.next_tick = now + min(max(rest, IDLE_MIN_SECONDS), IDLE_MAX_SECONDS) * self._rng.uniform(0.75, 1.25)
        return None

    def _due(self, now: float, bucket: Bucket) -> Contact | None:
        """A contact that is stale, failed or never answered; any if the bucket has room and was left alone."""
        limit = max(now - STALE_SECONDS, 0.0)
        earliest = now
        contact = None
        for contact in bucket.nodes.values():
            if contact.seen <= limit or contact.failures:
                return contact
            earliest = min(earliest, contact.seen)
        if len(bucket.nodes) < bucket.ksize:
            if contact is not None and bucket.last_updated <= limit:
                return contact
            earliest = min(earliest, bucket.last_updated)
        bucket.look_at = earliest + STALE_SECONDS
        return None

    def rejoin(self, now: float) -> None:
        """An attempt to find the network begins; the next one waits longer."""
        self.rejoin_at = now + self.rejoin_wait * self._rng.uniform(0.8, 1.2)
        self.rejoin_wait = min(self.rejoin_wait * 2, REJOIN_MAX_SECONDS)

    def visit(self, now: float) -> None:
        """A look-up of our own ID begins."""
        self.neighbourhood_at = now + NEIGHBOURHOOD_SECONDS * self._rng.uniform(0.8, 1.2)
