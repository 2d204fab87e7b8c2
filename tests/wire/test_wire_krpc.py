"""KRPC: BEP 5's own examples are read, everything else is read within bounds or refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshcall.errors import BadPacket
from meshcall.wire import krpc
from meshcall.wire.bencode import decode_untrusted, encode

BEP5 = {
    # BEP 5, "DHT Queries" and "Errors"; IDs there are abcdefghij0123456789 and mnopqrstuvwxyz123456
    "error": (b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee", b"e", b"aa"),
    "ping": (b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe", b"q", b"aa"),
    "pong": (b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re", b"r", b"aa"),
    "find_node": (
        b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe",
        b"q",
        b"aa",
    ),
    "get_peers": (
        b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:get_peers1:t2:aa1:y1:qe",
        b"q",
        b"aa",
    ),
    "peers": (
        b"d1:rd2:id20:abcdefghij01234567895:token8:aoeusnth6:valuesl6:axje.u6:idhtnmee1:t2:aa1:y1:re",
        b"r",
        b"aa",
    ),
    "announce_peer": (
        b"d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz123456"
        b"4:porti6881e5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe",
        b"q",
        b"aa",
    ),
}


@pytest.mark.parametrize("name", BEP5)
def test_the_examples_of_bep_5_are_read(name: str) -> None:
    data, kind, transaction = BEP5[name]
    got_kind, got_transaction, message = krpc.parse_untrusted(data)
    assert (got_kind, got_transaction) == (kind, transaction)
    assert encode(message) == data


def test_what_the_examples_say() -> None:
    _, _, message = krpc.parse_untrusted(BEP5["peers"][0])
    assert krpc.peers_untrusted(message[b"r"]) == [b"axje.u", b"idhtnm"]
    assert krpc.token_untrusted(message[b"r"]) == b"aoeusnth"
    _, _, message = krpc.parse_untrusted(BEP5["error"][0])
    assert message[b"e"] == [201, b"A Generic Error Ocurred"]


def test_our_own_messages_are_what_bep_5_shows_besides_version_and_ip() -> None:
    query = krpc.query(b"aa", b"ping", {b"id": b"abcdefghij0123456789"}, False)
    assert query == b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:v4:MC\x00\x011:y1:qe"
    assert b"2:roi1e" in krpc.query(b"aa", b"ping", {b"id": b"abcdefghij0123456789"}, True)
    reply = krpc.reply(b"aa", {b"id": b"mnopqrstuvwxyz123456"}, b"\x7f\x00\x00\x01\x1a\xe1")
    assert reply == b"d2:ip6:\x7f\x00\x00\x01\x1a\xe11:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:v4:MC\x00\x011:y1:re"
    for code, text in krpc.ERROR_TEXTS.items():
        kind, transaction, message = krpc.parse_untrusted(krpc.error(b"aa", code, bytes(6)))
        assert (kind, transaction, message[b"e"]) == (b"e", b"aa", [code, text])


@settings(max_examples=300)
@given(st.binary(max_size=200) | st.text("d1:ad2:i20:qeryt0ping", max_size=80).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        kind, transaction, message = krpc.parse_untrusted(data)
    except BadPacket:
        return
    assert kind in (b"q", b"r", b"e")
    assert 0 < len(transaction) <= krpc.TRANSACTION_BYTES_MAX
    assert type(message) is dict


ANY = st.recursive(
    st.integers(-5, 2**66) | st.binary(max_size=60),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.binary(max_size=6), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [b"id", b"target", b"info_hash", b"nodes", b"nodes6", b"values", b"token", b"want", b"v", b"k", b"sig", b"seq"]


@settings(max_examples=300)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            b"y": st.sampled_from([b"q", b"r", b"e"]) | ANY,
            b"t": st.binary(max_size=40) | ANY,
            b"q": st.sampled_from([b"ping", b"get"]) | ANY,
            b"a": st.dictionaries(st.sampled_from(FIELDS), st.just(bytes(20)) | ANY, max_size=6) | ANY,
            b"r": st.dictionaries(st.sampled_from(FIELDS), st.just(bytes(20)) | ANY, max_size=6) | ANY,
            b"e": st.lists(ANY, max_size=3) | ANY,
            b"ip": ANY,
            b"ro": ANY,
        },
    )
)
def test_wrong_types_in_every_field_are_refused_or_harmless(message: dict[bytes, Any]) -> None:
    try:
        kind, transaction, parsed = krpc.parse_untrusted(encode(message))
    except BadPacket:
        return
    assert type(transaction) is bytes
    if kind == b"e":
        assert type(parsed[b"e"][0]) is int
        return
    body = parsed[b"r" if kind == b"r" else b"a"]
    assert type(body[b"id"]) is bytes
    assert len(body[b"id"]) == 20
    for family in (4, 6):
        for node_id, where in krpc.nodes_untrusted(body, family):
            assert (len(node_id), len(where)) == (20, 6 if family == 4 else 18)
    assert all(len(peer) in (6, 18) for peer in krpc.peers_untrusted(body))
    assert len(krpc.token_untrusted(body)) <= krpc.TOKEN_BYTES_MAX


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ([b"q"], "not a dictionary"),
        (b"ping", "not a dictionary"),
        ({b"y": b"q"}, "transaction"),
        ({b"t": b"", b"y": b"q"}, "transaction"),
        ({b"t": b"x" * 33, b"y": b"q"}, "transaction"),
        ({b"t": 5, b"y": b"q"}, "transaction"),
        ({b"t": b"aa"}, "kind"),
        ({b"t": b"aa", b"y": b"x"}, "kind"),
        ({b"t": b"aa", b"y": [b"q"]}, "kind"),
        ({b"t": b"aa", b"y": b"q", b"q": b"ping"}, "body"),
        ({b"t": b"aa", b"y": b"q", b"q": b"ping", b"a": []}, "body"),
        ({b"t": b"aa", b"y": b"q", b"q": b"ping", b"a": {}}, "id"),
        ({b"t": b"aa", b"y": b"q", b"q": b"ping", b"a": {b"id": bytes(19)}}, "id"),
        ({b"t": b"aa", b"y": b"q", b"q": b"ping", b"a": {b"id": 7}}, "id"),
        ({b"t": b"aa", b"y": b"q", b"q": 7, b"a": {b"id": bytes(20)}}, "method"),
        ({b"t": b"aa", b"y": b"q", b"a": {b"id": bytes(20)}}, "method"),
        ({b"t": b"aa", b"y": b"r"}, "body"),
        ({b"t": b"aa", b"y": b"r", b"r": {b"id": bytes(21)}}, "id"),
        ({b"t": b"aa", b"y": b"e"}, "error"),
        ({b"t": b"aa", b"y": b"e", b"e": []}, "error"),
        ({b"t": b"aa", b"y": b"e", b"e": 201}, "error"),
        ({b"t": b"aa", b"y": b"e", b"e": [b"201"]}, "error"),
    ],
)
def test_what_is_missing_or_wrong_is_named(message: Any, reason: str) -> None:
    with pytest.raises(BadPacket) as caught:
        krpc.parse_untrusted(encode(message))
    assert caught.value.reason == reason


def test_contacts_of_broken_length_are_none() -> None:
    assert krpc.nodes_untrusted({b"nodes": bytes(26 * 3)}, 4) == [(bytes(20), bytes(6))] * 3
    assert krpc.nodes_untrusted({b"nodes6": bytes(38 * 2)}, 6) == [(bytes(20), bytes(18))] * 2
    assert krpc.nodes_untrusted({b"nodes": bytes(27)}, 4) == []
    assert krpc.nodes_untrusted({b"nodes": bytes(26)}, 6) == []
    assert krpc.nodes_untrusted({b"nodes": [bytes(26)]}, 4) == []


def test_peers_and_tokens_are_bounded() -> None:
    assert krpc.peers_untrusted({b"values": [b"a" * 6] * 500}) == [b"a" * 6] * krpc.PEERS_MAX
    assert krpc.peers_untrusted({b"values": [b"a" * 6, b"b" * 18, b"c" * 7, 5, [b"d" * 6]]}) == [b"a" * 6, b"b" * 18]
    assert krpc.peers_untrusted({b"values": b"a" * 6}) == []
    assert krpc.token_untrusted({b"token": b"x" * 64}) == b"x" * 64
    assert krpc.token_untrusted({b"token": b"x" * 65}) == b""
    assert krpc.token_untrusted({b"token": 5}) == b""
    assert krpc.token_untrusted({}) == b""


def test_a_full_answer_fits_into_one_datagram() -> None:
    values = {
        b"id": bytes(20),
        b"k": bytes(32),
        b"nodes": bytes(26 * 8),
        b"nodes6": bytes(38 * 8),
        b"seq": 2**63 - 1,
        b"sig": bytes(64),
        b"token": bytes(8),
        b"v": bytes(996),
    }
    data = krpc.reply(b"t" * krpc.TRANSACTION_BYTES_MAX, values, bytes(18))
    assert decode_untrusted(data)[b"r"] == values
