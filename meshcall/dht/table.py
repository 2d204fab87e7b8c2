"""The routing table of one address family, on the `kademlia` package's RoutingTable and KBucket.

What is changed, and why: the exact k nearest are found (the package stops at the first k that it
meets); a full bucket names the contact to be pinged and starts nothing itself (no asyncio, no
clock in here); a bucket splits if it holds our own ID, or down to SPLIT_BITS for faster look-ups
(Kademlia paper, section 4.2); buckets and the whole table bound the contacts of one public subnet.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain

from kademlia.node import Node
from kademlia.routing import KBucket, RoutingTable

from meshcall.core import Endpoint
from meshcall.dht.contact import Contact
from meshcall.dht.node_id import fits_bep42, is_global, subnet_of

SPLIT_BITS = 4
"""All of the ID space is divided this finely; below, only around our own ID.  In a network of 1,000 a
node then knows a holder of a random key beforehand seven times out of ten; with one more bit, and
nearly twice the memory, nine times."""
REPLACEMENTS_MAX = 4
"""Contacts per bucket that wait for a place."""
SUBNET_BUCKET_MAX = 2
"""Contacts of one public subnet (/24, /48) in one bucket."""
SUBNET_TABLE_MAX = 16
"""Contacts of one public subnet in the table."""
CROWDS = 251
"""Cells in which the subnets of the table are counted together."""
FAILURES_MAX = 3
"""Unanswered requests in a row after which a contact leaves even if nobody waits for its place."""


Identity = tuple[bytes, Endpoint, int]
"""ID, endpoint and ID as a number.  Several nodes in one process can share a pool of these (keyed by ID
and endpoint together), so that each exists once; the pool grows with the network, so no daemon has one."""


@lru_cache(maxsize=1 << (SPLIT_BITS + 2))
def _range(lowest: int, highest: int) -> tuple[int, int]:
    """One tuple for the ranges that all tables have in common."""
    return lowest, highest


class Bucket(KBucket):
    """A k-bucket in plain dictionaries (half the memory of ordered ones), without a clock.

    `range` is (lowest, highest) ID, both included; `depth` is that of the range, not of the members.
    `look_at`: before then, none of its contacts needs to be asked whether it is alive.
    `may_split`: whether the table's rule lets it be divided further.
    """

    nodes: dict[bytes, Contact]
    replacement_nodes: dict[bytes, Contact]

    def __init__(self, lowest: int, highest: int, ksize: int) -> None:
        self.range = _range(lowest, highest)
        self.nodes = {}
        self.replacement_nodes = {}
        self.ksize = ksize
        self.max_replacement_nodes = REPLACEMENTS_MAX
        self.last_updated = 0.0
        self.look_at = 0.0
        self.may_split = True

    def touch_last_updated(self) -> None:
        """The table's owner sets `last_updated` by its own `now`."""

    def depth(self) -> int:
        """Bits of the prefix that all IDs of the range share."""
        return 160 - (self.range[1] - self.range[0] + 1).bit_length() + 1

    def split(self) -> tuple[Bucket, Bucket]:
        """Two halves with the contacts and those who waited."""
        lowest, highest = self.range
        middle = (lowest + highest) // 2
        halves = Bucket(lowest, middle, self.ksize), Bucket(middle + 1, highest, self.ksize)
        for half in halves:
            half.last_updated, half.look_at = self.last_updated, self.look_at
        for contact in chain(self.nodes.values(), self.replacement_nodes.values()):
            halves[contact.long_id > middle].add_node(contact)
        return halves

    def add_node(self, contact: Contact) -> bool:
        """As the base class has it, for plain dictionaries."""
        if contact.id in self.nodes or len(self.nodes) < self.ksize:
            self.replacement_nodes.pop(contact.id, None)
            self.nodes[contact.id] = contact
            return True
        self.replacement_nodes.pop(contact.id, None)
        self.replacement_nodes[contact.id] = contact
        while len(self.replacement_nodes) > self.max_replacement_nodes:
            del self.replacement_nodes[next(iter(self.replacement_nodes))]
        return False

    def remove_node(self, contact: Contact) -> None:
        """Take the contact out; the newest of those who wait gets its place."""
        self.replacement_nodes.pop(contact.id, None)
        if self.nodes.pop(contact.id, None) is not None and self.replacement_nodes:
            node_id, promoted = self.replacement_nodes.popitem()
            self.nodes[node_id] = promoted


class Table(RoutingTable):
    """Contacts of one family.  `size` is their number."""

    buckets: list[Bucket]
    node: Contact

    def __init__(
        self, own_id: bytes, k: int, split_bits: int = SPLIT_BITS, pool: dict[bytes, Identity] | None = None
    ) -> None:
        self.split_bits = split_bits
        self._pool = pool
        self.look_at = 0.0
        """As in a bucket, for all of them."""
        self.by_endpoint: dict[Endpoint, Contact] = {}
        """Everybody in a bucket or waiting for a place there."""
        self._crowds = bytearray(CROWDS)
        super().__init__(None, k, Contact(own_id, Endpoint(b"")))

    def flush(self) -> None:
        """Forget everybody."""
        self.buckets = [Bucket(0, 2**160 - 1, self.ksize)]
        self._starts = [0]
        self.look_at = 0.0
        self._ids: list[int] = []
        self._ordered: list[Contact] = []
        self.by_endpoint.clear()
        self._crowds = bytearray(CROWDS)

    @property
    def size(self) -> int:
        """Contacts in buckets, without those who wait."""
        return sum(len(bucket.nodes) for bucket in self.buckets)

    @property
    def empty(self) -> bool:
        """Whether nobody is in the table."""
        return not self.by_endpoint

    def split_bucket(self, index: int) -> None:
        """Replace a bucket by its halves."""
        waited = list(self.buckets[index].replacement_nodes.values())
        super().split_bucket(index)
        self._starts.insert(index + 1, self.buckets[index + 1].range[0])
        for half in self.buckets[index : index + 2]:
            half.may_split = self._splits(half)
        for contact in waited:
            if contact.id in self.bucket_for(contact.long_id).nodes:
                self._place(contact)

    def get_bucket_for(self, node: Node) -> int:
        """Index of the bucket whose range holds the ID: by bisection, and right at the edges."""
        return bisect_right(self._starts, node.long_id) - 1

    def bucket_for(self, long_id: int) -> Bucket:
        """The bucket whose range holds this ID."""
        return self.buckets[bisect_right(self._starts, long_id) - 1]

    def at(self, endpoint: Endpoint) -> Contact | None:
        """The contact with this endpoint, in a bucket or waiting."""
        return self.by_endpoint.get(endpoint)

    def contacts(self) -> Iterator[Contact]:
        """All contacts in buckets."""
        for bucket in self.buckets:
            yield from bucket.nodes.values()

    def hear(self, node_id: bytes, endpoint: Endpoint) -> None:
        """Take in a node that others named or that asked us, if there is room.  Until it has answered
        (`seen` is 0.0) it serves our own look-ups only, is named to nobody, and gives way to any that has."""
        if endpoint in self.by_endpoint or node_id == self.node.id:
            return
        index = bisect_right(self._starts, int.from_bytes(node_id, "big")) - 1
        bucket = self.buckets[index]
        if len(bucket.nodes) >= self.ksize:
            if not bucket.may_split:
                return
            bucket = self.buckets[self._split_until_room(index, int.from_bytes(node_id, "big"))]
            if len(bucket.nodes) >= self.ksize:
                return
        if node_id in bucket.nodes or node_id in bucket.replacement_nodes:
            return
        if self._subnet_allows(bucket, endpoint):
            contact = Contact(node_id, endpoint)
            self._count(contact)
            bucket.nodes[contact.id] = contact
            bucket.look_at = self.look_at = 0.0
            self._place(contact)

    def add_contact(self, node: Contact) -> Contact | None:
        """Add a contact that has just answered.  Returns the contact to ping if the bucket is full
        of others: the one that answered longest ago.  One endpoint has one ID at a time."""
        if node.id == self.node.id:
            return None
        known = self.by_endpoint.get(node.endpoint)
        if known is not None and known.id != node.id:
            self.remove_contact(known)
        index = self.get_bucket_for(node)
        bucket = self.buckets[index]
        held = bucket.nodes.get(node.id) or bucket.replacement_nodes.get(node.id)
        if held is not None:
            # Another endpoint claims a known ID: the known one stays as long as it answers.
            if held.endpoint == node.endpoint or (held.seen and not held.failures):
                return None
            if held.seen:
                return held
            self._drop(bucket, held)
        if not self._subnet_allows(bucket, node.endpoint):
            return None
        if len(bucket.nodes) >= self.ksize:
            bucket = self.buckets[self._split_until_room(index, node.long_id)]
        if len(bucket.nodes) >= self.ksize:
            weakest = max(bucket.nodes.values(), key=_weakness)
            if weakest.failures or not weakest.seen or (_unfit(weakest) and not _unfit(node)):
                self._drop(bucket, weakest)
        waited = list(bucket.replacement_nodes.values())
        self._count(node)
        if bucket.add_node(node):
            self._place(node)
            return None
        for lost in waited:
            if lost.id not in bucket.replacement_nodes:
                self._uncount(lost)
        return min(bucket.nodes.values(), key=_last_seen)

    def remove_contact(self, node: Contact) -> None:
        """Take a contact out of the table."""
        self._drop(self.buckets[self.get_bucket_for(node)], node)

    def failed(self, contact: Contact) -> None:
        """A request to the contact went unanswered.  It leaves if somebody waits, or after FAILURES_MAX."""
        contact.failures += 1
        bucket = self.buckets[self.get_bucket_for(contact)]
        bucket.look_at = self.look_at = 0.0
        patience = FAILURES_MAX if contact.seen and not bucket.replacement_nodes else 2 if contact.seen else 1
        if contact.failures >= patience:
            self._drop(bucket, contact)

    def nearest(self, target: int, count: int, live: bool = False) -> list[Contact]:
        """The `count` contacts nearest to the target ID, nearest first: exactly those.  `live`: of
        those only that answered us, and not failed since; such we name to others.

        Aligned ranges around the target grow until they hold enough: whoever is inside such a
        range is nearer than anybody outside.
        """
        ids, ordered = self._ids, self._ordered
        starts = self._starts
        index = bisect_right(starts, target)
        end = starts[index] if index < len(starts) else 1 << 160
        bits = (end - starts[index - 1]).bit_length() - 1
        found: list[Contact] = []
        while True:
            start = target >> bits << bits
            low = bisect_left(ids, start)
            high = bisect_left(ids, start + (1 << bits), low)
            if high - low >= count or bits >= 160:
                found = ordered[low:high]
                if live:
                    found = [contact for contact in found if contact.seen and not contact.failures]
                if len(found) >= count or bits >= 160:
                    break
            bits += 1
        if len(found) > 1:
            found.sort(key=lambda contact: contact.long_id ^ target)
        return found[:count]

    def find_neighbors(self, node: Node, k: int | None = None, exclude: Node | None = None) -> list[Contact]:
        """The package's name for `nearest`, which leaves out the node itself and `exclude`."""
        wanted = k or self.ksize
        found = self.nearest(node.long_id, wanted + 2)
        kept = [c for c in found if c.id != node.id and not (exclude is not None and c.same_home_as(exclude))]
        return kept[:wanted]

    def _split_until_room(self, index: int, long_id: int) -> int:
        """Index of the bucket for this ID after all the splitting that is allowed to make room there."""
        while len(self.buckets[index].nodes) >= self.ksize and self.buckets[index].may_split:
            self.split_bucket(index)
            index = bisect_right(self._starts, long_id) - 1
        return index

    def _splits(self, bucket: Bucket) -> bool:
        if bucket.range[0] == bucket.range[1]:
            return False
        return bucket.has_in_range(self.node) or bucket.depth() < self.split_bits

    def _subnet_allows(self, bucket: Bucket, endpoint: Endpoint) -> bool:
        if not is_global(endpoint[:-2]):
            return True  # a private network is one subnet, and nobody outside can pose as one of it
        subnet = subnet_of(endpoint)
        everybody = chain(bucket.nodes.values(), bucket.replacement_nodes.values())
        same = sum(subnet_of(contact.endpoint) == subnet for contact in everybody)
        if same >= SUBNET_BUCKET_MAX:
            return False
        # A counter for each subnet would be a third of the table's memory.  Cells that several subnets
        # share tell in nearly every case that there are few; only else they are counted exactly.
        if self._crowds[int.from_bytes(subnet, "big") % CROWDS] < SUBNET_TABLE_MAX:
            return True
        width = len(subnet)
        return sum(other[:width] == subnet for other in self.by_endpoint) < SUBNET_TABLE_MAX

    def _count(self, node: Contact) -> None:
        if self._pool is not None:
            key = node.id + node.endpoint
            node.id, node.endpoint, node.long_id = self._pool.setdefault(key, (node.id, node.endpoint, node.long_id))
        self.by_endpoint[node.endpoint] = node
        self._crowd(node.endpoint, 1)

    def _drop(self, bucket: Bucket, node: Contact) -> None:
        if node.id in bucket.nodes or node.id in bucket.replacement_nodes:
            before = len(bucket.replacement_nodes)
            if node.id in bucket.nodes:
                self._unplace(node)
                bucket.remove_node(node)
                if len(bucket.replacement_nodes) < before:
                    self._place(next(reversed(bucket.nodes.values())))
            else:
                bucket.remove_node(node)
            self._uncount(node)

    def _place(self, node: Contact) -> None:
        """A contact came into a bucket: it takes its place in the order of IDs."""
        at = bisect_left(self._ids, node.long_id)
        self._ids.insert(at, node.long_id)
        self._ordered.insert(at, node)

    def _unplace(self, node: Contact) -> None:
        at = bisect_left(self._ids, node.long_id)
        del self._ids[at], self._ordered[at]

    def _uncount(self, node: Contact) -> None:
        if self.by_endpoint.get(node.endpoint) is node:
            del self.by_endpoint[node.endpoint]
            self._crowd(node.endpoint, -1)

    def _crowd(self, endpoint: Endpoint, change: int) -> None:
        cell = int.from_bytes(subnet_of(endpoint), "big") % CROWDS
        self._crowds[cell] = max(0, min(255, self._crowds[cell] + change))


def _last_seen(contact: Contact) -> float:
    return contact.seen


def _unfit(contact: Contact) -> bool:
    """Whether the contact's ID breaks BEP 42; such nodes give way to those that keep to it."""
    return not fits_bep42(contact.id, contact.endpoint[:-2])


def _weakness(contact: Contact) -> tuple[int, bool, float]:
    return contact.failures + (0 if contact.seen else FAILURES_MAX), _unfit(contact), -contact.seen
