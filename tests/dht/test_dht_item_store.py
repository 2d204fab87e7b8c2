"""The store of BEP 44 items: rules, bounds, fairness, and a model to compare with."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshcall.core import Endpoint, endpoint
from meshcall.dht.item_store import (
    CAS_MISMATCH,
    ITEM_LIFE_SECONDS,
    PROTOCOL_ERROR,
    SALT_TOO_BIG,
    SEQ_TOO_LOW,
    SERVER_ERROR,
    STORED,
    TOO_BIG,
    ItemStore,
)
from meshcall.dht.items import ImmutableItem, Item, MutableItem
from meshcall.dht.node_id import subnet_of

OWN = bytes(20)
SIGNATURE = bytes(64)


def writer(subnet: int, host: int = 1) -> Endpoint:
    return endpoint(f"9.{subnet >> 8}.{subnet & 255}.{host}", 6881)


def mutable(key: int, seq: int = 1, value: bytes = b"1:v", salt: bytes = b"") -> MutableItem:
    return MutableItem(key.to_bytes(32, "big"), salt, seq, value, SIGNATURE)


def immutable(number: int, size: int = 100) -> ImmutableItem:
    body = number.to_bytes(size - 4, "big")
    return ImmutableItem(b"%d:%s" % (len(body), body))


def by_distance(count: int) -> list[ImmutableItem]:
    """Items in the order of their distance from `OWN`, nearest first."""
    return sorted((immutable(number) for number in range(count)), key=lambda item: item.target)


def test_an_empty_store() -> None:
    store = ItemStore(OWN)
    assert store.get(0.0, bytes(20)) is None
    assert (store.items, store.bytes, store.next_expiry) == (0, 0, None)
    store.expire(1e9)


def test_items_are_found_for_two_hours_after_they_were_last_put() -> None:
    store = ItemStore(OWN)
    item = mutable(1)
    assert store.would_accept(0.0, writer(1), item, None) == STORED
    assert store.items == 0
    assert store.put(0.0, writer(1), item) == STORED
    found = store.get(ITEM_LIFE_SECONDS - 1, item.target)
    assert found is not None
    assert found.item == item
    assert found.expires == ITEM_LIFE_SECONDS
    assert store.put(1000.0, writer(2), item) == STORED
    assert store.get(ITEM_LIFE_SECONDS + 999, item.target) is not None
    assert store.get(ITEM_LIFE_SECONDS + 1000, item.target) is None
    store.expire(ITEM_LIFE_SECONDS + 1000)
    assert (store.items, store.bytes, store.next_expiry) == (0, 0, None)


def test_only_the_very_same_item_is_held() -> None:
    store = ItemStore(OWN)
    item = mutable(1)
    assert not store.holds(0.0, item)
    store.put(0.0, writer(1), item)
    assert store.holds(0.0, item)
    assert not store.holds(0.0, MutableItem(item.public, b"", 1, b"1:v", b"x" * 64))
    assert not store.holds(ITEM_LIFE_SECONDS, item)


def test_sizes() -> None:
    store = ItemStore(OWN)
    assert store.put(0.0, writer(1), ImmutableItem(b"996:" + bytes(996))) == STORED
    assert store.put(0.0, writer(1), ImmutableItem(b"997:" + bytes(997))) == TOO_BIG
    assert store.put(0.0, writer(1), mutable(1, value=b"997:" + bytes(997))) == TOO_BIG
    assert store.put(0.0, writer(1), mutable(1, salt=bytes(64))) == STORED
    assert store.put(0.0, writer(1), mutable(1, salt=bytes(65))) == SALT_TOO_BIG
    assert store.put(0.0, writer(1), mutable(2, seq=-1)) == PROTOCOL_ERROR
    assert store.put(0.0, writer(1), mutable(2, seq=2**63)) == PROTOCOL_ERROR
    assert store.put(0.0, writer(1), mutable(2, seq=2**63 - 1)) == STORED


def test_seq_only_grows() -> None:
    store = ItemStore(OWN)
    assert store.put(0.0, writer(1), mutable(1, 5)) == STORED
    assert store.put(0.0, writer(1), mutable(1, 4)) == SEQ_TOO_LOW
    assert store.put(0.0, writer(1), mutable(1, 5, b"1:w")) == SEQ_TOO_LOW
    assert store.put(1.0, writer(1), mutable(1, 5)) == STORED
    assert store.put(0.0, writer(1), mutable(1, 6, b"1:w")) == STORED
    found = store.get(0.0, mutable(1).target)
    assert found is not None
    assert found.item == mutable(1, 6, b"1:w")


def test_cas() -> None:
    store = ItemStore(OWN)
    assert store.put(0.0, writer(1), mutable(1, 5), cas=99) == STORED  # nothing there to compare with
    assert store.put(0.0, writer(1), mutable(1, 6), cas=4) == CAS_MISMATCH
    assert store.put(0.0, writer(1), mutable(1, 3), cas=4) == CAS_MISMATCH
    assert store.put(0.0, writer(1), mutable(1, 4), cas=5) == SEQ_TOO_LOW
    assert store.put(0.0, writer(1), mutable(1, 7), cas=5) == STORED
    assert store.put(0.0, writer(1), mutable(1, 8), cas=5) == CAS_MISMATCH


def test_an_older_version_does_not_come_back_when_the_newer_has_expired() -> None:
    store = ItemStore(OWN)
    store.put(0.0, writer(1), mutable(1, 5))
    now = ITEM_LIFE_SECONDS + 1
    assert store.put(now, writer(2), mutable(1, 4)) == SEQ_TOO_LOW
    store.expire(now)
    assert store.put(now, writer(2), mutable(1, 4)) == SEQ_TOO_LOW
    assert store.put(now, writer(1), mutable(1, 5)) == STORED
    assert store.get(now, mutable(1).target) is not None


def test_an_older_version_does_not_come_back_when_the_newer_was_pushed_out() -> None:
    store = ItemStore(OWN, items_max=10, per_subnet_max=2)
    items = sorted((mutable(number, 5) for number in range(4)), key=lambda item: item.target)
    for item in reversed(items):
        assert store.put(0.0, writer(1), item) == STORED
    far = items[-1]
    assert store.get(0.0, far.target) is None
    assert store.put(0.0, writer(9), MutableItem(far.public, b"", 4, b"1:v", SIGNATURE)) == SEQ_TOO_LOW


def test_a_value_that_looks_like_a_public_key_does_not_take_its_place() -> None:
    public = b"29:" + bytes(29)
    store = ItemStore(OWN)
    item = MutableItem(public, b"", 1, b"1:v", SIGNATURE)
    assert item.target == ImmutableItem(public).target
    assert store.put(0.0, writer(1), ImmutableItem(public)) == STORED
    assert store.put(0.0, writer(2), item) == STORED
    assert store.put(0.0, writer(1), ImmutableItem(public)) == SERVER_ERROR
    found = store.get(0.0, item.target)
    assert found is not None
    assert found.item == item


def test_a_subnet_over_its_quota_replaces_its_farthest_item() -> None:
    store = ItemStore(OWN, per_subnet_max=3)
    items = by_distance(6)
    for item in (items[1], items[3], items[5]):
        assert store.put(0.0, writer(1, host=7), item) == STORED
    assert store.put(0.0, writer(1), items[2]) == STORED
    assert store.get(0.0, items[5].target) is None
    assert store.put(0.0, writer(1), items[4]) == SERVER_ERROR
    assert store.put(0.0, writer(2), items[4]) == STORED
    assert store.items == 4


def test_a_flood_from_one_subnet_drives_out_nobody() -> None:
    store = ItemStore(OWN, items_max=200, bytes_max=1_000_000, per_subnet_max=150)
    rng = Random(3)
    honest = [immutable(rng.getrandbits(64)) for _ in range(100)]
    for number, item in enumerate(honest):
        assert store.put(0.0, writer(number // 2), item) == STORED
    for number in range(3000):
        store.put(1.0, writer(999, number % 250 + 1), immutable(10_000_000 + number))
    assert store.items == 200
    assert all(store.get(2.0, item.target) for item in honest)
    # and somebody new still finds room, at the flood's cost
    newcomers = [immutable(20_000_000 + number) for number in range(50)]
    assert [store.put(3.0, writer(2000 + number), item) for number, item in enumerate(newcomers)] == [STORED] * 50
    assert all(store.get(3.0, item.target) for item in honest)


def test_in_a_full_store_of_equals_a_flood_takes_one_place_at_most() -> None:
    store = ItemStore(OWN, items_max=100, per_subnet_max=50)
    honest = [immutable(number) for number in range(100)]
    for number, item in enumerate(honest):
        assert store.put(0.0, writer(number), item) == STORED
    for number in range(3000):
        store.put(1.0, writer(999), immutable(10_000_000 + number))
    assert sum(store.get(2.0, item.target) is None for item in honest) <= 1


def test_repeating_others_items_does_not_draw_them_into_the_floods_quota() -> None:
    store = ItemStore(OWN, items_max=60, per_subnet_max=60)
    honest = [mutable(number) for number in range(20)]
    for number, item in enumerate(honest):
        store.put(0.0, writer(number), item)
    for item in honest:
        store.put(1.0, writer(999), item)
    for number in range(2000):
        store.put(2.0, writer(999), immutable(number))
    assert all(store.get(3.0, item.target) for item in honest)


def test_bytes_are_bounded_also_when_items_grow() -> None:
    store = ItemStore(OWN, items_max=1000, bytes_max=10_000)
    for number in range(100):
        assert store.put(0.0, writer(number), mutable(number, 1, b"96:" + bytes(96))) == STORED
        assert store.bytes <= 10_000
    assert store.items == 100 or store.bytes > 9_800
    for number in range(100):
        was_there = store.get(0.0, mutable(number).target)
        code = store.put(0.0, writer(number), mutable(number, 2, b"900:" + bytes(900)))
        assert store.bytes <= 10_000
        if was_there:
            assert code == STORED
            found = store.get(0.0, mutable(number).target)
            assert found is not None
            assert found.item.value == b"900:" + bytes(900)


def test_a_refused_newcomer_pushes_out_nobody() -> None:
    store = ItemStore(OWN, items_max=100, bytes_max=1000)
    items = by_distance(11)
    for item in items[:10]:
        assert store.put(0.0, writer(1), item) == STORED
    assert store.would_accept(0.0, writer(1), items[10], None) == SERVER_ERROR
    assert store.put(0.0, writer(1), items[10]) == SERVER_ERROR
    assert store.put(0.0, writer(1), ImmutableItem(b"999:" + bytes(999))) == TOO_BIG
    assert store.items == 10


def test_expired_items_make_room_before_living_ones_are_pushed_out() -> None:
    store = ItemStore(OWN, items_max=10)
    old = [immutable(number) for number in range(5)]
    new = [immutable(number) for number in range(100, 105)]
    for number, item in enumerate(old):
        store.put(0.0, writer(number), item)
    for number, item in enumerate(new):
        store.put(7000.0, writer(100 + number), item)
    late = [immutable(number) for number in range(200, 205)]
    for number, item in enumerate(late):
        assert store.put(ITEM_LIFE_SECONDS + 1, writer(200 + number), item) == STORED
    assert all(store.get(ITEM_LIFE_SECONDS + 1, item.target) for item in new + late)


def test_a_new_own_id_changes_who_is_farthest() -> None:
    store = ItemStore(OWN, items_max=10)
    items = by_distance(11)
    for number, item in enumerate(items[1:]):
        store.put(0.0, writer(number), item)
    store.move(b"\xff" * 20)
    assert store.put(0.0, writer(50), items[0]) == SERVER_ERROR
    store.move(OWN)
    assert store.put(0.0, writer(50), items[0]) == STORED
    assert store.get(0.0, items[10].target) is None


@pytest.mark.parametrize("items_max", [0, 1])
def test_tiny_stores(items_max: int) -> None:
    store = ItemStore(OWN, items_max=items_max)
    for number in range(20):
        store.put(0.0, writer(number), immutable(number))
        store.put(0.0, writer(number), mutable(number))
        assert store.items <= items_max


@dataclass
class Kept:
    item: Item
    expires: float
    subnet: bytes


class Model(RuleBasedStateMachine):
    """The store beside a naive model that writes the rules down once more, without any economy."""

    ITEMS, BYTES, PER_SUBNET, LIFE = 6, 60, 4, 1000.0

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.store = ItemStore(OWN, self.ITEMS, self.BYTES, self.PER_SUBNET, self.LIFE)
        self.kept: dict[bytes, Kept] = {}
        self.highest: dict[bytes, int] = {}

    def alive(self) -> dict[bytes, Kept]:
        return {target: kept for target, kept in self.kept.items() if kept.expires > self.now}

    @staticmethod
    def size(item: Item) -> int:
        return len(item.value) + (len(item.salt) if isinstance(item, MutableItem) else 0)

    def losers(self, target: bytes, subnet: bytes, size: int) -> list[bytes] | None:
        """After adding the item: while over a bound, the farthest item of a largest subnet goes."""
        everything = self.alive()
        is_new = target not in everything
        world = {each: (kept.subnet, self.size(kept.item)) for each, kept in everything.items()}
        world[target] = (subnet if is_new else everything[target].subnet, size)
        gone: list[bytes] = []
        while True:
            counts: dict[bytes, int] = {}
            for holder, _ in world.values():
                counts[holder] = counts.get(holder, 0) + 1
            over_quota = is_new and not gone and counts[subnet] > self.PER_SUBNET
            total = sum(each for _, each in world.values())
            if not over_quota and len(world) <= self.ITEMS and total <= self.BYTES:
                return gone
            candidates = {each: value for each, value in world.items() if is_new or each != target}
            if not candidates:
                return None
            if over_quota:
                crowd = [each for each, (holder, _) in candidates.items() if holder == subnet]
            else:
                most = max(counts[holder] for holder, _ in candidates.values())
                crowd = [each for each, (holder, _) in candidates.items() if counts[holder] == most]
            loser = max(crowd)
            if loser == target:
                return None
            del world[loser]
            gone.append(loser)

    def judge(self, source: Endpoint, item: Item, cas: int | None) -> tuple[int, list[bytes]]:
        old = self.alive().get(item.target)
        if isinstance(item, MutableItem):
            if old is not None and isinstance(old.item, MutableItem):
                if cas is not None and cas != old.item.seq:
                    return CAS_MISMATCH, []
                if (item.seq, item.value) != (old.item.seq, old.item.value) and item.seq <= old.item.seq:
                    return SEQ_TOO_LOW, []
            elif item.seq < self.highest.get(item.target, 0):
                return SEQ_TOO_LOW, []
        losers = self.losers(item.target, subnet_of(source), self.size(item))
        return (SERVER_ERROR, []) if losers is None else (STORED, losers)

    def put(self, source: Endpoint, item: Item, cas: int | None, asks_first: bool) -> None:
        code, losers = self.judge(source, item, cas)
        if asks_first:
            assert self.store.would_accept(self.now, source, item, cas) == code
        assert self.store.put(self.now, source, item, cas) == code
        if code:
            return
        for loser in losers:
            del self.kept[loser]
        old = self.alive().get(item.target)
        subnet = subnet_of(source) if old is None else old.subnet
        self.kept[item.target] = Kept(item, self.now + self.LIFE, subnet)
        if isinstance(item, MutableItem):
            self.highest[item.target] = max(item.seq, self.highest.get(item.target, 0))

    @rule(
        who=st.integers(0, 4),
        key=st.integers(0, 9),
        seq=st.integers(0, 4),
        size=st.integers(1, 40),
        cas=st.none() | st.integers(0, 4),
        asks_first=st.booleans(),
    )
    def put_mutable(self, who: int, key: int, seq: int, size: int, cas: int | None, asks_first: bool) -> None:
        self.put(writer(who), mutable(key, seq, b"%d:%s" % (size, bytes(size))), cas, asks_first)

    @rule(who=st.integers(0, 4), number=st.integers(0, 9), size=st.integers(5, 30), asks_first=st.booleans())
    def put_immutable(self, who: int, number: int, size: int, asks_first: bool) -> None:
        self.put(writer(who), immutable(number, size), None, asks_first)

    # the store may forget seqs after two lives, the model does not, so its time is short
    @precondition(lambda self: self.now < 2 * self.LIFE - 700)
    @rule(seconds=st.floats(0, 700))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        self.store.expire(self.now)

    @invariant()
    def same_items(self) -> None:
        alive = self.alive()
        for target in self.kept:
            found = self.store.get(self.now, target)
            if target in alive:
                assert found is not None
                assert found.item == alive[target].item
                assert found.expires == alive[target].expires
                assert found.subnet == alive[target].subnet
            else:
                assert found is None
        assert self.store.items >= len(alive)

    @invariant()
    def bounds(self) -> None:
        assert self.store.items <= self.ITEMS
        assert self.store.bytes <= self.BYTES
        assert (self.store.next_expiry is None) == (self.store.items == 0)


Model.TestCase.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
TestModel = Model.TestCase
