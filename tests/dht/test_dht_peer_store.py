"""Announced peers."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from meshcall.core import Endpoint, endpoint
from meshcall.dht.node_id import subnet_of
from meshcall.dht.peer_store import PEER_LIFE_SECONDS, PeerStore

HASH = b"h" * 20
RNG = Random(1)


def peer(subnet: int, host: int = 1, port: int = 6881) -> Endpoint:
    return endpoint(f"9.{subnet >> 8}.{subnet & 255}.{host}", port)


def test_announced_peers_are_found_by_family() -> None:
    store = PeerStore()
    assert store.next_expiry is None
    assert store.announce(0.0, HASH, peer(1))
    assert store.announce(0.0, HASH, endpoint("2001:db8::1", 6881))
    assert store.peers(0.0, HASH, 6, 10, RNG) == [peer(1)]
    assert store.peers(0.0, HASH, 18, 10, RNG) == [endpoint("2001:db8::1", 6881)]
    assert store.peers(0.0, b"x" * 20, 6, 10, RNG) == []
    assert store.count == 2


def test_peers_live_thirty_minutes_from_the_last_announcement() -> None:
    store = PeerStore()
    store.announce(0.0, HASH, peer(1))
    store.announce(0.0, HASH, peer(2))
    store.announce(1000.0, HASH, peer(1))
    assert store.peers(PEER_LIFE_SECONDS, HASH, 6, 10, RNG) == [peer(1)]
    assert store.next_expiry is not None
    store.expire(PEER_LIFE_SECONDS)
    assert store.count == 1
    store.expire(1000.0 + PEER_LIFE_SECONDS)
    assert store.count == 0
    assert store.next_expiry is None


def test_a_sample_is_drawn_from_a_long_list() -> None:
    store = PeerStore()
    for number in range(200):
        store.announce(0.0, HASH, peer(number))
    drawn = store.peers(0.0, HASH, 6, 20, Random(1))
    assert len(set(drawn)) == 20
    assert drawn != store.peers(0.0, HASH, 6, 20, Random(2))


def test_unusable_endpoints_are_refused() -> None:
    store = PeerStore()
    assert not store.announce(0.0, HASH, endpoint("239.1.2.3", 6881))
    assert not store.announce(0.0, HASH, Endpoint(bytes((9, 9, 9, 9, 0, 0))))
    assert store.count == 0


def test_a_flood_from_one_subnet_drives_out_nobody() -> None:
    store = PeerStore(peers_max=300, per_hash_max=50, per_subnet_max=100, per_subnet_and_hash_max=8)
    honest = [peer(number) for number in range(40)]
    for each in honest:
        assert store.announce(0.0, HASH, each)
    for number in range(5000):
        info_hash = HASH if number % 2 else number.to_bytes(20, "big")
        store.announce(1.0, info_hash, peer(999, number % 250 + 1, 1000 + number))
    assert store.count <= 300
    found = store.peers(2.0, HASH, 6, 1000, RNG)
    assert set(honest) <= set(found)
    assert len(found) <= 48


def test_a_full_list_and_a_full_store_still_take_newcomers_from_small_subnets() -> None:
    store = PeerStore(peers_max=100, per_hash_max=50, per_subnet_max=60, per_subnet_and_hash_max=60)
    for number in range(60):
        store.announce(0.0, HASH, peer(999, number + 1))
    for number in range(60):
        assert store.announce(1.0, HASH, peer(number))
    assert len(store.peers(1.0, HASH, 6, 1000, RNG)) == 50
    for number in range(200):
        assert store.announce(2.0, number.to_bytes(20, "big"), peer(1000 + number))
    assert store.count <= 100


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 600), st.integers(0, 3), st.integers(0, 5), st.integers(1, 6), st.booleans()),
        max_size=120,
    )
)
def test_bounds_hold_whatever_comes(steps: list[tuple[float, int, int, int, bool]]) -> None:
    store = PeerStore(peers_max=12, per_hash_max=6, per_subnet_max=5, per_subnet_and_hash_max=3)
    now = 0.0
    last: dict[tuple[bytes, Endpoint], float] = {}
    hashes = [bytes([n]) * 20 for n in range(4)]
    for wait, which, subnet, host, expires in steps:
        now += wait
        if expires:
            store.expire(now)
        where = peer(subnet, host)
        if store.announce(now, hashes[which], where):
            last[hashes[which], where] = now
            assert where in store.peers(now, hashes[which], 6, 100, RNG)
        assert store.count <= 12
        everything = [(each, found) for each in hashes for found in store.peers(now, each, 6, 100, RNG)]
        for info_hash, found in everything:
            assert now - last[info_hash, Endpoint(found)] < PEER_LIFE_SECONDS
        by_subnet: dict[bytes, int] = {}
        for _, found in everything:
            by_subnet[subnet_of(Endpoint(found))] = by_subnet.get(subnet_of(Endpoint(found)), 0) + 1
        assert all(count <= 5 for count in by_subnet.values())
        for info_hash in hashes:
            here = [subnet_of(Endpoint(found)) for each, found in everything if each == info_hash]
            assert len(here) <= 6
            assert all(here.count(each) <= 3 for each in here)
