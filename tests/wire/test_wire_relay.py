"""Formats of frames and lease messages: what is sent is read the same, what is not of the form is refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshcall.errors import BadPacket
from meshcall.wire import relay as wire

ID = st.binary(min_size=8, max_size=8)
U16 = st.integers(0, 2**16 - 1)
PORT = st.integers(1, 65535)
U32 = st.integers(0, 2**32 - 1)
REASON = st.sampled_from(sorted(wire.SHOW_REASON))
MESSAGES = st.one_of(
    st.builds(wire.LeaseRequest, U16, U32),
    st.builds(wire.LeaseRequest, U16, U32, ID, ID),
    st.builds(wire.LeaseRenew, U16, ID),
    st.builds(
        wire.LeaseGrant, U16, ID, ID, st.integers(1, 2**32 - 1), U32, U32, U16, st.none() | st.integers(1, 65535)
    ),
    st.builds(wire.LeaseRefusal, U16, REASON, U16),
    st.builds(wire.LeaseRelease, ID),
    st.builds(wire.LeaseEnded, ID, REASON),
    st.builds(wire.FlowDrop, st.lists(ID, min_size=1, max_size=wire.DROPS_MAX).map(tuple)),
)


@given(MESSAGES)
def test_lease_messages_are_read_as_written(message: wire.LeaseMessage) -> None:
    data = wire.encode_lease_message(message)
    assert len(data) <= wire.LEASE_MESSAGE_BYTES_MAX
    assert wire.decode_lease_message(data) == message


@given(st.binary(max_size=80), st.integers(0, 8))
@example(b"", 1)
def test_any_bytes_are_a_lease_message_or_refused(junk: bytes, kind: int) -> None:
    for data in (junk, bytes([wire.LEASE_CHANNEL, wire.LEASE_VERSION, kind]) + junk):
        try:
            message = wire.decode_lease_message(data)
        except BadPacket:
            continue
        assert wire.encode_lease_message(message) == data


@given(MESSAGES, st.data())
def test_a_cut_or_lengthened_message_is_refused(message: wire.LeaseMessage, data: st.DataObject) -> None:
    whole = wire.encode_lease_message(message)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    for other in (cut, whole + b"\0"):
        if isinstance(message, wire.FlowDrop) and (len(other) - 3) % 8 == 0 and len(other) > 3:
            continue
        with pytest.raises(BadPacket):
            wire.decode_lease_message(other)


@given(st.integers(0, wire.TO_CALLER), ID, st.binary(min_size=1, max_size=1400))
def test_data_frames(kind: int, frame_id: bytes, payload: bytes) -> None:
    assert wire.decode_frame(wire.frame(kind, frame_id, payload)) == wire.Frame(kind, 0, frame_id, payload)


@given(st.binary(max_size=90), st.integers(0, 12), st.integers(0, 8))
def test_any_bytes_are_a_frame_or_refused(junk: bytes, kind: int, status: int) -> None:
    for data in (junk, bytes([wire.MAGIC, kind, status, 0]) + junk):
        try:
            frame = wire.decode_frame(data)
        except BadPacket:
            continue
        assert wire.frame(frame.kind, frame.frame_id, frame.payload, frame.status) == data
        if frame.kind == wire.HELLO_ANSWER:
            try:
                wire.decode_hello_answer(frame)
            except BadPacket:
                pass


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x4d" * 11,
        b"\x4e\0\0\0" + bytes(20),
        b"\x4d\x0a\0\0" + bytes(20),
        b"\x4d\0\1\0" + bytes(20),
        b"\x4d\0\0\1" + bytes(20),
        b"\x4d\0\0\0" + bytes(8),
        b"\x4d\0\0\0" + bytes(1500),
        b"\x4d\4\0\0" + bytes(15),
        b"\x4d\7\6\0" + bytes(16),
        b"\x4d\x08\0\0" + bytes(59),
        b"\x4d\x09\0\0" + bytes(40),
    ],
)
def test_frames_out_of_form(data: bytes) -> None:
    with pytest.raises(BadPacket):
        wire.decode_frame(data)


@given(st.builds(wire.RelayInfo, st.binary(min_size=32, max_size=32), st.booleans(), st.booleans(), st.integers(0, 100),
                 st.none() | st.integers(1, 65535)))  # fmt: skip
def test_hello_and_its_shorter_answer(info: wire.RelayInfo) -> None:
    question = wire.hello(b"12345678")
    answer = wire.hello_answer(wire.decode_frame(question).frame_id, info)
    assert len(answer) < len(question)
    frame = wire.decode_frame(answer)
    assert frame.frame_id == b"12345678"
    assert wire.decode_hello_answer(frame) == info
