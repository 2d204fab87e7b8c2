"""The items that a node keeps for others (BEP 44), bounded and fair.

The store knows nothing of signatures: whoever calls `put` has verified the item, and should ask
`would_accept` before, because verifying costs more than all the rest.

Fairness: every item is charged to the subnet that first wrote it.  When the store is full, the
loser is the item farthest from our own ID among those of the subnet that holds most, counting the
newcomer; so a subnet that floods the store pushes out its own items.  An item stays charged to its
first writer: otherwise whoever repeats somebody's item would draw it into their own quota.
"""

from __future__ import annotations

from typing import NamedTuple

from meshcall.core import Endpoint
from meshcall.dht.items import SALT_BYTES_MAX, SEQ_MAX, VALUE_BYTES_MAX, Item, MutableItem
from meshcall.dht.node_id import subnet_of

ITEMS_MAX = 4000
ITEM_BYTES_MAX_IN_ALL = 4_000_000
ITEMS_PER_SUBNET_MAX = 100
ITEM_LIFE_SECONDS = 7200.0
"""Two hours after it was last put (BEP 44, "Expiration")."""
SEQS_REMEMBERED_MAX = 4000
"""Mutable items that are gone, whose seq is still known."""
SWEEP_SECONDS = 60.0
"""Expired items are never handed out, and taken away at most this much later."""

STORED = 0
SERVER_ERROR = 202
"""BEP 5's code; here: no room for this item."""
PROTOCOL_ERROR = 203
TOO_BIG = 205
SALT_TOO_BIG = 207
CAS_MISMATCH = 301
SEQ_TOO_LOW = 302


class StoredItem(NamedTuple):
    """An item as it is kept."""

    item: Item
    expires: float
    subnet: bytes
    """Of its first writer (`node_id.subnet_of`)."""
    distance: int
    """From our own ID."""


class ItemStore:
    """Items by target, at most `items_max` of together `bytes_max` bytes (value and salt)."""

    __slots__ = (
        "_bytes_max",
        "_gone",
        "_gone_before",
        "_gone_turn",
        "_held",
        "_items_max",
        "_life",
        "_oldest",
        "_own_id",
        "_per_subnet_max",
        "_plan",
        "_seqs_max",
        "_stored",
        "_sweep_due",
        "bytes",
    )

    def __init__(
        self,
        own_id: bytes,
        items_max: int = ITEMS_MAX,
        bytes_max: int = ITEM_BYTES_MAX_IN_ALL,
        per_subnet_max: int = ITEMS_PER_SUBNET_MAX,
        life_seconds: float = ITEM_LIFE_SECONDS,
        seqs_remembered_max: int = SEQS_REMEMBERED_MAX,
    ) -> None:
        self._own_id = int.from_bytes(own_id, "big")
        self._items_max = items_max
        self._bytes_max = bytes_max
        self._per_subnet_max = per_subnet_max
        self._life = life_seconds
        self._seqs_max = seqs_remembered_max
        self.bytes = 0
        """Bytes of all values and salts."""
        self._stored: dict[bytes, StoredItem] | None = None
        self._held: dict[bytes, int] = {}
        self._oldest = self._sweep_due = 0.0
        # The seq of mutable items that expired or were pushed out, kept for one to two lives more:
        # else whoever has kept an old version could bring it back as soon as the new one has gone.
        self._gone: dict[bytes, int] | None = None
        self._gone_before: dict[bytes, int] | None = None
        self._gone_turn = 0.0
        # what would_accept found out for the put that mostly follows
        self._plan: tuple[bytes, bytes, int, list[bytes] | None] | None = None

    @property
    def items(self) -> int:
        """Number of items."""
        return len(self._stored or ())

    @property
    def next_expiry(self) -> float | None:
        """When `expire` wants to be called; None while there is nothing to expire."""
        return self._sweep_due if self._stored else None

    def get(self, now: float, target: bytes) -> StoredItem | None:
        """The item under this target of 20 bytes."""
        if not self._stored:
            return None
        found = self._stored.get(target)
        return found if found is not None and found.expires > now else None

    def holds(self, now: float, item: Item) -> bool:
        """Whether exactly this item, signature included, is kept: then it need not be verified again."""
        found = self.get(now, item.target)
        return found is not None and found.item == item

    def would_accept(self, now: float, source: Endpoint, item: Item, cas: int | None) -> int:
        """What `put` would return.  Changes nothing but the room that expired items took."""
        return self._judge(now, source, item, cas, item.target)

    def put(self, now: float, source: Endpoint, item: Item, cas: int | None = None) -> int:
        """Keep a verified item.  0, or the code of the error to be sent.

        205: value over 1000 bytes as bencoded.  207: salt over 64 bytes.  301: `cas` is not the seq of
        the present item (without one it does not count).  302: seq lower than the present one's or
        one lately held, or equal with other content; equal with the same content makes the item live
        anew.  202: no room for this item.  203: seq negative or over 63 bits.
        """
        target = item.target
        code = self._judge(now, source, item, cas, target)
        if code:
            return code
        stored = self._stored
        if stored is None:
            stored = self._stored = {}
        expires = now + self._life
        old = stored.get(target)
        if old is not None:
            size = _size(old.item)
            if item != old.item:
                self._push_out(now, self._losers(target, old.subnet, _size(item)))
                self.bytes += _size(item) - size
            stored[target] = old._replace(item=item, expires=expires)
        else:
            subnet = subnet_of(source)
            self._push_out(now, self._losers(target, subnet, _size(item)))
            if not stored:
                self._oldest = expires
                self._sweep_due = max(expires, now + SWEEP_SECONDS)
            stored[target] = StoredItem(item, expires, subnet, self._own_id ^ int.from_bytes(target, "big"))
            self._held[subnet] = self._held.get(subnet, 0) + 1
            self.bytes += _size(item)
        self._plan = None
        return STORED

    def move(self, own_id: bytes) -> None:
        """Take a new node ID of our own; all items stay."""
        self._own_id = int.from_bytes(own_id, "big")
        self._plan = None
        stored = self._stored or {}
        for target, entry in stored.items():
            stored[target] = entry._replace(distance=self._own_id ^ int.from_bytes(target, "big"))

    def expire(self, now: float) -> None:
        """Take away what is too old.  Costs nothing before `next_expiry`."""
        if self._stored and now >= self._sweep_due:
            self._sweep(now)

    def _judge(self, now: float, source: Endpoint, item: Item, cas: int | None, target: bytes) -> int:
        if len(item.value) > VALUE_BYTES_MAX:
            return TOO_BIG
        if isinstance(item, MutableItem):
            if len(item.salt) > SALT_BYTES_MAX:
                return SALT_TOO_BIG
            if not 0 <= item.seq <= SEQ_MAX:
                return PROTOCOL_ERROR
        if self._stored:
            old = self._stored.get(target)
            if old is not None and old.expires <= now:
                self._remove(now, target)
                old = None
            if old is not None:
                return self._judge_change(old, item, cas, target)
        if isinstance(item, MutableItem) and item.seq < self._seq_gone(target):
            return SEQ_TOO_LOW
        if self._is_short(1, _size(item)) and self._stored and now >= self._oldest:
            self._sweep(now)
        return STORED if self._losers(target, subnet_of(source), _size(item)) is not None else SERVER_ERROR

    def _judge_change(self, old: StoredItem, item: Item, cas: int | None, target: bytes) -> int:
        present = old.item
        if not isinstance(item, MutableItem):
            # a value may look like a public key; whoever can sign has the better right to the target
            return SERVER_ERROR if isinstance(present, MutableItem) else STORED
        if isinstance(present, MutableItem):
            if cas is not None and cas != present.seq:
                return CAS_MISMATCH
            if item.seq < present.seq or (item.seq == present.seq and item.value != present.value):
                return SEQ_TOO_LOW
        return STORED if self._losers(target, old.subnet, _size(item)) is not None else SERVER_ERROR

    def _is_short(self, items: int, size: int) -> bool:
        return self.items + items > self._items_max or self.bytes + size > self._bytes_max

    def _losers(self, target: bytes, subnet: bytes, size: int) -> list[bytes] | None:
        """Whose room the item of `size` under `target` would take, most often nobody's; None: it loses itself."""
        stored = self._stored or {}
        old = stored.get(target)
        more_items, more_bytes = (1, size) if old is None else (0, size - _size(old.item))
        held = self._held.get(subnet, 0) + more_items
        over_quota = old is None and held > self._per_subnet_max
        if not over_quota and not self._is_short(more_items, more_bytes):
            return []
        if self._plan is not None and self._plan[:3] == (target, subnet, size):
            return self._plan[3]
        losers = self._choose(target, subnet, held, over_quota, more_items, more_bytes)
        self._plan = (target, subnet, size, losers)
        return losers

    def _choose(
        self, target: bytes, subnet: bytes, held: int, over_quota: bool, more_items: int, more_bytes: int
    ) -> list[bytes] | None:
        stored = self._stored or {}
        counts = {**self._held, subnet: held}
        newcomer = self._own_id ^ int.from_bytes(target, "big") if more_items else -1
        losers: list[bytes] = []
        freed = 0
        while over_quota or self._is_short(more_items - len(losers), more_bytes - freed):
            most = held if over_quota else max(counts.values())
            # one loser out of thousands: this loop is what a full store costs
            farthest, loser = -1, b""
            for each, entry in stored.items():
                distance = entry[3]
                if distance > farthest and each != target and each not in losers:
                    holder = entry[2]
                    if holder == subnet if over_quota else counts[holder] == most:
                        farthest, loser = distance, each
            if newcomer > farthest and (over_quota or counts[subnet] == most):
                return None
            if not loser:
                # an update whose own subnet holds most, and nothing but this item: the next largest
                if not any(count for holder, count in counts.items() if holder != subnet):
                    return None
                counts[subnet] = 0
                continue
            counts[stored[loser].subnet] -= 1
            freed += _size(stored[loser].item)
            losers.append(loser)
            over_quota = False
        return losers

    def _push_out(self, now: float, losers: list[bytes] | None) -> None:
        for target in losers or ():
            self._remove(now, target)

    def _remove(self, now: float, target: bytes) -> None:
        if self._stored is None:
            return
        old = self._stored.pop(target)
        count = self._held[old.subnet] - 1
        if count:
            self._held[old.subnet] = count
        else:
            del self._held[old.subnet]
        self.bytes -= _size(old.item)
        self._plan = None
        if isinstance(old.item, MutableItem):
            self._remember_gone(now, target, old.item.seq)

    def _remember_gone(self, now: float, target: bytes, seq: int) -> None:
        if self._gone is None or now >= self._gone_turn or len(self._gone) * 2 >= self._seqs_max:
            self._gone_before = None if now >= self._gone_turn + self._life else self._gone
            self._gone = {}
            self._gone_turn = now + self._life
        self._gone[target] = seq

    def _seq_gone(self, target: bytes) -> int:
        if self._gone is None:
            return 0
        before = 0 if self._gone_before is None else self._gone_before.get(target, 0)
        return max(before, self._gone.get(target, 0))

    def _sweep(self, now: float) -> None:
        stored = self._stored or {}
        for target in [target for target, entry in stored.items() if entry.expires <= now]:
            self._remove(now, target)
        if stored:
            self._oldest = min(entry.expires for entry in stored.values())
            self._sweep_due = max(self._oldest, now + SWEEP_SECONDS)
        else:
            self._stored = None


def _size(item: Item) -> int:
    return len(item.value) + len(item.salt) if isinstance(item, MutableItem) else len(item.value)
