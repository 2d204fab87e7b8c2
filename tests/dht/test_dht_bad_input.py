"""What strangers may try on a DHT node: each is refused with its code, or dropped and counted, and service goes on."""

from __future__ import annotations

import gc
import tracemalloc
from random import Random
from typing import Any

import pytest

from meshcall.core import endpoint
from meshcall.dht.events import GetFinished, ItemFound, PutFinished
from meshcall.dht.node import Dht
from meshcall.wire import krpc
from meshcall.wire.bencode import decode, encode
from tests.dht.stranger import (
    GOOD,
    ITEM,
    Stranger,
    acquaint,
    code_of,
    core,
    finish,
    item,
    looking,
    sent,
    serves,
)

ALICE = "198.51.100.7"


def total(node: Dht) -> int:
    return sum(node.counters.values())


# Stored items: BEP 44's codes


def test_a_good_item_is_stored_and_served() -> None:
    node, alice = core(), Stranger(ALICE)
    assert alice.put(node, 2.0, ITEM) == 0
    got = alice.query(node, 2.0, b"get", target=ITEM.target)[b"r"]
    assert (got[b"v"], got[b"seq"], got[b"sig"], got[b"k"]) == (b"hello", 5, ITEM.signature, ITEM.public)


def test_a_seq_in_the_question_spares_the_value() -> None:
    node, alice = core(), Stranger(ALICE)
    alice.put(node, 2.0, ITEM)
    for known, comes in ((4, True), (5, False), (6, False)):
        got = alice.query(node, 2.0, b"get", target=ITEM.target, seq=known)[b"r"]
        assert (b"v" in got, got[b"seq"]) == (comes, 5)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"sig": bytes(64)}, 206),
        ({"v": b"other"}, 302),
        ({"seq": 4}, 302),
        ({"seq": 6}, 206),
        ({"cas": 4, "seq": 6}, 301),
        ({"token": b"12345678"}, 203),
        ({"token": b""}, 203),
        ({"token": 5}, 203),
        ({"v": b"x" * 996, "seq": 6}, 206),
        ({"v": b"x" * 997, "seq": 6}, 205),
        ({"salt": b"s" * 65}, 207),
        ({"salt": b"s" * 64}, 206),
        ({"salt": 5}, 203),
        ({"seq": -1}, 203),
        ({"seq": 2**63}, 203),
        ({"seq": b"5"}, 203),
        ({"k": bytes(31)}, 203),
        ({"sig": bytes(63)}, 203),
        ({"cas": b"5"}, 203),
        ({"cas": -1}, 203),
    ],
)
def test_a_bad_put_gets_its_code_and_changes_nothing(change: dict[str, Any], code: int) -> None:
    node, alice = core(), Stranger(ALICE)
    assert alice.put(node, 2.0, ITEM) == 0
    assert alice.put(node, 2.0, ITEM, **change) == code
    assert alice.query(node, 2.0, b"get", target=ITEM.target)[b"r"][b"sig"] == ITEM.signature
    assert node.server.items.items == 1
    assert node.counters[f"refused: {code}"] == 1


def test_a_put_without_a_part_gets_203() -> None:
    node, alice = core(), Stranger(ALICE)
    whole: dict[str, Any] = {"k": ITEM.public, "seq": 5, "sig": ITEM.signature, "v": b"hello"}
    whole["token"] = alice.token(node, 2.0)
    for part in whole:
        less = {name: value for name, value in whole.items() if name != part}
        assert code_of(alice.query(node, 2.0, b"put", None, **less)) == 203
    assert node.server.items.items == 0


def test_equal_seq_with_other_content_is_refused_even_if_well_signed() -> None:
    node, alice = core(), Stranger(ALICE)
    alice.put(node, 2.0, ITEM)
    assert alice.put(node, 2.0, item(b"alice", 5, b"5:other")) == 302
    assert alice.put(node, 2.0, item(b"alice", 4, b"5:older")) == 302
    assert alice.put(node, 2.0, ITEM) == 0
    assert alice.put(node, 2.0, item(b"alice", 6, b"5:newer"), cas=4) == 301
    assert alice.put(node, 2.0, item(b"alice", 6, b"5:newer"), cas=5) == 0


def test_a_value_at_the_bound_is_stored_and_one_byte_more_is_not() -> None:
    node, alice = core(), Stranger(ALICE)
    assert alice.put(node, 2.0, item(b"big", 1, encode(b"x" * 996))) == 0
    assert alice.put(node, 2.0, item(b"bigger", 1, encode(b"x" * 997))) == 205
    salted = item(b"salted", 1, b"1:x", b"s" * 64)
    assert alice.put(node, 2.0, salted) == 0
    assert alice.query(node, 2.0, b"get", target=salted.target)[b"r"][b"v"] == b"x"


def test_a_token_is_no_good_for_another_address() -> None:
    node, alice, mallory = core(), Stranger(ALICE), Stranger("203.0.113.5")
    assert mallory.put(node, 2.0, ITEM, token=alice.token(node, 2.0)) == 203
    assert alice.put(node, 2.0 + 660, ITEM, token=alice.token(node, 2.0)) == 203
    token = alice.token(node, 2000.0)
    answer = mallory.query(node, 2000.0, b"announce_peer", info_hash=bytes(20), port=1, token=token)
    assert code_of(answer) == 203


@pytest.mark.parametrize("port", [0, -1, 65536, b"80", None])
def test_announcing_a_bad_port_gets_203(port: Any) -> None:
    node, alice = core(), Stranger(ALICE)
    more = {} if port is None else {"port": port}
    token = alice.token(node, 2.0)
    assert code_of(alice.query(node, 2.0, b"announce_peer", info_hash=bytes(20), token=token, **more)) == 203
    assert node.server.peers.count == 0


def test_announcements_are_found_and_the_port_may_be_implied() -> None:
    node, alice, bob = core(), Stranger(ALICE), Stranger("192.0.2.9", port=999)
    for who, more in ((alice, {"port": 80}), (bob, {"port": 1, "implied_port": 1})):
        token = who.token(node, 2.0)
        answer = who.query(node, 2.0, b"announce_peer", info_hash=bytes(20), token=token, **more)
        assert code_of(answer) == 0
    values = alice.query(node, 2.0, b"get_peers", info_hash=bytes(20))[b"r"][b"values"]
    assert sorted(values) == sorted([endpoint(ALICE, 80), endpoint("192.0.2.9", 999)])


@pytest.mark.parametrize("method", [b"find_node", b"get_peers", b"get", b"announce_peer"])
@pytest.mark.parametrize("target", [None, b"short", b"x" * 21, 7, [bytes(20)]])
def test_a_bad_target_gets_203(method: bytes, target: Any) -> None:
    node, alice = core(), Stranger(ALICE)
    names = {} if target is None else {"target": target, "info_hash": target}
    assert code_of(alice.query(node, 2.0, method, None, **names)) == 203


def test_an_unknown_method_gets_204_or_contacts() -> None:
    node, alice = core(), Stranger(ALICE)
    assert code_of(alice.query(node, 2.0, b"vote")) == 204
    assert alice.query(node, 2.0, b"sample_infohashes", target=bytes(20))[b"r"][b"nodes"] == b""


# Packets that are none


def test_ten_thousand_junk_packets_get_no_answer_and_cost_no_memory() -> None:
    node, rng = core(), Random(5)
    real = [
        krpc.query(b"aa", b"get", {b"id": bytes(20), b"target": bytes(20)}, False),
        krpc.reply(b"aa", {b"id": bytes(20), b"nodes": bytes(26)}, bytes(6)),
        krpc.error(b"aa", 203, bytes(6)),
    ]

    def junk(number: int) -> bytes:
        kind = number % 5
        if kind == 0:
            return rng.randbytes(rng.randrange(1, 1500))
        if kind == 1:
            return b"d" + rng.randbytes(100)
        if kind == 2:
            return b"l" * rng.randrange(1, 3000)
        whole = real[number % 3]
        return whole[: rng.randrange(len(whole))] if kind == 3 else whole.replace(b"1:y", b"1:z")

    def flood(count: int) -> None:
        for number in range(count):
            source = endpoint(f"198.51.{number % 200}.{number % 250 + 1}", 1 + number % 60000)
            node.receive(2.0 + number / 1000, source, junk(number))

    flood(1000)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    flood(10_000)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert node.outbox == []
    assert node.events == []
    assert total(node) == 11_000
    assert len(node.counters) < 12
    assert after - before < 20_000
    serves(node, 20.0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"d",
        b"de",
        b"l" * 2000,
        b"d1:a" * 500,
        b"x" * 60_000,
        b"d1:ad2:id20:abcdefghij01234567892:idi1ee1:q4:ping1:t2:aa1:y1:qe",
        b"d1:q4:ping1:ad2:id20:abcdefghij0123456789e1:t2:aa1:y1:qe",
        b"d1:ad2:id020:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe",
        b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qee",
        b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t0:1:y1:qe",
        b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t33:" + b"t" * 33 + b"1:y1:qe",
    ],
)
def test_what_is_not_proper_is_dropped_and_counted_once(data: bytes) -> None:
    node = core()
    assert Stranger(ALICE).raw(node, 2.0, data) is None
    assert total(node) == 1
    assert next(iter(node.counters)).startswith("bad packet: ")
    assert node.outbox == []


def test_deep_nesting_inside_a_value_is_dropped() -> None:
    node, alice = core(), Stranger(ALICE)
    token = alice.token(node, 2.0)

    def put(levels: int) -> Any:
        value = b"l" * levels + b"e" * levels
        body = b"d2:id20:%s5:token8:%s1:v%se" % (alice.id, token, value)
        return alice.raw(node, 2.0, b"d1:a%s1:q3:put1:t2:aa1:y1:qe" % body)

    assert code_of(put(30)) == 0
    assert put(31) is None
    assert node.counters["bad packet: too deep"] == 1
    serves(node, 3.0)


@pytest.mark.parametrize("where", ["0.1.2.3", "224.0.0.1", "255.255.255.255"])
def test_impossible_sources_are_dropped(where: str) -> None:
    node = core()
    assert Stranger(where).query(node, 2.0, b"ping") is None
    assert Stranger("2001:db8::1").query(node, 2.0, b"ping") is None
    assert node.counters == {"bad packet: source": 2}


def test_counters_have_names_of_ours_only() -> None:
    """Nobody outside can make a new counter: the names are few whatever is sent."""
    node, rng = core(), Random(3)
    acquaint(node, 2.0, [Stranger(f"198.51.{n}.1") for n in range(20)])
    node.get_mutable(3.0, b"k" * 32)
    for number in range(2000):
        source = Stranger(f"198.51.{number % 20}.1")
        now = 3.0 + number / 100
        method = rng.choice([b"get", b"put", b"ping", rng.randbytes(4)])
        source.query(node, now, method, target=rng.randbytes(20), v=rng.randbytes(3), mcdial=rng.randbytes(6))
        node.receive(now, source.where, krpc.error(rng.randbytes(4), rng.randrange(-(2**70), 2**70), bytes(6)))
        for target, data in sent(node):
            message = decode(data)
            if message[b"y"] == b"q" and target == source.where:
                wrong = {b"id": rng.randbytes(20), b"v": rng.randbytes(4), b"seq": rng.randrange(99)}
                node.receive(now, target, krpc.reply(message[b"t"], wrong, bytes(6)))
    assert len(node.counters) < 25
    assert all(len(name) < 60 for name in node.counters)


# Answers


def test_a_good_answer_is_taken() -> None:
    node, _, operation, asked = looking()
    for stranger, query in asked.values():
        stranger.answer(node, 3.1, query, **GOOD)
    assert ItemFound(operation, ITEM) in node.events
    event = finish(node)
    assert isinstance(event, GetFinished)
    assert event.item == ITEM
    assert len(event.holders) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"sig": bytes(64)},
        {"sig": b"short"},
        {"sig": 5},
        {"v": b"forged"},
        {"v": b"x" * 1000},
        {"v": [[], {}]},
        {"seq": 6},
        {"seq": -5},
        {"seq": 2**63},
        {"seq": b"5"},
        {"k": b"m" * 32},
        {"k": 5},
    ],
)
def test_a_forged_value_is_never_handed_up(change: dict[str, Any]) -> None:
    node, _, _, asked = looking()
    for stranger, query in asked.values():
        stranger.answer(node, 3.1, query, **(GOOD | change))
    event = finish(node)
    assert isinstance(event, GetFinished)
    assert event.item is None
    assert not any(isinstance(each, ItemFound) for each in node.events)


def test_a_forged_immutable_value_is_never_handed_up() -> None:
    node = core()
    stranger = Stranger(ALICE)
    acquaint(node, 2.0, [stranger])
    node.get_immutable(3.0, b"\x01" * 20)
    for _, query in sent(node):
        stranger.answer(node, 3.1, query, v=b"not what was asked for")
    event = finish(node)
    assert isinstance(event, GetFinished)
    assert event.item is None


def test_answers_from_the_wrong_address_do_not_count() -> None:
    node, _, _, asked = looking()
    mallory = Stranger("203.0.113.66")
    for stranger, query in asked.values():
        mallory.answer(node, 3.1, query, node_id=stranger.id, **GOOD)
        other_port = Stranger("198.51.0.1", stranger.id, port=6882)
        other_port.answer(node, 3.1, query, **GOOD)
    assert node.counters["answer that nobody asked for"] == 6
    assert not node.events
    assert node.tables[4].at(mallory.where) is None
    for stranger, query in asked.values():
        stranger.answer(node, 3.2, query, **GOOD)
    event = finish(node)
    assert isinstance(event, GetFinished)
    assert event.item == ITEM


def test_answers_that_nobody_asked_for_do_not_count() -> None:
    node, known, _, asked = looking()
    before = node.tables[4].size
    for number in range(1000):
        data = krpc.reply(number.to_bytes(4, "big"), {b"id": bytes(20), b"nodes": bytes(19) + b"x" * 7}, bytes(6))
        node.receive(3.1, known[number % 3].where, data)
        node.receive(3.1, Stranger(ALICE).where, data)
    assert node.counters["answer that nobody asked for"] == 2000
    assert node.tables[4].size == before
    assert node.outbox == []
    assert len(node.server.proven) == len(known)
    for stranger, query in asked.values():
        for _ in range(5):  # the same answer again and again
            stranger.answer(node, 3.2, query, **GOOD)
    assert node.counters["answer that nobody asked for"] == 2000 + 4 * len(asked)


def test_an_answer_under_our_own_or_another_id_does_not_count() -> None:
    node, _, _, asked = looking()
    (first, query), (second, another), (third, right) = asked.values()
    first.answer(node, 3.1, query, node_id=node.node_id(), **GOOD)
    second.answer(node, 3.1, another, node_id=b"\x07" * 20, **(GOOD | {"seq": 9}))
    third.answer(node, 3.1, right, **GOOD)
    event = finish(node)
    assert isinstance(event, GetFinished)
    assert [holder.endpoint for holder in event.holders] == [third.where]
    assert node.counters["answer under our own id"] == 1
    assert node.counters["answer with another id"] == 1


@pytest.mark.parametrize(
    "answer",
    [
        {b"y": b"r", b"r": {b"id": b"OWN"}, b"e": [b"x"]},
        {b"y": b"r", b"r": {b"id": b"OWN"}, b"e": []},
        {b"y": b"r", b"r": {b"id": b"OWN"}, b"e": [[1]]},
        {b"y": b"e", b"e": [2**70]},
        {b"y": b"e", b"e": [-1, {}]},
        {b"y": b"e", b"e": [0]},
        {b"y": b"e", b"e": [301], b"r": 5},
        {b"y": b"r", b"r": {b"id": bytes(20), b"token": 5, b"nodes": 7, b"values": {}}, b"ip": [], b"v": 9},
    ],
)
@pytest.mark.parametrize("writing", [False, True])
def test_odd_answers_to_look_ups_and_writes_raise_nothing(answer: dict[bytes, Any], writing: bool) -> None:
    node = core()
    known = [Stranger(f"198.51.{n}.1") for n in range(2)]
    acquaint(node, 2.0, known)
    node.put(3.0, ITEM)
    strangers = {stranger.where: stranger for stranger in known}
    if writing:
        for target, query in sent(node):
            strangers[target].answer(node, 3.1, query, token=b"tok")
    odd = decode(encode(answer).replace(b"3:OWN", b"20:" + node.node_id()))
    for target, query in sent(node):
        node.receive(3.2, target, encode(odd | {b"t": decode(query)[b"t"]}))
    event = finish(node)
    assert isinstance(event, PutFinished)
    assert all(0 <= code < 1000 for code in event.errors)
