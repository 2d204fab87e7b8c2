"""Messages between askers and gateways: what is sent is read the same, what is not of the form is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshcall.core import Endpoint, endpoint
from meshcall.errors import BadPacket
from meshcall.wire import detour as wire

KEY = st.binary(min_size=32, max_size=32)
SIGNATURE = st.binary(min_size=64, max_size=64)
SEQ = st.integers(0, wire.SEQ_MAX)
VALUE = st.binary(min_size=1, max_size=wire.VALUE_BYTES_MAX)
BYTE = st.integers(0, 255)
NUMBER = st.integers(0, wire.NUMBER_MAX)
FOUND = st.tuples(SEQ, SIGNATURE, VALUE)
V4 = st.binary(min_size=6, max_size=6).filter(lambda data: any(data[-2:])).map(Endpoint)
V6 = st.binary(min_size=18, max_size=18).filter(lambda data: any(data[-2:])).map(Endpoint)
PEERS = st.builds(
    lambda v4, v6: wire.TellPeers((*v4, *v6)),
    st.lists(V4, max_size=wire.PEERS_V4_MAX),
    st.lists(V6, max_size=wire.PEERS_V6_MAX),
)
MESSAGES = st.one_of(
    st.just(wire.Knock()),
    st.just(wire.Serves()),
    st.builds(wire.AskItem, KEY),
    st.builds(wire.AskStore, KEY, SEQ, VALUE, SIGNATURE, st.none() | SEQ),
    st.builds(wire.AskPeers, st.binary(min_size=20, max_size=20)),
    st.builds(wire.TellItem, st.just(True), BYTE, st.none() | FOUND),
    st.builds(wire.TellItem, st.just(False), BYTE, FOUND),
    st.builds(wire.TellStored, BYTE, BYTE, BYTE, BYTE),
    PEERS,
    st.builds(wire.Refused, st.sampled_from(sorted(wire.SHOW_REASON)), st.integers(0, 65535)),
)


@given(NUMBER, MESSAGES)
def test_messages_are_read_as_written_and_fit_a_record_of_the_connection(number: int, message: wire.Message) -> None:
    data = wire.encode(number, message)
    assert len(data) <= 1500
    assert wire.decode(data) == (number, message)


@given(st.binary(max_size=1300), st.integers(0, 13))
@example(b"", 0)
def test_any_bytes_are_a_message_or_refused(junk: bytes, kind: int) -> None:
    for data in (junk, bytes([wire.MAGIC, 1, kind, 0]) + junk):
        try:
            number, message = wire.decode(data)
        except BadPacket:
            continue
        assert wire.encode(number, message) == data, "only one form for each message"


@given(NUMBER, MESSAGES, st.data())
def test_a_message_cut_or_prolonged_is_another_one_or_none(
    number: int, message: wire.Message, data: st.DataObject
) -> None:
    whole = wire.encode(number, message)
    cut = data.draw(st.integers(0, len(whole) - 1))
    for other in (whole[:cut], whole + b"x"):
        try:
            assert wire.decode(other) != (number, message)
        except BadPacket:
            pass


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x47\x01\x00", "detour length"),
        (b"\x47\x02\x00\x00\0\0\0\0", "detour head"),
        (b"\x47\x01\x00\x01\0\0\0\0", "detour head"),
        (b"\x47\x01\x07\x00\0\0\0\0", "detour kind"),
        (b"\x47\x01\x01\x00\0\0\0\0" + bytes(31), "detour length"),
        (b"\x47\x01\x02\x00\0\0\0\0" + b"\x02" + bytes(113), "detour item"),
        (b"\x47\x01\x02\x00\0\0\0\0" + b"\x00" + b"\0" * 7 + b"\1" + bytes(105), "detour item"),
        (b"\x47\x01\x02\x00\0\0\0\0" + b"\x00" + bytes(8) + b"\xff" * 8 + bytes(97), "detour item"),
        (b"\x47\x01\x09\x00\0\0\0\0" + b"\x00\x00\x00", "detour item"),
        (b"\x47\x01\x09\x00\0\0\0\0" + b"\x01\x00\x00x", "detour length"),
        (b"\x47\x01\x0b\x00\0\0\0\0" + b"\xff\x00" + bytes(6 * 255), "detour length"),
        (b"\x47\x01\x0b\x00\0\0\0\0" + b"\x01\x00" + bytes(6), "detour port"),
        (b"\x47\x01\x0c\x00\0\0\0\0" + b"\x09\x00\x00", "detour reason"),
    ],
)
def test_what_is_wrong_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(BadPacket) as caught:
        wire.decode(data)
    assert caught.value.reason == reason


KEY_BYTES, SIGNATURE_BYTES = bytes(range(32)), b"\xaa" * 64
VECTORS = [
    (0, wire.Knock()),
    (1, wire.AskItem(KEY_BYTES)),
    (2, wire.AskStore(KEY_BYTES, 7, b"2:hi", SIGNATURE_BYTES, 6)),
    (1, wire.TellItem(True, 8, (7, SIGNATURE_BYTES, b"2:hi"))),
    (2, wire.TellStored(8, 1, 0, 0)),
    (3, wire.TellPeers((endpoint("192.0.2.1", 443), endpoint("2001:db8::1", 6881)))),
    (4, wire.Refused(wire.NOT_SERVED, 5)),
]


def test_the_vectors_of_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "tcp.md").read_text()
    vectors = re.findall(r"\| `(4701[0-9a-f() x to]+)` \|", text)
    said = [each.replace("(aa x 64)", SIGNATURE_BYTES.hex()).replace("(00 to 1f)", KEY_BYTES.hex()) for each in vectors]
    assert said == [wire.encode(number, message).hex() for number, message in VECTORS]
