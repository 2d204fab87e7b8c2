"""Call messages: golden vectors, what is refused, and anything at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshcall.errors import BadPacket
from meshcall.wire.talk import (
    CALL_MAX,
    TALK_BYTES_MAX,
    Head,
    Kind,
    Talk,
    Terms,
    decode_head,
    decode_talk,
    encode_talk,
    is_known,
)

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "talk.json").read_text())["vectors"]
WITH_TERMS = (Kind.OFFER, Kind.RINGING, Kind.ACCEPT, Kind.RESUME)
WITH_FLAG = (Kind.HOLD, Kind.MUTE)
WITHOUT = (Kind.BUSY, Kind.CHECK)
WITH_DETAIL = tuple(kind for kind in Kind if kind not in WITH_TERMS + WITH_FLAG + WITHOUT)

terms = st.builds(
    Terms, st.integers(0, 65535), st.integers(1, 65535), st.integers(0, 255), st.integers(0, 65535),
    st.integers(0, CALL_MAX),
)  # fmt: skip
calls, serials = st.integers(0, CALL_MAX), st.integers(0, 255)
messages = st.one_of(
    st.builds(Talk, st.sampled_from(WITH_TERMS), calls, serials, terms),
    st.builds(Talk, st.sampled_from(WITH_DETAIL), calls, serials, st.none(), st.integers(0, 255)),
    st.builds(Talk, st.sampled_from(WITH_FLAG), calls, serials, st.none(), st.integers(0, 1)),
    st.builds(Talk, st.sampled_from(WITHOUT), calls, serials),
)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["message"])
def test_golden_vectors(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["message"])
    expected = Talk(
        Kind[vector["kind"].upper()], vector["call"], vector["serial"],
        Terms(**vector["terms"]) if "terms" in vector else None, vector["detail"],
    )  # fmt: skip
    assert decode_talk(data) == expected
    assert encode_talk(expected) == data
    assert decode_head(data) == Head(1, expected.kind, expected.serial, expected.call)
    assert is_known(decode_head(data))


def test_every_kind_has_a_vector() -> None:
    assert {vector["kind"].upper() for vector in VECTORS} == {kind.name for kind in Kind}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "length of call message"),
        ("54010500000000", "length of call message"),
        ("4d01050000000000", "not a call message"),
        ("5402050000000000", "version of call message"),
        ("5401000000000000", "kind of call message"),
        ("54010d0000000000", "kind of call message"),
        ("540105000000000000", "length of call message"),
        ("5401040000000000", "length of call message"),
        ("5401090000000000" "02", "flag in call message"),
        ("54010a0000000000" "ff", "flag in call message"),
        ("5401010000000000" "01000100461234000000", "length of terms"),
        ("5401010000000000" "0100010046123400000000ff", "length of terms"),
        ("5401010000000000" "0100010000123400000000", "rate in terms"),
        ("5401040000000000" + "00" * TALK_BYTES_MAX, "length of call message"),
    ],
)  # fmt: skip
def test_what_is_refused(data: str, reason: str) -> None:
    with pytest.raises(BadPacket) as caught:
        decode_talk(bytes.fromhex(data))
    assert caught.value.reason == reason


def test_what_another_version_says_has_a_head_that_can_be_answered() -> None:
    head = decode_head(bytes.fromhex("54020507a1b2c3d4") + bytes(100))
    assert head == Head(2, 5, 7, 0xA1B2C3D4)
    assert not is_known(head)
    assert not is_known(decode_head(bytes.fromhex("54017e07a1b2c3d4")))


@pytest.mark.parametrize(
    "message",
    [
        Talk(Kind.OFFER, 1),
        Talk(Kind.BUSY, 1, terms=Terms(0, 70)),
        Talk(Kind.BUSY, 1, detail=1),
        Talk(Kind.HOLD, 1, detail=2),
        Talk(Kind.END, 1, detail=256),
        Talk(Kind.END, -1),
        Talk(Kind.END, CALL_MAX + 1),
        Talk(Kind.END, 1, 256),
        Talk(Kind.OFFER, 1, terms=Terms(65536, 70)),
        Talk(Kind.OFFER, 1, terms=Terms(0, 0)),
        Talk(Kind.OFFER, 1, terms=Terms(0, 70, voice=256)),
    ],
)
def test_what_cannot_be_said_is_refused_here(message: Talk) -> None:
    with pytest.raises(ValueError, match=r"."):
        encode_talk(message)


@given(messages)
def test_there_and_back(message: Talk) -> None:
    data = encode_talk(message)
    assert 8 <= len(data) <= 19
    assert decode_talk(data) == message


@given(messages, st.data())
def test_cut_or_changed_is_refused_or_canonical(message: Talk, data: st.DataObject) -> None:
    encoded = bytearray(encode_talk(message))
    if data.draw(st.booleans()):
        with pytest.raises(BadPacket):
            decode_talk(bytes(encoded[: data.draw(st.integers(0, len(encoded) - 1))]))
        return
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        again = decode_talk(bytes(encoded))
    except BadPacket:
        return
    assert encode_talk(again) == bytes(encoded)


@given(st.one_of(st.binary(max_size=40), st.binary(max_size=20).map(lambda data: b"\x54\x01" + data)))
def test_anything_is_refused_or_canonical(data: bytes) -> None:
    try:
        assert encode_talk(decode_talk(data)) == data
    except BadPacket:
        pass
