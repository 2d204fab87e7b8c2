"""A DHT node is no amplifier, and floods of queries, items and announcements neither stop nor fill it."""

from __future__ import annotations

import gc
import tracemalloc
from random import Random

from meshcall.core import endpoint
from meshcall.dht.config import DhtConfig
from meshcall.dht.limits import (
    AMPLIFICATION_FACTOR,
    AMPLIFIED_SUBNET_BURST_BYTES,
    AMPLIFIED_SUBNET_BYTES_PER_SECOND,
    AMPLIFIED_TOTAL_BURST_BYTES,
    AMPLIFIED_TOTAL_BYTES_PER_SECOND,
)
from meshcall.dht.node import Dht
from meshcall.dht.node_id import subnet_of
from meshcall.wire import krpc
from meshcall.wire.bencode import decode, encode
from tests.dht.stranger import OPEN, SUITE, Stranger, acquaint, code_of, core, item, sent, serves

ALICE = "198.51.100.7"
ITEM = item(b"alice", 5, b"5:hello")


def test_a_spoofed_flood_gets_no_more_than_the_stated_budget() -> None:
    """Big answers to victims in many subnets: at most 3 bytes for each, and the budget."""
    node = core(DhtConfig(reachable="yes", queries_per_second_total=100_000.0))
    acquaint(node, 1.0, [Stranger(f"198.51.{n}.1") for n in range(40)])
    writer = Stranger("192.0.2.1")
    big = item(b"big", 1, encode(b"x" * 990))
    assert writer.put(node, 1.5, big) == 0
    sent(node)
    rng = Random(4)
    query = krpc.query(b"aa", b"get", {b"id": bytes(20), b"target": big.target}, False)
    received: dict[bytes, int] = {}
    answered: dict[bytes, int] = {}
    long: dict[bytes, int] = {}
    begin, seconds = 2.0, 20.0
    for number in range(20_000):
        now = begin + seconds * number / 20_000
        victim = endpoint(f"45.{rng.randrange(3)}.{rng.randrange(20)}.{rng.randrange(1, 255)}", 53)
        subnet = subnet_of(victim)
        received[subnet] = received.get(subnet, 0) + len(query)
        node.receive(now, victim, query)
        for target, data in sent(node):
            if decode(data)[b"y"] == b"q":
                continue
            assert target == victim
            answered[subnet] = answered.get(subnet, 0) + len(data)
            if len(data) > AMPLIFICATION_FACTOR * len(query):
                long[subnet] = long.get(subnet, 0) + len(data)
    per_subnet = AMPLIFIED_SUBNET_BURST_BYTES + AMPLIFIED_SUBNET_BYTES_PER_SECOND * seconds
    in_all = AMPLIFIED_TOTAL_BURST_BYTES + AMPLIFIED_TOTAL_BYTES_PER_SECOND * seconds
    assert max(long.values()) <= per_subnet
    assert sum(long.values()) <= in_all
    for subnet, size in answered.items():
        assert size <= AMPLIFICATION_FACTOR * received[subnet] + per_subnet
    assert sum(answered.values()) <= AMPLIFICATION_FACTOR * sum(received.values()) + in_all
    assert node.counters["cut: budget for unproven addresses"] > 0
    # The writer has proven itself by its token and gets whole answers all the time.
    assert writer.query(node, begin + seconds, b"get", target=big.target)[b"r"][b"v"] == b"x" * 990


def test_a_cut_answer_still_has_a_token_with_which_the_asker_can_prove_itself() -> None:
    node = core()
    acquaint(node, 1.0, [Stranger(f"198.51.{n}.1") for n in range(20)])
    big = item(b"big", 1, encode(b"x" * 990))
    assert Stranger("192.0.2.1").put(node, 1.5, big) == 0
    asker = Stranger("45.1.2.3")
    for _ in range(30):
        answer = asker.query(node, 2.0, b"get", target=big.target)[b"r"]
    assert b"v" not in answer
    assert len(answer[b"token"]) == 8
    assert asker.query(node, 2.0, b"announce_peer", info_hash=bytes(20), port=1, token=answer[b"token"])[b"y"] == b"r"
    assert asker.query(node, 2.0, b"get", target=big.target)[b"r"][b"v"] == b"x" * 990


def test_no_answer_to_an_unproven_address_is_three_times_its_question_without_budget() -> None:
    node = core()
    acquaint(node, 1.0, [Stranger(f"198.51.{n}.1") for n in range(20)])
    asker = Stranger("45.1.2.3")
    while node.counters.get("cut: budget for unproven addresses", 0) < 1:
        asker.query(node, 1.6, b"get", target=bytes(20))
    methods = (b"ping", b"find_node", b"get_peers", b"get", b"put", b"announce_peer", b"x")
    for number, method in enumerate(methods):
        for arguments in ({}, {b"target": bytes(20), b"info_hash": bytes(20), b"want": [b"n4", b"n6"]}):
            query = krpc.query(b"t" * (1 + number), method, {b"id": bytes(20), **arguments}, False)
            node.receive(1.61, asker.where, query)
            for target, data in sent(node):
                assert target != asker.where or len(data) <= AMPLIFICATION_FACTOR * len(query)


def test_one_source_is_served_at_its_rate_and_others_meanwhile() -> None:
    node, flooder, friend = core(), Stranger("203.0.113.9"), Stranger("192.0.2.4")
    served = friends = 0
    for number in range(5000):
        now = 2.0 + number / 500
        served += flooder.query(node, now, b"ping") is not None
        if number % 100 == 0:
            friends += friend.query(node, now, b"ping") is not None
    assert served <= 30 * (4 + 10) + 1
    assert served >= 30 * 10
    assert friends == 50


def test_all_sources_together_are_served_at_the_total_rate() -> None:
    node = core(DhtConfig(reachable="yes", queries_per_second_total=100.0))
    proven = Stranger("192.0.2.4")
    acquaint(node, 1.0, [proven])
    served = known = 0
    query = krpc.query(b"aa", b"ping", {b"id": b"\x03" * 20}, False)
    for number in range(20_000):
        now = 2.0 + number / 2000
        node.receive(now, endpoint(f"45.{number % 100}.{number // 100 % 250}.1", 53), query)
        served += sum(decode(data)[b"y"] == b"r" for _, data in sent(node))
        if number % 1000 == 0:
            known += proven.query(node, now, b"ping") is not None
    assert 100 * 10 <= served <= 100 * (4 + 10) + 1
    assert known == 20


def test_floods_of_puts_and_announcements_are_bounded_and_fair() -> None:
    node = core(DhtConfig(reachable="yes", items_max=200, item_bytes_max=50_000, peers_max=300))
    friend = Stranger("192.0.2.4")
    treasure = item(b"friend", 1, b"8:treasure")
    assert friend.put(node, 2.0, treasure) == 0
    token = friend.token(node, 2.0)
    assert code_of(friend.query(node, 2.0, b"announce_peer", info_hash=b"f" * 20, port=7, token=token)) == 0
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(3000):
        now = 3.0 + number / 20
        flooder = Stranger(f"203.0.113.{number % 200 + 1}")
        token = flooder.token(node, now)
        flooder.query(node, now, b"put", v=b"%d" % number + b"x" * 800, token=token)
        info_hash = number.to_bytes(20, "big")
        flooder.query(node, now, b"announce_peer", info_hash=info_hash, port=9, token=token)
        node.outbox.clear()
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    items = node.server.items
    assert items.items <= 200
    assert items.bytes <= 50_000
    assert node.server.peers.count <= 300
    assert after - before < 600_000
    now = 3.0 + 3000 / 20
    assert friend.query(node, now, b"get", target=treasure.target)[b"r"][b"v"] == b"treasure"
    assert friend.query(node, now, b"get_peers", info_hash=b"f" * 20)[b"r"][b"values"] == [endpoint("192.0.2.4", 7)]
    serves(node, now)


def test_strangers_who_only_ask_are_named_to_nobody() -> None:
    """A query proves nothing, its sender may be forged: only who answered us is passed on."""
    node, alice = core(), Stranger(ALICE)
    for number in range(50):
        Stranger(f"203.0.{number}.1").query(node, 2.0, b"ping")
    assert alice.query(node, 2.0, b"find_node", target=bytes(20))[b"r"][b"nodes"] == b""
    acquaint(node, 3.0, [Stranger("198.51.3.1")])
    assert len(alice.query(node, 3.1, b"find_node", target=bytes(20))[b"r"][b"nodes"]) == 26


def test_verification_is_asked_for_at_most_once_per_query_and_last() -> None:
    class Counting:
        asked = 0

        def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
            self.asked += 1
            return SUITE.verify(public, message, signature)

    verifier = Counting()
    node = Dht(1.0, rng=Random(1), verifier=verifier, config=OPEN)
    alice = Stranger(ALICE)
    alice.put(node, 2.0, ITEM)
    assert verifier.asked == 1
    for change in ({"token": b"x"}, {"seq": 4}, {"cas": 3}, {"v": b"y" * 1100}, {"salt": b"s" * 70}, {"v": b"other"}):
        alice.put(node, 2.0, ITEM, **change)
    assert verifier.asked == 1
    alice.put(node, 2.0, ITEM, sig=bytes(64))
    assert verifier.asked == 2
