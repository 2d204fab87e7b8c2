"""Formats of the path layer: golden bytes, what is refused, and anything at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.core import Endpoint, parse_endpoint
from meshcall.errors import BadPacket
from meshcall.wire.path import (
    CANDIDATES_MAX,
    Answer,
    Candidate,
    Candidates,
    Kind,
    Mapping,
    Ports,
    Probe,
    decode_answer,
    decode_candidates,
    decode_probe,
    encode_answer,
    encode_candidates,
    encode_probe,
)

V4 = parse_endpoint("192.0.2.1:6881")
V6 = parse_endpoint("[2001:db8::1]:6881")
NONCE = bytes(range(8))


def test_golden_probe_and_answer() -> None:
    assert encode_probe(Probe(NONCE)).hex() == "000001020304050607"
    assert encode_probe(Probe(NONCE, deaf=True)).hex() == "010001020304050607"
    assert encode_answer(Answer(NONCE)).hex() == "0001020304050607"
    assert encode_answer(Answer(NONCE, V4)).hex() == "0001020304050607c00002011ae1"


def test_golden_candidates() -> None:
    message = Candidates(
        True,
        Ports(Mapping.SEQUENTIAL, b"\xc6\x33\x64\x14", next_port=40000, step=-2),
        (Candidate(Kind.HOST, V4), Candidate(Kind.OBSERVED, V6), Candidate(Kind.RELAY_TCP, V4, NONCE)),
    )
    data = encode_candidates(message)
    assert data.hex() == (
        "10010103" "c6336414" "9c40" "fe" "03"
        "01" "c00002011ae1"
        "82" "20010db8000000000000000000000001" "1ae1"
        "05" "c00002011ae1" "0001020304050607"
    )  # fmt: skip
    assert decode_candidates(data) == message
    empty = encode_candidates(Candidates())
    assert empty.hex() == "1001000000"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "candidates end early"),
        ("1001000001", "candidates end early"),
        ("1101000000", "not a candidates message"),
        ("1002000000", "version of candidates"),
        ("1001020000", "flags of candidates"),
        ("1001000500", "kind of mapping"),
        ("10010003c633641400000100", "sequence of ports"),
        ("10010003c633641400010000", "sequence of ports"),
        ("10010004c63364140002000100", "range of ports"),
        ("1001000000ff", "rest after candidates"),
        ("1001000011" + "01c00002011ae1" * 17, "too many candidates"),
        ("1001000002" + "01c00002011ae1" * 2, "candidate twice"),
        ("100100000106c00002011ae1", "kind of candidate"),
        ("100100000100c00002011ae1", "kind of candidate"),
        ("100100000101c00002010000", "port of candidate"),
    ],
)
def test_candidates_refused(data: str, reason: str) -> None:
    with pytest.raises(BadPacket) as caught:
        decode_candidates(bytes.fromhex(data))
    assert caught.value.reason == reason


def test_probes_refused() -> None:
    for data in (b"", bytes(8), bytes(10), b"\x02" + NONCE):
        with pytest.raises(BadPacket):
            decode_probe(data)
    for data in (b"", bytes(7), bytes(9), bytes(27)):
        with pytest.raises(BadPacket):
            decode_answer(data)


def test_what_cannot_be_sent_is_refused_here() -> None:
    twice = Candidates(candidates=(Candidate(Kind.HOST, V4),) * 2)
    with pytest.raises(ValueError, match="twice"):
        encode_candidates(twice)
    with pytest.raises(ValueError, match="can be sent"):
        encode_candidates(Candidates(candidates=(Candidate(Kind.RELAY_UDP, V4),)))


endpoints = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)).flatmap(
    lambda host: st.integers(1, 65535).map(lambda port: Endpoint(host + port.to_bytes(2, "big")))
)
plain = st.builds(Candidate, st.sampled_from([Kind.HOST, Kind.OBSERVED, Kind.MAPPED]), endpoints)
leases = st.builds(
    Candidate, st.sampled_from([Kind.RELAY_UDP, Kind.RELAY_TCP]), endpoints, st.binary(min_size=8, max_size=8)
)
addresses = st.binary(min_size=4, max_size=4)
ports = st.one_of(
    st.builds(Ports, st.sampled_from([Mapping.UNKNOWN, Mapping.NONE, Mapping.INDEPENDENT])),
    st.builds(
        Ports, st.just(Mapping.SEQUENTIAL), addresses, next_port=st.integers(1, 65535),
        step=st.integers(-128, 127).filter(bool),
    ),
    st.builds(
        lambda address, a, b: Ports(Mapping.RANDOM, address, low=min(a, b), high=max(a, b)),
        addresses, st.integers(1, 65535), st.integers(1, 65535),
    ),
)  # fmt: skip
messages = st.builds(
    Candidates, st.booleans(), ports,
    st.lists(st.one_of(plain, leases), max_size=CANDIDATES_MAX, unique=True).map(tuple),
)  # fmt: skip


@given(messages)
def test_candidates_there_and_back(message: Candidates) -> None:
    data = encode_candidates(message)
    assert len(data) <= 445
    assert decode_candidates(data) == message


@given(messages, st.data())
def test_a_message_cut_or_changed_is_refused_or_canonical(message: Candidates, data: st.DataObject) -> None:
    encoded = bytearray(encode_candidates(message))
    if data.draw(st.booleans()):
        cut = data.draw(st.integers(0, len(encoded) - 1))
        with pytest.raises(BadPacket):
            decode_candidates(bytes(encoded[:cut]))
        return
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        again = decode_candidates(bytes(encoded))
    except BadPacket:
        return
    assert encode_candidates(again) == bytes(encoded)


@given(st.binary(max_size=500))
def test_anything_is_refused_or_canonical(data: bytes) -> None:
    try:
        assert encode_candidates(decode_candidates(data)) == data
    except BadPacket:
        pass
    try:
        assert encode_probe(decode_probe(data)) == data
    except BadPacket:
        pass
    try:
        assert encode_answer(decode_answer(data)) == data
    except BadPacket:
        pass
